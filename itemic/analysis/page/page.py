"""One HTML file that shows an analysis and lets a person look through its cases; it asks no network for anything."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path

from markupsafe import Markup

from itemic.analysis.analysis import Analysis
from itemic.analysis.cases import Cases
from itemic.analysis.page.charts import COLOURS, charts
from itemic.analysis.page.data import block, packed
from itemic.analysis.page.libraries import data_grid, embedded, plots
from itemic.analysis.page.parts import (
    VERDICTS,
    beyond_table,
    cause_rows,
    kind_rows,
    levels_table,
    metrics_table,
    pairs_table,
    slice_parts,
    tiles,
)
from itemic.artifact import write_text
from itemic.page import render

HERE = Path(__file__).parent / "templates"
SCRIPTS = ("dom.js", "filters.js", "case.js", "list.js", "charts.js", "start.js")


def write_page(file: Path, analysis: Analysis, cases: Cases) -> None:
    """Write the page of an analysis: figures, causes, slices, and its cases to filter, sort, search and read.

    It holds its data, its styles and its scripts; the libraries among these are read from the installed packages. A
    policy within the page lets nothing run but these scripts, and nothing load from anywhere.

    Args:
        file: written whole or not at all.
        analysis: what is said of all requests.
        cases: the requests that a person can look at.

    Raises:
        ConfigError: the extra ``analysis`` is missing.
    """
    grid, bokeh, drawn = data_grid(), plots(), charts(analysis)
    own = embedded("\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS))
    page = render(
        HERE / "analysis.html",
        title=f"Why {analysis.name} fails on {analysis.dataset}",
        analysis=analysis,
        cases=cases,
        tiles=tiles(analysis),
        metrics=metrics_table(analysis),
        levels=levels_table(analysis),
        causes=cause_rows(analysis),
        kinds=kind_rows(analysis),
        verdicts=VERDICTS,
        heights={name: one.height for name, one in drawn.items()},
        pairs=pairs_table(analysis),
        slices=slice_parts(analysis),
        beyond=beyond_table(analysis),
        libraries=[grid, bokeh],
        policy=_policy(grid.script, bokeh.script, own),
        charts_data=Markup(
            block({"colours": COLOURS, "charts": {name: one.json for name, one in drawn.items()}})
        ),
        cases_data=Markup(block(packed(analysis, cases))),
        plots_script=Markup(bokeh.script),
        grid_script=Markup(grid.script),
        own_script=Markup(own),
    )
    write_text(file, page)


def _policy(*scripts: str) -> str:
    """What a browser may do with the page: run these scripts, and load nothing from anywhere."""
    hashes = " ".join(
        f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
