"""Whole GRPO steps (rollout, rewards, advantages, update) against TRL's GRPOTrainer.

Both sides begin with the same weights and ask the same prompts in the same order; the answers to each are the 16 most
probable items by beams over the catalogue's trie, so that both have the very same groups; one update a rollout, no
reference, fused AdamW. A step's seconds are counted from the end of the step before; the first is left out. No time is
printed unless the answers of the first step are the same and its gradients point the same way (TRL divides rewards by
the sample's deviation, ours by the group's, which makes all of them longer alike).

TRL draws samples by itself, and has no way to keep them to a catalogue or to make them differ; so its rollouts come
from a ``rollout_func`` around transformers' ``generate``: beams, and a logits processor that walks the trie with
arrays, see ``rl_trl.py``. *With help* each prompt is read once for all of its beams, which ``generate`` doesn't do,
and updates apply the head to answers alone, which TRL does only where it has Triton.

Two rewards. ``even``: whether an item's number is even, so that nearly every group teaches something. ``hit``: whether
it is the right item, which takes the place of the last answer where it isn't among them, on both sides; ours scores
such groups once more for it, TRL needn't.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import Row

from itemic.model import Model
from itemic.rl.asks import Asked, Book
from itemic.rl.groups import Groups
from itemic.rl.objective import GroupObjective
from itemic.rl.rewards import Answered, Rewards, World
from itemic.rl.rolled import Policy
from itemic.rl.run import Knows, world_of
from itemic.rl.scoring import Legal
from itemic.rl.settings import Asks, GroupData, GroupSettings, RLStage, RLValidation, RolloutSettings
from itemic.rl.source import GroupSteps
from itemic.rl.told import told_names
from itemic.sid.trie import Trie
from itemic.training.loop import Trainer
from itemic.training.settings import CheckpointSettings, ScheduleSettings
from itemic.training.steps import Step

ANSWERS = 16
AGREE = 1e-3  # of the largest gradient
TARGET = 8.0  # times faster than TRL


@dataclass(frozen=True)
class Even:
    """1 for items with an even number."""

    def __call__(self, answered: Answered, world: World) -> np.ndarray[Any, Any]:
        return (answered.items % 2 == 0).astype(np.float64)


REWARDS = {"hit": "hit", "even": "rl_steps:Even"}


def stage_of(task: dict[str, Any], reward: str, prompts: int, steps: int) -> RLStage:
    """GRPO without validations and checkpoints."""
    return RLStage(
        steps=steps,
        asks=Asks(tasks=(task,)),
        rollout=RolloutSettings(how="beams", answers=ANSWERS, add_target=reward == "hit"),
        rewards={REWARDS[reward]: 1.0},
        objective=GroupSettings("grpo"),
        data=GroupData(prompts_per_step=prompts),
        schedule=ScheduleSettings("constant", warmup=0),
        validation=RLValidation(every=None, first=False, full=False),
        checkpoints=CheckpointSettings(every=0),
        examples=0,
    )


class Timed(GroupSteps):
    """Steps that note when each is asked for, which is when the one before has ended."""

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        self.ends: list[float] = []
        for step in super().steps(state, rank, size):
            yield step
            self.ends.append(time.process_time())


class Ours:
    """A stage of reinforcement learning, always from the same weights."""

    def __init__(self, model: Model, dataset: Any, stage: RLStage) -> None:
        self.model, self.stage = model, stage
        self._start = copy.deepcopy(model.lm.state_dict())
        self.legal = Legal(Trie.build(model.item_rows), stage.rollout.normalize)
        self.rewards = Rewards(stage.rewards, world_of(model, dataset, Knows()))
        self.book = Book(model, dataset, stage.asks, 0)

    def set_up(self) -> tuple[GroupObjective, Timed]:
        """The parts of a training that begins."""
        self.model.lm.load_state_dict(self._start)
        stage, names = self.stage, list(self.rewards.parts)
        objective = GroupObjective(
            self.model.lm,
            self.legal,
            settings=stage.objective,
            engine=stage.engine,
            told=told_names(stage.rollout, names),
        )
        source = Timed(self.book, stage, self.rewards, self.legal)
        source.begin(Policy(self.model, objective))
        return objective, source

    def seconds(self) -> list[float]:
        """CPU seconds of each step but the first."""
        objective, source = self.set_up()
        trainer = Trainer(objective, source, self.stage)
        trainer.run()
        ends = [*source.ends, time.process_time()]
        self.model.lm.load_state_dict(self._start)
        return np.diff(ends).tolist()

    def asked(self) -> Asked:
        """What all steps ask.

        Raises:
            SystemExit: a prompt can't be asked, so steps would differ in size.
        """
        count = self.stage.data.prompts_per_step * int(self.stage.steps or 1)
        place, task = self.book.order(0)
        asked = self.book.ask(place[:count], task[:count])
        if len(asked.rows) != count:
            raise SystemExit(f"{count - len(asked.rows)} prompts of {count} can't be asked: not compared")
        return asked

    def teaching(self) -> float:
        """The share of groups with rewards that differ, over the steps that are timed, under the first weights."""
        _, source = self.set_up()
        first = self.stage.data.prompts_per_step
        asked = self.asked()
        groups = source.roller.roll(asked, range(len(asked.rows))).groups
        return float(groups.differ[first:].mean())

    def first_groups(self) -> Groups:
        """The groups of the first step, with those that teach nothing."""
        _, source = self.set_up()
        count = self.stage.data.prompts_per_step
        place, task = self.book.order(0)
        return source.roller.roll(self.book.ask(place[:count], task[:count]), range(count)).groups

    def first_gradient(self) -> dict[str, torch.Tensor]:
        """The gradient of the first step."""
        objective, source = self.set_up()
        step = next(source.steps())
        self.model.lm.zero_grad()
        with objective.stepping():
            for block in step.blocks:
                (objective(block).sum / step.sizes.weight).backward()
        return {
            name: weight.grad for name, weight in self.model.lm.named_parameters() if weight.grad is not None
        }


def own_groups(
    model: Model, dataset: Any, task: dict[str, Any], prompts: int
) -> tuple[Groups, GroupObjective]:
    """Groups that a model makes of some prompts, and what they cost."""
    ours = Ours(model, dataset, stage_of(task, "even", prompts, 1))
    return ours.first_groups(), ours.set_up()[0]


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest difference of two gradients, each over its largest."""
    mine, other = (torch.cat([found[name].flatten() for name in ours]) for found in (ours, theirs))
    return float((mine / mine.abs().max() - other / other.abs().max()).abs().max())


