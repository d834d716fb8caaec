"""What `itemic evaluate compare` is given: runs, rankings and reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from itemic.errors import DataError
from itemic.evaluate.compare import Comparison, compare
from itemic.evaluate.ranking import HEAD, Ranking
from itemic.evaluate.report import Report, score
from itemic.pipeline.work import TRAINED

ALONE = "Differences with their intervals need rankings: give the folders of rankings or runs."


@dataclass(frozen=True)
class Measured:
    """A report, and the ranking that it measures where it is at hand."""

    path: Path
    report: Report
    ranking: Ranking | None


def measured(path: Path, cuts: Sequence[int], seed: int) -> Measured:
    """What a path names.

    Args:
        path: a run's folder (its model's ranking and report), a ranking's, or a report, which knows its ranking
            where it stands in a run.
        cuts: of a ranking without a report; those beyond its lists are left out.
        seed: of its intervals.

    Raises:
        DataError: it is nothing of these.
        ConfigError: no cut is within the ranking's lists.
    """
    if (path / "evaluate" / TRAINED / HEAD).is_file():
        found = measured(path / "report" / f"{TRAINED}.json", cuts, seed)
        return replace(found, report=replace(found.report, name=path.resolve().name))
    if not path.exists():
        raise DataError(
            f"there is nothing at {path}", "Give folders of runs or rankings, or reports (.json)."
        )
    if path.is_dir():
        ranking = Ranking.load(path)
        within = [k for k in cuts if k <= ranking.head.k] or [ranking.head.k]
        return Measured(path, score(ranking, k=within, seed=seed), ranking)
    beside = path.resolve().parent.parent / "evaluate" / path.stem
    known = path.resolve().parent.name == "report" and (beside / HEAD).is_file()
    return Measured(path, Report.load(path), Ranking.load(beside) if known else None)


def side_by_side(found: Sequence[Measured], metrics: Sequence[str], seed: int) -> Comparison:
    """One table of all; with differences where every ranking is at hand.

    Raises:
        ConfigError: they are of different requests, or a metric is unknown.
    """
    reports = _named(found)
    rankings = [one.ranking for one in found if one.ranking is not None]
    paired = len(rankings) == len(found) > 1
    table = compare(reports, metrics=metrics, rankings=rankings if paired else (), seed=seed)
    return table if paired or len(found) == 1 else replace(table, notes=[*table.notes, ALONE])


def _named(found: Sequence[Measured]) -> list[Report]:
    """The reports, those of the same name by their paths."""
    names = [one.report.name for one in found]
    return [
        replace(one.report, name=str(one.path)) if names.count(one.report.name) > 1 else one.report
        for one in found
    ]
