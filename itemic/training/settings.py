"""What a run of training can be told, whatever it learns: small tables, each usable alone, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from itemic.settings import (
    Amount,
    Count,
    Listed,
    NotNegative,
    PartOfOne,
    Switch,
    Text,
    flat_settings,
    settings,
    settings_from,
    settings_json,
    wrong,
)
from itemic.text import settings_repr
from itemic.trackers import TRACKERS

OptimizerName = Literal["adamw", "adamw-8bit", "adafactor", "muon"]
ScheduleName = Literal["cosine", "linear", "constant", "wsd"]
Precision = Literal["auto", "float32", "bfloat16"]
EPOCH = "epoch"  # between validations


def _validated(patience: int, info: ValidationInfo) -> int:
    if patience and info.data.get("every", 1) is None:
        raise wrong("needs validations; set every", patience)
    return patience


def _one_length(steps: int | None, info: ValidationInfo) -> int | None:
    if steps is not None and info.data.get("epochs") is not None:
        raise wrong("is given, and epochs as well; give one of them", steps)
    return steps


def _downwards(schedule: ScheduleSettings, info: ValidationInfo) -> ScheduleSettings:
    peak = info.data.get("learning_rate")
    if peak is not None and schedule.min_lr > peak:
        raise wrong(f"is {schedule.min_lr}, above learning_rate {peak}", schedule.min_lr, "min_lr")
    return schedule


# Fields that any training has, with what ties them to fields before them.
Patience = Annotated[Amount, AfterValidator(_validated)]  # behind every
Steps = Annotated[Count | None, AfterValidator(_one_length)]  # behind epochs
Downwards = AfterValidator(_downwards)  # of a schedule, behind learning_rate


class TrainingTable:
    """What the settings of any training can do, beside the fields that each has of its own.

    Attributes:
        EPOCHS: where neither ``epochs`` nor ``steps`` is given.
        SILENT: how the dotted keys begin that no weight depends on.
        LATER: dotted keys that came later: null is as if they weren't there, so that what was trained before them is
            known again.
    """

    EPOCHS: ClassVar[int] = 1
    SILENT: ClassVar[tuple[str, ...]] = ()
    LATER: ClassVar[tuple[str, ...]] = ()
    epochs: int | None
    steps: int | None

    __repr__ = settings_repr

    def __post_init__(self) -> None:
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", self.EPOCHS)

    @classmethod
    def of(cls, value: Self | Mapping[str, Any] | None) -> Self:
        """Settings from a mapping, as a recipe has it.

        Raises:
            ConfigError: naming every unknown key and every value that can't work.
        """
        return settings_from(cls, value)

    def to_json(self) -> dict[str, Any]:
        """The mapping that :meth:`of` takes."""
        found: dict[str, Any] = settings_json(self)
        return found

    def flat(self) -> dict[str, Any]:
        """All of it by dotted keys: ``{"schedule.warmup": 0.05, …}``."""
        return flat_settings(self)

    def decisive(self) -> dict[str, Any]:
        """Of :meth:`flat` what decides the weights."""
        return {
            key: value
            for key, value in self.flat().items()
            if not key.startswith(self.SILENT) and (value is not None or key not in self.LATER)
        }


@settings(frozen=True, repr=False)
class OptimizerSettings:
    """How gradients become steps.

    Attributes:
        name: ``adamw``; ``adamw-8bit`` (its state in 8 bits, by bitsandbytes); ``adafactor`` (a matrix's second moments
            by row and column); ``muon`` for the layers' matrices, scaled so that AdamW's learning rates fit, beside
            AdamW for the rest.
        weight_decay: decoupled decay; on matrices only, never on norms, biases, embeddings or the head.
        betas: AdamW's two decay rates; Muon's momentum is the first.
        clip: the largest global norm of the gradient of the weights that learn; 0 is off.
        ema: decay of the exponential moving average of the weights, e.g. .999; 0 is off. The average is what is
            validated, sampled from and saved.
    """

    name: OptimizerName = "adamw"
    weight_decay: NotNegative = 0.1
    betas: Annotated[tuple[PartOfOne, PartOfOne], Listed] = (0.9, 0.95)
    clip: NotNegative = 1.0
    ema: PartOfOne = 0.0

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class ScheduleSettings:
    """The way of the learning rate: up to its peak, and down from there.

    Attributes:
        name: the way from the learning rate down to ``min_lr``: ``cosine``, ``linear``, ``constant`` (stays up), or
            ``wsd``: stays up and falls in the last ``decay`` of the steps.
        min_lr: where it ends.
        warmup: the linear rise at the start: below 1 a share of all steps, from 1 on a number of steps.
        decay: the fall of ``wsd``: below 1 a share of the schedule's steps, from 1 on a number of steps.
        steps: where it ends; training goes on at ``min_lr``. None for the last step.
    """

    name: ScheduleName = "cosine"
    min_lr: NotNegative = 0.0
    warmup: NotNegative = 0.03
    decay: NotNegative = 0.1
    steps: Count | None = None

    __repr__ = settings_repr

    def warmup_steps(self, total: int) -> int:
        """Steps of the linear rise, of ``total``."""
        return round(self.warmup * total) if self.warmup < 1 else int(self.warmup)

    def decay_steps(self, total: int) -> int:
        """Steps of the fall at the end of ``wsd``, of ``total``."""
        return round(self.decay * total) if self.decay < 1 else int(self.decay)


@settings(frozen=True, repr=False)
class EngineSettings:
    """How steps are computed: what they cost in time and memory.

    Attributes:
        precision: ``float32``, ``bfloat16`` (autocast; the weights stay float32), or ``auto``: bfloat16 where the
            device is faster in it (CUDA, CPUs with AMX).
        tf32: whether GPUs that can multiply what stays float32 in TensorFloat-32; other devices don't change.
        compile: let torch.compile fuse the feed-forward layers and norms; the first steps wait for it.
        gradient_checkpointing: keep only the layers' inputs and compute the rest again for the gradient: less memory,
            about a third more time.
        minibatch_size: rows of the head computed at once, which bounds the memory of the logits.
    """

    precision: Precision = "auto"
    tf32: Switch = True
    compile: Switch = False
    gradient_checkpointing: Switch = False
    minibatch_size: Count = 2048

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class ValidationSettings:
    """What is asked of the model while it learns.

    Attributes:
        every: steps between validations, or ``epoch``; None validates never.
        task: the task whose prompts a validation asks; ``{task: C, max_items: 20}`` gives it options. None for the one
            that a recipe's evaluation asks, else ``C``.
        requests: how many requests of the validation split a validation asks, chosen once by the seed.
        beams: beams of a validation's search.
        metric: the validated number by which the best checkpoint is chosen and training stops early; more is better.
        patience: validations without a better one before training stops; 0 never stops.
        samples: how many prompts are answered at each validation, or at the end where there is none, to be read: in the
            log and in the trackers.
        first: validate before the first step as well, so that a training which finds nothing better ends as it began.
    """

    every: Literal["epoch"] | Count | None = None
    task: Text | dict[str, Any] | None = None
    requests: Count = 1000
    beams: Annotated[int, Field(strict=True, ge=10)] = 20
    metric: Text = "ndcg@10"
    patience: Patience = 0
    samples: Amount = 0
    first: Switch = False

    __repr__ = settings_repr

    @field_validator("task")
    @classmethod
    def _task(cls, task: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if isinstance(task, dict) and "task" not in task:
            raise wrong("is missing: options need the name of their task", task, "task")
        return task


@settings(frozen=True, repr=False)
class CheckpointSettings:
    """What is written on the way.

    Attributes:
        every: steps between checkpoints; 0 writes none but those of a better validation.
        keep: how many of the latest stay, beside the best: a number or ``all``, which then stay when the stage is done
            as well. None for two, which go when the model is there.
    """

    every: Amount = 500
    keep: Literal["all"] | Count | None = None

    __repr__ = settings_repr

    @property
    def kept(self) -> int | None:
        """How many of the latest stay while training goes on; None for all."""
        return None if self.keep == "all" else self.keep or 2


@settings(frozen=True, repr=False)
class LogSettings:
    """Who is told the numbers.

    Attributes:
        every: steps between log lines.
        trackers: where else the numbers go, beside ``log.jsonl``: ``tensorboard``, ``wandb``, ``swanlab`` and
            ``trackio``, each an extra of its name and set up by its own environment variables.
    """

    every: Count = 10
    trackers: Annotated[tuple[Text, ...], Listed] = ()

    __repr__ = settings_repr

    @field_validator("trackers")
    @classmethod
    def _trackers(cls, trackers: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in trackers if name not in TRACKERS]
        if unknown:
            raise wrong(f"are unknown: {', '.join(unknown)}; known are {', '.join(TRACKERS)}", trackers)
        return trackers


# ----------------------------------------------------------------- what the loop asks of all of them


class Computing(Protocol):
    """How any training is computed; :class:`EngineSettings` says more."""

    @property
    def precision(self) -> Precision: ...
    @property
    def tf32(self) -> bool: ...


class Validating(Protocol):
    """When any training is validated and what is better; :class:`ValidationSettings` says more."""

    @property
    def every(self) -> Literal["epoch"] | int | None: ...
    @property
    def metric(self) -> str: ...
    @property
    def patience(self) -> int: ...
    @property
    def first(self) -> bool: ...


class TrainingSettings(Protocol):
    """What the loop is told, whatever is learned: a stage of a language model is one, a teacher's settings are."""

    @property
    def name(self) -> str: ...
    @property
    def epochs(self) -> int | None: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weights(self) -> str | None: ...
    @property
    def optimizer(self) -> OptimizerSettings: ...
    @property
    def schedule(self) -> ScheduleSettings: ...
    @property
    def engine(self) -> Computing: ...
    @property
    def validation(self) -> Validating: ...
    @property
    def checkpoints(self) -> CheckpointSettings: ...
    @property
    def logs(self) -> LogSettings: ...
    def flat(self) -> dict[str, Any]:
        """All of it by dotted keys."""
