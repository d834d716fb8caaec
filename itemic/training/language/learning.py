"""Which weights of a model learn in a stage, and what becomes of adapters at its end."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from itemic.errors import ConfigError, missing_extra
from itemic.forest.run import NewRows
from itemic.model.layers import layers_of, matrices_of_layers
from itemic.model.stored import stored_of
from itemic.progress import log
from itemic.training.language.new_rows import frozen, learning_rows
from itemic.training.language.stage import LanguageStage
from itemic.training.optimizer import Named, decayed, trainable_parameters

End = Callable[[Tensor], Tensor]
ADAPTER = "adapter"  # the folder of the adapters alone, in PEFT's form


@dataclass(frozen=True)
class Learning:
    """What learns.

    Attributes:
        named: the parameters by name.
        decay: names of those that decay.
        new_rows: of the embeddings only these rows learn; None where all do, or none because no token is new.
        ends: what becomes of a weight at the end, by its name in the model; for one on the meta device, whose weights
            can't be changed in place.
    """

    named: Named
    decay: set[str]
    new_rows: NewRows | None = None
    ends: Mapping[str, End] = field(default_factory=dict)

    @classmethod
    def all_of(cls, lm: PreTrainedModel) -> Learning:
        """Every weight that requires a gradient."""
        named = trainable_parameters(lm)
        return cls(named, decayed(lm, named))

    @classmethod
    def rows_of(
        cls, rows: NewRows | None, more: Named | None = None, decay: set[str] | None = None
    ) -> Learning:
        """Rows of the embeddings, where there are any, and other weights."""
        own = {} if rows is None else {"input_rows": rows.input, "output_rows": rows.output}
        return cls(
            {name: row for name, row in own.items() if row is not None} | (more or {}), decay or set(), rows
        )


@contextmanager
def learning(
    lm: PreTrainedModel, stage: LanguageStage, tokens: range, *, adapter: Path | None = None
) -> Iterator[Learning]:
    """Prepare a model for a stage; when the block is left the model has its own modules again.

    Adapters are added to the matrices they belong to when the block ends well, and are dropped when it doesn't.

    Args:
        lm: the model.
        stage: ``train`` and what belongs to it.
        tokens: ids of the tokens whose rows learn where not all weights do.
        adapter: where ``lora`` and ``qlora`` leave the adapters and the rows in PEFT's form.

    Raises:
        ConfigError: the model has fewer layers, none of the named matrices, or a library is missing; or nothing but
            the rows of new tokens is to learn, and there are none.
    """
    if stage.train.what == "all":
        yield Learning.all_of(lm)
        return
    with ExitStack() as stack:
        rows = _rows_to_learn(lm, stage, tokens, stack)
        ends = {} if rows is None else _rows_at_the_end(lm, rows)
        if stage.train.what == "embeddings":
            found = Learning.rows_of(rows)
        elif stage.train.what == "last-layers":
            more = _last_layers(lm, stage.train.layers)
            found = Learning.rows_of(rows, more, decayed(lm, more))
        else:
            more, deltas = stack.enter_context(_adapters(lm, stage, rows, adapter))
            found, ends = Learning.rows_of(rows, more, set(more)), ends | deltas
        yield replace(found, ends=ends)


def _rows_at_the_end(lm: PreTrainedModel, rows: NewRows) -> dict[str, End]:
    """The embeddings, and the head where it is another matrix, with the rows that have learned."""

    def put(own: Tensor, matrix: Tensor) -> Tensor:
        matrix[rows.start : rows.start + len(own)] = own.detach()
        return matrix

    head: nn.Module = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
    parts = ((lm.get_input_embeddings(), rows.input), (head, rows.output))
    return {f"{_place(lm, module)}.weight": partial(put, own) for module, own in parts if own is not None}


def _rows_to_learn(
    lm: PreTrainedModel, stage: LanguageStage, tokens: range, stack: ExitStack
) -> NewRows | None:
    """The rows of the new tokens, everything else frozen; None where there are no new tokens."""
    if tokens:
        return stack.enter_context(learning_rows(lm, tokens))
    if stage.train.what == "embeddings":
        raise ConfigError(
            "train: embeddings teaches the rows of new tokens alone, and this model got none: its items go by titles",
            "Leave the stage out, or train all, last-layers or lora.",
        )
    stack.enter_context(frozen(lm))
    return None


def _last_layers(lm: PreTrainedModel, count: int) -> Named:
    prefix, layers = layers_of(lm)
    if count > len(layers):
        raise ConfigError(
            f"train.layers is {count}, and the model has {len(layers)} layers", "Ask for fewer, or train all."
        )
    chosen: Named = {}
    own = {f"{prefix}.{number}." for number in range(len(layers) - count, len(layers))}
    head = {id(weight) for weight in lm.get_output_embeddings().parameters()}  # type: ignore[no-untyped-call]
    for name, weight in lm.named_parameters():
        inside = name.startswith(f"{prefix}.")
        # the norm after the last layer; some families have one after the embeddings as well
        behind = not inside and weight.ndim == 1 and "embed" not in name and id(weight) not in head
        if behind or any(name.startswith(layer) for layer in own):
            weight.requires_grad_(True)
            chosen[name] = weight
    return chosen


# ------------------------------------------------------------------- adapters


@contextmanager
def _adapters(
    lm: PreTrainedModel, stage: LanguageStage, rows: NewRows | None, folder: Path | None
) -> Iterator[tuple[Named, dict[str, End]]]:
    """The adapters, and what becomes of their matrices."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise missing_extra(f"train {stage.train.what}", "peft", stage.train.what) from error
    linear = matrices_of_layers(lm)
    targets = _targets(lm, stage, linear)
    own = {name: lm.get_submodule(name) for name in linear}
    deltas: dict[str, Tensor] = {}
    tuned = None
    try:
        if stage.train.what == "qlora":
            _tell_of_whole_weights(lm, own)
            _quantize(lm, own)
        with warnings.catch_warnings(), _present(own.values() if stored_of(lm) is not None else ()):
            warnings.simplefilter("ignore")  # of matrices that are stored the other way round
            tuned = PeftModel(lm, _config(lm, stage, targets))
        adapters = {name: weight for name, weight in lm.named_parameters() if "lora_" in name}
        layers = {name: lm.get_submodule(name) for name in targets}
        yield adapters, {f"{name}.weight": partial(_added, layer) for name, layer in layers.items()}
        # a model on the meta device has no matrices to add them to
        found = {name: _delta(layer) for name, layer in layers.items() if lm.device.type != "meta"}
        if folder is not None:
            _export(
                tuned, rows, adapters, folder, turned=any(isinstance(own[name], Conv1D) for name in targets)
            )
        deltas = found
    finally:
        if tuned is not None:
            tuned.unload()
        for name, module in own.items():
            parent, _, last = name.rpartition(".")
            module.to(lm.device)
            setattr(lm.get_submodule(parent), last, module)
        for name, delta in deltas.items():
            weight = own[name].get_parameter("weight")
            turned = stage.train.what == "qlora" and isinstance(own[name], Conv1D)
            whole = weight.data.float() + (delta.T if turned else delta).to(weight.device)
            weight.data.copy_(whole)  # rounded once where the matrix is in half precision


