"""``train``: one stage of a model on conversations, from an earlier checkpoint if there is one, to a model
folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from itemic.artifact import digest_of, locked, versions, write_json
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, IndexMismatchError
from itemic.model import Model
from itemic.model.model import embeddings
from itemic.model.positions import most_positions
from itemic.model.stored import stored_of
from itemic.progress import log
from itemic.sid.trie import Trie
from itemic.tasks.asking import remember_asked
from itemic.tasks.build import taught_by
from itemic.tasks.table import TASKS, task_of, task_options
from itemic.trackers import check_trackers
from itemic.training.distribution import Distribution
from itemic.training.language.breakdown import TokenKinds
from itemic.training.language.counts import lost_rows
from itemic.training.language.learning import ADAPTER, learning
from itemic.training.language.next_token import NextToken
from itemic.training.language.rows import Source, training_rows
from itemic.training.language.saving import save, with_weights_of
from itemic.training.language.stage import LanguageStage, Stage
from itemic.training.language.stream import ConversationSteps, KeptRows
from itemic.training.language.weighing import weighed
from itemic.training.loop import Trainer
from itemic.training.memory import keep_buffers
from itemic.training.place import Place
from itemic.training.precision import compute_dtype
from itemic.training.ranks import Ranks, joined
from itemic.training.record import RECORD, compare_threads, finished

Together = Callable[[Callable[[], Any]], Any]  # as Strategy.together
Answers = Callable[[Model, Together], list[dict[str, str]]]


def train(
    model: Model,
    conversations: Source,
    *,
    stage: Stage | Mapping[str, Any],
    dataset: Dataset | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    validate: Callable[[Model], dict[str, float]] | None = None,
    distribution: Distribution | Mapping[str, Any] | None = None,
    asked: str | Mapping[str, Any] | None = None,
) -> Model:
    """Train ``model`` in place on conversations and hand it back.

    With ``output`` a run that was killed goes on from its last checkpoint and ends, on CPU with the same
    number of threads, with the very weights of a run that wasn't; a finished one is loaded. The folder
    becomes a plain Hugging Face folder with ``sid/``, ``training.json`` (what was done), ``log.jsonl`` and
    ``tensorboard/``; its ``checkpoints/`` go when the model is there, unless ``stage.checkpoints.keep`` says so.

    Under ``torchrun`` or ``deepspeed`` every process calls this with the same arguments and an ``output`` that all of
    them see; each hands back the same trained model, and a run goes on on another number of processes. Under ``fsdp``
    and under ZeRO's stage 3 a model that all of them have loaded on the device ``meta`` is read, trained, validated and
    written in shards, and stays without weights.

    Args:
        model: float16 and bfloat16 weights are trained as float32 and rounded back at the end. Under ``lora``, in one
            process or under DDP, where it is computed in bfloat16, a bfloat16 model stays so, and only adapters and
            learned rows are float32.
        conversations: a table, Parquet files, or folders of them, of ``schema.CONVERSATION_COLUMNS``.
        stage: what to do.
        dataset: whose validation split is asked where ``stage.validation.every`` is set and ``validate`` isn't.
        output: the folder; None keeps nothing.
        seed: decides the order of the data, the dropout and the validation sample.
        validate: measures the model, on rank 0; must give ``stage.validation.metric``. Where the weights are shared
            out it must ask the model by forward passes, for there are no others.
        distribution: how several processes share the work.
        asked: the task whose prompt the model will be asked, with its options, for its folder to say; None for the
            first one among the conversations that recommends.

    Raises:
        ConfigError: the stage asks for what can't be.
        IndexMismatchError: conversations or dataset were made with another index or catalogue than the model.
        ArtifactError: the folder holds another run, is in use, or the disk is full.
        KeyboardInterrupt: after a checkpoint; the same call goes on from it.
    """
    stage, distribution = _within_positions(Stage.of(stage), model), Distribution.of(distribution)
    _check_meeting(model, conversations, dataset)
    if output is not None:
        for line in check_trackers(stage.logs.trackers):
            log.info("%s", line)
    keep_buffers()
    with joined() as ranks:
        if stage.data.think_pattern is not None:
            model.think_pattern = stage.data.think_pattern
        _remember_asked(model, conversations, asked)
        return _train(model, conversations, stage, dataset, output, seed, validate, ranks, distribution)


def _within_positions(stage: Stage, model: Model) -> Stage:
    """The stage with rows no longer than the model was made for; what is cut for it is told like any other cut."""
    positions = most_positions(model.lm)
    if positions is None or stage.data.max_length <= positions:
        return stage
    return replace(stage, data=replace(stage.data, max_length=positions))


def _check_meeting(model: Model, conversations: Source, dataset: Dataset | None) -> None:
    """Model, conversations and dataset must speak of the same items in the same words."""
    if dataset is not None and len(model.index):
        model.index.check_dataset(dataset)
    taught = taught_by(conversations)
    if taught is not None and len(model.index) and taught.index != model.index.digest:
        raise IndexMismatchError(
            f"the conversations speak item index {taught.index}, the model {model.index.digest}",
            "Build the conversations with the model's own index, or expand the base model by theirs.",
        )


def _remember_asked(model: Model, conversations: Source, asked: str | Mapping[str, Any] | None) -> None:
    """Record how the model will be asked; an earlier stage's word stands where this one teaches nothing of the kind."""
    taught = taught_by(conversations)
    learned = [task_of(options) for options in taught.tasks if options["task"] in TASKS] if taught else []
    if (words := next((task for task in learned if task.name == "profile"), None)) is not None:
        model.profile = task_options(words)
    tasks = learned if asked is None else [task_of(asked)]
    if (task := next((task for task in tasks if task.recommends), None)) is not None:
        remember_asked(model, task)


