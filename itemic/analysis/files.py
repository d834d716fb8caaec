"""What an analysis leaves behind: a folder of files for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from itemic.analysis.analysis import Analysis
from itemic.analysis.cases import MOST, choose_cases
from itemic.analysis.charts import draw
from itemic.analysis.detector import Found
from itemic.analysis.evidence import Evidence
from itemic.analysis.summary import summary
from itemic.artifact import whole_file, write_text
from itemic.progress import progress_bar

REPORT, RESULTS, SUMMARY, PAGE, PLOTS = (
    "badcase_report.json",
    "eval_results.jsonl",
    "summary_report.txt",
    "report.html",
    "visualizations",
)
CHUNK = 20_000


def write_analysis(
    folder: Path, evidence: Evidence, analysis: Analysis, found: Mapping[str, Found], *, most: int = MOST
) -> list[Path]:
    """Write all files of an analysis.

    Args:
        folder: where to; files of an earlier analysis are replaced.
        evidence: what was looked at.
        analysis: what is said of it.
        found: what the detectors found.
        most: cases in the page; of more a stated sample is shown.

    Returns:
        the files: ``report.html`` to read and search, ``badcase_report.json`` (:meth:`Analysis.load` reads it),
        ``eval_results.jsonl`` with one request a line, ``summary_report.txt``, and plots in ``visualizations/``.
    """
    from itemic.analysis.page import write_page  # needs the extra `analysis`

    folder.mkdir(parents=True, exist_ok=True)
    analysis.save(folder / REPORT)
    write_text(folder / SUMMARY, summary(analysis))
    plots = draw(analysis, folder / PLOTS)
    write_results(folder / RESULTS, evidence, found)
    write_page(folder / PAGE, analysis, choose_cases(evidence, found, most))
    return [folder / name for name in (PAGE, REPORT, RESULTS, SUMMARY)] + plots


def write_results(file: Path, evidence: Evidence, found: Mapping[str, Found]) -> None:
    """Each request as a line of JSON: who asked, what came next, what was recommended, and which patterns it shows."""
    with whole_file(file) as out, progress_bar("results", len(evidence)) as bar:
        for start in range(0, len(evidence), CHUNK):
            for line in _lines(evidence, found, start, min(start + CHUNK, len(evidence))):
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
            bar.advance(min(CHUNK, len(evidence) - start))


def _lines(evidence: Evidence, found: Mapping[str, Found], start: int, stop: int) -> Iterator[dict[str, Any]]:
    part, ids = evidence.requests[start:stop], evidence.dataset.item_ids
    names = list(found)
    flags = np.stack([found[name].flags[start:stop] for name in names], axis=1) if names else None
    targets, offsets, items = part.targets.tolist(), part.offsets.tolist(), part.items.tolist()
    top, scores = evidence.top[start:stop].tolist(), evidence.scores[start:stop, : evidence.k].tolist()
    for at in range(stop - start):
        listed = [
            (ids[row], round(score, 4)) for row, score in zip(top[at], scores[at], strict=True) if row >= 0
        ]
        yield {
            "request": int(evidence.numbers[start + at]),
            "user": str(part.users[at]),
            "history": [ids[row] for row in items[offsets[at] : offsets[at + 1]]],
            "target": ids[targets[at]],
            "recommended": [item for item, _ in listed],
            "scores": [score for _, score in listed],
            "rank": int(evidence.ranks[start + at]),
            "hit": not evidence.bad[start + at],
            "causes": [] if flags is None else [names[each] for each in np.flatnonzero(flags[at])],
        }
