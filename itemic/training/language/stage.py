"""What one stage of training does: a frozen table of numbers, checked at once, importable without torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from itemic.errors import ConfigError
from itemic.text import settings_repr
from itemic.trackers import TRACKERS

TRAIN = ("all", "embeddings", "last-layers", "lora", "qlora")
PACKING = ("forest", "blocks", "none")
OPTIMIZERS = ("adamw", "adamw-8bit", "adafactor", "muon")
SCHEDULES = ("cosine", "linear", "constant", "wsd")
PRECISIONS = ("auto", "float32", "bfloat16")
NORMALIZERS = ("token", "row")
SUPERVISE = ("all", "itemic", "everything")
OVERLONG = ("keep-latest", "drop", "keep-end", "keep-start", "split")
EPOCH = "epoch"
ALL = "all"
SILENT = (
    "name",
    "checkpoints",
    "log_every",
    "samples",
    "trackers",
    "workers",
)  # no weight depends on them


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: a short name for logs and bars.
        train: which weights learn: ``all``; ``embeddings`` for the rows of the index's tokens alone
            (everything else, the head's other rows included, is bit-identical afterwards); ``last-layers`` for
            these rows, the last ``last_layers`` layers and the norm after them; ``lora`` for these rows and
            low-rank adapters of the layers' matrices (Hu et al. 2022), which are added to the matrices at the
            end; ``qlora`` for the same over layers held in 4 bits while they train (Dettmers et al. 2023).
        last_layers: how many, under ``train: last-layers``.
        lora_rank: columns of an adapter's two factors.
        lora_alpha: an adapter's product is scaled by ``lora_alpha / lora_rank``.
        lora_dropout: share of an adapter's input that is zeroed while training.
        lora_targets: names of the layers' matrices that get adapters, such as ``q_proj``; none named means all.
        weights: begin with the weights of this checkpoint (a folder ``step-…`` of an earlier run); optimizer,
            schedule and data begin anew.
        epochs: how often every conversation is seen; 1 where neither this nor ``steps`` is given.
        steps: optimizer steps, instead of ``epochs``; the data is gone through as often as it takes.
        tokens_per_step: forest tokens of an optimizer step, about; several blocks are accumulated to reach
            it.
        block_tokens: forest tokens computed at once, at most; what bounds the memory.
        packing: ``forest`` (rows that share a beginning are computed once), ``blocks`` (rows side by side), or
            ``none`` (row after row): the same loss, for less and less speed.
        max_length: the longest row, in tokens; never more than the positions that the model was made for.
        overlong: what becomes of a longer row: ``keep-latest`` (the oldest items of its history go until it fits;
            of a row without a history the last tokens stay), ``drop``, ``keep-end`` (its last tokens),
            ``keep-start``, or ``split`` (several rows; what begins a later one is predicted from nothing before it).
        supervise: which tokens carry loss: ``all`` of the assistant's (of a plain text's: all), ``itemic`` for the
            index's tokens among these alone, or ``everything``: all tokens of a conversation, whoever's, headers
            of turns included.
        think_pattern: put conversations into OpenOneRec's think pattern: a user's turn says at its end whether the
            answer has thoughts, and an answer without any begins with an empty block. The model remembers it and is
            asked that way. None leaves it as the model has it.
        minibatch_size: rows of the head computed at once, which bounds the memory of the logits.
        normalizer: what a step's loss is the mean over: each weighted ``token`` or each ``row`` (which then counts
            the same, however many of its tokens are weighted).
        sources: how often an epoch sees the conversations of a source: 1 (also where a source isn't named)
            all of them once, .25 a fresh random quarter of their groups each epoch, 3 three times, 0 never.
        stream: read the conversations' files while training goes on, through a buffer, instead of encoding all
            of them first and keeping the tokens on the disk: for data that don't fit or shouldn't wait.
        shuffle_buffer: conversations that a stream holds as tokens at most, those that are being encoded included;
            half of them are given out in random order while the other half is made.
        workers: processes that encode a stream's conversations; 0 encodes them in a thread of the training's own.
            What is trained on is the same for any number.
        learning_rate: the peak.
        min_lr: where the schedule ends.
        schedule: the way from ``learning_rate`` down to ``min_lr``: ``cosine``, ``linear``, ``constant``
            (stays up), or ``wsd``: stays up and falls in the last ``decay`` of the steps.
        schedule_steps: where the schedule ends; training goes on at ``min_lr``. None for the last step.
        decay: the fall of ``wsd``: below 1 a share of the schedule's steps, from 1 on a number of steps.
        warmup: the linear rise at the start: below 1 a share of all steps, from 1 on a number of steps.
        optimizer: ``adamw``; ``adamw-8bit`` (its state in 8 bits, by bitsandbytes); ``adafactor`` (a matrix's
            second moments by row and column); ``muon`` for the layers' matrices, scaled so that AdamW's
            learning rates fit, beside AdamW for the rest.
        weight_decay: decoupled decay; on matrices only, never on norms, biases, embeddings or the head.
        betas: AdamW's two decay rates; Muon's momentum is the first.
        clip: the largest global norm of the gradient of the weights that learn; 0 is off.
        dropout: share of the token embeddings and of the outputs of each attention and feed-forward layer that
            is zeroed while training. It is the only dropout: what a base's own configuration has is off.
        ema: decay of the exponential moving average of the weights, e.g. .999; 0 is off. The average is what
            is validated, sampled from and saved.
        label_smoothing: share of a target's probability that is spread over the vocabulary.
        gradient_checkpointing: keep only the layers' inputs and compute the rest again for the gradient: less
            memory, about a third more time.
        compile: let torch.compile fuse the feed-forward layers and norms; the first steps wait for it.
        precision: ``float32``, ``bfloat16`` (autocast; the weights stay float32), or ``auto``: bfloat16 where
            the device computes in it (CUDA, CPUs with AMX or AVX-512-BF16).
        tf32: whether GPUs that can multiply what stays float32 in TensorFloat-32; other devices don't change.
        validate_every: steps between validations, or ``epoch``; None validates never.
        validate_task: the task whose prompts a validation asks; ``{task: C, max_items: 20}`` gives it options.
        validate_requests: how many requests of the validation split a validation asks, chosen once by the
            seed.
        validate_beams: beams of a validation's search.
        metric: the validated number by which the best checkpoint is chosen and training stops early; more is
            better.
        patience: validations without a better one before training stops; 0 never stops.
        checkpoints: ``{every: 500, keep: …}``: steps between checkpoints (0 writes none but those of a better
            validation), and how many of the latest stay, beside the best: a number or ``all``, which then stay when
            the stage is done as well. Without ``keep`` there are two, which go when the model is there.
        samples: how many prompts are answered at each validation, or at the end where there is none, to be read:
            in the log and in the trackers.
        log_every: steps between log lines.
        trackers: where else the numbers go, beside ``log.jsonl``: ``tensorboard``, ``wandb``, ``swanlab`` and
            ``trackio``, each an extra of its name and set up by its own environment variables.
    """

    name: str = "train"
    train: str = "all"
    last_layers: int = 0
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()
    weights: str | None = None
    epochs: int | None = None
    steps: int | None = None
    tokens_per_step: int = 8192
    block_tokens: int = 4096
    packing: str = "forest"
    max_length: int = 1024
    overlong: str = "keep-latest"
    supervise: str = "all"
    think_pattern: bool | None = None
    minibatch_size: int = 2048
    normalizer: str = "token"
    sources: dict[str, float] = field(default_factory=dict)
    stream: bool = False
    shuffle_buffer: int = 65_536
    workers: int = 0
    learning_rate: float = 1e-3
    min_lr: float = 0.0
    schedule: str = "cosine"
    schedule_steps: int | None = None
    warmup: float = 0.03
    decay: float = 0.1
    optimizer: str = "adamw"
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    dropout: float = 0.0
    ema: float = 0.0
    label_smoothing: float = 0.0
    gradient_checkpointing: bool = False
    compile: bool = False
    precision: str = "auto"
    tf32: bool = True
    validate_every: int | str | None = None
    validate_task: str | dict[str, Any] = "C"
    validate_requests: int = 1000
    validate_beams: int = 20
    metric: str = "ndcg@10"
    patience: int = 0
    checkpoints: dict[str, int | str] = field(default_factory=dict)
    samples: int = 0
    log_every: int = 10
    trackers: tuple[str, ...] = ()

    __repr__ = settings_repr

    def __post_init__(self) -> None:
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)
        faults = _faults(self)
        if faults:
            raise ConfigError(f"stage {self.name!r}: " + "; ".join(faults), "Mend these keys of the stage.")
        object.__setattr__(self, "betas", (float(self.betas[0]), float(self.betas[1])))
        object.__setattr__(self, "lora_targets", tuple(self.lora_targets))
        object.__setattr__(self, "trackers", tuple(self.trackers))

    @classmethod
    def of(cls, value: Stage | Mapping[str, Any]) -> Stage:
        """A stage from a mapping; unknown keys are refused.

        Raises:
            ConfigError: naming every unknown key, or every value that can't work.
        """
        if isinstance(value, Stage):
            return value
        known = [f.name for f in fields(cls)]
        unknown = [key for key in value if key not in known]
        if unknown:
            hints = [_hint(str(key), known) for key in unknown]
            raise ConfigError(
                f"unknown keys in a training stage: {', '.join(hints)}", f"Known: {', '.join(known)}."
            )
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        lists = {key: list(getattr(self, key)) for key in ("betas", "lora_targets", "trackers")}
        return asdict(self) | lists

    @property
    def learns_rows(self) -> bool:
        """Whether of the embeddings only the rows of the index's tokens learn."""
        return self.train != "all"

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints; 0 for none but the best."""
        return int(self.checkpoints.get("every", 500))

    @property
    def checkpoints_kept(self) -> int | None:
        """How many of the latest checkpoints stay; None for all."""
        keep = self.checkpoints.get("keep", 2)
        return None if keep == ALL else int(keep)

    @property
    def blocks_per_step(self) -> int:
        """Blocks accumulated for one optimizer step."""
        return max(1, round(self.tokens_per_step / self.planned_block))

    @property
    def planned_block(self) -> int:
        """Forest tokens of a block: no more than a step needs."""
        return min(self.block_tokens, self.tokens_per_step)

    def warmup_steps(self, total: int) -> int:
        """Steps of the linear rise, of ``total``."""
        return round(self.warmup * total) if self.warmup < 1 else int(self.warmup)

    def decay_steps(self, total: int) -> int:
        """Steps of the fall at the end of ``wsd``, of ``total``."""
        return round(self.decay * total) if self.decay < 1 else int(self.decay)


def _hint(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f"{key} (did you mean {near[0]}?)" if near else key


def _faults(stage: Stage) -> list[str]:
    """Every reason why a stage can't work."""
    faults = _type_faults(stage)
    if faults:
        return faults
    for key, choices in (
        ("train", TRAIN),
        ("optimizer", OPTIMIZERS),
        ("packing", PACKING),
        ("schedule", SCHEDULES),
        ("precision", PRECISIONS),
        ("normalizer", NORMALIZERS),
        ("overlong", OVERLONG),
        ("supervise", SUPERVISE),
    ):
        if getattr(stage, key) not in choices:
            faults.append(f"{key} is {getattr(stage, key)!r}, not one of {', '.join(choices)}")
    if stage.epochs is not None and stage.steps is not None:
        faults.append("epochs and steps are both given; give one")
    for key in (
        "epochs",
        "steps",
        "tokens_per_step",
        "block_tokens",
        "minibatch_size",
        "max_length",
        "validate_requests",
        "log_every",
        "lora_rank",
        "schedule_steps",
        "shuffle_buffer",
    ):
        if getattr(stage, key) is not None and getattr(stage, key) < 1:
            faults.append(f"{key} is {getattr(stage, key)}, it must be at least 1")
    if stage.validate_beams < 10:
        faults.append(f"validate_beams is {stage.validate_beams}, ten items need at least 10")
    for key in (
        "min_lr",
        "warmup",
        "decay",
        "weight_decay",
        "clip",
        "patience",
        "samples",
        "last_layers",
        "workers",
    ):
        if getattr(stage, key) < 0:
            faults.append(f"{key} is {getattr(stage, key)}, it must not be negative")
    for key in ("dropout", "ema", "label_smoothing", "lora_dropout"):
        if not 0 <= getattr(stage, key) < 1:
            faults.append(f"{key} is {getattr(stage, key)}, it must be in [0, 1)")
    return faults + _other_faults(stage)


