"""Steps that a policy makes for itself: rollouts with the weights of the moment, and groups to learn from."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError
from itemic.progress import log
from itemic.rl.groups import GroupBlock, Groups, blocks_of
from itemic.rl.objective import GroupObjective, weight_of
from itemic.rl.reference import Meet, Reference
from itemic.rl.settings import GroupData, GroupSettings
from itemic.rl.told import QUANTILES
from itemic.training.ranks import ALONE, Ranks
from itemic.training.steps import Ahead, Sizes, Step

Int64 = npt.NDArray[np.int64]
Numbers = dict[str, tuple[float, float]]

START = {"epoch": 0, "asked": 0, "done": 0, "step": 0, "hopeless": 0, "since": 0}
HOPELESS = 50  # rollouts without any signal, one after the other, before a training gives up


class Plan(Protocol):
    """What is asked, prompt by prompt."""

    def __len__(self) -> int:
        """How many prompts an epoch has."""

    def order(self, epoch: int) -> tuple[Int64, Int64]:
        """The places of an epoch in order, and which task asks about each; a function of the seed."""

    def ask(self, place: Int64, task: Int64) -> Any:
        """The prompts of some places, as the roller takes them."""


class Rolls(Protocol):
    """How a rollout is learned from."""

    @property
    def steps_per_rollout(self) -> int: ...
    @property
    def oversample(self) -> int: ...


class RollingStage(Protocol):
    """A stage that learns from rollouts, whatever is answered in them."""

    @property
    def name(self) -> str: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def epochs(self) -> int | None: ...
    @property
    def data(self) -> GroupData: ...
    @property
    def rollout(self) -> Rolls: ...
    @property
    def objective(self) -> GroupSettings: ...
    @property
    def passes(self) -> int: ...
    @property
    def max_kl(self) -> float | None: ...


class Scores(Protocol):
    """Who scores answers: what :class:`itemic.rl.rolled.Policy` has beside its model."""

    @property
    def objective(self) -> GroupObjective: ...
    @property
    def meet(self) -> Meet: ...


class Rollout(Protocol):
    """What is learned from of any rollout."""

    @property
    def groups(self) -> Groups: ...
    @property
    def alive(self) -> npt.NDArray[np.bool_]: ...
    @property
    def numbers(self) -> Numbers: ...


class RolloutSteps:
    """Rollouts as steps, see :class:`itemic.training.steps.StepSource`.

    Every rank asks its own part of a rollout's prompts. Between a rollout's steps its groups are a part of the state,
    so that a training that was killed there goes on with the very answers that it had.

    A subclass says who answers, in :meth:`_roll`, and sets :attr:`policy` before the first step is asked for.

    Args:
        book: what is asked.
        stage: how.
        seed: of what is drawn.
        ranks: who takes part.

    Attributes:
        policy: who scores answers.
        reference: whose log-probabilities answers are compared with; None for nobody's.
    """

    policy: Scores

    def __init__(self, book: Plan, stage: RollingStage, seed: int = 0, ranks: Ranks = ALONE) -> None:
        self.book, self.stage, self.seed, self.ranks = book, stage, seed, ranks
        self.reference: Reference | None = None
        self.per_rollout = stage.data.prompts_per_step * stage.rollout.steps_per_rollout
        if self.per_rollout > len(book):
            raise ConfigError(
                f"{self.per_rollout} prompts to a rollout, and there are {len(book)} to ask",
                "Lower data.prompts_per_step or rollout.steps_per_rollout, or ask more (asks.requests).",
            )
        self.steps_of_rollout = stage.rollout.steps_per_rollout * stage.passes

    def _roll(self, asked: Any, place: Int64, number: int, epoch: int) -> Rollout:
        """Answers to what the book asked about some places, before step ``number`` of ``epoch``."""
        raise NotImplementedError

    def _restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`_remembered` gave, where a run goes on."""

    def _remembered(self) -> dict[str, Any]:
        """What else is to be known where a run goes on, as plain JSON."""
        return {}

    @property
    def rollouts_per_epoch(self) -> int:
        """Whole ones; what is left over is asked in another epoch's order."""
        return len(self.book) // self.per_rollout

    def total_steps(self) -> int:
        if self.stage.steps is not None:
            return self.stage.steps
        return int(self.stage.epochs or 1) * self.rollouts_per_epoch * self.steps_of_rollout

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        """Without end, from the place on that ``state`` names."""
        begin = START | (state or {})
        epoch, at, done = int(begin["epoch"]), int(begin["asked"]), int(begin["done"])
        number, hopeless = int(begin["step"]), int(begin["hopeless"])
        kept = self._kept(begin, rank, size)
        if self.reference is not None:
            self.reference.since = int(begin["since"])
        self._restore(begin)
        numbers: Numbers = {}
        while True:
            fresh: Numbers = {}
            if done and self._far(kept, done, fresh):
                done = 0
            if done == 0:
                if self.reference is not None:
                    self.reference.follow(number)
                kept, numbers, epoch, at = self._rollout(epoch, at, number, rank, size)
                fresh |= numbers
                if self.stage.objective.name != "ppo":
                    hopeless = self._hope(numbers, hopeless)
            assert kept is not None
            part = self._part(kept, done)
            blocks = self._blocks(part, fresh)
            done = (done + 1) % self.steps_of_rollout
            number += 1
            left = len(self.book) - at < self.per_rollout  # the next rollout begins another epoch
            ahead = Ahead(epoch + (left and done == 0), epoch + at / len(self.book))
            state = {"epoch": epoch, "asked": at, "done": done, "step": number, "hopeless": hopeless}
            state["since"] = 0 if self.reference is None else self.reference.since
            state |= self._remembered()
            state["groups"] = kept.to_json() if done else None
            yield Step(tuple(blocks), self._sizes(blocks), state, ahead)

    def merged(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """All ranks are at the same place; each has groups of its own."""
        return states[0] | {"groups": [each.get("groups") for each in states]}

    def _kept(self, state: dict[str, Any], rank: int, size: int) -> Groups | None:
        """The groups that a run which was stopped amid a rollout had; others' number of ranks may have been another."""
        groups = state.get("groups")
        if not groups:
            return None
        parts = groups if isinstance(groups, list) else [groups]
        if all(part is None for part in parts):
            return None
        if len(parts) == size:
            return Groups.from_json(parts[rank])
        whole = _together([Groups.from_json(part) for part in parts])
        own = np.arange(len(whole))[rank::size]
        return whole.take(own)

    # --------------------------------------------------------------------------------- rollouts

    def _rollout(
        self, epoch: int, at: int, number: int, rank: int, size: int
    ) -> tuple[Groups, Numbers, int, int]:
        """Groups of this rank, what is told of them, and where the asking goes on.

        Under oversampling prompts are asked until there are enough groups with a signal, or no more may be tried;
        groups without one are left out then.
        """
        wanted, most = self.per_rollout, self.stage.rollout.oversample
        parts: list[Groups] = []
        numbers: Numbers = {}
        have, tried = 0, 0
        for _ in range(most):
            if len(self.book) - at < wanted:
                epoch, at = epoch + 1, 0
            place, task = self.book.order(epoch)
            own = slice(at + rank, at + wanted, size)
            at += wanted
            tried += wanted
            rolled = self._roll(self.book.ask(place[own], task[own]), place[own], number, epoch)
            _add(numbers, rolled.numbers)
            groups = rolled.groups
            if most > 1:
                groups = groups.take(np.flatnonzero(_of_requests(rolled.alive, groups.request)))
            parts.append(groups)
            have += sum(self.ranks.gather(len(np.unique(groups.request))))
            if most == 1 or have >= wanted:
                break
        numbers["tried"] = float(tried), float(wanted)
        groups = _together(parts)
        if self.reference is not None:
            scores = self.reference.score(groups, self.stage.data.block_tokens, self.policy.meet)
            groups = groups.with_reference(scores)
            _add(numbers, _distances(groups))
        groups, more = self.policy.objective.completed(
            groups, self.stage.data.block_tokens, self.policy.meet, self.ranks.gather
        )
        _add(numbers, more)
        return groups, numbers, epoch, at

    def _far(self, kept: Groups | None, done: int, numbers: Numbers) -> bool:
        """Whether a further pass over a rollout would begin with a policy too far from the one that wrote it. That is
        measured anew, by the weights of the moment, so that a run that goes on finds the same."""
        limit = self.stage.max_kl
        if limit is None or done % self.stage.rollout.steps_per_rollout or kept is None:
            return False
        scores = self.policy.meet(lambda: self.policy.objective.score_all(kept, self.stage.data.block_tokens))
        gone = (scores - kept.log_probs)[kept.choice].astype(np.float64)
        # of the distance from then to now, never negative (Schulman 2020)
        told = self.ranks.gather((float((np.expm1(gone) - gone).sum()), float(len(gone))))
        apart, count = (sum(part) for part in zip(*told, strict=True))
        numbers["pass_kl"] = apart, count
        return bool(apart > limit * count)

    def _hope(self, numbers: Numbers, hopeless: int) -> int:
        """How many rollouts in a row had nothing to learn from.

        Raises:
            ConfigError: too many.
        """
        silent, groups = numbers.get("without_signal", (0.0, 0.0))
        told = self.ranks.gather((silent, groups))
        nothing = sum(each[0] for each in told) >= sum(each[1] for each in told)
        hopeless = hopeless + 1 if nothing else 0
        if hopeless == HOPELESS:
            raise ConfigError(
                f"{self.stage.name}: in {HOPELESS} rollouts no group had answers of different worth",
                "Rewards that are the same for all answers teach nothing: add one that isn't constant, ask for more "
                "answers, or set rollout.add_target.",
            )
        if nothing:
            log.warning("%s: a rollout in which no group had answers of different worth", self.stage.name)
        return hopeless

    # ------------------------------------------------------------------------------------ steps

    def _part(self, groups: Groups, done: int) -> Groups:
        """The groups of a rollout's step, whole requests; each pass over the rollout has an order of its own."""
        count = self.stage.rollout.steps_per_rollout
        if count == 1:
            return groups
        turn, part = divmod(done, count)
        requests = np.unique(groups.request)
        order = np.random.default_rng([self.seed, 6, turn]).permutation(len(requests))
        own = requests[np.sort(np.array_split(order, count)[part])]
        return groups.take(np.flatnonzero(np.isin(groups.request, own)))

    def _blocks(self, groups: Groups, numbers: Numbers) -> list[GroupBlock]:
        """Forests of what can be learned from; groups without a signal count and aren't computed, where only their
        rewards could tell them apart."""
        whole = weight_of(groups, self.stage.objective)
        alive = groups
        if self.stage.objective.needs_signal:
            alive = groups.take(np.flatnonzero(groups.differ))
        silent = whole - weight_of(alive, self.stage.objective)
        parts = blocks_of(alive, self.stage.data.block_tokens)
        blocks = [GroupBlock.of(part) for part in parts] or [self.policy.objective.nothing()]
        first = blocks[0]
        blocks[0] = GroupBlock(first.groups, first.forest, first.place, first.answer, numbers, silent)
        return blocks

    def _sizes(self, blocks: Sequence[GroupBlock]) -> Sizes:
        """What some blocks are; counts that ``flops`` needs are among them."""
        counts = dict.fromkeys(
            ("tokens", "row_tokens", "answers", "groups", "parents", "targets", "pairs"), 0
        )
        weight = 0.0
        for block in blocks:
            groups, forest = block.groups, block.forest
            weight += block.silent + (weight_of(groups, self.stage.objective) if len(groups) else 0.0)
            if not len(groups):
                continue
            own = np.unique(block.place)
            counts["tokens"] += len(forest)
            counts["row_tokens"] += forest.row_tokens
            counts["answers"] += len(groups.answers)
            counts["groups"] += len(groups)
            counts["parents"] += len(np.unique(forest.parent[own]))
            counts["targets"] += len(own)
            counts["pairs"] += int(forest.position.sum(dtype=np.int64)) + len(forest)
        return Sizes(weight, len(blocks), counts)


def hash_of(*numbers: int) -> int:
    """A seed made of some numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _together(parts: Sequence[Groups]) -> Groups:
    """The groups of parts whose requests are others."""
    moved, shift = [], 0
    for part in parts:
        moved.append(part.moved(shift))
        shift += int(part.request.max(initial=-1)) + 1
    return Groups.joined(moved)


def _of_requests(alive: npt.NDArray[np.bool_], request: Int64) -> npt.NDArray[np.bool_]:
    """Which groups belong to a request that has a group with a signal."""
    return np.isin(request, np.unique(request[alive]))


def _add(numbers: Numbers, more: Mapping[str, tuple[float, float]]) -> None:
    for name, (total, weight) in more.items():
        before = numbers.get(name, (0.0, 0.0))
        numbers[name] = before[0] + total, before[1] + weight


def _distances(groups: Groups) -> Numbers:
    """Quantiles of how much more probable answers are than under the reference, in nats."""
    assert groups.reference is not None
    gap = np.where(groups.choice, groups.log_probs - groups.reference, 0)
    found = np.add.reduceat(gap, groups.answers.offsets[:-1]) if len(gap) else np.zeros(1)
    return {f"kl_of_answers/p{share}": (float(np.percentile(found, share)), 1.0) for share in QUANTILES}
