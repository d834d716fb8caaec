"""Two rankings of the same requests: by how much one is better, request by request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from itemic.errors import ConfigError
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.report import METRICS, Measure
from itemic.evaluate.tables import MAIN_K, interval
from itemic.metrics import bootstrap, ranks_of


@dataclass(frozen=True)
class Difference:
    """By how much the first is better than the second on each metric, such as ``ndcg@10``, with paired intervals."""

    first: str
    second: str
    metrics: dict[str, Measure]

    @property
    def words(self) -> str:
        """``"model is behind popularity on NDCG@10 by .0120 [.008, .016], level on HR@10 (-.0010 [-.004, .002])"``."""
        said = [_standing(column, gain) for column, gain in self.metrics.items()]
        parts, named = [], ""
        for (standing, link), group in groupby(said, key=lambda one: one[:2]):
            rival = "" if named else f" {link}{self.second}"
            named = self.second
            parts.append(f"{standing}{rival} on {' and on '.join(text for *_, text in group)}")
        return f"{self.first} is {', '.join(parts)}"


def difference(
    first: Ranking,
    second: Ranking,
    metric: str = "ndcg",
    k: int = MAIN_K,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> Measure:
    """By how much the first ranking is better than the second on the same requests, with its paired interval.

    The interval of the difference is far narrower than those of the two means suggest, since both rankers
    find the same requests hard.

    Raises:
        ConfigError: the rankings answer different requests, or the metric is unknown.
    """
    found = differences([first, second], ["", ""], [f"{metric}@{k}"], seed=seed, level=level)
    return found[0].metrics[f"{metric}@{k}"]


def differences(
    rankings: Sequence[Ranking],
    names: Sequence[str],
    columns: Sequence[str],
    *,
    seed: int = 0,
    level: float = 0.95,
) -> list[Difference]:
    """The first ranking against each of the others.

    Args:
        rankings: of the same requests.
        names: of the rankings, for tables.
        columns: metrics such as ``ndcg@10``.
        seed: of the bootstrap; whole users are resampled.
        level: of the intervals.

    Returns:
        One for each ranking after the first; none where no target is known.

    Raises:
        ConfigError: the rankings answer different requests, or can't be measured so.
    """
    if len({ranking.head.digest for ranking in rankings}) > 1:
        raise ConfigError("the rankings answer different requests", "Compare rankings of the same split.")
    asked = [_metric(column, min(ranking.head.k for ranking in rankings)) for column in columns]
    ranks = [ranks_in(ranking) for ranking in rankings]
    known = ranks[0] >= 0
    if not known.any():
        return []
    users = rankings[0].users()[known]

    def gain(other: int, metric: str, k: int) -> Measure:
        gains = METRICS[metric](ranks[0][known], k) - METRICS[metric](ranks[other][known], k)
        return Measure(float(gains.mean()), *bootstrap(gains, seed, level=level, groups=users))

    return [
        Difference(
            names[0], names[i], {column: gain(i, *one) for column, one in zip(columns, asked, strict=True)}
        )
        for i in range(1, len(rankings))
    ]


def _metric(column: str, longest: int) -> tuple[str, int]:
    name, _, k = column.partition("@")
    if name not in METRICS or not 1 <= int(k) <= longest:
        raise ConfigError(f"can't compare {column}", f"Use {', '.join(METRICS)} at a k within both lists.")
    return name, int(k)


def ranks_in(ranking: Ranking) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The rank of each request's target, 0 where the list lacks it, -1 where it is unknown."""
    parts = []
    for part in ranking.arrays():
        known = part.targets >= 0
        found = np.full(len(known), -1, np.int64)
        found[known] = ranks_of(part.items[known], part.targets[known])
        parts.append(found)
    return np.concatenate(parts)


def _standing(column: str, gain: Measure) -> tuple[str, str, str]:
    """Where the first stands on one metric, the word before the other's name, and by how much."""
    name = column.upper()
    if gain.low <= 0 <= gain.high:
        return "level", "with ", f"{name} ({interval(gain)})"
    if gain.value < 0:
        return "behind", "", f"{name} by {interval(Measure(-gain.value, -gain.high, -gain.low))}"
    return "ahead", "of ", f"{name} by {interval(gain)}"