def _train(
    model: Model,
    conversations: Source,
    stage: Stage,
    dataset: Dataset | None,
    output: str | Path | None,
    seed: int,
    validate: Callable[[Model], dict[str, float]] | None,
    ranks: Ranks,
    distribution: Distribution,
) -> Model:
    _check_strategy(model, stage, output, ranks, distribution)
    data = ranks.first(lambda: _source(model, conversations, stage, seed))
    measure, samples = _validation(model, stage, dataset, seed, validate, ranks)
    with ExitStack() as stack:
        folder = Path(output) if output is not None else None
        identity: dict[str, Any] = {}
        if folder is not None:
            identity = ranks.share(
                _identity(model.lm, data, stage, seed, measure is not None) if ranks.main else {}
            )
            if ranks.share(ranks.main and finished(folder, identity)):
                log.info("%s: already trained, in %s", stage.name, folder)
                return Model.load(folder, device=model.lm.device, dtype=model.lm.dtype)
            if ranks.main:
                stack.enter_context(locked(folder / "checkpoints"))
                compare_threads(folder)
                _record(folder, identity, data, model.lm, stage, ranks, distribution)
        stack.enter_context(float32_weights(model.lm, keeps_half(model.lm, stage, ranks, distribution)))
        stack.enter_context(torch.random.fork_rng())
        torch.manual_seed(seed)  # the same for all: adapters begin alike
        tokens = range(*model.new_token_range)
        adapter = folder / ADAPTER if folder is not None and ranks.main else None
        learns = stack.enter_context(learning(model.lm, stage, tokens, adapter=adapter))
        objective = NextToken.of(
            model.lm,
            stage,
            learns,
            kinds=TokenKinds.of_index(model.index, tokens.start, len(embeddings(model.lm))),
            sources=data.names,
            items=_names(model, stage, data.names),
        )
        trainer = Trainer(
            objective,
            data,
            stage,
            seed=seed,
            folder=folder,
            identity=digest_of(identity),
            validate=(lambda: measure(seen, trainer.strategy.together)) if measure is not None else None,
            samples=(lambda: samples(seen, trainer.strategy.together)) if samples is not None else None,
            ranks=ranks,
            distribution=distribution,
        )
        seen = with_weights_of(model, trainer.strategy.evaluated)
        torch.manual_seed(seed + ranks.rank)  # dropout differs from rank to rank
        place = trainer.run()
    if folder is not None:
        save(model, folder, trainer.strategy, learns, ranks)
    if folder is not None and ranks.main:
        _record(folder, identity, data, model.lm, stage, ranks, distribution, asdict(place))
        _tell(stage, data, place)
        if stage.checkpoints.keep is None:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    ranks.wait()
    return model


def _source(model: Model, conversations: Source, stage: Stage, seed: int) -> ConversationSteps:
    """The conversations as steps: all encoded at once, or as a stream."""
    encode = partial(model.chat.encode_table, supervise=stage.objective.supervise)
    encoder, marks = f"{model.chat.digest} {stage.objective.supervise}", model.history_marks
    if not stage.data.stream:
        length, rule = stage.data.max_length, stage.data.overlong
        rows = training_rows(
            conversations,
            encode,
            encoder=encoder,
            max_length=length,
            overlong=rule,
            marks=marks,
            times=stage.asks_times,
        )
        return KeptRows.of(model.lm, weighed(rows, model, stage), stage, seed)
    from itemic.training.language.feed import Feed  # torchdata and pyarrow, for those who ask

    return Feed(conversations, encode, stage, encoder=encoder, seed=seed, marks=marks)


def _names(model: Model, stage: Stage, sources: Sequence[str]) -> Trie | None:
    """The items' names, where the objective is about them."""
    told = stage.objective
    key = "scope" if told.scope else "unlikelihood" if told.unlikelihood else None
    if key is None:
        return None
    if not len(model.index):
        raise ConfigError(
            f"objective.{key} is about items, and the model knows codes alone",
            "Leave it out, or give the model an index with items.",
        )
    asked = told.unlikelihood.sources if told.unlikelihood else {}
    if sources and (strange := [name for name in asked if name not in sources]):
        raise ConfigError(
            f"objective.unlikelihood.sources names {', '.join(strange)}, of which there is no conversation",
            f"There are {', '.join(sources)}.",
        )
    return Trie.build(model.item_rows)


