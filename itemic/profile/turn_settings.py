"""How a writer learns, and how it and an embedder take turns: small frozen tables, importable without torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from itemic.rl.settings import GroupData, GroupSettings, RebelSettings, RLEngine, RLOptimizer
from itemic.settings import Amount, Count, Positive, Text, named, settings, wrong
from itemic.text import settings_repr
from itemic.training.language.stage import WORDS, Learns
from itemic.training.settings import (
    CheckpointSettings,
    Downwards,
    LogSettings,
    ScheduleSettings,
    Steps,
    TrainingTable,
    ValidationSettings,
)

Probability = Annotated[float, Field(strict=True, gt=0, le=1)]


@settings(frozen=True, repr=False)
class Drawing:
    """How profiles are drawn.

    Attributes:
        samples: profiles of each user.
        max_new_tokens: of a profile; one that hasn't ended by then is counted, and worth 0.
        temperature: of drawing.
        top_k: tokens that are drawn among; None for all.
        top_p: of what may follow the smallest set with this probability.
        batch_tokens: whose keys are held at once, of prompts and of profiles, each of which counts for
            ``max_new_tokens``; bounds the memory.
    """

    samples: Count = 2
    max_new_tokens: Count = 512
    temperature: Positive = 1.0
    top_k: Count | None = None
    top_p: Probability = 1.0
    batch_tokens: Count = 1 << 16

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class WriterRollout(Drawing):
    """How the profiles of a group are drawn, and learned from.

    Attributes:
        samples, max_new_tokens, temperature, top_k, top_p, batch_tokens: as for drawing alone; at least two samples,
            which are compared.
        steps_per_rollout: optimizer steps that a rollout is cut into.
        epochs: how often a rollout is learned from.
        oversample: how many times as many prompts may be asked to find groups whose rewards differ; 1 takes what comes.
    """

    samples: Annotated[int, Field(strict=True, ge=2)] = 2
    steps_per_rollout: Count = 1
    epochs: Count = 4
    oversample: Count = 1

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class WriterValidation(ValidationSettings):
    """What is measured while a writer learns: the reward of the most probable profile of users who are held out.

    Attributes:
        every: steps between validations, or ``epoch``; None validates never.
        task: nothing that a writer knows; leave it out.
        requests: how many users are asked, chosen once by the seed.
        beams: nothing that a writer knows; leave it out.
        metric: the validated number by which the best checkpoint is chosen; more is better.
        patience: validations without a better one before training stops; 0 never stops.
        samples: how many of these profiles the log shows.
        first: validate before the first step, so that the writer that was found stays where nothing better is.
    """

    metric: Text = "reward"

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class WriterStage(TrainingTable):
    """One training of a writer by the worth of its own profiles. A bare word stands for the first key of ``train``,
    ``optimizer``, ``schedule`` and ``objective``: ``objective: grpo``.

    Attributes:
        name: a short name for logs and bars.
        train: which weights learn, as in any stage; rows of items' tokens, which no profile has, never do under
            anything but ``all``.
        epochs: how often every session is asked about; 1 where neither this nor ``steps`` is given.
        steps: optimizer steps, instead of ``epochs``.
        learning_rate: the peak.
        rollout: how profiles are drawn.
        objective: what is learned; ``rebel``, or a group objective of reinforcement learning.
        data: how a step is laid out.
        optimizer: how gradients become steps.
        schedule: the way of the learning rate.
        engine: how steps are computed.
        validation: what is measured on the way.
        checkpoints: what is written on the way.
        logs: who is told the numbers.
        examples: steps between profiles that are written out to be read, to ``profiles.jsonl``; 0 writes none.
    """

    name: Text = "writer"
    train: Annotated[Learns, named(WORDS["train"])] = Learns()
    epochs: Count | None = None
    steps: Steps = None
    learning_rate: Positive = 1e-6
    rollout: WriterRollout = WriterRollout()
    objective: Annotated[GroupSettings, named("name")] = GroupSettings(name="rebel", rebel=RebelSettings())
    data: GroupData = GroupData(prompts_per_step=16)
    optimizer: Annotated[RLOptimizer, named(WORDS["optimizer"])] = RLOptimizer()
    schedule: Annotated[ScheduleSettings, named(WORDS["schedule"]), Downwards] = ScheduleSettings()
    engine: RLEngine = RLEngine()
    validation: WriterValidation = WriterValidation()
    checkpoints: CheckpointSettings = CheckpointSettings(every=50)
    logs: LogSettings = LogSettings()
    examples: Amount = 50

    SILENT: ClassVar = ("name", "checkpoints.", "logs.", "validation.samples", "examples", "rollout.batch_")

    @field_validator("objective")
    @classmethod
    def _for_texts(cls, objective: GroupSettings, info: ValidationInfo) -> GroupSettings:
        if objective.name in ("ppo", "expected"):
            why = {
                "ppo": "which is for lists",
                "expected": "which needs answers that all differ, and profiles may come twice",
            }[objective.name]
            raise wrong(f"is {objective.name}, {why}; use rebel, or another objective", None, "name")
        return objective

    @property
    def weights(self) -> str | None:
        """It begins with the writer's own."""
        return None

    @property
    def passes(self) -> int:
        """How often a rollout is learned from."""
        return self.rollout.epochs

    @property
    def max_kl(self) -> float | None:
        """No pass is too far."""
        return None

    @property
    def copies(self) -> int:
        """Further copies of the weights that learn: those of the start, and a reference's."""
        return 1 + (self.objective.compares and self.objective.other is None)

    @property
    def learns_rows(self) -> bool:
        """Whether of the embeddings only the rows of the index's tokens learn: none are an index's here."""
        return False


@settings(frozen=True, repr=False)
class TurnSettings:
    """How two models take turns.

    Attributes:
        iterations: how often each of them learns.
        reference: whom a writer is kept near to: the ``first`` writer, or the one that its ``phase`` begins with.
        keep: ``all`` turns' models, or the ``last`` ones: weights of a turn go when the next turn's are there.
    """

    iterations: Count = 5
    reference: Literal["first", "phase"] = "first"
    keep: Literal["all", "last"] = "last"

    __repr__ = settings_repr
