"""The rankers of a comparison: each has a ranking, or one for each of several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from itemic.analysis.comparison.versus import Cost
from itemic.analysis.evidence import Bools, Float64, Int32, Int64
from itemic.errors import ConfigError
from itemic.evaluate.paired import ranks_in
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.report import METRICS
from itemic.metrics import overlap, rbo


@dataclass(frozen=True)
class Side:
    """One ranker: its name, its rankings (one a seed) and what each cost."""

    name: str
    rankings: list[Ranking]
    costs: list[Cost] = field(default_factory=list)

    @property
    def cost(self) -> Cost:
        """The mean over seeds, of what is known."""

        def mean(name: str) -> float | None:
            known = [value for one in self.costs if (value := getattr(one, name)) is not None]
            return sum(known) / len(known) if known else None

        tokens, seconds, parameters = (mean(name) for name in ("tokens", "seconds", "parameters"))
        return Cost(
            None if tokens is None else round(tokens),
            seconds,
            None if parameters is None else round(parameters),
        )


@dataclass(frozen=True)
class Ranks:
    """Where the targets stand: int64 ``[S, R]`` for each side, of the requests whose targets are known.

    Attributes:
        ranks: by side.
        known: bool over all requests.
        users: numbers of the users who ask, int64 ``[R]``; None where each asks once.
        longest: the shortest of the lists' lengths: cuts go no further.
    """

    ranks: list[Int64]
    known: Bools
    users: Int64 | None
    longest: int

    def values(self, side: int, column: str, inside: Bools | None = None) -> Float64:
        """A metric such as ``ndcg@10`` of each request under each seed: float64 ``[S, R]``."""
        name, k = self._metric(column)
        ranks = self.ranks[side] if inside is None else self.ranks[side][:, inside]
        return name(ranks, k)

    def users_in(self, inside: Bools | None) -> Int64 | None:
        return self.users if self.users is None or inside is None else self.users[inside]

    def _metric(self, column: str) -> tuple[Callable[[Int64, int], Float64], int]:
        name, _, k = column.partition("@")
        if name not in METRICS or not k.isdecimal() or not 1 <= int(k) <= self.longest:
            raise ConfigError(
                f"can't compare {column}", f"Use {', '.join(METRICS)} at a k from 1 to {self.longest}."
            )
        return METRICS[name], int(k)


def read_ranks(sides: Sequence[Side]) -> Ranks:
    """Read all rankings' ranks.

    Raises:
        ConfigError: they answer different requests, or no target is known.
        ArtifactError: one is unfinished.
    """
    rankings = [ranking for side in sides for ranking in side.rankings]
    if odd := next((one for one in rankings if one.head.digest != rankings[0].head.digest), None):
        raise ConfigError(
            f"{odd.head.name!r} in {odd.folder} answers different requests than {rankings[0].head.name!r}",
            "Compare rankings of the same split of the same dataset.",
        )
    found = [np.stack([ranks_in(ranking) for ranking in side.rankings]) for side in sides]
    known = found[0][0] >= 0
    if not known.any():
        raise ConfigError("no target is known", "Compare rankings of a split whose targets are known.")
    users = rankings[0].users()[known]
    once = np.bincount(users).max() == 1
    longest = min(ranking.head.k for ranking in rankings)
    return Ranks([ranks[:, known] for ranks in found], known, None if once else users, longest)


def agreement(lists: Sequence[Int32], k: int) -> dict[str, float]:
    """How alike lists for the same requests are: ``overlap@k`` and ``rbo``, means over requests and pairs of lists."""
    pairs = list(combinations(lists, 2))
    if not pairs:
        return {}
    alike = {"rbo": [], f"overlap@{k}": []}  # type: dict[str, list[float]]
    for one, other in pairs:
        for name, values in (("rbo", rbo(one, other, k=k)), (f"overlap@{k}", overlap(one, other, k))):
            alike[name].append(float(np.nanmean(values)) if not np.isnan(values).all() else 1.0)
    return {name: float(np.mean(values)) for name, values in alike.items()}


def lists_in(ranking: Ranking, known: Bools, k: int) -> Int32:
    """The first k items for the requests whose targets are known: int32 ``[R, k]``."""
    return np.concatenate([part.items[:, :k] for part in ranking.arrays()])[known]
