"""What an analysis says: how many cases are bad, which patterns go with them, and where the semantic ID goes wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from itemic.artifact import write_json
from itemic.errors import DataError
from itemic.evaluate.report import Measure

Verdict = Literal["cause", "coincidence", "spared", "no difference", "too few", "kind"]


@dataclass(frozen=True)
class Cause:
    """A pattern, and whether it goes with failure.

    Attributes:
        name, title, definition, source, about: of the detector; the definition with its numbers.
        able: requests that could show it.
        bad, good: how many of them do, among the bad cases and among the good ones.
        share_bad, share_good: the same as shares.
        lift: ``share_bad / share_good`` with its interval: above 1 where the pattern goes with failure. None of a
            ``kind``, and where all cases are bad, or none.
        odds: by how much the pattern multiplies the odds of failure where all others are held equal (logistic
            regression on the patterns that are properties of requests); None for those of answers.
        verdict: ``cause`` where lift and odds lie above 1 with their intervals, ``coincidence`` where the lift does and
            the odds don't: other patterns explain it; ``spared`` where the lift lies below 1, ``no difference`` where
            its interval holds 1, ``too few`` where fewer than ten requests show the pattern, or lack it; ``kind`` where
            only bad cases can show it: it sorts them, and explains nothing.
        hr, ndcg: of the requests that show it, at k; None where none does.
        hr_rest, ndcg_rest: of those that could and don't; None where all do.
        at_stake: hits that were missed in comparison: requests that show it times what they are behind the others; of a
            ``kind`` how many they are.
    """

    name: str
    title: str
    definition: str
    source: str
    about: str
    able: int
    bad: int
    good: int
    share_bad: float
    share_good: float
    lift: Measure | None
    odds: Measure | None
    verdict: Verdict
    hr: Measure | None
    ndcg: Measure | None
    hr_rest: float | None
    ndcg_rest: float | None
    at_stake: float

    @property
    def requests(self) -> int:
        return self.bad + self.good


@dataclass(frozen=True)
class Pair:
    """Two patterns among bad cases: ``both`` of ``first`` and ``second``, and how much more often than by chance."""

    first: str
    second: str
    both: int
    lift: float


@dataclass(frozen=True)
class Level:
    """One level of the semantic ID, by the first place of the lists.

    Attributes:
        level: from 1.
        reached: bad and good cases whose levels before are right at the first place.
        right: how many of these have this level right too.
        first_wrong: bad cases that go wrong here in all of their first k places (the longest right prefix ends here).
        chance: the share that the code which training has most often under the right prefix would get right.
    """

    level: int
    reached: int
    right: int
    first_wrong: int
    chance: float


@dataclass(frozen=True)
class Part:
    """A slice of the requests: those with ``value`` of one column.

    Attributes:
        value: what they have in common.
        requests, bad: how many.
        hr, ndcg: at k, with intervals.
        lift: the share of bad cases here over that of the others; None where there are no others, or none of them bad.
    """

    value: str
    requests: int
    bad: int
    hr: Measure
    ndcg: Measure
    lift: float | None


@dataclass(frozen=True)
class Analysis:
    """What goes wrong in a ranking.

    Attributes:
        name: of the ranker.
        dataset, split: what was asked.
        requests, bad: with a known target; whose target is not among the first ``k``.
        k: how many places count as shown.
        level: of the intervals.
        metrics: ``hr@j``, ``ndcg@j``, ``mrr@j`` at the cuts.
        curve: the hit rate at 1, 2, … up to the lists' length.
        causes: by what is at stake, most first.
        pairs: patterns that go together among bad cases, the strongest first.
        levels: of the semantic ID; empty without an index.
        slices: by name: history length, popularity of the target, category, and the user's own columns.
        beyond: coverage, Gini, novelty and the like, see :mod:`itemic.metrics`.
        absent: detectors that weren't asked, and why.
        thresholds: as :class:`itemic.analysis.detector.Thresholds` has them.
        config: how the ranker was asked.
        notes: what a reader has to know.
        asked: digest of the requests.
    """

    name: str
    dataset: str
    split: str | None
    requests: int
    bad: int
    k: int
    level: float
    metrics: dict[str, Measure]
    curve: list[float]
    causes: list[Cause]
    pairs: list[Pair] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    slices: dict[str, list[Part]] = field(default_factory=dict)
    beyond: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    thresholds: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    asked: str = ""

    def __repr__(self) -> str:
        found = sum(cause.verdict == "cause" for cause in self.causes)
        bad = f"{self.bad:,} of {self.requests:,} requests bad at {self.k}"
        return f"<Analysis of {self.name!r}: {bad}, {found} causes>"

    def cause(self, name: str) -> Cause | None:
        """What is said of a detector; None where it wasn't asked."""
        return next((cause for cause in self.causes if cause.name == name), None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, file: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(Path(file), self.to_json())

    @classmethod
    def load(cls, file: str | Path) -> Analysis:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file is missing or is no analysis.
        """
        try:
            value = json.loads(Path(file).read_text(encoding="utf-8"))
            parts = {
                "metrics": {name: Measure(**one) for name, one in value["metrics"].items()},
                "causes": [Cause(**_measured(one, "lift", "odds", "hr", "ndcg")) for one in value["causes"]],
                "pairs": [Pair(**one) for one in value["pairs"]],
                "levels": [Level(**one) for one in value["levels"]],
                "slices": {
                    name: [Part(**_measured(one, "hr", "ndcg")) for one in rows]
                    for name, rows in value["slices"].items()
                },
            }
            return cls(**(value | parts))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file} is not an analysis: {error}", "Run `itemic analyze` again.") from error


def _measured(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return value | {name: Measure(**value[name]) for name in names if value[name] is not None}
