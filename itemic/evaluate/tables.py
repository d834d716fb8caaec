"""A report on a screen: accuracy by metric and cut, exposure, slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from itemic.screen import Table

if TYPE_CHECKING:
    from itemic.evaluate.report import Measure, Report

MAIN_K = 10


def report_table(report: Report) -> Table:
    """A row a metric, a column a cut: accuracy with intervals, then exposure; notes below."""
    split = f"{report.split} " if report.split else ""
    notes = [f"intervals at {report.level:.0%}", *report.notes] if report.item else report.notes
    table = Table(
        title=f"{report.name} · {report.requests:,} {split}requests",
        title_justify="left",
        caption="\n".join(notes) or None,
        caption_justify="left",
    )
    table.add_column("")
    for k in report.k:
        table.add_column(f"@{k}", justify="right")
    collide = report.sid and report.sid != report.item
    for level, measures in (("", report.item), (" · SID", report.sid if collide else {})):
        cells = {column: interval(measure) for column, measure in measures.items()}
        for name in _names(cells):
            table.add_row(name.upper() + level, *(cells.get(f"{name}@{k}", "") for k in report.k))
    table.add_section()
    cells = {column: short(value) for column, value in report.exposure.items()}
    for name in _names(cells):
        table.add_row(name, *(cells.get(f"{name}@{k}", "") for k in report.k))
    return table


def _names(columns: Iterable[str]) -> list[str]:
    """``["hr@5", "hr@10", "mrr@5"]`` → ``["hr", "mrr"]``."""
    return list(dict.fromkeys(column.partition("@")[0] for column in columns))


def slice_table(report: Report, metrics: Sequence[str] = ("hr", "ndcg")) -> Table:
    """A report's slices for the console: how long histories and rare targets fare, at the main k."""
    names = [f"{name}@{main_k(report.k)}" for name in metrics]
    table = Table(title=f"{report.name} by slice")
    for column in ("", "", "requests", *(name.upper() for name in names)):
        table.add_column(column, justify="right" if column else "left")
    for kind, slices in report.slices.items():
        for part in slices:
            cells = [short(part.metrics[name]) for name in names]
            table.add_row(kind, part.name, f"{part.requests:,}", *cells)
        table.add_section()
    return table


def main_k(cuts: Sequence[int]) -> int:
    """The cut that tables show intervals at: 10, or the largest there is."""
    return MAIN_K if MAIN_K in cuts else max(cuts)


def interval(measure: Measure) -> str:
    """``".0120 [.008, .016]"``."""
    return f"{short(measure.value)} [{short(measure.low, 3)}, {short(measure.high, 3)}]"


def short(value: float, digits: int = 4) -> str:
    """A figure without the zero before its point: ``.0652``, ``-.0120``."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
