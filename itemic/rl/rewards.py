"""What answers are worth: functions of requests, answers and items, pure but for what ``coverage`` remembers. A new
one is a class and one row here.

All see the same :class:`Answered` and give float64 ``[G, K]``, NaN where a group has no such answer. Weights combine
them (:class:`Rewards`); each is also kept apart, so that a log says which one it was.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
FORGOTTEN = 1e-3  # an item that counts less was shown too long ago


@dataclass(frozen=True)
class Answered:
    """``K`` answers to each of ``G`` requests, the most probable first where they come from beams.

    Attributes:
        requests: ``G`` requests, whose targets are known.
        items: int32 ``[G, K]``, the item of each answer; -1 where it names none.
        there: bool ``[G, K]``, whether the group has such an answer.
        log_probs: float32 ``[G, K]``, of the whole answers under the policy.
        lengths: int64 ``[G, K]``, their tokens.
        complete: bool ``[G, K]``, whether the answer came to its end and was not cut off.
    """

    requests: Requests
    items: Int32
    there: Bool
    log_probs: Float32
    lengths: Int64
    complete: Bool

    @property
    def hits(self) -> Bool:
        """bool ``[G, K]``: whether the answer is the target."""
        targets = self.requests.targets[:, None]
        return np.asarray((self.items == targets) & (targets >= 0))


class Reward(Protocol):
    """A reward; its fields are its options."""

    def __call__(self, answered: Answered, world: World) -> npt.NDArray[np.floating]:
        """``[G, K]``."""


@dataclass
class World:
    """What rewards may know beside the answers.

    Attributes:
        dataset: of which only the catalogue and the training split are looked at.
        codes: int32 ``[n, L]``, the items' semantic IDs; None where they have other names.
        vectors: float32 ``[n, d]``, of the items; None where nobody made any.
        scores: a ranker's log-probabilities of the whole catalogue, float32 ``[G, n]``, by its name.
        gather: every rank's value, in order, on every rank; for rewards that look at all answers of a rollout.
    """

    dataset: Dataset
    codes: Int32 | None = None
    vectors: Float32 | None = None
    scores: Mapping[str, Callable[[Requests], Float32]] = field(default_factory=dict)
    gather: Callable[[Any], list[Any]] = field(default=lambda value: [value])

    def counts(self) -> Int64:
        """int64 ``[n]``: how often training saw each item."""
        found = np.bincount(self.dataset.train.items, minlength=len(self.dataset.item_ids))
        return found.astype(np.int64)


@dataclass(frozen=True)
class Hit:
    """1 for the target, 0 for anything else (MiniOneRec's ``rule``)."""

    def __call__(self, answered: Answered, world: World) -> Float64:
        return answered.hits.astype(np.float64)


@dataclass(frozen=True)
class Ranking:
    """What a miss costs by its place (MiniOneRec's ``ranking``, which it adds to the hit): where a group has a hit, the
    miss at place ``r`` (from 1) gets its negative share of ``1 / log2(r + 1)``, and the hit 0. A group without a hit
    has none to be told apart by, and gets 0."""

    def __call__(self, answered: Answered, world: World) -> Float64:
        rank = np.cumsum(answered.there, axis=1)
        cost = np.where(answered.there & ~answered.hits, 1 / np.log2(rank + 1.0), 0.0)
        share = cost / np.maximum(cost.sum(axis=1, keepdims=True), 1e-12)
        return np.asarray(-share * answered.hits.any(axis=1, keepdims=True))


@dataclass(frozen=True)
class Prefix:
    """The share of a semantic ID's levels that are right before the first wrong one."""

    def __call__(self, answered: Answered, world: World) -> Float64:
        if world.codes is None:
            raise ConfigError(
                "the reward prefix is about semantic IDs", "Leave it out where items have titles."
            )
        same = world.codes[answered.items] == world.codes[answered.requests.targets][:, None]
        levels = np.cumprod(same, axis=2).mean(axis=2)
        return np.where(_both(answered), levels, 0.0)


@dataclass(frozen=True)
class Semantic:
    """The cosine of the answer's vector and the target's."""

    def __call__(self, answered: Answered, world: World) -> Float64:
        if world.vectors is None:
            raise ConfigError(
                "the reward semantic needs vectors of the items", "Give an index with an encoder."
            )
        unit = world.vectors / np.maximum(np.linalg.norm(world.vectors, axis=1, keepdims=True), 1e-12)
        cosine = np.einsum("gkd,gd->gk", unit[answered.items], unit[answered.requests.targets])
        return np.where(_both(answered), cosine, 0.0)


@dataclass(frozen=True)
class Scored:
    """The rankers' probability of the answer, weighed: of the sequential teacher, of the counts, or of both.

    Attributes:
        rankers: the weight of each; they are made to add up to one.
        log: its logarithm instead, no lower than ``floor``. With an objective that keeps near to a reference, the best
            policy is then the product of the reference and these rankers.
        floor: the least logarithm.
    """

    rankers: Mapping[str, float]
    log: bool = False
    floor: float = -20.0

    def check(self, world: World) -> None:
        """Make sure that they are there.

        Raises:
            ConfigError: one isn't, or their weights make no sense.
        """
        for name in self.rankers:
            if name not in world.scores:
                raise ConfigError(
                    f"a reward asks the ranker {name!r}, which isn't there",
                    f"Add a section {name} to the recipe; there are: {', '.join(world.scores) or 'none'}.",
                )
        if not self.rankers or min(self.rankers.values()) < 0 or sum(self.rankers.values()) <= 0:
            raise ConfigError(
                f"a reward weighs rankers by {dict(self.rankers)}", "Give numbers of 0 or more, one above."
            )

    def __call__(self, answered: Answered, world: World) -> Float64:
        self.check(world)
        at, total = np.maximum(answered.items, 0).astype(np.int64), sum(self.rankers.values())
        chance = np.zeros(answered.items.shape)
        for name, weight in self.rankers.items():
            scores = world.scores[name](answered.requests).astype(np.float64)
            chance += weight / total * np.exp(np.take_along_axis(scores, at, axis=1))
        chance = np.where(answered.items >= 0, chance, 0.0)
        return np.log(np.maximum(chance, np.exp(self.floor))) if self.log else chance


@dataclass(frozen=True)
class Category:
    """The share of the target's category path that the answer has, from the general one down; 0 without categories."""

    def __call__(self, answered: Answered, world: World) -> Float64:
        from itemic import schema as c

        items = world.dataset.items
        paths = items[c.CATEGORIES].to_list() if c.CATEGORIES in items.columns else [None] * len(items)
        found = np.zeros(answered.items.shape)
        for place, item in np.ndenumerate(answered.items):
            target = int(answered.requests.targets[place[0]])
            mine, wanted = paths[item] or [], paths[target] or []
            if item >= 0 and target >= 0 and len(wanted):
                same = [a == b for a, b in zip(mine, wanted, strict=False)]
                found[place] = float(np.cumprod(same).sum() / len(wanted))
        return found


@dataclass(frozen=True)
class Diversity:
    """How unlike the other answers of its group an answer's item is: 1 less the mean cosine with the others' vectors;
    0 for an answer that is alone."""

    def __call__(self, answered: Answered, world: World) -> Float64:
        if world.vectors is None:
            raise ConfigError(
                "the reward diversity needs vectors of the items", "Give an index with an encoder."
            )
        unit = world.vectors / np.maximum(np.linalg.norm(world.vectors, axis=1, keepdims=True), 1e-12)
        real = answered.items >= 0
        own = np.where(real[..., None], unit[answered.items], 0.0)
        others = np.einsum("gkd,gjd->gk", own, own) - np.einsum("gkd,gkd->gk", own, own)
        count = real.sum(axis=1, keepdims=True) - 1
        return np.where(real & (count > 0), 1 - others / np.maximum(count, 1), 0.0)


@dataclass(frozen=True)
class LongTail:
    """How rare the answer's item is: the share of the catalogue that training saw more often."""

    def __call__(self, answered: Answered, world: World) -> Float64:
        counts = world.counts()
        rarer = np.searchsorted(np.sort(counts), counts[answered.items], side="right") / len(counts)
        return np.where(answered.items >= 0, 1 - rarer, 0.0)


@dataclass
class Coverage:
    """How seldom the answer's item is shown: ``n ** -power``, where ``n`` counts the answers of this rollout, whosever
    they are, that show it, and those of earlier ones, each rollout weighing ``decay`` times as much as the one after
    it. 1 for an item that nothing else shows.

    Attributes:
        power: how much an item loses by being shown; 0 is nothing.
        decay: 0 looks at this rollout alone; below 1.
        shown: float64 ``[n]``, what earlier rollouts count now; None before the first one.
    """

    power: float = 0.5
    decay: float = 0.9
    shown: Float64 | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not (self.power >= 0 and 0 <= self.decay < 1):
            raise ConfigError(
                f"the reward coverage has power {self.power} and decay {self.decay}",
                "Give a power of 0 or more, and a decay from 0 to below 1.",
            )

    def __call__(self, answered: Answered, world: World) -> Float64:
        real = answered.there & (answered.items >= 0)
        own = np.bincount(answered.items[real], minlength=len(world.dataset.item_ids)).astype(np.float64)
        count = np.sum(world.gather(own), axis=0)
        if self.shown is not None:
            count = count + self.shown
        self.shown = np.where(count > FORGOTTEN, count, 0.0) * self.decay
        return np.where(real, np.maximum(count[answered.items], 1.0) ** -self.power, 0.0)

    def state(self) -> dict[str, list[float]]:
        """What a run that goes on must know, as plain JSON: rows of items, and what they count."""
        shown = np.zeros(0) if self.shown is None else self.shown
        rows = np.flatnonzero(shown)
        return {"rows": rows.tolist(), "counts": shown[rows].tolist()}

    def restore(self, state: Mapping[str, Sequence[float]] | None, items: int) -> None:
        """Go on from a state, or begin; ``items`` is the size of the catalogue."""
        self.shown = np.zeros(items)
        if state is not None:
            self.shown[np.array(state["rows"], np.int64)] = state["counts"]


@dataclass(frozen=True)
class Format:
    """1 for an answer that names an item and came to its end, 0 for any other."""

    def __call__(self, answered: Answered, world: World) -> Float64:
        return (answered.complete & (answered.items >= 0)).astype(np.float64)


@dataclass(frozen=True)
class Length:
    """What an answer loses by its length: from 0 at ``most - buffer`` tokens down to -1 at ``most``, as DAPO's soft
    punishment of overlong answers (Yu et al. 2025, equation 13).

    Attributes:
        most: tokens from which an answer gets -1.
        buffer: tokens before that over which the loss grows.
    """

    most: int
    buffer: int

    def __post_init__(self) -> None:
        if not 0 < self.buffer <= self.most:
            raise ConfigError(
                f"the reward length has a buffer of {self.buffer} before {self.most} tokens",
                "Give a buffer of at least 1 token and no more than `most`.",
            )

    def __call__(self, answered: Answered, world: World) -> Float64:
        over = answered.lengths - (self.most - self.buffer)
        return np.asarray(-np.clip(over / self.buffer, 0.0, 1.0))


def _both(answered: Answered) -> Bool:
    """bool ``[G, K]``: whether there are an item and a target."""
    return np.asarray((answered.items >= 0) & (answered.requests.targets[:, None] >= 0))


REWARDS: dict[str, Callable[..., Reward]] = {
    "hit": Hit,
    "ranking": Ranking,
    "prefix": Prefix,
    "semantic": Semantic,
    "teacher": lambda **options: Scored({"teacher": 1.0}, **options),
    "memory": lambda **options: Scored({"memory": 1.0}, **options),
    "blend": Scored,
    "category": Category,
    "diversity": Diversity,
    "long-tail": LongTail,
    "coverage": Coverage,
    "format": Format,
    "length": Length,
}


def make_reward(name: str, **options: Any) -> Reward:
    """A reward by its name, or by the import path of one's own: ``package.module:function``.

    A function of one's own takes an :class:`Answered` and a :class:`World`; a class is made with the options first.

    Raises:
        ConfigError: there is no such reward, or it takes no such options.
    """
    if name in REWARDS:
        made: Callable[..., Any] = REWARDS[name]
    elif ":" in name:
        module, _, attribute = name.partition(":")
        try:
            made = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"the reward {name!r} can't be imported: {error}",
                "Give module:name as Python would import it.",
            ) from error
        if not isinstance(made, type):
            if options:
                raise ConfigError(f"the function {name!r} takes no options", "Make it a class with fields.")
            found: Reward = made
            return found
    else:
        raise ConfigError(
            f"there is no reward {name!r}",
            f"Use one of {', '.join(REWARDS)}, or your own as module:name.",
        )
    try:
        reward: Reward = made(**options)
    except TypeError as error:
        raise ConfigError(f"the reward {name!r} can't be made so: {error}", "Look up its options.") from error
    return reward


