"""What `itemic compare` is given: runs, rankings, reports and others' tables, alone or as the seeds of one ranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from itemic import schema as c
from itemic.analysis.comparison import Cost, Side, Versus, contrast
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, DataError
from itemic.evaluate.compare import Comparison, compare
from itemic.evaluate.foreign import is_recommendations, read_recommendations
from itemic.evaluate.paired import Difference
from itemic.evaluate.ranking import HEAD, Ranking
from itemic.evaluate.report import Measure, Report, score
from itemic.pipeline.cost import cost_of
from itemic.pipeline.work import TRAINED

ALONE = "Differences with their intervals need rankings: give the folders of rankings or runs."


@dataclass(frozen=True)
class Measured:
    """A report, the ranking that it measures where it is at hand, and the run that it is of."""

    path: Path
    report: Report
    ranking: Ranking | None
    run: Path | None = None


@dataclass(frozen=True)
class Source:
    """One ranker as it was given: its name, empty where it has none of its own, and a path for each seed."""

    name: str
    paths: list[Path]


def source_of(text: str) -> Source:
    """``"runs/a"``, ``"new=runs/a"`` or ``"new=runs/a-0,runs/a-1"``; what exists is a path, whatever its letters.

    Raises:
        DataError: no path is named.
    """
    if Path(text).exists():
        return Source("", [Path(text)])
    name, equals, rest = text.partition("=")
    paths = [Path(part.strip()) for part in (rest if equals else text).split(",") if part.strip()]
    if not paths:
        raise DataError(f"{text!r} names no path", "Write NAME=PATH, or NAME=PATH,PATH for several seeds.")
    return Source(name.strip() if equals else "", paths)


def run_of(path: Path) -> Path | None:
    """The run's folder that a path is, or is in; None where it is in none."""
    if (path / "evaluate" / TRAINED / HEAD).is_file():
        return path
    above = path.resolve().parent
    return above.parent if above.name in ("evaluate", "report") and (above.parent / "data").is_dir() else None


def measured(
    path: Path, cuts: Sequence[int], seed: int, dataset: Dataset | None = None, split: str = c.TEST
) -> Measured:
    """What a path names.

    Args:
        path: a run's folder (its model's ranking and report), a ranking's, a report, which knows its ranking where it
            stands in a run, or a table of recommendations.
        cuts: of a ranking without a report; those beyond its lists are left out.
        seed: of its intervals.
        dataset: whose requests a table of recommendations answers.
        split: which of them.

    Raises:
        DataError: it is nothing of these, or a table that doesn't fit.
        ConfigError: no cut is within the ranking's lists, or a table comes without a dataset.
    """
    run = run_of(path)
    if run == path:
        found = measured(path / "report" / f"{TRAINED}.json", cuts, seed)
        return replace(found, report=replace(found.report, name=path.resolve().name), run=run)
    if not path.exists():
        raise DataError(
            f"there is nothing at {path}",
            "Give folders of runs or rankings, reports (.json), or tables of recommendations.",
        )
    if path.is_dir():
        return _scored(path, Ranking.load(path), cuts, seed, run)
    if is_recommendations(path):
        if dataset is None:
            raise ConfigError(f"{path} doesn't say whose requests it answers", "Give the dataset: --dataset.")
        return _scored(path, read_recommendations(path, dataset, split), cuts, seed, None)
    beside = path.resolve().parent.parent / "evaluate" / path.stem
    known = path.resolve().parent.name == "report" and (beside / HEAD).is_file()
    return Measured(path, Report.load(path), Ranking.load(beside) if known else None, run)


