"""A report as one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from itemic.page import Cell, Grid, Row, render
from itemic.sid.report.figures import report_figures
from itemic.sid.report.records import SidFindings

TEMPLATES = Path(__file__).parent / "templates"
TERMS = (
    (
        "Collision rate",
        "1 − semantic IDs / items. At duplicate level items with the same text and the same semantic ID count once, so "
        "that items which are listed twice don't count against the codes.",
    ),
    ("Perplexity", "exp of the entropy of the codes' frequencies: K where all K codes are equally used."),
    (
        "Gini of usage",
        "0 where every code has as many items, near 1 where one has everything; unused codes count. It is bounded and "
        "does not depend on the number of codes. Largest over mean is what limits beams and capacity; the coefficient "
        "of variation says how crowded the average item's code is (1 + CV² times the mean).",
    ),
    ("Branching", "Distinct codes that follow a prefix which some item has."),
    ("Relative error", "Σ‖x − x̂‖² / Σ‖x − mean‖², rebuilt from the codes up to the level."),
    (
        "Purity and NMI",
        "Purity is the share of items in the most frequent category of their group. Normalised mutual information is "
        "I(G; C) over the mean of both entropies. Both rise with ever smaller groups, so read them against chance.",
    ),
    (
        "Recall of neighbours",
        "The share of the nearest items by cosine that share the prefix. Exact neighbours; a sample of items is asked "
        "in large catalogues.",
    ),
)


def report_page(report: SidFindings) -> str:
    """The page of one report."""
    return render(
        TEMPLATES / "report.html",
        title=report.name,
        report=report,
        sizes=" × ".join(f"{size:,}" for size in report.sizes),
        tiles=_tiles(report),
        figures=report_figures(report),
        table=report_grid(report),
        terms=TERMS,
        origin=json.dumps(report.origin, indent=2, ensure_ascii=False),
    )


def _tiles(report: SidFindings) -> list[tuple[str, str]]:
    found = report.collisions
    tiles = [
        (f"{found.items:,}", f"items under {found.sids:,} semantic IDs"),
        (f"{found.rate:.2%}", f"collision rate; {found.collided:,} items share theirs"),
    ]
    if found.duplicate_rate is not None and found.duplicates is not None:
        tiles.append(
            (f"{found.duplicate_rate:.2%}", f"without duplicates ({found.duplicates:,} items have a double)")
        )
    tiles.append(
        (
            f"{found.largest:,}",
            "items share the most crowded semantic ID"
            if found.largest > 1
            else "item per semantic ID at most",
        )
    )
    errors = [level.error for level in report.levels if level.error is not None]
    if errors:
        tiles.append((f"{errors[-1]:.3f}", "of the variance lost with all codes"))
    first = report.prefixes[0]
    if first.recall is not None and report.neighbours is not None:
        tiles.append(
            (f"{first.recall.found:.1%}", f"of {report.neighbours['k']} neighbours share the first code")
        )
    if first.purity:
        part = first.purity[0]
        tiles.append((f"{part.purity:.1%}", f"purity of {part.categories:,} categories under the first code"))
    return tiles


def report_grid(report: SidFindings) -> Grid:
    """All figures by level."""
    levels, prefixes = report.levels, report.prefixes
    rows = [
        Row("Codes used", _cells(f"{level.used:,} / {level.size:,}" for level in levels)),
        Row("Perplexity", _cells(f"{level.perplexity:,.1f}" for level in levels)),
        Row("Gini of usage", _cells(f"{level.gini:.3f}" for level in levels)),
        Row("Largest over mean", _cells(f"{level.max_over_mean:.2f}" for level in levels)),
        Row("Coefficient of variation", _cells(f"{level.variation:.2f}" for level in levels)),
        Row("Branching, mean", _cells(f"{level.branching.mean:,.2f}" for level in levels), start=True),
        Row("Branching, largest", _cells(f"{level.branching.largest:,}" for level in levels)),
        Row("Only one code follows", _cells(f"{level.branching.single:.1%}" for level in levels)),
    ]
    if any(level.error is not None for level in levels):
        errors = ("–" if level.error is None else f"{level.error:.4f}" for level in levels)
        rows.append(Row("Relative error", _cells(errors), start=True))
    rows += [
        Row("Prefixes up to here", _cells(f"{prefix.groups:,}" for prefix in prefixes), start=True),
        Row("Largest group", _cells(f"{prefix.largest:,}" for prefix in prefixes)),
        Row("Items alone", _cells(f"{prefix.alone:.1%}" for prefix in prefixes)),
    ]
    for i in range(report.depths):
        found = [prefix.purity[i] for prefix in prefixes]
        label = f"category depth {found[0].depth}"
        pure = [Cell(f"{part.purity:.3f}", f"{part.chance:.3f}") for part in found]
        shared = [Cell(f"{part.information:.3f}", f"{part.information_chance:.3f}") for part in found]
        rows += [Row(f"Purity, {label}", pure, start=i == 0), Row(f"NMI, {label}", shared)]
    if report.neighbours is not None:
        recalls = [prefix.recall for prefix in prefixes]
        cells = [Cell(f"{part.found:.3f}", f"{part.chance:.3f}") if part else Cell("–") for part in recalls]
        rows.append(Row(f"Recall of {report.neighbours['k']} neighbours", cells, start=True))
    return Grid(["", *(f"level {i + 1}" for i in range(len(levels)))], rows)


def _cells(texts: Iterable[str]) -> list[Cell]:
    return [Cell(text) for text in texts]