def _other_faults(stage: Stage) -> list[str]:
    faults = []
    if stage.learning_rate <= 0:
        faults.append(f"learning_rate is {stage.learning_rate}, it must be positive")
    if stage.min_lr > stage.learning_rate:
        faults.append(f"min_lr {stage.min_lr} is above learning_rate {stage.learning_rate}")
    if (stage.train == "last-layers") != (stage.last_layers > 0):
        faults.append(f"last_layers is {stage.last_layers} with train {stage.train!r}; they go together")
    if not all(isinstance(target, str) for target in stage.lora_targets):
        faults.append(f"lora_targets are {list(stage.lora_targets)}, they must be names")
    unknown = [str(name) for name in stage.trackers if name not in TRACKERS]
    if unknown:
        faults.append(f"trackers {', '.join(unknown)} are unknown; known are {', '.join(TRACKERS)}")
    if len(stage.betas) != 2 or not all(isinstance(b, int | float) and 0 <= b < 1 for b in stage.betas):
        faults.append(f"betas are {stage.betas}, they must be two numbers in [0, 1)")
    faults += _checkpoint_faults(stage.checkpoints)
    every = stage.validate_every
    if isinstance(every, str) and every != EPOCH:
        faults.append(f"validate_every is {every!r}, neither a number of steps nor {EPOCH!r}")
    if isinstance(every, int) and every < 1:
        faults.append(f"validate_every is {every}, it must be at least 1")
    if isinstance(stage.validate_task, dict) and "task" not in stage.validate_task:
        faults.append("validate_task has options but no task")
    if stage.patience and every is None:
        faults.append("patience needs validate_every")
    sizes = (stage.tokens_per_step, stage.block_tokens, stage.shuffle_buffer)
    if stage.stream and min(sizes) > 0 and stage.shuffle_buffer < 2 * stage.blocks_per_step:
        faults.append(
            f"shuffle_buffer is {stage.shuffle_buffer}, {stage.blocks_per_step} blocks a step need twice as many"
        )
    negative = [source for source, weight in stage.sources.items() if weight < 0]
    if negative:
        faults.append(f"sources {', '.join(negative)} have negative weights")
    return faults