def _tell(stage: Stage, data: ConversationSteps, place: Place) -> None:
    """How a stage went, in a line, with what it had to leave out."""
    metric = stage.validation.metric
    best = "" if place.best is None else f", best {metric} {place.best:.4f} at step {place.best_step}"
    lost = lost_rows(data.notes, stage.data.max_length)
    log.info("%s: %d steps%s%s", stage.name, place.step, best, f"; {lost}" if lost else "")


def _check_strategy(
    model: Model, stage: Stage, output: str | Path | None, ranks: Ranks, distribution: Distribution
) -> None:
    """What can't be on several ranks, before anything is quantized: a model on the meta device has nothing that could
    be."""
    if output is None and ranks.share(model.lm.device.type == "meta"):
        raise ConfigError(
            "a model without weights of its own is trained and would be lost",
            "Give train() an output folder.",
        )
    if stage.train.what == "qlora" and ranks.size > 1 and distribution.strategy != "ddp":
        raise ConfigError(
            f"strategy {distribution.strategy} can't share out weights in 4 bits",
            "Use ddp for qlora, or train lora.",
        )


def _validation(
    model: Model,
    stage: Stage,
    dataset: Dataset | None,
    seed: int,
    validate: Callable[[Model], dict[str, float]] | None,
    ranks: Ranks,
) -> tuple[Callable[[Model, Together], dict[str, float]] | None, Answers | None]:
    """What measures the model, and what answers sample prompts with it; None where the stage asks for
    neither."""
    built, asked = None, stage.validation
    if dataset is not None and (asked.samples or (asked.every is not None and validate is None)):
        from itemic.training.language.validation import (
            Validation,  # the decoder and all tasks, for those who ask
        )

        built = Validation(model, dataset, stage, seed, ranks)
    if asked.every is not None and validate is None and built is None:
        raise ConfigError(
            f"stage {stage.name!r} validates every {asked.every} but has nothing to validate on",
            "Give train() the dataset, or a validate function, or leave validation.every out.",
        )
    if asked.samples and built is None:
        raise ConfigError(
            f"stage {stage.name!r} wants samples but has no prompts", "Give train() the dataset."
        )
    samples: Answers | None = None
    if asked.samples and built is not None:
        answers = built.answers
        samples = lambda each, together: together(lambda: answers(each) if ranks.main else [])  # noqa: E731
    if asked.every is None:
        return None, samples
    if validate is None:
        return built, samples
    return lambda each, together: together(lambda: validate(each) if ranks.main else {}), samples


def _identity(
    lm: PreTrainedModel, data: ConversationSteps, stage: Stage, seed: int, validated: bool
) -> dict[str, Any]:
    """All that decides the weights at the end."""
    numbers = {f"stage.{key}": value for key, value in stage.decisive().items()}
    return json.loads(  # type: ignore[no-any-return]
        json.dumps(
            numbers
            | {"seed": seed, "rows": data.digest, "weights": weights_digest(lm), "validated": validated}
        )
    )


def weights_digest(lm: PreTrainedModel) -> str:
    """16 hex digits of the SHA-256 of all weights, names and types included."""
    total, stored = hashlib.sha256(), stored_of(lm)
    for name, weight in lm.named_parameters():
        total.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        value = weight if stored is None else stored.read(name).to(weight.dtype)
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def _record(
    folder: Path,
    identity: dict[str, Any],
    data: ConversationSteps,
    lm: PreTrainedModel,
    stage: Stage,
    ranks: Ranks,
    distribution: Distribution,
    place: dict[str, Any] | None = None,
) -> None:
    device = ranks.device if lm.device.type == "meta" else lm.device
    record = {
        "finished": place is not None,
        "identity": identity,
        "stage": stage.to_json(),
        "rows": data.notes,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "ranks": ranks.size,
        "distribution": distribution.to_json() if ranks.size > 1 else None,
        "precision": str(compute_dtype(stage.engine.precision, device)).removeprefix("torch."),
        "versions": versions("torch", "transformers"),
        "place": place,
    }
    write_json(folder / RECORD, record)


def keeps_half(lm: PreTrainedModel, stage: LanguageStage, ranks: Ranks, distribution: Distribution) -> bool:
    """Whether a model's bfloat16 weights stay what they are: under ``lora`` they don't learn, and where all is computed
    in bfloat16 they would be rounded for it anyway. Strategies that share out layers want one type in each."""
    whole = ranks.size == 1 or distribution.strategy == "ddp"
    low = compute_dtype(stage.engine.precision, lm.device) == torch.bfloat16
    return stage.train.what == "lora" and lm.dtype == torch.bfloat16 and low and whole


@contextmanager
def float32_weights(lm: PreTrainedModel, stays: bool) -> Iterator[None]:
    """Float32 weights inside the block, unless the model ``stays`` as it is: small steps would be rounded away in half
    precision."""
    if stays:
        yield
        return
    before = lm.dtype
    if before != torch.float32:
        lm.to(torch.float32)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if lm.dtype != before:
            lm.to(before)  # type: ignore[arg-type]