def side_by_side(
    sources: Sequence[tuple[str, Sequence[Measured]]],
    metrics: Sequence[str],
    seed: int,
    dataset: Dataset | None = None,
    tables: Sequence[Path] = (),
) -> tuple[Comparison, Versus | None]:
    """One table of all; and differences, slices and the rest where every ranking is at hand.

    Args:
        sources: name (empty for its own) and what was measured under each seed.
        metrics: names of metrics.
        seed: of intervals.
        dataset: whose requests were ranked.
        tables: files whose columns are slices.

    Raises:
        ConfigError: they are of different requests, or a metric is unknown.
    """
    names = _names(sources)
    reports = [_together(name, found) for name, (_, found) in zip(names, sources, strict=True)]
    for _, found in sources:  # the seeds of one ranker are of the same requests too
        compare([one.report for one in found], metrics=metrics)
    sides = [
        Side(name, [one.ranking for one in found if one.ranking is not None], [_cost(one) for one in found])
        for name, (_, found) in zip(names, sources, strict=True)
    ]
    complete = all(len(side.rankings) == len(found) for side, (_, found) in zip(sides, sources, strict=True))
    table = compare(reports, metrics=metrics, seed=seed)
    if len(sides) == 1 or not complete:
        if tables:
            raise ConfigError("slices of one's own need two rankings or more", ALONE)
        notes = table.notes if len(sides) == 1 else [*table.notes, ALONE]
        return replace(table, notes=notes), None
    every = [set(report.k) for report in reports]
    cuts = sorted(set.intersection(*every) or set.union(*every))
    versus = contrast(
        sides, dataset=dataset, metrics=metrics, k=cuts, tables=tables, seed=seed, level=reports[0].level
    )
    reports = [
        replace(report, item=report.item | one.metrics) if one.seeds > 1 else report
        for report, one in zip(reports, versus.standings, strict=True)
    ]
    found_table = compare(reports, metrics=metrics, seed=seed)
    return replace(found_table, differences=_differences(versus)), versus


def _scored(path: Path, ranking: Ranking, cuts: Sequence[int], seed: int, run: Path | None) -> Measured:
    within = [k for k in cuts if k <= ranking.head.k] or [ranking.head.k]
    return Measured(path, score(ranking, k=within, seed=seed), ranking, run)


def _cost(found: Measured) -> Cost:
    """What a run's own model took; nothing is known of a baseline's or another's cost."""
    own = found.run is not None and (found.path == found.run or found.path.stem == TRAINED)
    return cost_of(found.run) if own and found.run is not None else Cost()


def _differences(versus: Versus) -> list[Difference]:
    """The first against each other at the main k."""
    return [
        Difference(
            pair.first,
            pair.second,
            {
                one.metric: Measure(one.gain.value, one.gain.low, one.gain.high)
                for one in pair.metrics
                if one.metric.endswith(f"@{pair.k}")
            },
        )
        for pair in versus.pairs
    ]


def _names(sources: Sequence[tuple[str, Sequence[Measured]]]) -> list[str]:
    """A name each: given, or the first report's; those of the same name by their paths."""
    names = [name or found[0].report.name for name, found in sources]
    if given := [name for name, _ in sources if name and [one for one, _ in sources].count(name) > 1]:
        raise ConfigError(f"two rankers are called {given[0]!r}", "Give each its own name.")
    return [
        str(found[0].path) if not given_name and names.count(name) > 1 else name
        for name, (given_name, found) in zip(names, sources, strict=True)
    ]


def _together(name: str, found: Sequence[Measured]) -> Report:
    """The report of a ranker: of its seed, or the means over its seeds; their intervals come from rankings."""
    reports = [one.report for one in found]
    if len(reports) == 1:
        return replace(reports[0], name=name)
    cuts = sorted(set.intersection(*(set(report.k) for report in reports)))
    levels: dict[str, dict[str, Measure]] = {"sid": {}}
    collide = any(report.sid != report.item for report in reports)
    for level in ("item", "sid") if collide else ("item",):
        tables: list[dict[str, Measure]] = [getattr(report, level) for report in reports]
        shared = [metric for metric in tables[0] if all(metric in table for table in tables)]
        values = {metric: sum(table[metric].value for table in tables) / len(tables) for metric in shared}
        levels[level] = {metric: Measure(value, value, value) for metric, value in values.items()}
    return replace(reports[0], name=name, k=cuts, item=levels["item"], sid=levels["sid"], slices={})
