"""What stands in the page itself, before any script runs: tiles, tables and their words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from itemic.analysis.analysis import Analysis, Cause, Part
from itemic.evaluate.report import Measure
from itemic.evaluate.tables import interval, short
from itemic.page import Cell, Grid, Row

MOST_PARTS = 60  # rows of a slice's table; a user's own column may have thousands of values
MOST_PAIRS = 12
NAMES = {"hr": "Hit rate", "ndcg": "NDCG", "mrr": "MRR"}
VERDICTS = {
    "cause": "goes with failure, and no other pattern explains it",
    "coincidence": "goes with failure only because it goes with other patterns",
    "spared": "goes with success",
    "no difference": "no difference shown",
    "too few": "too few requests to tell",
}


@dataclass(frozen=True)
class CauseRow:
    """One row of the table of causes, every figure as text."""

    cause: Cause
    bad: str
    good: str
    lift: str
    odds: str
    hr: tuple[str, str]
    ndcg: tuple[str, str]
    stake: str
    meaning: str


@dataclass(frozen=True)
class SlicePart:
    """One slicing: its name, its table, and how many of its rows the table leaves out."""

    name: str
    table: Grid
    left: int


def tiles(analysis: Analysis) -> list[tuple[str, str]]:
    """Figures that a reader sees first, each with what it is."""
    level, k = f"{analysis.level:.0%}", analysis.k
    found = [
        (
            f"{analysis.bad:,}",
            f"of {analysis.requests:,} requests are bad: their target isn't among the first {k}",
        )
    ]
    for metric, name in NAMES.items():
        one = analysis.metrics.get(f"{metric}@{k}")
        if one is not None:
            found.append(
                (
                    figure(one.value),
                    f"{name} at {k}, {level} interval {figure(one.low)} to {figure(one.high)}",
                )
            )
    return found


def metrics_table(analysis: Analysis) -> Grid:
    """A metric a row, a cut a column, with intervals."""
    cuts = sorted({int(column.partition("@")[2]) for column in analysis.metrics})
    names = list(dict.fromkeys(column.partition("@")[0] for column in analysis.metrics))
    rows = [
        Row(
            NAMES.get(name, name.upper()),
            [_measured(analysis.metrics.get(f"{name}@{cut}")) for cut in cuts],
        )
        for name in names
    ]
    return Grid(["Metric", *(f"at {cut}" for cut in cuts)], rows)


def levels_table(analysis: Analysis) -> Grid:
    head = ["Level", "Reached", "Right", "By chance", "First wrong here", "of bad cases"]
    rows = [
        Row(
            str(one.level),
            [
                Cell(f"{one.reached:,}"),
                Cell(percent(one.right / one.reached) if one.reached else "–"),
                Cell(percent(one.chance)),
                Cell(f"{one.first_wrong:,}"),
                Cell(percent(one.first_wrong / analysis.bad) if analysis.bad else "–"),
            ],
        )
        for one in analysis.levels
    ]
    return Grid(head, rows)


def cause_rows(analysis: Analysis) -> list[CauseRow]:
    """Patterns that bad and good cases may show; those that none shows are left out."""
    return [
        CauseRow(
            cause,
            percent(cause.share_bad),
            percent(cause.share_good),
            _spread(cause.lift),
            "" if cause.odds is None else _spread(cause.odds),
            (_value(cause.hr), figure(cause.hr_rest)),
            (_value(cause.ndcg), figure(cause.ndcg_rest)),
            f"{cause.at_stake:,.0f}" if math.isfinite(cause.at_stake) else "–",
            VERDICTS.get(cause.verdict, ""),
        )
        for cause in analysis.causes
        if cause.about != "kind" and cause.requests
    ]


def kind_rows(analysis: Analysis) -> list[tuple[Cause, str, str]]:
    """Kinds of bad cases: each with its share of all bad cases, and of those that could be of the kind."""
    bad = max(analysis.bad, 1)
    return [
        (cause, percent(cause.bad / bad), percent(cause.share_bad))
        for cause in analysis.causes
        if cause.about == "kind" and cause.bad
    ]


def pairs_table(analysis: Analysis) -> Grid:
    """Patterns that go together among bad cases."""
    titles = {cause.name: cause.title for cause in analysis.causes}
    rows = [
        Row(
            titles.get(pair.first, pair.first),
            [
                Cell(titles.get(pair.second, pair.second)),
                Cell(f"{pair.both:,}"),
                Cell(times(pair.lift)),
            ],
        )
        for pair in analysis.pairs[:MOST_PAIRS]
    ]
    return Grid(["Pattern", "goes with", "Bad cases", "against chance"], rows)


def slice_parts(analysis: Analysis) -> list[SlicePart]:
    return [
        SlicePart(name, slice_table(parts[:MOST_PARTS], analysis.k), max(0, len(parts) - MOST_PARTS))
        for name, parts in analysis.slices.items()
    ]


def slice_table(parts: list[Part], k: int) -> Grid:
    head = ["", "Requests", "Bad", f"Hit rate at {k}", f"NDCG at {k}", "Lift of bad"]
    rows = [
        Row(
            part.value,
            [
                Cell(f"{part.requests:,}"),
                Cell(f"{part.bad:,}"),
                _measured(part.hr),
                _measured(part.ndcg),
                Cell(times(part.lift)),
            ],
        )
        for part in parts
    ]
    return Grid(head, rows)


def beyond_table(analysis: Analysis) -> Grid:
    rows = [Row(name, [Cell(figure(value))]) for name, value in analysis.beyond.items()]
    return Grid(["Measure", "Value"], rows)


def figure(value: float | None) -> str:
    """``.0652``, or a dash for what isn't a number."""
    return short(value) if value is not None and math.isfinite(value) else "–"


def times(value: float | None) -> str:
    return f"{value:.2f} ×" if value is not None and math.isfinite(value) else "–"


def percent(share: float) -> str:
    if not math.isfinite(share):
        return "–"
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _measured(measure: Measure | None) -> Cell:
    if measure is None or not math.isfinite(measure.value):
        return Cell("–")
    value, _, around = interval(measure).partition(" ")
    return Cell(value, around.strip("[]").replace(", ", "–"))


def _value(measure: Measure | None) -> str:
    return "–" if measure is None else figure(measure.value)


def _spread(measure: Measure | None) -> str:
    """A ratio with its interval: ``1.31 [1.20, 1.44]``."""
    if measure is None or not math.isfinite(measure.value):
        return "–"
    high = f"{measure.high:.2f}" if math.isfinite(measure.high) else "∞"
    return f"{measure.value:.2f} [{measure.low:.2f}, {high}]"
