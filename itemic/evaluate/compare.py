"""Reports side by side: on a screen, in a document, as JSON; and who is ahead of whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from itemic.artifact import write_json
from itemic.errors import ConfigError, DataError
from itemic.evaluate.paired import Difference, differences
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.report import METRICS, Measure, Report
from itemic.evaluate.tables import interval, main_k, short
from itemic.screen import Table, rendered
from itemic.text import markdown

BEST = "best reachable"
MARK = "*"


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
    """Rows that answer the same requests, and what others have published.

    Attributes:
        title: of the table.
        columns: metrics such as ``ndcg@10``.
        rows: one a ranking or paper.
        notes: what a reader has to know.
        differences: the first row against each other ranking at the main k, where the rankings were at hand.
        variants: names of other rankings that are the first one's in another form, and no rivals of it.
    """

    title: str
    columns: list[str]
    rows: list[Row]
    notes: list[str]
    differences: list[Difference] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)

    @property
    def rival(self) -> Difference | None:
        """The first row against the strongest of its rivals, by NDCG at the main k (or the first metric there is)."""
        rivals = [found for found in self.differences if found.second not in self.variants]
        if not rivals:
            return None
        names = list(rivals[0].metrics)
        main = next((name for name in names if name.startswith("ndcg")), names[0])
        return min(rivals, key=lambda found: found.metrics[main].value)

    @property
    def verdict(self) -> str:
        """Who is ahead, in a sentence; empty where nothing is known of it."""
        return f"{MARK} {self.rival.words}" if self.rival else ""

    def table(self) -> Table:
        """For the console: means, with intervals at the main k; a line below says who is ahead."""
        below = "\n".join(filter(None, [self.verdict, *self.notes])) or None
        table = Table(title=self.title, caption=below, caption_justify="left")
        table.add_column("")
        for name in self.columns:
            table.add_column(_label(name), justify="right")
        for row, cells in zip(self.rows, self.cells(), strict=True):
            table.add_row(*cells, style="dim" if row.source else None)
        return table

    def differences_table(self) -> Table:
        """For the console: the first row minus each other one, with paired intervals."""
        first = self.differences[0]
        table = Table(title=f"{first.first} minus the others, paired by request", title_justify="left")
        table.add_column("")
        for name in first.metrics:
            table.add_column(_label(name), justify="right")
        for found in self.differences:
            table.add_row(found.second, *map(interval, found.metrics.values()))
        return table

    def cells(self) -> list[list[str]]:
        """The rows as text: a name, then a cell for each of ``columns``."""
        return [[self.label(row), *self._cells(row)] for row in self.rows]

    def markdown(self) -> str:
        """The same for a document."""
        lines = ["| | " + " | ".join(_label(name) for name in self.columns) + " |"]
        lines.append("|---|" + "---:|" * len(self.columns))
        lines += [f"| {' | '.join([markdown(self.label(row)), *self._cells(row)])} |" for row in self.rows]
        below = [markdown(text) for text in (self.verdict, *self.notes) if text]
        return "\n\n".join(["\n".join(lines), *below]) + "\n"

    def __repr__(self) -> str:
        return f"<Comparison {self.title!r}: {', '.join(dict.fromkeys(row.name for row in self.rows))}>"

    def __str__(self) -> str:
        return rendered(self.table())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, file: str | Path) -> None:
        """Write the rows as JSON, whole or not at all."""
        write_json(Path(file), self.to_json())

    @classmethod
    def load(cls, file: str | Path) -> Comparison:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file is missing or is no comparison.
        """
        try:
            return cls.from_json(json.loads(Path(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file} is not a comparison: {error}", "Make it again: `itemic run RECIPE --from report`."
            ) from error

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Comparison:
        """What :meth:`to_json` gave."""
        rows = [Row(**(row | {"metrics": _measures(row["metrics"])})) for row in value["rows"]]
        found = [Difference(**(one | {"metrics": _measures(one["metrics"])})) for one in value["differences"]]
        return cls(**(value | {"rows": rows, "differences": found}))

    @property
    def intervals(self) -> list[str]:
        """The columns that show intervals: those at the main k."""
        return [name for name in self.columns if name.endswith(f"@{_main_k(self.columns)}")]

    def label(self, row: Row) -> str:
        """What a row is called in tables."""
        name = row.name if row.level == "item" else f"{row.name} · {row.level}"
        rival = self.rival
        return f"{name} {MARK}" if rival and row.name == rival.second and row.level == "item" else name

    def _cells(self, row: Row) -> list[str]:
        cells = []
        for name in self.columns:
            measure = row.metrics.get(name)
            if measure is None:
                cells.append("")
            elif measure.low < measure.high and name in self.intervals:
                cells.append(interval(measure))
            else:
                cells.append(short(measure.value))
        return cells


def compare(
    reports: Sequence[Report],
    published: Sequence[Published] = (),
    *,
    metrics: Sequence[str] = ("hr", "ndcg"),
    title: str = "",
    rankings: Sequence[Ranking] = (),
    variants: Sequence[str] = (),
    seed: int = 0,
) -> Comparison:
    """Put reports of the same requests, the best reachable and published figures into one table.

    The item level of each report is a row; its SID level is one more where items collide, so that they
    differ.

    Args:
        reports: models and baselines, in the order of their rows.
        published: figures of others.
        metrics: names of :data:`itemic.evaluate.report.METRICS`, one block of columns each.
        title: above the table.
        rankings: what the reports measured, in their order, to tell the first one's differences from the others.
        variants: names of reports that are no rivals of the first one.
        seed: of the differences' bootstrap.

    Raises:
        ConfigError: no reports, reports or rankings of different requests, or an unknown metric.
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
    rows = _rows(reports, published)
    notes = [f"{row.name}: {row.source}" for row in rows if row.source]
    notes += list(dict.fromkeys(note for report in reports for note in report.notes))
    head = f"{reports[0].scored:,} requests, intervals at {reports[0].level:.0%}"
    main = [name for name in columns if name.endswith(f"@{_main_k(columns)}")]
    names = [report.name for report in reports]
    found = differences(rankings, names, main, seed=seed, level=reports[0].level) if len(rankings) > 1 else []
    return Comparison(f"{title} · {head}" if title else head, columns, rows, notes, found, list(variants))


def _rows(reports: Sequence[Report], published: Sequence[Published]) -> list[Row]:
    rows = []
    for report in reports:
        rows.append(Row(report.name, "item", report.item, ""))
        if report.sid and report.sid != report.item:
            rows.append(Row(report.name, "SID", report.sid, ""))
    if best := next((report.best for report in reports if report.best), None):
        rows.append(Row(BEST, "item", _plain(best), "the simulator's own next-item distribution"))
    return rows + [Row(paper.name, "item", _plain(paper.metrics), paper.source) for paper in published]


def _measures(values: dict[str, Any]) -> dict[str, Measure]:
    return {name: Measure(**value) for name, value in values.items()}


def _plain(metrics: dict[str, float]) -> dict[str, Measure]:
    """Figures without intervals; recall and hit rate are one and the same with one target a request."""
    named = {name.lower().replace("recall@", "hr@"): value for name, value in metrics.items()}
    return {name: Measure(value, value, value) for name, value in named.items()}


def _main_k(columns: list[str]) -> int:
    return main_k([int(name.split("@")[1]) for name in columns])


def _label(name: str) -> str:
    return name.upper()