def measure(case: Any, quick: bool) -> list[Row]:
    """A case's rewards against TRL, as it is and with help; the settings that are fastest for the first reward.

    Raises:
        SystemExit: answers or gradients of the first step are not the same.
    """
    import rl_trl

    prompts, steps = (4, 2) if quick else (8, 3)
    found: list[Row] = []
    settings: tuple[Any, ...] = ()
    off = 0.0
    for reward in case.rewards:
        ours = Ours(case.model, case.dataset, stage_of(case.task, reward, prompts, steps))
        theirs = rl_trl.Theirs(ours, reward)
        settings = settings or theirs.fastest(quick)
        off = max(off, checked(case.name, ours, theirs, settings))
        found += compare(case, ours, theirs, settings, reward, 1 if quick else 2)
    text = f"{case.name}: gradients of a step, each over its largest, largest difference"
    return [*found, Row(text, off, None, "", None, f"≤ {AGREE:g}", True)]


def checked(name: str, ours: Ours, theirs: Any, settings: tuple[Any, ...]) -> float:
    """How far the gradients of the first step are from each other, where the answers are the same.

    Raises:
        SystemExit: the answers or the gradients are not.
    """
    groups, mine, worst = ours.first_groups(), ours.first_gradient(), 0.0
    for setting in settings:
        answers, gradient = theirs.first(setting)
        if not same_answers(groups, answers):
            raise SystemExit(f"{name}: TRL's beams ({setting}) and ours are not the same: not compared")
        off = difference(mine, gradient)
        if not off <= AGREE:
            raise SystemExit(f"{name}: TRL and itemic differ in their gradients by {off:.1e}: not compared")
        worst = max(worst, off)
    return worst


def compare(
    case: Any, ours: Ours, theirs: Any, settings: tuple[Any, ...], reward: str, repeats: int
) -> list[Row]:
    """One reward: medians of all steps of some trainings in turn."""
    taken: dict[Any, list[float]] = {None: [], **{setting: [] for setting in settings}}
    for _ in range(repeats):
        for setting, seconds in taken.items():
            seconds += ours.seconds() if setting is None else theirs.seconds(setting)
    medians = {setting: statistics.median(seconds) for setting, seconds in taken.items()}
    plain, helped = settings
    name = f"{case.name}, {reward}: a step of {ours.stage.data.prompts_per_step} prompts"

    def line(text: str, setting: Any, target: float | None = None) -> Row:
        ratio = medians[setting] / medians[None]
        goal = None if target is None else f"≥ {target:g} ×"
        holds = None if target is None else ratio >= target
        return Row(f"{name}, against {text}", medians[None], medians[setting], "CPU s", ratio, goal, holds)

    return [
        line(f"TRL ({plain})", plain, TARGET),
        line(f"TRL with help ({helped})", helped),
        Row(f"{name}: groups that teach", ours.teaching(), None, "of 1", None, None, None),
    ]


def same_answers(groups: Groups, answers: list[list[list[int]]]) -> bool:
    """Whether each group has the very answers, in whatever order."""
    for number, theirs in enumerate(answers):
        own = np.flatnonzero(groups.group == number).tolist()
        mine = [
            groups.answers[row][groups.choice[slice(*groups.answers.offsets[row : row + 2])]] for row in own
        ]
        if sorted(each.tolist() for each in mine) != sorted(theirs):
            return False
    return True
