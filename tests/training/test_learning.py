"""Which weights learn, and what is left of adapters."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from itemic.errors import ConfigError
from itemic.training.language.learning import learning
from itemic.training.language.stage import Stage
from tests.families import BY_NAME
from tests.stages import stage_of
from tests.training.helpers import VOCABULARY, copy_of, lm_trainer, tiny_lm, toy_rows

NEW = range(40, 60)
KEYS: dict[str, Any] = {
    "steps": 5,
    "data.tokens_per_step": 100,
    "learning_rate": 0.02,
    "schedule.warmup": 0,
    "engine.precision": "float32",
}
ADAPTED = {"lora": {"train.rank": 4}, "qlora": {"train.rank": 4}}


def train(lm: Any, stage: Stage, adapter: Path | None = None) -> None:
    with learning(lm, stage, NEW, adapter=adapter) as learns:
        lm_trainer(lm, toy_rows(), stage, learns=learns).run()


def changed(lm: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, weight in copy_of(lm).items() if not torch.equal(weight, before[name])}


def logits(lm: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = lm.eval()(torch.tensor([[3, 41, 50, 59, 7]]), use_cache=False).logits
    return out


@pytest.mark.parametrize("tied", [True, False])
def test_the_last_layers_learn_and_no_others(tied: bool) -> None:
    lm = tiny_lm(tied=tied)
    before, modules = copy_of(lm), [name for name, _ in lm.named_modules()]
    train(lm, stage_of({"train.what": "last-layers", "train.layers": 1, **KEYS}))
    matrices = {"model.embed_tokens.weight", "lm_head.weight"}
    last = {name for name in before if name.startswith("model.layers.1.")}
    assert changed(lm, before) == last | matrices | {"model.norm.weight"}
    for name in matrices:
        rows = (copy_of(lm)[name] != before[name]).any(dim=1)
        assert not rows[:40].any()
        assert not rows[60:].any()
    assert [name for name, _ in lm.named_modules()] == modules
    assert all(weight.requires_grad for weight in lm.parameters())


@pytest.mark.parametrize(
    ("family", "layer", "norm"),
    [
        ("GPT-2", "transformer.h.1.", "transformer.ln_f"),
        ("OPT", "model.decoder.layers.1.", "model.decoder.final_layer_norm"),
        ("Phi", "model.layers.1.", "model.final_layernorm"),
    ],
)
def test_the_last_layers_are_found_under_other_names(family: str, layer: str, norm: str) -> None:
    lm = BY_NAME[family].model(VOCABULARY)
    with learning(lm, stage_of({"train.what": "last-layers", "train.layers": 1}), NEW) as learns:
        found = set(learns.named) - {"input_rows", "output_rows"}
    names = {name for name, _ in lm.named_parameters()}
    assert found == {name for name in names if name.startswith(layer)} | {f"{norm}.weight", f"{norm}.bias"}


@pytest.mark.parametrize("kind", ADAPTED)
def test_adapters_of_matrices_that_are_stored_the_other_way_round(kind: str, tmp_path: Path) -> None:
    """GPT-2's, ``[in, out]``: merged and read by PEFT they give the same."""
    from peft import PeftModel

    lm = BY_NAME["GPT-2"].model(VOCABULARY)
    lm.save_pretrained(tmp_path / "base")
    before = copy_of(lm)
    train(lm, stage_of({"train.what": kind, **ADAPTED[kind], **KEYS}), tmp_path / "adapter")
    matrices = {name for name in before if ".h." in name and name.endswith(".weight") and "ln_" not in name}
    assert changed(lm, before) == matrices | {"transformer.wte.weight", "lm_head.weight"}
    tuned = PeftModel.from_pretrained(type(lm).from_pretrained(tmp_path / "base"), str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(tuned), logits(lm), atol=1e-5, rtol=1e-4)


def test_experts_that_stay_whole_are_told(caplog: pytest.LogCaptureFixture) -> None:
    for family, told in (("Qwen3-MoE", True), ("Qwen3", False)):
        caplog.clear()
        lm = BY_NAME[family].model(VOCABULARY)
        whole = {name for name, weight in lm.named_parameters() if weight.ndim == 3}
        with learning(lm, stage_of({"train.what": "qlora"}), NEW):
            small = {name for name, module in lm.named_modules() if type(module).__name__ == "Linear4bit"}
            assert whole <= {name for name, _ in lm.named_parameters()}
        assert len(small) == 2 * (4 if told else 7)
        assert ("stay in full precision" in caplog.text) == told


def test_names_that_peft_takes_for_experts_get_no_adapters() -> None:
    lm = BY_NAME["GLM-4.5"].model(VOCABULARY)
    with learning(lm, stage_of({"train.what": "lora"}), NEW) as learns:
        adapted = {name.split(".lora_")[0] for name in learns.named if "lora_" in name}
    assert adapted == {
        f"model.layers.{n}.self_attn.{part}_proj" for n in range(2) for part in ("q", "k", "v", "o")
    }
    with (
        pytest.raises(ConfigError, match="gate_proj are no matrices") as caught,
        learning(lm, stage_of({"train.what": "lora", "train.targets": ("gate_proj",)}), NEW),
    ):
        pass
    assert "k_proj, o_proj, q_proj, v_proj" in caught.value.remedy