@contextmanager
def _present(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block the matrices of modules on the meta device look as if they were in main memory, without taking
    any room: PEFT puts adapters where the matrices are, and would lose their first values with these."""
    kept = {module: module.get_parameter("weight") for module in modules}
    for module, weight in kept.items():
        module.weight = nn.Parameter(torch.zeros((), dtype=weight.dtype).expand(weight.shape), False)
    try:
        yield
    finally:
        for module, weight in kept.items():
            module.weight = weight


def _targets(lm: PreTrainedModel, stage: LanguageStage, linear: list[str]) -> list[str]:
    """Those of them that get adapters."""
    names = _adaptable(lm, sorted({name.rpartition(".")[2] for name in linear}))
    unknown = sorted(set(stage.train.targets) - set(names))
    if unknown or not names:
        raise ConfigError(
            f"train.targets {', '.join(unknown) or '(all)'} are no matrices of this model's layers that adapters can "
            "be added to",
            f"There are: {', '.join(names) or 'none'}.",
        )
    wanted = stage.train.targets or names
    return [name for name in linear if name.rpartition(".")[2] in wanted]


def _adaptable(lm: PreTrainedModel, names: list[str]) -> list[str]:
    """The names that PEFT takes for what they are. In some mixtures of experts it takes ``gate_proj`` and its like for
    the tensors that hold all experts, also where a dense layer has matrices of these names."""
    from peft import LoraConfig

    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers as convert
    except ImportError:  # versions that leave names alone
        return names
    kept = []
    for name in names:
        config = LoraConfig(target_modules=[name])
        try:
            convert(config, lm, None)
        except ValueError:  # some of the experts' tensors only
            continue
        if name in (config.target_modules or ()):
            kept.append(name)
    return kept


def _config(lm: PreTrainedModel, stage: LanguageStage, targets: list[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=stage.train.rank,
        lora_alpha=stage.train.alpha,  # type: ignore[arg-type]
        lora_dropout=stage.train.dropout,
        target_modules=targets,
        fan_in_fan_out=stage.train.what != "qlora" and _turned(lm, targets),
        task_type="CAUSAL_LM",
        base_model_name_or_path=lm.config._name_or_path or None,
    )


def _turned(lm: PreTrainedModel, targets: list[str]) -> bool:
    """Whether the matrices are stored as ``[in, out]``, as GPT-2's are."""
    return any(isinstance(lm.get_submodule(name), Conv1D) for name in targets)


def _delta(layer: Any) -> Tensor:
    """What an adapter adds to its matrix, float32."""
    with torch.no_grad():
        delta: Tensor = layer.get_delta_weight("default")
    return delta.detach().clone()


def _added(layer: Any, weight: Tensor) -> Tensor:
    """A matrix with what its adapter adds to it."""
    return weight.float() + _delta(layer).to(weight.device)


def _tell_of_whole_weights(lm: PreTrainedModel, modules: dict[str, nn.Module]) -> None:
    """Say so where 4 bits would save little: bitsandbytes has no place for experts in one tensor."""
    whole = sum(weight.numel() for weight in layers_of(lm)[1].parameters())
    small = sum(module.get_parameter("weight").numel() for module in modules.values())
    if small < whole / 2:
        log.warning(
            "%d%% of the layers' weights stay in full precision under qlora: the experts of a %s model are no matrices "
            "of their own",
            round(100 * (1 - small / whole)),
            lm.config.model_type,
        )


def _quantize(lm: PreTrainedModel, modules: dict[str, nn.Module]) -> None:
    """Put 4-bit copies (NF4, its constants quantized too) in place of matrices, which wait in main memory."""
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise missing_extra("train qlora", "bitsandbytes", "qlora") from error
    for name, module in modules.items():
        weight = module.get_parameter("weight").detach()
        weight = weight.T if isinstance(module, Conv1D) else weight  # [out, in]
        bias: Any = module.bias
        small = Linear4bit(weight.shape[1], weight.shape[0], bias=bias is not None, quant_type="nf4")
        small.weight = Params4bit(
            weight.cpu().contiguous().clone(),
            requires_grad=False,
            quant_type="nf4",
            compress_statistics=True,
        )
        small.bias = bias
        # in evaluation bitsandbytes would pack the weights for its own CPU kernel, which training can't use
        small.support_avx512bf16_for_cpu = False
        parent, _, last = name.rpartition(".")
        setattr(lm.get_submodule(parent), last, small.to(lm.device))
        module.to("cpu")


def _export(tuned: Any, rows: NewRows | None, adapters: Named, folder: Path, turned: bool) -> None:
    """Adapters and rows as PEFT would have saved them: ``PeftModel.from_pretrained(base, folder)`` reads them. The base
    has ``turned`` matrices also where they were trained over 4-bit copies, which aren't."""
    from safetensors.torch import save_file

    lm = tuned.get_base_model()
    places = {
        "input": _place(lm, lm.get_input_embeddings()),
        "output": _place(lm, lm.get_output_embeddings()),
    }
    tensors = {
        f"base_model.model.{name.replace('.default', '')}": weight.detach().cpu().contiguous()
        for name, weight in adapters.items()
    }
    own = {} if rows is None else {places["input"]: rows.input}
    config = tuned.peft_config["default"]
    head = lm.get_output_embeddings()
    if rows is not None and rows.output is not None and getattr(head, "bias", None) is not None:
        # whole: over rows of a head PEFT forgets the bias
        config.modules_to_save = [places["output"].rpartition(".")[2]]
        for name, weight in head.named_parameters():
            tensors[f"base_model.model.{places['output']}.{name}"] = _of_head(lm, name, weight, rows)
    elif rows is not None and rows.output is not None:
        own[places["output"]] = rows.output
    for place, weight in own.items():
        key = f"base_model.model.{place}.token_adapter.trainable_tokens_delta"
        tensors[key] = weight.detach().cpu().contiguous().clone()
    if rows is not None:
        ids = list(range(rows.start, rows.start + len(rows.input)))
        config.trainable_token_indices = {place.rpartition(".")[2]: ids for place in own}
    config.inference_mode = True
    config.fan_in_fan_out = turned
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def _of_head(lm: PreTrainedModel, name: str, weight: nn.Parameter, rows: NewRows) -> Tensor:
    """A weight of a head, with the rows that have learned."""
    stored = stored_of(lm)
    if stored is None:
        return weight.detach().cpu().contiguous().clone()
    head: nn.Module = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
    found = stored.read(f"{_place(lm, head)}.{name}").to(weight.dtype)
    if name == "weight" and rows.output is not None:
        found[rows.start : rows.start + len(rows.output)] = rows.output.detach()
    return found


def _place(lm: PreTrainedModel, module: nn.Module) -> str:
    return str(next(name for name, other in lm.named_modules() if other is module))
