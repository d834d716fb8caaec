"""How a teacher is made: small tables, importable without torch. The parts of training are the loop's own."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from itemic.settings import (
    Count,
    Listed,
    NotNegative,
    PartOfOne,
    Positive,
    Switch,
    named,
    settings,
    wrong,
)
from itemic.text import settings_repr
from itemic.training.settings import (
    CheckpointSettings,
    Downwards,
    LogSettings,
    OptimizerSettings,
    Patience,
    ScheduleSettings,
    Steps,
    TrainingTable,
)

NAME = "teacher"  # of its training, in logs and bars


@settings(frozen=True, repr=False)
class SASRecSettings:
    """A causal transformer over items (Kang and McAuley 2018).

    Attributes:
        name: ``sasrec``.
        width: of item embeddings and hidden states.
        layers: how many.
        heads: of attention; they share the width.
        inner: width within the feed-forward networks; None for four times ``width``.
        max_length: how many of the latest items of a history are read. A longer history of training becomes several.
        dropout: share of the embeddings and of the layers' outputs that is zeroed while training.
        init: how item embeddings start: ``vectors``, from the items' texts and from what is had together, or
            ``normal``, at random.
    """

    name: Literal["sasrec"] = "sasrec"
    width: Count = 64
    layers: Count = 2
    heads: Annotated[Count, Field(validate_default=True)] = 2
    inner: Count | None = None
    max_length: Count = 50
    dropout: PartOfOne = 0.3
    init: Literal["vectors", "normal"] = "vectors"

    __repr__ = settings_repr

    @field_validator("heads")
    @classmethod
    def _share(cls, heads: int, info: ValidationInfo) -> int:
        if "width" in info.data and info.data["width"] % heads:
            raise wrong(f"is {heads}, which doesn't divide width {info.data['width']}", heads)
        return heads

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments of :class:`itemic.teacher.model.SASRec`."""
        inner = self.inner or 4 * self.width
        keys = ("width", "layers", "heads", "max_length", "dropout")
        return {key: getattr(self, key) for key in keys} | {"inner": inner}


@settings(frozen=True, repr=False)
class ItemSoftmaxSettings:
    """The objective: each item of a history is predicted from those before it, among all items.

    Attributes:
        name: ``item-softmax``.
        label_smoothing: share of a target's probability that is spread over the catalogue.
    """

    name: Literal["item-softmax"] = "item-softmax"
    label_smoothing: PartOfOne = 0.0

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class TeacherData:
    """What a step learns from.

    Attributes:
        targets_per_step: items that an optimizer step predicts, about.
        targets_per_block: how many are computed at once, about; bounds the memory.
    """

    targets_per_step: Count = 2048
    targets_per_block: Count = 8192

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class TeacherOptimizer(OptimizerSettings):
    __doc__ = OptimizerSettings.__doc__

    weight_decay: NotNegative = 0.0
    betas: Annotated[tuple[PartOfOne, PartOfOne], Listed] = (0.9, 0.98)

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class TeacherSchedule(ScheduleSettings):
    __doc__ = ScheduleSettings.__doc__

    warmup: NotNegative = 0.05

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class TeacherEngine:
    """How steps are computed.

    Attributes:
        precision: ``float32``, ``bfloat16`` (autocast; the weights stay float32), or ``auto``: bfloat16 where the
            device is faster in it (CUDA, CPUs with AMX). Scores are always float32.
        tf32: whether GPUs that can multiply what stays float32 in TensorFloat-32; other devices don't change.
        minibatch_size: targets whose scores of all items are held at once; bounds the memory.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    tf32: Switch = True
    minibatch_size: Count = 512

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class TeacherValidation:
    """What is asked of the teacher while it learns: to rank the whole catalogue.

    Attributes:
        every: steps between validations, or ``epoch``; None validates never.
        requests: how many requests of the validation split a validation asks, chosen once by the seed.
        metric: the validated number by which the best checkpoint is chosen and training stops early: ``hr@10`` or
            ``ndcg@10``.
        patience: validations without a better one before training stops; 0 never stops.
        exclude_history: leave out the items that the user has had; None for what a recipe's evaluation does, else not.
    """

    every: Literal["epoch"] | Count | None = "epoch"
    requests: Count = 2000
    metric: Literal["hr@10", "ndcg@10"] = "ndcg@10"
    patience: Patience = 0
    exclude_history: Switch | None = None

    __repr__ = settings_repr

    @property
    def first(self) -> bool:
        """Untrained weights are no teacher's."""
        return False


@settings(frozen=True, repr=False)
class TeacherSettings(TrainingTable):
    """A sequential model of the training split, for rankings, blends, rewards and labels. A bare word stands for the
    first key of ``model``, ``objective``, ``optimizer`` and ``schedule``.

    Attributes:
        model: what it is.
        epochs: how often every history is seen; 20 where neither this nor ``steps`` is given.
        steps: optimizer steps, instead of ``epochs``.
        learning_rate: the peak.
        data: what a step learns from.
        objective: what is learned.
        optimizer: how gradients become steps.
        schedule: the way of the learning rate.
        engine: how steps are computed.
        validation: what is asked of it on the way.
        checkpoints: what is written on the way.
        logs: who is told the numbers.
    """

    model: Annotated[SASRecSettings, named("name")] = SASRecSettings()
    epochs: Count | None = None
    steps: Steps = None
    learning_rate: Positive = 2e-3
    data: TeacherData = TeacherData()
    objective: Annotated[ItemSoftmaxSettings, named("name")] = ItemSoftmaxSettings()
    optimizer: Annotated[TeacherOptimizer, named("name")] = TeacherOptimizer()
    schedule: Annotated[TeacherSchedule, named("name"), Downwards] = TeacherSchedule()
    engine: TeacherEngine = TeacherEngine()
    validation: TeacherValidation = TeacherValidation()
    checkpoints: CheckpointSettings = CheckpointSettings()
    logs: LogSettings = LogSettings()

    EPOCHS: ClassVar = 20
    SILENT: ClassVar = ("checkpoints.", "logs.")

    @property
    def name(self) -> str:
        """Of its training, in logs and bars."""
        return NAME

    @property
    def weights(self) -> str | None:
        """It begins with no other's."""
        return None