class Rewards:
    """A weighted sum of rewards.

    Args:
        parts: name to weight, or to ``{"weight": …}`` with the reward's options.
        world: what they may know.

    Raises:
        ConfigError: there are none, or one can't be made.
    """

    def __init__(self, parts: Mapping[str, float | Mapping[str, Any]], world: World) -> None:
        if not parts:
            raise ConfigError("there is no reward", "Name at least one, such as hit.")
        self.world = world
        self.parts: dict[str, tuple[float, Reward]] = {}
        for name, given in parts.items():
            options = dict(given) if isinstance(given, Mapping) else {"weight": given}
            weight = float(options.pop("weight", 1.0))
            self.parts[name] = weight, make_reward(name, **options)
            if isinstance(made := self.parts[name][1], Scored):
                made.check(world)

    def __call__(self, answered: Answered) -> tuple[Float64, dict[str, Float64]]:
        """The sum ``[G, K]``, and each reward by itself; NaN where a group has no such answer.

        Raises:
            DataError: a reward fails, has another shape, or is no finite number; reward, group and answer are named.
        """
        apart = {name: self._one(name, reward, answered) for name, (_, reward) in self.parts.items()}
        total = sum(weight * apart[name] for name, (weight, _) in self.parts.items())
        return np.asarray(total), apart

    def state(self) -> dict[str, Any]:
        """What rewards remember of earlier rollouts, as plain JSON; empty where none does."""
        return {name: each.state() for name, (_, each) in self.parts.items() if isinstance(each, Coverage)}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Remember what :meth:`state` gave; None remembers nothing."""
        for name, (_, each) in self.parts.items():
            if isinstance(each, Coverage):
                each.restore((state or {}).get(name), len(self.world.dataset.item_ids))

    def _one(self, name: str, reward: Reward, answered: Answered) -> Float64:
        try:
            found = np.asarray(reward(answered, self.world), np.float64)
        except (ConfigError, DataError):
            raise
        except Exception as error:
            raise DataError(
                f"the reward {name!r} fails: {type(error).__name__}: {error}", "Mend the function."
            ) from error
        if found.shape != answered.items.shape:
            raise DataError(
                f"the reward {name!r} has shape {found.shape} for answers {answered.items.shape}",
                "Give one number for each answer.",
            )
        bad = np.argwhere(answered.there & ~np.isfinite(found))
        if len(bad):
            group, place = bad[0]
            raise DataError(
                f"the reward {name!r} is {found[group, place]} for answer {place} of user "
                f"{str(answered.requests.users[group])!r}",
                "Give finite numbers.",
            )
        return np.where(answered.there, found, np.nan)
