"""Rollouts of profiles: what a writer writes now, what that is worth, and what is learned from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError, DataError
from itemic.forest.rows import TokenRows
from itemic.profile.turn_settings import WriterRollout, WriterStage
from itemic.profile.writer import Profiles, Writer
from itemic.rl.advantages import ADVANTAGES, over_step, signal
from itemic.rl.groups import ANYTHING, Groups
from itemic.rl.objective import GroupObjective
from itemic.rl.reference import Meet, Reference, at_once
from itemic.rl.scoring import Legal
from itemic.rl.settings import GroupSettings
from itemic.rl.steps import RolloutSteps, hash_of
from itemic.rl.told import QUANTILES
from itemic.sid.trie import Trie
from itemic.training.ranks import ALONE, Ranks

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Numbers = dict[str, tuple[float, float]]

# Any token may come: what a probability is normalised over is the whole vocabulary, whatever the trie.
FREE = Legal(Trie.build(TokenRows.of([[0]])), "vocab")
EXAMPLES = 2  # users of a rollout that are written out


class Scorer(Protocol):
    """What profiles are worth."""

    def __call__(self, texts: Sequence[str], sessions: Int64) -> Float64:
        """A finite number for each profile, float64 ``[N]``.

        Args:
            texts: ``N`` profiles that ended and aren't empty.
            sessions: int64 ``[N]``, the session that each was written for.
        """


@dataclass(frozen=True)
class AskedProfiles:
    """Some users who are written about.

    Attributes:
        sessions: int64 ``[P]``, whose session each prompt is of.
        prompts: ``P`` rows.
    """

    sessions: Int64
    prompts: TokenRows


class ProfileBook:
    """Whom a writer writes about, and the order in which it does.

    Args:
        prompts: one row for each session.
        sessions: those that are asked about; None for all.
        seed: of the order.

    Raises:
        ConfigError: there are none.
    """

    def __init__(self, prompts: TokenRows, sessions: Int64 | None = None, seed: int = 0) -> None:
        self.prompts, self.seed = prompts, seed
        self.sessions = np.arange(len(prompts)) if sessions is None else np.asarray(sessions, np.int64)
        if not len(self.sessions):
            raise ConfigError("nobody to write about", "Give sessions with a history, or filter less.")

    def __len__(self) -> int:
        """How many prompts an epoch has."""
        return len(self.sessions)

    def order(self, epoch: int) -> tuple[Int64, Int64]:
        """The sessions of an epoch in order; a function of the seed. There is one way to ask."""
        place = np.random.default_rng([self.seed, 4, epoch]).permutation(self.sessions)
        return place.astype(np.int64), np.zeros(len(place), np.int64)

    def ask(self, place: Int64, task: Int64) -> AskedProfiles:
        """The prompts of some sessions."""
        return AskedProfiles(place, self.prompts.take(place))


@dataclass(frozen=True)
class RolledProfiles:
    """A rollout of profiles, ``N`` for each of ``P`` users.

    Attributes:
        groups: to learn from; of each user one group.
        asked: who was asked about.
        profiles: what was written.
        worth: float64 ``[P, N]``; 0 for a profile that was cut off or is empty.
        alive: bool ``[P]``, which groups have a signal.
        numbers: what is told of it, sums and weights by name.
    """

    groups: Groups
    asked: AskedProfiles
    profiles: Profiles
    worth: Float64
    alive: Bool
    numbers: Numbers


@dataclass(frozen=True)
class WriterPolicy:
    """Who writes.

    Attributes:
        writer: with the weights of the moment.
        objective: of the same weights.
        meet: does what computes with them, where several ranks have to do it at the same time.
    """

    writer: Writer
    objective: GroupObjective
    meet: Meet = at_once


class ProfileRoller:
    """Writes profiles with a writer as it is at the moment, and has them scored.

    Args:
        policy: who writes.
        settings: how profiles are drawn.
        objective: whose advantages are computed.
        scorer: what profiles are worth.
        ranks: who rolls at the same time.
    """

    def __init__(
        self,
        policy: WriterPolicy,
        settings: WriterRollout,
        objective: GroupSettings,
        scorer: Scorer,
        ranks: Ranks = ALONE,
    ) -> None:
        self.policy, self.settings, self.objective = policy, settings, objective
        self.scorer, self.ranks = scorer, ranks

    def roll(self, asked: AskedProfiles, seeds: Sequence[int]) -> RolledProfiles:
        """Profiles of some users.

        Args:
            asked: ``P`` of them.
            seeds: one for each.
        """
        began = time.perf_counter()
        writer, count = self.policy.writer, self.settings.samples
        profiles: Profiles = self.policy.meet(lambda: writer.write(asked.prompts, self.settings, seeds))
        worth = worth_of(profiles, np.repeat(asked.sessions, count), self.scorer).reshape(-1, count)
        numbers = self._numbers(profiles, worth)
        numbers["rollout_seconds"] = time.perf_counter() - began, 1.0
        groups = groups_of(asked.prompts, profiles, worth, self._advantages(worth))
        alive = signal(worth) if len(worth) else np.zeros(0, np.bool_)
        return RolledProfiles(groups, asked, profiles, worth, alive, numbers)

    def _advantages(self, worth: Float64) -> Float64:
        if self.objective.way == "step":
            return over_step(worth, np.concatenate(self.ranks.gather(worth.ravel())))
        return np.asarray(ADVANTAGES[self.objective.way](worth)) if len(worth) else worth

    def _numbers(self, profiles: Profiles, worth: Float64) -> Numbers:
        count = float(len(profiles))
        silent = float((~signal(worth)).sum()) if len(worth) else 0.0
        return {
            "reward": (float(worth.sum()), count),
            "without_signal": (silent, float(len(worth))),
            "profile_tokens": (float(profiles.tokens.lengths.sum()), count),
            "cut": (float((~profiles.ended).sum()), count),
            "empty": (float(profiles.empty.sum()), count),
        }


def told_of_profiles() -> tuple[str, ...]:
    """Names of all numbers that a rollout of profiles may tell."""
    own = ("reward", "without_signal", "profile_tokens", "cut", "empty", "tried", "rollout_seconds")
    return (*own, *(f"kl_of_answers/p{share}" for share in QUANTILES))


def worth_of(profiles: Profiles, sessions: Int64, scorer: Scorer) -> Float64:
    """float64 ``[N]``: what profiles are worth; 0 for those that were cut off and those that say nothing, which nobody
    is asked about.

    Raises:
        DataError: the scorer gives another shape, or a number that isn't finite.
    """
    worth = np.zeros(len(profiles))
    own = np.flatnonzero(profiles.usable)
    if not len(own):
        return worth
    found = np.asarray(scorer([profiles.texts[number] for number in own.tolist()], sessions[own]), np.float64)
    if found.shape != own.shape:
        raise DataError(
            f"the rewards of {len(own)} profiles have shape {found.shape}",
            "Give one number for each profile.",
        )
    if not np.isfinite(found).all():
        raise DataError("a profile's reward is no finite number", "Give finite numbers.")
    worth[own] = found
    return worth


def groups_of(prompts: TokenRows, profiles: Profiles, worth: Float64, advantages: Float64) -> Groups:
    """The profiles of each user as a group: every token is a choice, the one that ends a profile as well."""
    total = len(profiles.tokens.tokens)
    return Groups(
        prompts,
        profiles.tokens,
        np.repeat(np.arange(len(prompts)), worth.shape[1]),
        np.arange(len(prompts)),
        np.full(total, ANYTHING),
        np.ones(total, np.bool_),
        profiles.log_probs,
        worth.ravel().astype(np.float32),
        advantages.ravel().astype(np.float32),
    )


class ProfileSteps(RolloutSteps):
    """Rollouts of profiles as steps.

    Args:
        book: whom profiles are written about.
        stage: how.
        scorer: what profiles are worth.
        seed: of what is drawn; each user of each epoch has a seed of its own.
        ranks: who takes part.
        examples: a file that profiles are written to now and then, to be read; None for none.
    """

    book: ProfileBook
    stage: WriterStage
    policy: WriterPolicy

    def __init__(
        self,
        book: ProfileBook,
        stage: WriterStage,
        scorer: Scorer,
        seed: int = 0,
        ranks: Ranks = ALONE,
        examples: Path | None = None,
    ) -> None:
        super().__init__(book, stage, seed, ranks)
        self.scorer, self.examples = scorer, examples

    def begin(self, policy: WriterPolicy, reference: Reference | None = None) -> None:
        """Say who writes, before the first step is asked for.

        Args:
            policy: who.
            reference: whose log-probabilities profiles are compared with; None for nobody's.
        """
        self.policy, self.reference = policy, reference
        self.roller = ProfileRoller(policy, self.stage.rollout, self.stage.objective, self.scorer, self.ranks)

    def _roll(self, asked: AskedProfiles, place: Int64, number: int, epoch: int) -> RolledProfiles:
        seeds = [hash_of(self.seed, epoch, session) for session in asked.sessions.tolist()]
        rolled = self.roller.roll(asked, seeds)
        every = self.stage.examples
        if self.examples is not None and every and number % every == 0 and self.ranks.main:
            with self.examples.open("a", encoding="utf-8") as file:
                for line in lines_of(rolled, self.policy.writer, number):
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return rolled


def lines_of(rolled: RolledProfiles, writer: Writer, step: int) -> Iterator[dict[str, Any]]:
    """The first users of a rollout as plain JSON."""
    each = rolled.worth.shape[1]
    for number in range(min(EXAMPLES, len(rolled.asked.sessions))):
        own = range(number * each, (number + 1) * each)
        yield {
            "step": step,
            "session": int(rolled.asked.sessions[number]),
            "prompt": str(writer.tokenizer.decode(rolled.asked.prompts[number].tolist())),
            "profiles": [
                {
                    "text": rolled.profiles.texts[at],
                    "ended": bool(rolled.profiles.ended[at]),
                    "reward": float(rolled.worth.ravel()[at]),
                }
                for at in own
            ],
        }
