"""What a run's page shows of results, data and semantic IDs. Rooms are imported when their part is there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic.page import Cell, Figure, Grid, Row
from itemic.pipeline.page.steps import Made, duration, seconds
from itemic.pipeline.profiles import profile_results
from itemic.pipeline.work import COMPARISON, DESCRIPTION, TRAINED, list_results
from itemic.recipe import Recipe

if TYPE_CHECKING:
    from itemic.control.results import Results
    from itemic.evaluate.compare import Comparison
    from itemic.evaluate.report import Measure, Report

Tiles = list[tuple[str, str]]
SHOWN = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20")  # of profiles


@dataclass(frozen=True)
class Part:
    """A table with what stands around it."""

    table: Grid
    title: str = ""
    verdict: str = ""
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    slices: Grid | None = None


def tiles(root: Path, results: Path, made: Made) -> Tiles:
    """The figures that stand first."""
    found: Tiles = []
    if (results / f"{TRAINED}.json").is_file():
        found += _accuracy_tiles(results / f"{TRAINED}.json")
    if (root / "data" / DESCRIPTION).is_file():
        about = _read(root / "data" / DESCRIPTION)
        found.append(
            (
                f"{about['items']:,}",
                f"items, {about['users']:,} users, {about['interactions']:,} interactions",
            )
        )
    if parameters := _parameters(root, made):
        found.append((f"{parameters:,}", "parameters"))
    return [*found, (duration(seconds(made)), f"in {len(made)} steps")]


def _accuracy_tiles(file: Path) -> Tiles:
    from itemic.evaluate.report import Report
    from itemic.evaluate.tables import main_k, short

    report = Report.load(file)
    names = [name for name in (f"hr@{main_k(report.k)}", f"ndcg@{main_k(report.k)}") if name in report.item]
    found = [(name.upper(), report.item[name]) for name in names]
    return [(short(m.value), f"{name} [{short(m.low, 3)}, {short(m.high, 3)}]") for name, m in found]


def _parameters(root: Path, made: Made) -> int:
    """Of the last model that is there; tied matrices are stored, and counted, once."""
    from safetensors import safe_open

    folders = [folder for folder in made if next(folder.glob("model*.safetensors"), None)]
    total = 0
    for file in sorted(folders[-1].glob("model*.safetensors")) if folders else []:
        with safe_open(file, "numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (it is no dictionary)
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                total += size
    return total


def comparison_part(results: Path) -> Part | None:
    """The table of the report, the line that says who is ahead, and how slices fare; None without a report."""
    if not (results / COMPARISON).is_file():
        return None
    from itemic.evaluate.compare import Comparison
    from itemic.evaluate.report import Report

    table = Comparison.load(results / COMPARISON)
    report = Report.load(results / f"{TRAINED}.json")
    return Part(_results_grid(table), table.title, table.verdict, table.notes, slices=_slices_grid(report))


def _results_grid(table: Comparison) -> Grid:
    """The rows of a comparison; the best of what was ranked here is bold, what others published stands apart."""
    ranked = [row for row in table.rows if not row.source and row.level == "item"]
    best = {
        name: max(values)
        for name in table.columns
        if len(values := [row.metrics[name].value for row in ranked if name in row.metrics]) > 1
    }
    rows: list[Row] = []
    for row in table.rows:
        cells = [
            _result(row.metrics.get(name), name in table.intervals, row in ranked, best.get(name))
            for name in table.columns
        ]
        apart = bool(row.source) and not any(one.start for one in rows)
        rows.append(Row(table.label(row), cells, start=apart))
    return Grid(["", *(name.upper() for name in table.columns)], rows)


def _result(measure: Measure | None, interval: bool, ranked: bool, best: float | None) -> Cell:
    from itemic.evaluate.tables import short

    if measure is None:
        return Cell("")
    aside = (
        f"{short(measure.low, 3)}–{short(measure.high, 3)}" if interval and measure.low < measure.high else ""
    )
    return Cell(short(measure.value), aside, ranked and measure.value == best)


def _slices_grid(report: Report) -> Grid | None:
    from itemic.evaluate.tables import main_k, short

    if not report.slices:
        return None
    names = [f"{name}@{main_k(report.k)}" for name in ("hr", "ndcg")]
    rows = [
        Row(
            f"{kind} {part.name}",
            [Cell(f"{part.requests:,}"), *(Cell(short(part.metrics[name])) for name in names)],
            start=place == 0,
        )
        for kind, slices in report.slices.items()
        for place, part in enumerate(slices)
    ]
    return Grid(["", "requests", *(name.upper() for name in names)], rows)


def lists_parts(root: Path) -> list[Part]:
    """How well lists do what they are told, and what that costs, as far as it was asked."""
    return [Part(_lists_grid(results), results.title, notes=results.notes) for results in list_results(root)]


def _lists_grid(results: Results) -> Grid:
    from itemic.control.results import heading

    columns = results.columns
    rows = [
        Row(
            f"{line.task}, {line.way}",
            [
                Cell(f"{line.asked:,}"),
                *(_result(line.metrics.get(name), True, False, None) for name in columns),
            ],
            start=bool(place) and line.task != results.lines[place - 1].task and results.ways > 1,
        )
        for place, line in enumerate(results.lines)
    ]
    return Grid(["", "asked", *map(heading, columns)], rows)


def profiles_parts(root: Path) -> list[Part]:
    """Who finds items by profiles and without, and what the profiles are worth beside that, as far as it was tested."""
    results = profile_results(root)
    if results is None:
        return []
    table = replace(
        results.comparison, columns=[name for name in results.comparison.columns if name in SHOWN]
    )
    found = [Part(_results_grid(table), table.title, table.verdict, table.notes)]
    if results.judged:
        names = list(dict.fromkeys(name for own in results.judged for name in own.counts))
        rows = [
            Row(name, [_result(own.measures.get(name), True, False, None) for own in results.judged])
            for name in names
        ]
        grid = Grid(["", *(f"{own.writer} writer" for own in results.judged)], rows)
        found.append(Part(grid, "The profiles"))
    return found


def data_part(root: Path) -> Part | None:
    """The dataset in numbers."""
    from itemic.data.statistics import description_rows

    file = root / "data" / DESCRIPTION
    if not file.is_file():
        return None
    about = _read(file)
    return Part(
        Grid(["", ""], [Row(name, [Cell(value)]) for name, value in description_rows(about)]), about["name"]
    )


def index_part(root: Path, recipe: Recipe) -> Part | None:
    """The quality of the semantic IDs, as far as the codes and the catalogue tell; None for codes without items, and
    for items that go by their titles."""
    from itemic.data.dataset import Dataset
    from itemic.sid.index import ItemIndex
    from itemic.sid.kinds import load_names
    from itemic.sid.report import report
    from itemic.sid.report.figures import report_figures
    from itemic.sid.report.page import report_grid

    index = load_names(root / "index")
    if not isinstance(index, ItemIndex) or not len(index):
        return None
    dataset = Dataset.load(root / "data") if (root / "data").is_dir() else None
    found = report(index, dataset, seed=recipe.seed)
    collisions = found.collisions
    verdict = (
        f"{collisions.items:,} items under {collisions.sids:,} semantic IDs of "
        f"{' × '.join(map(str, found.sizes))} codes, format {found.format}: collision rate {collisions.rate:.2%}."
    )
    return Part(report_grid(found), found.name, verdict, found.notes, report_figures(found))


def _read(file: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return value
