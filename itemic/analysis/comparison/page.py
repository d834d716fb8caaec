"""A comparison as one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from itemic.analysis.comparison.chart import interval_chart, metric_bars, slice_bars
from itemic.analysis.comparison.sheets import Sheet, described, sheets, told
from itemic.analysis.comparison.versus import Pair, Versus
from itemic.evaluate.compare import Comparison
from itemic.page import Cell, Figure, Grid, Row, render

TEMPLATE = Path(__file__).parent / "templates" / "compare.html"
COLOURED = "Green is ahead, red behind, grey where no difference is shown after correction."


def page(versus: Versus, comparison: Comparison) -> str:
    """The page: quality, differences with intervals, slices, wins and losses, cost, and what is beyond accuracy."""
    names = [one.name for one in versus.standings]
    asked = f"{versus.requests:,} requests"
    if versus.dataset:
        asked = f"{versus.dataset}, {versus.split} split, {asked}"
    cells = [
        Row(name, [Cell(text) for text in row])
        for name, *row in comparison.cells()  # the first cell is the name
    ]
    return render(
        TEMPLATE,
        title=" and ".join([", ".join(names[:-1]), names[-1]]),
        asked=asked,
        quality=Grid(["", *(name.upper() for name in comparison.columns)], cells),
        notes=[*comparison.notes, *versus.notes],
        figures=[figure for pair in versus.pairs for figure in _figures(pair)],
        sheets=[(sheet.title, _grid(sheet), sheet.below) for sheet in sheets(versus)],
        examples=[
            (title, [described(example, pair) for example in examples])
            for pair in versus.pairs
            for title, examples in told(pair)
        ],
    )


def _figures(pair: Pair) -> list[Figure]:
    name = f"{pair.first} minus {pair.second}"
    found = [
        Figure(
            name,
            f"Differences with intervals, by metric. {COLOURED}",
            interval_chart(name, metric_bars(pair), "difference"),
        )
    ]
    main, bars = slice_bars(pair)
    if bars:
        found.append(
            Figure(
                f"{name}, by slice",
                f"{main} of requests with something in common. {COLOURED}",
                interval_chart(f"{name}, by slice", bars, f"difference of {main}"),
            )
        )
    return found


def _grid(sheet: Sheet) -> Grid:
    return Grid(sheet.head, [Row(name, [Cell(text) for text in rest]) for name, *rest in sheet.rows])
