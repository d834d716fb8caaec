"""Several indexes side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from itemic.artifact import write_json
from itemic.errors import ConfigError
from itemic.page import Cell, Grid, Row, render
from itemic.screen import Table, rendered
from itemic.sid.report.figures import comparison_figures
from itemic.sid.report.page import TEMPLATES
from itemic.sid.report.report import SidReport

NOTHING = "–"


@dataclass(frozen=True)
class SidComparison:
    """Reports, each under a name of its own.

    Attributes:
        names: one a report; short and distinct.
        reports: in the order of the columns.
        notes: what a reader has to know.
    """

    names: list[str]
    reports: list[SidReport]
    notes: list[str]

    @property
    def title(self) -> str:
        datasets = list(dict.fromkeys(r.dataset for r in self.reports if r.dataset))
        return f"Semantic IDs of {datasets[0]}" if len(datasets) == 1 else "Semantic IDs"

    def table(self) -> Table:
        """For the console: a row a figure, a column an index; the best of a row is bold."""
        grid = comparison_grid(self)
        table = Table(title=self.title, caption="\n".join(self.notes) or None, caption_justify="left")
        table.add_column("")
        for name in self.names:
            table.add_column(name, justify="right", overflow="fold")
        for row in grid.rows:
            if row.start:
                table.add_section()
            cells = (f"{cell.text} ({cell.aside})" if cell.aside else cell.text for cell in row.cells)
            styled = (
                Text(text, style="bold") if cell.best else text
                for text, cell in zip(cells, row.cells, strict=True)
            )
            table.add_row(row.name, *styled)
        return table

    def html(self) -> str:
        """One page that needs nothing else."""
        return render(
            TEMPLATES / "compare.html",
            title=self.title,
            comparison=self,
            table=comparison_grid(self),
            figures=comparison_figures(self.reports, self.names),
        )

    def __repr__(self) -> str:
        return f"<SidComparison {self.title!r}: {', '.join(self.names)}>"

    def __str__(self) -> str:
        return rendered(self.table())

    def to_json(self) -> dict[str, Any]:
        return {
            "names": self.names,
            "notes": self.notes,
            "reports": [report.to_json() for report in self.reports],
        }

    def save(self, file: str | Path) -> None:
        """Write all reports as JSON, whole or not at all."""
        write_json(Path(file), self.to_json())


def compare(reports: Sequence[SidReport]) -> SidComparison:
    """Put reports side by side.

    What needs a dataset or vectors compares only where all reports had the same; the notes say where that isn't so.

    Raises:
        ConfigError: there is nothing to compare.
    """
    if not reports:
        raise ConfigError("a comparison of nothing", "Give at least one report.")
    notes = []
    datasets = list(dict.fromkeys(report.dataset or "an unnamed one" for report in reports))
    if len(datasets) > 1 or len({report.collisions.items for report in reports}) > 1:
        notes.append(
            f"The indexes are of different catalogues ({', '.join(datasets)}): purity and neighbours don't compare."
        )
    notes += dict.fromkeys(note for report in reports for note in report.notes)
    return SidComparison(_names(reports), list(reports), notes)


def _names(reports: Sequence[SidReport]) -> list[str]:
    """Names without what they all have in common, and with a digest where two are alike."""
    heads = {report.dataset for report in reports}
    names = [
        report.name.removeprefix(f"{report.dataset} · ") if len(heads) == 1 else report.name
        for report in reports
    ]
    often = Counter(names)
    names = [
        f"{name} ({report.digest[:6]})" if often[name] > 1 else name
        for name, report in zip(names, reports, strict=True)
    ]
    again = Counter(names)
    return [f"{name} #{i + 1}" if again[name] > 1 else name for i, name in enumerate(names)]


# --------------------------------------------------------------------------- table

Value = float | None


def comparison_grid(comparison: SidComparison) -> Grid:
    """A row a figure, the best one marked where it is clear which is better."""
    reports = comparison.reports
    levels = max(len(report.levels) for report in reports)
    rows = [_row("Items", reports, lambda r: r.collisions.items, "{:,}")]
    rows.append(_row("Semantic IDs", reports, lambda r: r.collisions.sids, "{:,}"))
    rows.append(_row("Collision rate", reports, lambda r: r.collisions.rate, "{:.2%}", -1))
    rows.append(_row("  without duplicates", reports, lambda r: r.collisions.duplicate_rate, "{:.2%}", -1))
    rows.append(_row("Most crowded semantic ID", reports, lambda r: r.collisions.largest, "{:,}", -1))
    by_level: list[tuple[str, Callable[[SidReport, int], Value], str, int]] = [
        ("Codes used", lambda r, i: r.levels[i].used, "{:,}", 0),
        ("Perplexity", lambda r, i: r.levels[i].perplexity, "{:,.1f}", 0),
        ("Gini of usage", lambda r, i: r.levels[i].gini, "{:.3f}", -1),
        ("Branching, mean", lambda r, i: r.levels[i].branching.mean, "{:,.2f}", 0),
        ("Largest group", lambda r, i: r.prefixes[i].largest, "{:,}", 0),
        ("Relative error", lambda r, i: r.levels[i].error, "{:.4f}", -1),
    ]
    for name, value, form, better in by_level:
        rows += _by_level(name, reports, levels, value, form, better)
    rows += _by_level("Neighbours kept", reports, levels, _recall, "{:.3f}", 0, _ceiling)
    for depth in sorted({part.depth for report in reports for part in report.prefixes[0].purity}):
        rows += _by_level(
            f"NMI, category depth {depth}",
            reports,
            levels,
            lambda r, i, depth=depth: _information(r, i, depth, "information"),  # type: ignore[misc]
            "{:.3f}",
            0,
            lambda r, i, depth=depth: _information(r, i, depth, "information_chance"),  # type: ignore[misc]
        )
    return Grid(["", *comparison.names], [row for row in rows if any(c.text != NOTHING for c in row.cells)])


def _recall(report: SidReport, level: int) -> Value:
    found = report.prefixes[level].recall
    return None if found is None else found.found


def _ceiling(report: SidReport, level: int) -> Value:
    found = report.prefixes[level].recall
    return None if found is None else found.ceiling


def _information(report: SidReport, level: int, depth: int, field: str) -> Value:
    parts = [part for part in report.prefixes[level].purity if part.depth == depth]
    return float(getattr(parts[0], field)) if parts else None


def _by_level(
    name: str,
    reports: Sequence[SidReport],
    levels: int,
    value: Callable[[SidReport, int], Value],
    form: str,
    better: int,
    aside: Callable[[SidReport, int], Value] | None = None,
) -> list[Row]:
    """A row for each level; reports with fewer levels have nothing there."""

    def at(function: Callable[[SidReport, int], Value], level: int) -> Callable[[SidReport], Value]:
        return lambda report: function(report, level) if level < len(report.levels) else None

    return [
        _row(
            f"{name}, level {level + 1}",
            reports,
            at(value, level),
            form,
            better,
            start=level == 0,
            aside=None if aside is None else at(aside, level),
        )
        for level in range(levels)
    ]


def _row(
    name: str,
    reports: Sequence[SidReport],
    value: Callable[[SidReport], Value],
    form: str,
    better: int = 0,
    *,
    start: bool = False,
    aside: Callable[[SidReport], Value] | None = None,
) -> Row:
    """``better``: 1 where high values are good, -1 where low ones are, 0 where it depends."""
    values = [value(report) for report in reports]
    known = {found for found in values if found is not None}
    best = max(known, key=lambda found: better * found) if better and len(known) > 1 else None
    asides = [aside(report) if aside else None for report in reports]
    cells = [
        Cell(
            NOTHING if found is None else form.format(found),
            "" if beside is None else form.format(beside),
            best is not None and found == best,
        )
        for found, beside in zip(values, asides, strict=True)
    ]
    return Row(name, cells, start)