def _checkpoint_faults(rule: Mapping[str, Any]) -> list[str]:
    known = ["every", "keep"]
    faults = [f"checkpoints has no {_hint(str(key), known)}" for key in rule if key not in known]
    for key, least, word in (("every", 0, None), ("keep", 1, ALL)):
        value = rule.get(key, least)
        if value != word and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            choice = f" or {word}" if word else ""
            faults.append(f"checkpoints.{key} is {value!r}, it must be a number from {least} on{choice}")
    return faults


_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "train": (str,),
    "overlong": (str,),
    "supervise": (str,),
    "validate_task": (str, dict),
    "normalizer": (str,),
    "schedule": (str,),
    "precision": (str,),
    "metric": (str,),
    "sources": (dict,),
    "checkpoints": (dict,),
    "betas": (tuple, list),
    "lora_targets": (tuple, list),
    "trackers": (tuple, list),
    "optimizer": (str,),
    "packing": (str,),
    "gradient_checkpointing": (bool,),
    "compile": (bool,),
    "tf32": (bool,),
    "stream": (bool,),
    "think_pattern": (bool, type(None)),
    "schedule_steps": (int, type(None)),
    "weights": (str, type(None)),
    "epochs": (int, type(None)),
    "steps": (int, type(None)),
    "validate_every": (int, str, type(None)),
    **dict.fromkeys(
        (
            "learning_rate",
            "min_lr",
            "warmup",
            "decay",
            "weight_decay",
            "clip",
            "dropout",
            "ema",
            "label_smoothing",
            "lora_alpha",
            "lora_dropout",
        ),
        (int, float),
    ),
}


def _type_faults(stage: Stage) -> list[str]:
    faults = []
    for key in (f.name for f in fields(stage)):
        value = getattr(stage, key)
        kinds = _KINDS.get(key, (int,))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
            faults.append(f"{key} is {value!r}, it must be {names}")
    if not faults:
        faults += [
            f"sources.{source} is {weight!r}, it must be a number"
            for source, weight in stage.sources.items()
            if not isinstance(weight, int | float) or isinstance(weight, bool)
        ]
    return faults