@pytest.mark.parametrize("kind", ADAPTED)
@pytest.mark.parametrize("tied", [True, False])
def test_adapters_end_in_the_matrices_of_a_plain_model(kind: str, tied: bool, tmp_path: Path) -> None:
    """The layers' matrices and the rows have changed and nothing else, and by no more than the rank allows."""
    lm = tiny_lm(tied=tied)
    before, modules = copy_of(lm), [(name, type(module)) for name, module in lm.named_modules()]
    train(lm, stage_of({"train.what": kind, **ADAPTED[kind], **KEYS}))
    assert [(name, type(module)) for name, module in lm.named_modules()] == modules
    linear = {name for name in before if "_proj.weight" in name}
    assert changed(lm, before) == linear | {"model.embed_tokens.weight", "lm_head.weight"}
    for name in linear:
        assert torch.linalg.matrix_rank(copy_of(lm)[name] - before[name], atol=1e-4) <= 4
    lm.save_pretrained(tmp_path)
    again = type(lm).from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again), logits(lm))


@pytest.mark.parametrize("tied", [True, False])
def test_the_adapters_alone_are_what_peft_reads(tied: bool, tmp_path: Path) -> None:
    from peft import PeftModel

    lm = tiny_lm(tied=tied)
    lm.save_pretrained(tmp_path / "base")
    base = type(lm).from_pretrained(tmp_path / "base")
    plain = logits(base)
    train(
        lm,
        stage_of({"train.what": "lora", "train.targets": ("q_proj", "down_proj"), **KEYS}),
        tmp_path / "adapter",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(tuned), logits(lm), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits(lm), plain, atol=1e-2)


def test_a_quantized_base_is_near_the_whole_one() -> None:
    """Four bits change the layers while they train, and the full matrices come back."""
    lm = tiny_lm()
    whole = logits(lm)
    stage = stage_of({"train.what": "qlora", **KEYS})
    with learning(lm, stage, NEW):
        inside = [type(module).__name__ for module in lm.modules()]
        small = logits(lm)
    assert "Linear4bit" in inside
    assert not torch.equal(small, whole)
    assert (small - whole).abs().mean() < 0.3 * whole.std()
    torch.testing.assert_close(logits(lm), whole)


@pytest.mark.parametrize("kind", ADAPTED)
def test_a_failure_leaves_the_model_as_it_was(kind: str) -> None:
    lm = tiny_lm()
    before = copy_of(lm)

    def interrupted() -> None:
        with learning(lm, stage_of({"train.what": kind, **KEYS}), NEW) as learns:
            for name, weight in learns.named.items():
                if "lora" in name:
                    weight.data += 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert changed(lm, before) == set()
    assert "Linear4bit" not in {type(module).__name__ for module in lm.modules()}


def test_adapters_that_cannot_be_made_leave_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no adapters today")

    monkeypatch.setattr("peft.PeftModel", refuse)
    lm = tiny_lm()
    before = copy_of(lm)
    with (
        pytest.raises(RuntimeError, match="no adapters"),
        learning(lm, stage_of({"train.what": "qlora", **KEYS}), NEW),
    ):
        pass
    assert changed(lm, before) == set()


def test_only_what_learns_has_gradient_state_and_decay() -> None:
    lm = tiny_lm()
    stage = stage_of({"train.what": "lora", **KEYS})
    with learning(lm, stage, NEW) as learns:
        trainer = lm_trainer(lm, toy_rows(), stage, learns=learns)
        trainer.run()
        assert {key.rpartition(".")[0] for key in trainer.strategy.optimizer.tensors()} == set(learns.named)
        assert all("lora_" in name or name == "input_rows" for name in learns.named)
        assert all("lora_" in name for name in learns.decay)
        frozen = [weight for name, weight in lm.named_parameters() if "lora_" not in name]
        assert all(weight.grad is None for weight in frozen)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (stage_of({"train.what": "last-layers", "train.layers": 3}), "the model has 2 layers"),
        (stage_of({"train.what": "lora", "train.targets": ("q_proj", "banana")}), "train.targets banana"),
    ],
)
def test_what_the_model_does_not_have(stage: Stage, message: str) -> None:
    with pytest.raises(ConfigError, match=message), learning(tiny_lm(), stage, NEW):
        pass


@pytest.mark.parametrize(
    ("train", "module", "package"), [("qlora", "bitsandbytes.nn", "bitsandbytes"), ("lora", "peft", "peft")]
)
def test_a_missing_library_is_named(
    train: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    lm = tiny_lm()
    before = copy_of(lm)
    fault = rf'train {train} needs {package}\n.*pip install "itemic\[{train}\]"'
    with pytest.raises(ConfigError, match=fault), learning(lm, stage_of({"train.what": train}), NEW):
        pass
    assert changed(lm, before) == set()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train": "last-layers"}, "train.layers is 0"),
        ({"train.layers": 2}, "go together"),
        ({"optimizer": "sgd"}, "optimizer.name is 'sgd'"),
        ({"train.rank": 0}, "train.rank is 0"),
        (
            {"engine.gradient_checkpointing": 1},
            "engine.gradient_checkpointing is 1: input should be a valid bool",
        ),
        ({"train.targets": [1]}, "train.targets.0 is 1: input should be a valid string"),
    ],
)
def test_stages_that_cannot_work(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage_of(keys)
