"""What a stage of reinforcement learning does: small frozen tables, importable without torch.

The parts of training are the loop's own; what is here is what is asked, how answers are drawn, what they are worth, and
what is learned from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

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
from itemic.training.language.stage import WORDS, Learns
from itemic.training.settings import (
    CheckpointSettings,
    Downwards,
    EngineSettings,
    LogSettings,
    OptimizerSettings,
    Precision,
    ScheduleSettings,
    Steps,
    TrainingTable,
    ValidationSettings,
)

How = Literal["beams", "sample", "both"]
Name = Literal[
    "grpo",
    "dr-grpo",
    "dapo",
    "gspo",
    "cispo",
    "rloo",
    "reinforce++",
    "expected",
    "dpo",
    "s-dpo",
    "ppo",
    "rebel",
]
# The keys of :data:`itemic.rl.rewards.REWARDS`, which a recipe that is checked in an instant can't import.
REWARD_NAMES = (
    "hit",
    "ranking",
    "prefix",
    "semantic",
    "teacher",
    "memory",
    "blend",
    "category",
    "diversity",
    "long-tail",
    "coverage",
    "format",
    "length",
)
# The same of whole lists: the keys of :data:`itemic.rl.lists.worth.LIST_REWARDS`.
LIST_REWARD_NAMES = ("items", "list", "count")
# What may be asked for lists beside the tasks of control themselves: RecLM-gen's names, each with the task that draws
# its requests and the kinds of those that it keeps; None for all.
RL_TASKS: Mapping[str, tuple[str, tuple[str, ...] | None]] = {
    "RLSeqRec": ("SFTSeqRec", None),
    "RLControlRec": ("SFTControlRec", None),
    "RLPersonalControlRec": ("SFTPersonalControlRec", None),
    "RL+PersonalControlRec": ("SFTPersonalControlRec", ("+",)),
    "RL-PersonalControlRec": ("SFTPersonalControlRec", ("-",)),
    "RLPersonalCategoryRate": ("SFTPersonalCategoryRate", None),
    "RLPersonalCategoryRateLP": ("SFTPersonalCategoryRate", ("LP",)),
    "RLPersonalCategoryRateMP": ("SFTPersonalCategoryRate", ("MP",)),
    "RLPersonalCategoryRateEP": ("SFTPersonalCategoryRate", ("EP",)),
    "RLSeqRanking": ("SFTSeqRanking", None),
    "RLItemCount": ("SFTItemCount", None),
}
# what an objective takes for advantages where nobody says otherwise
OWN_ADVANTAGES: Mapping[str, str] = {
    "dr-grpo": "centred",
    "rloo": "leave-one-out",
    "reinforce++": "step",
}


@settings(frozen=True, repr=False)
class Asks:
    """What the model is asked: places of the training split.

    Attributes:
        places: ``known`` for those whose next item is in the training split; ``ends`` for the end of each training
            history, whose next item nobody is told, for rewards that ask no target (a teacher's, the counts'); or
            ``both``.
        tasks: whose prompts are asked, and how often each is: ``[sequence]``, ``[{task: C, share: .5}, …]`` with the
            options that the model was trained with. Tasks that recommend ask about a history; those from text to an
            item ask about the item's text alone. None for the one that the recipe's evaluation asks. Under
            ``rollout.lists`` tasks of control by their names, or by RecLM-gen's of reinforcement learning
            (``RLSeqRec``, ``RL+PersonalControlRec``, …), at least one.
        requests: how many places an epoch sees, chosen once by the seed; None for all. Under ``rollout.lists`` how
            many requests an epoch draws anew; None for one of each user.
        per_user: of one user's places the latest ones; None for all.
        held_out: ask only about this share of the users, who are kept out of the recipe's conversations: what they
            chose is news to the model then. None asks about all users, and keeps out nobody.
        history: the latest items of a history that are asked about; None for as many as the dataset's split has.
    """

    places: Literal["known", "ends", "both"] = "known"
    tasks: Annotated[tuple[Text | dict[str, Any], ...], Listed] = ()
    requests: Count | None = None
    per_user: Count | None = None
    held_out: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    history: Count | None = None

    __repr__ = settings_repr

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, tasks: tuple[str | dict[str, Any], ...]) -> tuple[str | dict[str, Any], ...]:
        for number, task in enumerate(tasks):
            if isinstance(task, dict) and "task" not in task:
                raise wrong("is missing: options need the name of their task", task, number, "task")
        return tasks


@settings(frozen=True, repr=False)
class ThoughtSettings:
    """Thoughts before the answers: they are drawn freely, and each is searched behind.

    Attributes:
        count: thoughts of each prompt; they are a group.
        max_tokens: of a thought. One that hasn't ended by then is cut off, counted, and worth 0.
        temperature: of their drawing.
        top_p: of their drawing: the smallest set of tokens with this probability.
        merge: what a thought is worth: the ``best`` of the rewards of its answers, or their ``mean``.
        items: whether the answers behind each thought are a group to learn from as well.
    """

    count: Count = 4
    max_tokens: Count = 64
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    merge: Literal["best", "mean"] = "best"
    items: Switch = True

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class ListSettings:
    """Whole lists as answers, to requests that say what the list is to be. They are written by the sampler.

    Attributes:
        mode: ``soft`` (names of items alone are legal; which, and how many, the model decides), ``distinct`` (of these
            nothing twice, and nothing of the history), ``hard`` (what was asked for is kept to, whatever the model
            thinks) or ``free`` (anything may be written, and is then read).
        samples: lists of each prompt.
        greedy: whether one of them is the most probable token each time.
        temperature: of drawing the others.
        top_k: tokens that the others are drawn among; None for all.
        top_p: of what may follow the smallest set with this probability.
        most: items of a list at most, where the mode doesn't say; None for the largest number asked for and five more.
        max_new_tokens: of a list; None for as many as the longest one has.
    """

    mode: Literal["soft", "distinct", "hard", "free"] = "soft"
    samples: Count = 4
    greedy: Switch = True
    temperature: Positive = 0.7
    top_k: Count | None = 20
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    most: Count | None = None
    max_new_tokens: Count | None = None

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class RolloutSettings:
    """How the answers of a group are drawn.

    Attributes:
        how: ``beams`` (the most probable items, exactly), ``sample`` (items drawn as the model gives them), or ``both``
            (half of each; a beam's item isn't drawn again).
        answers: of each prompt.
        temperature: of drawing.
        top_p: of drawing: of what may follow the smallest set with this probability.
        replacement: whether an item may be drawn more than once. Without, drawing is by Gumbel top-k (Kool et al.
            2019), and all answers differ.
        normalize: over what an answer's probability is normalised, in rollouts and updates alike: ``vocab``, ``level``
            or ``legal``, as in evaluation.
        exclude_history: leave out the items of the prompt's own history; None for what the recipe's evaluation does,
            else not.
        add_target: put the target in place of the last answer where it isn't among them.
        suggest: rankers (``teacher``, ``memory``, or a baseline such as ``ridge``), and how many of the best items of
            each take the place of the last answers, where they aren't among them.
        oversample: how many times as many prompts may be tried until a step has all its groups with a signal; 1 takes
            groups as they come.
        steps_per_rollout: steps that one rollout serves, each with as many of its groups.
        epochs: how often a rollout's groups are learned from.
        thoughts: thoughts before the answers; None for none.
        lists: whole lists instead of single items; None for items. ``how``, ``answers``, ``temperature``, ``top_p`` and
            what follows them up to ``suggest`` is about items, but for ``normalize``: of a list a probability is
            normalised over the whole vocabulary (``vocab``) or over what the mode allows (``legal``).
    """

    how: How = "beams"
    answers: Annotated[int, Field(strict=True, ge=2)] = 16
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    replacement: Switch = False
    normalize: Literal["vocab", "level", "legal"] = "vocab"
    exclude_history: Annotated[Switch | None, Field(validate_default=True)] = None
    add_target: Switch = False
    suggest: Annotated[dict[Text, Count], Field(validate_default=True)] = field(default_factory=dict)
    oversample: Count = 1
    steps_per_rollout: Count = 1
    epochs: Count = 1
    thoughts: ThoughtSettings | None = None
    lists: ListSettings | None = None

    __repr__ = settings_repr

    @field_validator("lists")
    @classmethod
    def _alone(cls, lists: ListSettings | None, info: ValidationInfo) -> ListSettings | None:
        if lists is None:
            return None
        for key in ("thoughts", "add_target", "suggest", "replacement"):
            if info.data.get(key):
                raise wrong(f"are whole lists, which have no {key}; leave one of the two out", None)
        if info.data.get("normalize") == "level":
            raise wrong("are whole lists, which have no levels; set normalize to vocab or legal", None)
        if lists.mode == "free" and info.data.get("normalize") == "legal":
            raise wrong("is free, so everything is legal; set normalize to vocab", lists.mode, "mode")
        return lists

    @field_validator("replacement")
    @classmethod
    def _drawn(cls, replacement: bool, info: ValidationInfo) -> bool:
        if replacement and info.data.get("how", "sample") != "sample":
            raise wrong("is true, and beams never repeat an item; set how to sample", replacement)
        return replacement

    @field_validator("normalize")
    @classmethod
    def _sampled(cls, normalize: str, info: ValidationInfo) -> str:
        if normalize == "level" and info.data.get("replacement"):
            raise wrong(
                "is level, which drawing with replacement doesn't have; use vocab or legal", normalize
            )
        return normalize

    @field_validator("suggest")
    @classmethod
    def _room(cls, suggest: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        answers = info.data.get("answers")
        if answers is not None and sum(suggest.values()) >= answers:
            raise wrong(f"takes the place of all {answers} answers; leave the model some", suggest)
        return suggest

    @field_validator("exclude_history")
    @classmethod
    def _legal(cls, exclude: bool | None, info: ValidationInfo) -> bool | None:
        if exclude and info.data.get("normalize") == "legal":
            raise wrong(
                "is true under normalize legal, where the probability of an item would depend on what is left out; use "
                "level or vocab",
                exclude,
            )
        return exclude


@settings(frozen=True, repr=False)
class PPOSettings:
    """What belongs to ``ppo`` alone, see :mod:`itemic.rl.ppo`. The defaults are RecLM-gen's, but for ``whiten``.

    Attributes:
        kl: weight of the distance to the reference, token by token, which is taken off the rewards; 0 needs no
            reference.
        gamma: how much a reward counts one choice earlier.
        smoothing: λ of generalized advantage estimation: 1 believes the rewards, 0 the critic.
        whiten: ``rewards`` divides a rollout's rewards by their deviation and leaves their mean, ``advantages`` makes
            advantages 0 on average with deviation 1, ``both`` or ``none``.
        value_clip: how far a value may move from the one at the time of the rollout before that stops counting.
        value_weight: of the critic's loss.
        entropy: weight of the entropy, which is rewarded.
        passes: how often a rollout is learned from, at most; it stands for ``rollout.epochs``.
        max_kl: distance of the policy from the one that wrote the rollout at which no further pass begins; None for no
            limit.
        hidden: width of the value head's hidden layer; None for that of the model.
        critic: a folder of an earlier stage whose critic this one begins with; None for a new one.
    """

    kl: NotNegative = 0.3
    gamma: Share = 0.99
    smoothing: Share = 1.0
    whiten: Literal["rewards", "advantages", "both", "none"] = "both"
    value_clip: Positive = 0.2
    value_weight: NotNegative = 0.1
    entropy: NotNegative = 0.01
    passes: Count = 4
    max_kl: Positive | None = 0.05
    hidden: Count | None = None
    critic: Text | None = None

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class RebelSettings:
    """What belongs to ``rebel`` alone, see :mod:`itemic.rl.rebel`.

    Attributes:
        eta: η: how much more probable an answer is to become for each unit of reward that it has more than another.
        pairs: of a group ``all`` pairs, or its best answer and its worst (``best-worst``).
        kl: weight of the distance to the reference, which is taken off the rewards; 0 needs no reference.
        whiten: make the rewards of a rollout, over all ranks, 0 on average with deviation 1.
    """

    eta: Positive = 1.0
    pairs: Literal["all", "best-worst"] = "all"
    kl: NotNegative = 0.0
    whiten: Switch = True

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class GroupSettings:
    """The objective: what answers cost by their rewards, see :mod:`itemic.rl.losses`.

    Attributes:
        name: ``grpo``, ``dr-grpo``, ``dapo``, ``gspo``, ``cispo``, ``rloo``, ``reinforce++``; ``expected`` for the
            expected reward over a group's answers; ``dpo`` and ``s-dpo`` for preferences of its best answer; ``ppo``
            for lists, whose tokens have values; ``rebel`` for a regression of relative rewards.
        advantages: how rewards become advantages: ``group`` (less the group's mean, over its deviation), ``centred``,
            ``leave-one-out`` or ``step``; None for the objective's own.
        clip: how far below 1 a token's ratio may fall before it stops counting.
        clip_high: how far above 1; None for as far as ``clip``, under ``dapo`` .28.
        sharpness: under ``expected``: exponent of the probabilities.
        preference: β of ``dpo`` and ``s-dpo``.
        kl: weight of the distance to the reference; 0 needs no reference.
        estimator: of that distance: ``k1``, ``k2`` or ``k3``; ``expected`` has it exactly, over the answers of a group.
        reference: whose probabilities are kept to: the model's as the stage found it (``start``), its own of some steps
            ago (``synced``), or another model's, by its folder, of the same index and vocabulary.
        sync_every: under ``synced``: steps between taking over the weights of the moment.
        dropout: share of the embeddings and of the layers' outputs that is zeroed in updates; rollouts have none.
        ppo: what ``ppo`` has beside ``clip`` and ``clip_high``.
        rebel: what ``rebel`` has.
    """

    name: Name = "grpo"
    advantages: Literal["group", "centred", "leave-one-out", "step"] | None = None
    clip: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.2
    clip_high: Positive | None = None
    sharpness: Positive = 1.0
    preference: Positive = 0.1
    kl: NotNegative = 0.0
    estimator: Literal["k1", "k2", "k3"] = "k3"
    reference: Text = "start"
    sync_every: Count = 100
    dropout: PartOfOne = 0.0
    ppo: PPOSettings = PPOSettings()
    rebel: RebelSettings = RebelSettings()

    __repr__ = settings_repr

    @field_validator("kl")
    @classmethod
    def _in_rewards(cls, kl: float, info: ValidationInfo) -> float:
        name = info.data.get("name")
        if kl and name in ("ppo", "rebel"):
            raise wrong(
                f"is of the other objectives; {name} takes the distance off the rewards: {name}.kl", kl
            )
        return kl

    @property
    def bounds(self) -> tuple[float, float]:
        """The two clips."""
        high = self.clip_high
        if high is None:
            high = 0.28 if self.name == "dapo" else self.clip
        return self.clip, high

    @property
    def way(self) -> str:
        """The advantages that are taken."""
        return self.advantages or OWN_ADVANTAGES.get(self.name, "group")

    @property
    def compares(self) -> bool:
        """Whether a reference is asked."""
        own = {"dpo": 1.0, "s-dpo": 1.0, "ppo": self.ppo.kl, "rebel": self.rebel.kl}
        return self.kl > 0 or own.get(self.name, 0.0) > 0

    @property
    def needs_signal(self) -> bool:
        """Whether a group whose answers are all worth the same costs nothing, wherever the weights are."""
        return not self.kl and self.name not in ("ppo", "rebel")

    @property
    def other(self) -> str | None:
        """The folder of a reference that is another model."""
        return None if self.reference in ("start", "synced") else self.reference


@settings(frozen=True, repr=False)
class GroupData:
    """How a step is laid out.

    Attributes:
        prompts_per_step: groups that an optimizer step learns from.
        block_tokens: forest tokens computed at once, at most; what bounds the memory. A group is never cut.
    """

    prompts_per_step: Count = 32
    block_tokens: Count = 4096

    __repr__ = settings_repr

    @property
    def planned_block(self) -> int:
        """Forest tokens of a block, about."""
        return self.block_tokens

    @property
    def blocks_per_step(self) -> int:
        """At least so many; answers tell how many there are."""
        return 1


@settings(frozen=True, repr=False)
class RLOptimizer(OptimizerSettings):
    __doc__ = OptimizerSettings.__doc__

    weight_decay: NotNegative = 0.0

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class RLValidation(ValidationSettings):
    """What is asked of the model while it learns, as in any stage; and before the first step, so that a stage ends with
    the weights it began with where nothing better was found.

    Attributes:
        every: steps between validations, or ``epoch``; None validates never.
        task: as in any stage.
        requests: how many requests of the validation split a validation asks, chosen once by the seed.
        beams: beams of a validation's search.
        metric: the validated number by which the best checkpoint is chosen; more is better.
        patience: validations without a better one before training stops; 0 never stops.
        samples: as in any stage.
        first: as in any stage.
        full: ask the whole validation split at the end as well, of the best weights and of those at the start; the
            better ones stay.
    """

    every: Literal["epoch"] | Count | None = 50
    first: Switch = True
    full: Switch = True

    __repr__ = settings_repr


@settings(frozen=True, repr=False)
class RLEngine(EngineSettings):
    __doc__ = EngineSettings.__doc__

    # rollouts compute in float32: updates in other numbers begin with ratios that aren't 1
    precision: Precision = "float32"

    __repr__ = settings_repr


ITEM_REWARDS: Mapping[str, float] = {"hit": 1.0, "ranking": 1.0}
RECLM_REWARDS: Mapping[str, float] = {"items": 1.0, "list": 1.0}  # of lists, where none is given


def _rewards(value: Any) -> Any:
    return {value: 1.0} if isinstance(value, str) else value


@settings(frozen=True, repr=False)
class RLStage(TrainingTable):
    """One stage of reinforcement learning. A bare word stands for the first key of ``train``, ``optimizer``,
    ``schedule`` and ``objective``: ``objective: dapo``.

    Attributes:
        name: a short name for logs and bars.
        train: which weights learn, as in any stage.
        epochs: how often every place is asked about; 1 where neither this nor ``steps`` is given.
        steps: optimizer steps, instead of ``epochs``.
        learning_rate: the peak.
        asks: what the model is asked.
        rollout: how answers are drawn.
        rewards: what answers are worth: names of rewards (:data:`itemic.rl.rewards.REWARDS`, or one's own as
            ``module:name``) and the weight of each, or ``{weight: …}`` with options of its own. Of lists ``items``,
            ``list`` (:mod:`itemic.control.rewards`) and ``count``; 1 of the first two where none is given.
        objective: what is learned.
        data: how a step is laid out.
        optimizer: how gradients become steps.
        schedule: the way of the learning rate.
        engine: how steps are computed.
        validation: what is asked of the model on the way; under ``rollout.lists`` greedy lists, and the metric is
            ``reward`` where it says nothing else.
        checkpoints: what is written on the way.
        logs: who is told the numbers.
        examples: steps between groups that are written out to be read, to ``groups.jsonl``; 0 writes none.
    """

    name: Text = "rl"
    train: Annotated[Learns, named(WORDS["train"])] = Learns()
    epochs: Count | None = None
    steps: Steps = None
    learning_rate: Positive = 1e-5
    asks: Asks = Asks()
    rollout: RolloutSettings = RolloutSettings()
    rewards: Annotated[
        dict[Text, Number | dict[str, Any]],
        BeforeValidator(_rewards),
        Field(min_length=1, validate_default=True),
    ] = field(default_factory=lambda: dict(ITEM_REWARDS))
    objective: Annotated[GroupSettings, named("name"), Field(validate_default=True)] = GroupSettings()
    data: GroupData = GroupData()
    optimizer: Annotated[RLOptimizer, named(WORDS["optimizer"])] = RLOptimizer()
    schedule: Annotated[ScheduleSettings, named(WORDS["schedule"]), Downwards] = ScheduleSettings()
    engine: RLEngine = RLEngine()
    validation: Annotated[RLValidation, Field(validate_default=True)] = RLValidation()
    checkpoints: CheckpointSettings = CheckpointSettings(every=50)
    logs: LogSettings = LogSettings()
    examples: Amount = 50

    SILENT: ClassVar = ("name", "checkpoints.", "logs.", "validation.samples", "examples")

    @field_validator("rollout")
    @classmethod
    def _can_be_listed(cls, rollout: RolloutSettings, info: ValidationInfo) -> RolloutSettings:
        asks = info.data.get("asks")
        if rollout.lists is None or asks is None:
            return rollout
        if asks.places != "known" or asks.per_user is not None or asks.history is not None:
            raise wrong(
                "draw their own places of training histories; leave asks.places, asks.per_user and asks.history out",
                None,
                "lists",
            )
        return rollout

    @field_validator("rewards")
    @classmethod
    def _of_what(cls, rewards: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        rollout = info.data.get("rollout")
        if rollout is None:
            return rewards
        if rollout.lists is not None and rewards == ITEM_REWARDS:
            return dict(RECLM_REWARDS)
        for name in rewards:
            known = REWARD_NAMES if rollout.lists is not None else LIST_REWARD_NAMES
            if name in known:
                one, other = ("items", "lists") if rollout.lists is not None else ("lists", "items")
                raise wrong(f"is a reward of {one}, and answers are {other} here", rewards[name], name)
        return rewards

    @field_validator("objective")
    @classmethod
    def _answers_for(cls, objective: GroupSettings, info: ValidationInfo) -> GroupSettings:
        rollout = info.data.get("rollout")
        if rollout is None:
            return objective
        if objective.name == "ppo" and rollout.lists is None:
            raise wrong(
                "is ppo, which is for lists; set rollout.lists, or use another objective", None, "name"
            )
        if objective.name == "ppo" and rollout.epochs != 1:
            raise wrong(
                "is ppo, whose passes are objective.ppo.passes; leave rollout.epochs out", None, "name"
            )
        if rollout.lists is not None and objective.name != "ppo" and rollout.lists.samples < 2:
            raise wrong(
                f"is {objective.name}, which compares lists; set rollout.lists.samples to 2 or more",
                None,
                "name",
            )
        if rollout.lists is not None and objective.name == "expected":
            raise wrong(
                "is expected, which needs answers that all differ, and lists may come twice", None, "name"
            )
        return objective

    @field_validator("validation")
    @classmethod
    def _by_reward(cls, validation: RLValidation, info: ValidationInfo) -> RLValidation:
        rollout = info.data.get("rollout")
        if rollout is not None and rollout.lists is not None and validation.metric == "ndcg@10":
            return replace(validation, metric="reward")
        return validation

    @field_validator("objective")
    @classmethod
    def _different(cls, objective: GroupSettings, info: ValidationInfo) -> GroupSettings:
        rollout = info.data.get("rollout")
        if objective.name == "expected" and rollout is not None and rollout.replacement:
            raise wrong(
                "is expected, which needs answers that all differ; leave rollout.replacement out",
                None,
                "name",
            )
        return objective

    @property
    def weights(self) -> str | None:
        """It begins with the model's own: its reference is what it found."""
        return None

    @property
    def rankers(self) -> set[str]:
        """Rankers that rewards weigh, or that suggest answers."""
        blend = self.rewards.get("blend")
        weighed = blend.get("rankers", {}) if isinstance(blend, dict) else {}
        return {*weighed, *self.rollout.suggest}

    @property
    def asks_teacher(self) -> bool:
        """Whether a reward asks the sequential teacher; those of lists always do."""
        return self.rollout.lists is not None or "teacher" in self.rewards or "teacher" in self.rankers

    @property
    def passes(self) -> int:
        """How often a rollout is learned from, at most."""
        return self.objective.ppo.passes if self.objective.name == "ppo" else self.rollout.epochs

    @property
    def max_kl(self) -> float | None:
        """How far the policy may be from the one that wrote a rollout when a further pass begins."""
        return self.objective.ppo.max_kl if self.objective.name == "ppo" else None

    @property
    def copies(self) -> int:
        """Further copies of the weights that learn: those of the start, and a reference's."""
        return 1 + (self.objective.compares and self.objective.other is None)

    @property
    def learns_rows(self) -> bool:
        """Whether of the embeddings only the rows of the index's tokens learn."""
        return self.train.what != "all"
