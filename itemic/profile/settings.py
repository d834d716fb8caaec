"""How profiles are turned into vectors and into lists, and how that is learned: small tables, importable without
torch."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from itemic.settings import (
    Amount,
    Count,
    Listed,
    NotNegative,
    PartOfOne,
    Positive,
    Switch,
    Text,
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

Pooling = Literal["mean", "last", "cls"]
TextField = Literal["title", "brand", "categories", "description"]
MINILM = "minilm"  # the encoder that comes with the extra of that name
FIELDS: tuple[TextField, ...] = ("title", "brand", "categories", "description")
EMBEDDER = "embedder"  # of its training, in logs and bars
REWARD = re.compile(r"(?:(ndcg|mrr|recall)(?:@([1-9]\d*))?)|similarity")


@settings(frozen=True, repr=False)
class EmbedderSettings:
    """A text encoder, for profiles and items alike.

    Attributes:
        model: a folder, a name on the Hugging Face hub, or ``minilm``, which the extra of that name brings along.
        pooling: ``mean``, ``cls`` or ``last``; None for what a sentence-transformers folder says, else ``mean``.
        normalize: whether vectors get length 1, so that similarity is the cosine; None for what a
            sentence-transformers folder says, else yes.
        max_length: tokens of a text, special ones included; longer texts are cut, and counted. None for what the folder
            says, else 512.
        profile_prompt: text in front of each profile; None for the folder's prompt ``query``, if any.
        item_prompt: text in front of each item's; None for the folder's prompt ``document``, if any.
        fields: text fields of an item, in the order in which they are written.
        revision: branch, tag or commit on the hub.
        batch_size: texts per forward pass.
    """

    model: Text = MINILM
    pooling: Pooling | None = None
    normalize: Switch | None = None
    max_length: Count | None = None
    profile_prompt: Text | None = None
    item_prompt: Text | None = None
    fields: Annotated[tuple[TextField, ...], Listed] = FIELDS
    revision: Text | None = None
    batch_size: Count = 32

    __repr__ = settings_repr

    @field_validator("fields")
    @classmethod
    def _some(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if not fields or len(set(fields)) < len(fields):
            raise wrong(f"must name some of {', '.join(FIELDS)}, each once", fields)
        return fields


@settings(frozen=True, repr=False)
class FindSettings:
    """How large the blocks of a search over the catalogue are: speed and memory, and nothing else.

    Attributes:
        profiles_per_block: profiles whose scores are held at once.
        items_per_block: items that they are compared with at once.
    """

    profiles_per_block: Count = 64
    items_per_block: Count = 2048

    __repr__ = settings_repr


def _mixture(value: dict[str, float]) -> dict[str, float]:
    for name in value:
        if REWARD.fullmatch(name) is None:
            raise wrong(
                "is no reward: known are ndcg, mrr, recall@k, and similarity, ndcg@k and mrr@k", name, name
            )
        if name == "recall":
            raise wrong("needs a k, such as recall@10: every item is among all of them", name, name)
    if not any(value.values()):
        raise wrong("must give some reward a weight", value)
    return value


Mixture = Annotated[
    dict[str, Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]], AfterValidator(_mixture)
]


@settings(frozen=True, repr=False)
class RewardSettings:
    """What a profile is worth.

    Attributes:
        weights: rewards and their weights, summed: ``ndcg`` (``1 / log2(rank + 1)``), ``mrr`` (``1 / rank``), each over
            the whole catalogue or the best ``k`` (``ndcg@20``), ``recall@k``, ``similarity`` (of profile and target).
    """

    weights: Mixture = Field(default_factory=lambda: {"ndcg": 1.0})

    __repr__ = settings_repr


# ----------------------------------------------------------------- the embedder's phase


@settings(frozen=True, repr=False)
class InfoNCESettings:
    """The objective: the target among all items of a batch.

    Attributes:
        name: ``infonce``.
        temperature: what similarities are divided by.
        learned: whether the temperature learns too; it starts from ``temperature`` and stays above .01.
        hard_negatives: of each profile so many of the items that the embedder ranks highest when the training begins,
            in the batch of that profile.
        dropout: whether the encoder's own dropout counts while it learns.
    """

    name: Literal["infonce"] = "infonce"
    temperature: Positive = 0.1
    learned: Switch = False
    hard_negatives: Amount = 0
    dropout: Switch = False

    __repr__ = settings_repr

    @field_validator("temperature")
    @classmethod
    def _warm(cls, temperature: float) -> float:
        if temperature < 0.01:
            raise wrong(f"is {temperature}; below .01 gradients are noise", temperature)
        return temperature


@settings(frozen=True, repr=False)
class EmbedderData:
    """What a step learns from.

    Attributes:
        pairs_per_batch: profiles, over all processes, whose targets are each other's negatives, about.
        pairs_per_step: profiles that an optimizer step learns from, about: several batches.
    """

    pairs_per_batch: Count = 32
    pairs_per_step: Count = 32

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class EmbedderOptimizer(OptimizerSettings):
    __doc__ = OptimizerSettings.__doc__

    weight_decay: NotNegative = 0.01
    betas: Annotated[tuple[PartOfOne, PartOfOne], Listed] = (0.9, 0.999)

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class EmbedderEngine:
    """How steps are computed.

    Attributes:
        precision: ``float32``, ``bfloat16`` (autocast; the weights stay float32), or ``auto``: bfloat16 where the
            device computes in it. Similarities are always float32.
        tf32: whether GPUs that can multiply what stays float32 in TensorFloat-32.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    tf32: Switch = True

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class EmbedderValidation:
    """What is asked of the embedder while it learns: the whole catalogue is encoded, and the targets of validation
    profiles are ranked in it.

    Attributes:
        every: steps between validations, or ``epoch``; None validates never.
        metric: by which the best checkpoint is chosen: ``ndcg@10``, ``mrr`` or ``recall@10``.
        patience: validations without a better one before training stops; 0 never stops.
        first: validate before the first step as well, so that a phase which finds nothing better ends as it began.
    """

    every: Literal["epoch"] | Count | None = None
    metric: Literal["ndcg@10", "mrr", "recall@10"] = "ndcg@10"
    patience: Patience = 0
    first: Switch = False

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class EmbedderStage(TrainingTable):
    """How an embedder learns from profiles and the items that were right for them.

    Attributes:
        epochs: how often every pair is seen; 1 where neither this nor ``steps`` is given.
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

    epochs: Count | None = None
    steps: Steps = None
    learning_rate: Positive = 2e-5
    data: EmbedderData = EmbedderData()
    objective: Annotated[InfoNCESettings, named("name")] = InfoNCESettings()
    optimizer: Annotated[EmbedderOptimizer, named("name")] = EmbedderOptimizer()
    schedule: Annotated[ScheduleSettings, named("name"), Downwards] = ScheduleSettings()
    engine: EmbedderEngine = EmbedderEngine()
    validation: EmbedderValidation = EmbedderValidation()
    checkpoints: CheckpointSettings = CheckpointSettings()
    logs: LogSettings = LogSettings()

    EPOCHS: ClassVar = 1
    SILENT: ClassVar = ("checkpoints.", "logs.")

    @property
    def name(self) -> str:
        """Of its training, in logs and bars."""
        return EMBEDDER

    @property
    def weights(self) -> str | None:
        """It begins with the embedder it is given."""
        return None
