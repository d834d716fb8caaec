"""Reports side by side: on a screen, in a document, as JSON, and with the interval of a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from itemic.artifact import write_json
from itemic.errors import ConfigError
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.report import METRICS, Measure, Report
from itemic.metrics import bootstrap, ranks_of

MAIN_K = 10
BEST = "best reachable"


@dataclass(frozen=True)
class Published:
    """A figure from a paper: metrics such as ``{"hr@10": .0648}`` (``recall@10`` is read as ``hr@10``)."""

    name: str
    metrics: dict[str, float]
    source: str


@dataclass(frozen=True)
class Row:
    """One line of a comparison; a measure without an interval has ``low`` and ``high`` equal to its value."""

    name: str
    level: str
    metrics: dict[str, Measure]
    source: str


@dataclass(frozen=True)
class Comparison:
    """Rows that answer the same requests, and what others have published."""

    title: str
    columns: list[str]
    rows: list[Row]
    notes: list[str]

    def table(self) -> Table:
        """For the console: means, with intervals at the main k."""
        table = Table(title=self.title, caption="\n".join(self.notes) or None)
        table.add_column("")
        for name in self.columns:
            table.add_column(_label(name), justify="right")
        for row in self.rows:
            label = row.name if row.level == "item" else f"{row.name} · {row.level}"
            table.add_row(label, *self._cells(row), style="dim" if row.source else None)
        return table

    def markdown(self) -> str:
        """The same for a document."""
        lines = ["| | " + " | ".join(_label(name) for name in self.columns) + " |"]
        lines.append("|---|" + "---:|" * len(self.columns))
        for row in self.rows:
            label = row.name if row.level == "item" else f"{row.name} · {row.level}"
            lines.append(f"| {label} | " + " | ".join(self._cells(row)) + " |")
        return "\n".join([*lines, "", *self.notes]).rstrip() + "\n"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, file: str | Path) -> None:
        """Write the rows as JSON, whole or not at all."""
        write_json(Path(file), self.to_json())

    def _cells(self, row: Row) -> list[str]:
        cells = []
        for name in self.columns:
            measure = row.metrics.get(name)
            if measure is None:
                cells.append("")
            elif measure.low < measure.high and name.endswith(f"@{_main_k(self.columns)}"):
                cells.append(f"{_short(measure.value)} [{_short(measure.low, 3)}, {_short(measure.high, 3)}]")
            else:
                cells.append(_short(measure.value))
        return cells


def compare(
    reports: Sequence[Report],
    published: Sequence[Published] = (),
    *,
    metrics: Sequence[str] = ("hr", "ndcg"),
    title: str = "",
) -> Comparison:
    """Put reports of the same requests, the best reachable and published figures into one table.

    The item level of each report is a row; its SID level is one more where items collide, so that they
    differ.

    Args:
        reports: models and baselines, in the order of their rows.
        published: figures of others.
        metrics: names of :data:`itemic.evaluate.report.METRICS`, one block of columns each.
        title: above the table.

    Raises:
        ConfigError: no reports, reports of different requests, or an unknown metric.
    """
    if not reports:
        raise ConfigError("a comparison of nothing", "Give at least one report.")
    first = reports[0]
    if odd := next((r for r in reports if (r.asked, r.requests) != (first.asked, first.requests)), None):
        raise ConfigError(
            f"{odd.name!r} ranked {odd.requests} {odd.split or ''} requests ({odd.asked}), "
            f"{first.name!r} {first.requests} {first.split or ''} ({first.asked}): not the same ones",
            "Compare reports of the same split of the same dataset.",
        )
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ConfigError(f"unknown metric {unknown[0]!r}", f"Use {', '.join(METRICS)}.")
    cuts = sorted(set().union(*(report.k for report in reports)))
    columns = [f"{name}@{k}" for name in metrics for k in cuts if (name, k) != ("ndcg", 1)]
    rows = []
    for report in reports:
        rows.append(Row(report.name, "item", report.item, ""))
        if report.sid and report.sid != report.item:
            rows.append(Row(report.name, "SID", report.sid, ""))
    if best := next((report.best for report in reports if report.best), None):
        rows.append(Row(BEST, "item", _plain(best), "the simulator's own next-item distribution"))
    rows += [Row(paper.name, "item", _plain(paper.metrics), paper.source) for paper in published]
    notes = [f"{row.name}: {row.source}" for row in rows if row.source]
    notes += list(dict.fromkeys(note for report in reports for note in report.notes))
    head = f"{reports[0].scored:,} requests, intervals at {reports[0].level:.0%}"
    return Comparison(f"{title} · {head}" if title else head, columns, rows, notes)


def slice_table(report: Report, metrics: Sequence[str] = ("hr", "ndcg")) -> Table:
    """A report's slices for the console: how long histories and rare targets fare, at the main k."""
    main = _main_k([f"@{k}" for k in report.k])
    names = [f"{name}@{main}" for name in metrics]
    table = Table(title=f"{report.name} by slice")
    for column in ("", "", "requests", *map(_label, names)):
        table.add_column(column, justify="right" if column else "left")
    for kind, slices in report.slices.items():
        for part in slices:
            cells = [_short(part.metrics[name]) for name in names]
            table.add_row(kind, part.name, f"{part.requests:,}", *cells)
        table.add_section()
    return table


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
    if first.head.digest != second.head.digest:
        raise ConfigError("the rankings answer different requests", "Compare rankings of the same split.")
    if metric not in METRICS or not 1 <= k <= min(first.head.k, second.head.k):
        raise ConfigError(
            f"can't compare {metric}@{k}", f"Use {', '.join(METRICS)} at a k within both lists."
        )
    values = [_values(ranking, metric, k) for ranking in (first, second)]
    known = values[0] >= 0
    gains = (values[0] - values[1])[known]
    low, high = bootstrap(gains, seed, level=level, groups=first.users()[known])
    return Measure(float(gains.mean()), low, high)


def _values(ranking: Ranking, metric: str, k: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The metric of each request, -1 where the target is unknown."""
    parts = []
    for part in ranking.arrays():
        known = part.targets >= 0
        values = np.full(len(known), -1.0)
        values[known] = METRICS[metric](ranks_of(part.items[known], part.targets[known]), k)
        parts.append(values)
    return np.concatenate(parts)


def _plain(metrics: dict[str, float]) -> dict[str, Measure]:
    """Figures without intervals; recall and hit rate are one and the same with one target a request."""
    named = {name.lower().replace("recall@", "hr@"): value for name, value in metrics.items()}
    return {name: Measure(value, value, value) for name, value in named.items()}


def _main_k(columns: list[str]) -> int:
    cuts = {int(name.split("@")[1]) for name in columns}
    return MAIN_K if MAIN_K in cuts else max(cuts)


def _label(name: str) -> str:
    return name.upper()


def _short(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.{digits}f}"
