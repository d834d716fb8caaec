"""What a comparison says: plain figures that tables, charts and pages show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from itemic.evaluate.report import Measure
from itemic.evaluate.significance import Discordant, Gain, Needed
from itemic.evaluate.tables import interval, short

Verdict = Literal["ahead", "behind", "no difference shown"]


@dataclass(frozen=True)
class Contrast:
    """One metric of a pair.

    Attributes:
        metric: such as ``ndcg@10``.
        first, second: the means.
        gain: first minus second, with its interval and p.
        corrected: p by Holm's method over all metrics and pairs shown.
        verdict: by the corrected p.
        needed: what it takes to see the difference.
        mcnemar: of a hit rate with one seed each, where each user asks once.
    """

    metric: str
    first: float
    second: float
    gain: Gain
    corrected: float
    verdict: Verdict
    needed: Needed
    mcnemar: Discordant | None = None

    @property
    def words(self) -> str:
        """What there is to say of it."""
        name, measure = self.metric.upper(), Measure(self.gain.value, self.gain.low, self.gain.high)
        if self.verdict == "ahead":
            return f"{name}: ahead by {interval(measure)}"
        if self.verdict == "behind":
            return f"{name}: behind by {interval(Measure(-measure.value, -measure.high, -measure.low))}"
        said = f"{name}: no difference shown ({interval(measure)})"
        if not self.needed.visible:
            return f"{said}: both answer alike"
        said += f"; at this size one of {short(self.needed.visible)} would be, in four of five cases"
        if self.needed.requests is not None:
            return f"{said}; the one measured would take about {rounded(self.needed.requests)} requests"
        if self.gain.seeds_error:
            return f"{said}; more requests would not tell, as the seeds differ more than that"
        return said


@dataclass(frozen=True)
class Part:
    """A slice of the requests under one metric; ``corrected`` by Holm's method over all slices shown."""

    value: str
    requests: int
    metric: str
    first: float
    second: float
    gain: Gain
    corrected: float
    verdict: Verdict


@dataclass(frozen=True)
class Example:
    """A request that one hits among the first k and the other doesn't.

    Attributes:
        request, user: which one, and whose.
        history: the latest titles, oldest first.
        target: the title of what came next.
        first_rank, second_rank: the target's places; 0 where it isn't in the list.
        first_listed, second_listed: what stands first.
    """

    request: int
    user: str
    history: list[str]
    target: str
    first_rank: int
    second_rank: int
    first_listed: list[str]
    second_listed: list[str]


@dataclass(frozen=True)
class Pair:
    """The first of two against the second.

    Attributes:
        first, second: names.
        seeds: of each.
        paired_seeds: whether seeds are paired by their places.
        metrics: whole.
        slices: by name.
        k: of the hits below.
        wins, losses: requests that only the first, only the second hits (under the first seed of each).
        won, lost: some of these.
        agreement: ``overlap@k`` and ``rbo`` of their lists, first seed against first seed.
    """

    first: str
    second: str
    seeds: tuple[int, int]
    paired_seeds: bool
    metrics: list[Contrast]
    slices: dict[str, list[Part]]
    k: int
    wins: int
    losses: int
    won: list[Example] = field(default_factory=list)
    lost: list[Example] = field(default_factory=list)
    agreement: dict[str, float] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        return [contrast.words for contrast in self.metrics]


@dataclass(frozen=True)
class Cost:
    """What a model took: tokens trained on, seconds of training, parameters; None where it isn't known."""

    tokens: int | None = None
    seconds: float | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Standing:
    """One ranker.

    Attributes:
        name: for tables.
        seeds: rankings of it.
        metrics: means over seeds, with intervals.
        beyond: :func:`itemic.analysis.beyond.beyond`, means over seeds.
        stability: of several seeds, ``overlap@k`` and ``rbo`` of their lists, means over requests and pairs of seeds.
        cost: mean over seeds.
    """

    name: str
    seeds: int
    metrics: dict[str, Measure]
    beyond: dict[str, float] = field(default_factory=dict)
    stability: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Versus:
    """Rankers of the same requests; the first against each other one.

    Attributes:
        requests: with a known target.
        level: of intervals and tests.
        tests: metrics × pairs that are corrected for.
        standings: all rankers.
        pairs: the first against each other.
        notes: how intervals and tests are made, and what else a reader has to know.
        dataset, split: whose requests; empty where no dataset was at hand.
    """

    requests: int
    level: float
    tests: int
    standings: list[Standing]
    pairs: list[Pair]
    notes: list[str]
    dataset: str = ""
    split: str = ""

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.standings)
        return f"<Versus: {names}, {self.requests:,} requests>"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verdict_of(found: Gain, corrected: float, level: float) -> Verdict:
    """Ahead or behind where the corrected p is below ``1 - level``."""
    if corrected >= 1 - level:
        return "no difference shown"
    return "ahead" if found.value > 0 else "behind"


def rounded(count: int) -> str:
    """Two digits of a count: ``"48,000"``."""
    power = 10 ** max(len(str(count)) - 2, 0)
    return f"{round(count / power) * power:,}"
