"""What one stage of a language model's training does: small frozen tables, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, ClassVar, Literal, Protocol, get_args

from pydantic import Field, ValidationInfo, field_validator

from itemic.settings import (
    Amount,
    Count,
    Listed,
    NotNegative,
    Number,
    PartOfOne,
    Positive,
    Share,
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
    EngineSettings,
    LogSettings,
    OptimizerSettings,
    ScheduleSettings,
    Steps,
    TrainingSettings,
    TrainingTable,
    ValidationSettings,
)

Train = Literal["all", "embeddings", "last-layers", "lora", "qlora"]
Packing = Literal["forest", "blocks", "none"]
Overlong = Literal["keep-latest", "drop", "keep-end", "keep-start", "split"]
Supervise = Literal["all", "itemic", "everything"]
AtLeastOne = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1)]
PACKING: tuple[Packing, ...] = get_args(Packing)
OVERLONG: tuple[Overlong, ...] = get_args(Overlong)
WORDS = {
    "train": "what",
    "schedule": "name",
    "optimizer": "name",
    "objective": "name",
}  # key of a part's bare word


@settings(frozen=True, repr=False)
class Learns:
    """Which weights learn.

    Attributes:
        what: ``all``; ``embeddings`` for the rows of the index's tokens alone (everything else, the head's other rows
            included, is bit-identical afterwards); ``last-layers`` for these rows, the last ``layers`` layers and the
            norm after them; ``lora`` for these rows and low-rank adapters of the layers' matrices (Hu et al. 2022),
            which are added to the matrices at the end; ``qlora`` for the same over layers held in 4 bits while they
            train (Dettmers et al. 2023).
        layers: how many, under ``last-layers``.
        rank: columns of an adapter's two factors.
        alpha: an adapter's product is scaled by ``alpha / rank``.
        dropout: share of an adapter's input that is zeroed while training.
        targets: names of the layers' matrices that get adapters, such as ``q_proj``; none named means all.
    """

    what: Train = "all"
    layers: Annotated[Amount, Field(validate_default=True)] = 0
    rank: Count = 16
    alpha: Number = 32.0
    dropout: PartOfOne = 0.0
    targets: Annotated[tuple[Text, ...], Listed] = ()

    __repr__ = settings_repr

    @field_validator("layers")
    @classmethod
    def _layers(cls, layers: int, info: ValidationInfo) -> int:
        what = info.data.get("what")
        if what is not None and (what == "last-layers") != (layers > 0):
            raise wrong(f"is {layers} where {what} learns; it and last-layers go together", layers)
        return layers


@settings(frozen=True, repr=False)
class Balance:
    """Which conversations an epoch shows how often, by how frequent what they teach is.

    Attributes:
        by: what is counted: the ``item`` that a conversation's supervised part names.
        power: a conversation is drawn in proportion to its item's frequency to the power of ``-power``: 0 shows each
            once, 1 all items equally often.
        most: a conversation is drawn at most so many times, on average over epochs.
    """

    by: Literal["item"] = "item"
    power: Share = 0.5
    most: AtLeastOne = 10.0

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class ItemWeights:
    """How much the loss of an item's tokens counts; that of other words counts 1.

    Attributes:
        frequency: in proportion to the item's count to the power of ``-frequency``, 1 on average: 0 weighs all alike,
            1 gives every item the same sum.
        half_life: days after which an interaction counts half: ``2 ** (-age / half_life)``, its age the days before the
            newest one that is taught. None for no decay. The data need times.
        most: the largest weight by frequency.
    """

    frequency: Share = 0.0
    half_life: Positive | None = None
    most: AtLeastOne = 10.0

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class Unlikelihood:
    """What it costs to name an item again (Welleck et al. 2020), for lists in which nothing may come twice.

    At every token that names an item, all those that lead to nothing but items that the same supervised text has named
    before cost ``-log(1 - P)``, ``P`` their probability together. As the loss of a token that names something new is
    that of the choice among what is new, and that same cost once, it then counts ``1 + weight`` times.

    Attributes:
        weight: what it counts beside the loss of the token that stands there; 0 for nothing.
        sources: the same for conversations of a source, where that isn't ``weight``.
    """

    weight: NotNegative = 1.0
    sources: dict[Text, NotNegative] = field(default_factory=dict)

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class StageData:
    """What a step learns from, and how it is laid out.

    Attributes:
        tokens_per_step: forest tokens of an optimizer step, about; several blocks are accumulated to reach it.
        block_tokens: forest tokens computed at once, at most; what bounds the memory.
        packing: ``forest`` (rows that share a beginning are computed once), ``blocks`` (rows side by side), or
            ``none`` (row after row): the same loss, for less and less speed.
        max_length: the longest row, in tokens; never more than the positions that the model was made for.
        overlong: what becomes of a longer row: ``keep-latest`` (the oldest items of its history go until it fits; of a
            row without a history the last tokens stay), ``drop``, ``keep-end`` (its last tokens), ``keep-start``, or
            ``split`` (several rows; what begins a later one is predicted from nothing before it).
        sources: how often an epoch sees the conversations of a source: 1 (also where a source isn't named) all of them
            once, .25 a fresh random quarter of their groups each epoch, 3 three times, 0 never.
        stream: read the conversations' files while training goes on, through a buffer, instead of encoding all of them
            first and keeping the tokens on the disk: for data that don't fit or shouldn't wait.
        shuffle_buffer: conversations that a stream holds as tokens at most, those that are being encoded included; half
            of them are given out in random order while the other half is made.
        workers: processes that encode a stream's conversations; 0 encodes them in a thread of the training's own. What
            is trained on is the same for any number.
        think_pattern: put conversations into OpenOneRec's think pattern: a user's turn says at its end whether the
            answer has thoughts, and an answer without any begins with an empty block. The model remembers it and is
            asked that way. None leaves it as the model has it.
        balance: show rare items more often, within each source; an epoch keeps its size. None shows all alike. Not for
            a stream, which doesn't know its frequencies before it is read.
    """

    tokens_per_step: Count = 8192
    block_tokens: Count = 4096
    packing: Packing = "forest"
    max_length: Count = 1024
    overlong: Overlong = "keep-latest"
    sources: dict[Text, NotNegative] = field(default_factory=dict)
    stream: Switch = False
    shuffle_buffer: Annotated[Count, Field(validate_default=True)] = 65_536
    workers: Amount = 0
    think_pattern: Switch | None = None
    balance: Annotated[Balance | None, Field(validate_default=True)] = None

    __repr__ = settings_repr

    @property
    def blocks_per_step(self) -> int:
        """Blocks accumulated for one optimizer step."""
        return max(1, round(self.tokens_per_step / self.planned_block))

    @property
    def planned_block(self) -> int:
        """Forest tokens of a block: no more than a step needs."""
        return min(self.block_tokens, self.tokens_per_step)

    @field_validator("balance")
    @classmethod
    def _at_hand(cls, balance: Balance | None, info: ValidationInfo) -> Balance | None:
        if balance is not None and info.data.get("stream"):
            raise wrong("needs all conversations at hand, which a stream hasn't; set stream to false")
        return balance

    @field_validator("shuffle_buffer")
    @classmethod
    def _two_chunks(cls, buffer: int, info: ValidationInfo) -> int:
        if info.data.get("stream") and {"tokens_per_step", "block_tokens"} <= set(info.data):
            step, block = info.data["tokens_per_step"], info.data["block_tokens"]
            blocks = max(1, round(step / min(step, block)))
            if buffer < 2 * blocks:
                raise wrong(f"is {buffer}, {blocks} blocks a step need twice as many", buffer)
        return buffer


@settings(frozen=True, repr=False)
class NextTokenSettings:
    """The objective: every weighted token is predicted from those before it.

    Attributes:
        name: ``next-token``.
        label_smoothing: share of a target's probability that is spread over the vocabulary.
        dropout: share of the token embeddings and of the outputs of each attention and feed-forward layer that is
            zeroed while training. It is the only dropout: what a base's own configuration has is off.
        normalizer: what a step's loss is the mean over: each weighted ``token`` or each ``row`` (which then counts the
            same, however many of its tokens are weighted).
        supervise: which tokens carry loss: ``all`` of the assistant's (of a plain text's: all), ``itemic`` for the
            index's tokens among these alone, or ``everything``: all tokens of a conversation, whoever's, headers of
            turns included.
        weights: weigh the loss of items by how frequent they are, and how old the interaction is. None weighs all
            alike.
        scope: ``items`` for an item's tokens to compete with those alone that some item has there, so that no
            probability is lost to what constrained decoding never writes (RecLM-cgen's scope mask). An item's first
            token, which also says that there is an item, competes with the vocabulary, as everything does under None.
        unlikelihood: what it costs to name an item again; None for nothing.
    """

    name: Literal["next-token"] = "next-token"
    label_smoothing: PartOfOne = 0.0
    dropout: PartOfOne = 0.0
    normalizer: Literal["token", "row"] = "token"
    supervise: Supervise = "all"
    weights: ItemWeights | None = None
    scope: Literal["items"] | None = None
    unlikelihood: Unlikelihood | None = None

    __repr__ = settings_repr


_MOVED = {
    "last_layers": "train.layers",
    **{f"lora_{key}": f"train.{key}" for key in ("rank", "alpha", "dropout", "targets")},
    **{
        key: f"data.{key}"
        for key in (
            *("tokens_per_step", "block_tokens", "packing", "max_length", "overlong", "sources", "stream"),
            *("shuffle_buffer", "workers", "think_pattern"),
        )
    },
    **{key: f"objective.{key}" for key in ("label_smoothing", "dropout", "normalizer", "supervise")},
    **{
        key: f"engine.{key}"
        for key in ("precision", "tf32", "compile", "gradient_checkpointing", "minibatch_size")
    },
    **{key: f"schedule.{key}" for key in ("min_lr", "warmup", "decay")},
    "schedule_steps": "schedule.steps",
    **{key: f"optimizer.{key}" for key in ("weight_decay", "betas", "clip", "ema")},
    **{f"validate_{key}": f"validation.{key}" for key in ("every", "task", "requests", "beams")},
    **{key: f"validation.{key}" for key in ("metric", "patience", "samples")},
    "log_every": "logs.every",
    "trackers": "logs.trackers",
}


@settings(frozen=True, repr=False)
class Stage(TrainingTable):
    """One stage of training. A bare word stands for the first key of ``train``, ``optimizer``, ``schedule`` and
    ``objective``: ``schedule: linear``.

    Attributes:
        name: a short name for logs and bars.
        train: which weights learn.
        epochs: how often every conversation is seen; 1 where neither this nor ``steps`` is given.
        steps: optimizer steps, instead of ``epochs``; the data is gone through as often as it takes.
        learning_rate: the peak.
        weights: begin with the weights of this checkpoint (a folder ``step-…`` of an earlier run); optimizer, schedule
            and data begin anew.
        data: what a step learns from.
        optimizer: how gradients become steps.
        schedule: the way of the learning rate.
        objective: what is learned.
        engine: how steps are computed.
        validation: what is asked of the model on the way.
        checkpoints: what is written on the way.
        logs: who is told the numbers.
    """

    name: Text = "train"
    train: Annotated[Learns, named(WORDS["train"])] = Learns()
    epochs: Count | None = None
    steps: Steps = None
    learning_rate: Positive = 1e-3
    weights: Text | None = None
    data: StageData = field(default_factory=StageData)
    optimizer: Annotated[OptimizerSettings, named(WORDS["optimizer"])] = OptimizerSettings()
    schedule: Annotated[ScheduleSettings, named(WORDS["schedule"]), Downwards] = ScheduleSettings()
    objective: Annotated[NextTokenSettings, named(WORDS["objective"])] = NextTokenSettings()
    engine: EngineSettings = EngineSettings()
    validation: ValidationSettings = ValidationSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    logs: LogSettings = LogSettings()

    SILENT: ClassVar = ("name", "checkpoints.", "logs.", "data.workers", "validation.samples")
    LATER: ClassVar = ("data.balance", "objective.weights", "objective.scope", "objective.unlikelihood")
    MOVED: ClassVar[Mapping[str, str]] = _MOVED  # where keys stand that once stood here

    @field_validator("objective")
    @classmethod
    def _weighable(cls, objective: NextTokenSettings, info: ValidationInfo) -> NextTokenSettings:
        data: StageData | None = info.data.get("data")
        if objective.weights is None or data is None:
            return objective
        if data.stream:
            raise wrong(
                "needs all conversations at hand, which a stream hasn't; set data.stream to false",
                None,
                "weights",
            )
        if objective.weights.half_life is not None and data.overlong == "split":
            raise wrong(
                "doesn't know what becomes of rows under data.overlong split; use another rule",
                None,
                "weights",
                "half_life",
            )
        return objective

    @property
    def asks_times(self) -> bool:
        """Whether conversations must say when their items were taken."""
        return self.objective.weights is not None and self.objective.weights.half_life is not None

    @property
    def learns_rows(self) -> bool:
        """Whether of the embeddings only the rows of the index's tokens learn."""
        return self.train.what != "all"

    @property
    def copies(self) -> int:
        """Further copies of the weights that learn: none."""
        return 0


class Laid(Protocol):
    """How large the blocks of any stage are."""

    @property
    def blocks_per_step(self) -> int: ...
    @property
    def planned_block(self) -> int: ...


class LanguageStage(TrainingSettings, Protocol):
    """Any stage that trains a language model, whatever it learns for."""

    @property
    def train(self) -> Learns: ...
    @property
    def data(self) -> Laid: ...
    @property
    def engine(self) -> EngineSettings: ...
    @property
    def validation(self) -> ValidationSettings: ...
    @property
    def learns_rows(self) -> bool: ...
    @property
    def copies(self) -> int:
        """How many further copies of the weights that learn it keeps."""
