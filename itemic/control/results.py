"""What test tasks came to: a table of tasks and metrics with intervals, for the console, documents and machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.artifact import write_json, write_text
from itemic.control.judge import COUNT, OBEYED, RATE, REACHABLE, RECLM_RATE
from itemic.errors import ArtifactError
from itemic.evaluate.report import Measure
from itemic.evaluate.tables import interval, short
from itemic.metrics import bootstrap
from itemic.screen import Table, rendered
from itemic.text import markdown

Float64 = npt.NDArray[np.float64]

CATEGORY = "target_category"
WORDS = {
    CATEGORY: "category",
    RATE: "rate correct",
    "reclm_category": "category, as RecLM-gen",
    RECLM_RATE: "rate correct, as RecLM-gen",
    COUNT: "count correct",
    OBEYED: "obeyed",
    "non_existing": "non-existing",
    "in_history": "in history",
}


@dataclass(frozen=True)
class Line:
    """What one task came to.

    Attributes:
        task: the test task.
        way: how its lists were made: ``soft``, ``hard``, ``free``, ``no control`` or ``filtered``.
        asked: how many requests.
        failed: how many answers had no entry.
        skipped: why other requests weren't asked, and how many.
        metrics: see :func:`itemic.control.judge.judge`.
        worded: by which task of the training requests are worded; None where none taught such.
    """

    task: str
    way: str
    asked: int
    failed: int
    skipped: dict[str, int]
    metrics: dict[str, Measure]
    worded: str | None = None

    @property
    def told_by(self) -> str:
        """Which metric tells whether the control was kept to: the share's where there is one."""
        return RATE if RATE in self.metrics else CATEGORY


@dataclass(frozen=True)
class Results:
    """The table.

    Attributes:
        title: what was tested.
        k: the cuts.
        lines: one a task and way.
        settings: how it was asked.
        notes: what a reader has to know.
    """

    title: str
    k: list[int]
    lines: list[Line]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Results {self.title!r}: {len(self.lines)} lines>"

    def __str__(self) -> str:
        return rendered(self.table())

    @property
    def columns(self) -> list[str]:
        """The metrics that documents show: at the largest cut, those that any line has."""
        k = max(self.k)
        wanted = [f"recall@{k}", f"mrr@{k}", f"ndcg@{k}", COUNT, f"target_category@{k}", RATE, OBEYED]
        wanted += [f"reclm_category@{k}", RECLM_RATE]
        wanted += [f"non_existing@{k}", f"repeated@{k}", f"in_history@{k}", REACHABLE]
        there = {name for line in self.lines for name in line.metrics}
        return [name for name in wanted if name in there]

    @property
    def ways(self) -> int:
        """In how many ways lists were made."""
        return len({line.way for line in self.lines})

    def table(self) -> Table:
        """For the console: what was asked for has one column, whichever metric tells it."""
        k = max(self.k)
        bad = [f"non_existing@{k}", f"repeated@{k}", f"in_history@{k}"]
        table = Table(title=self.title, title_justify="left", caption="\n".join(self.notes) or None)
        table.caption_justify = "left"
        ways = ["lists"] if self.ways > 1 else []
        for name in ("task", *ways):
            table.add_column(name, no_wrap=True)
        heads = (
            "asked",
            f"recall@{k}",
            f"ndcg@{k}",
            "count",
            "control",
            "obeyed",
            "unreal, twice, had",
            "reachable",
        )
        for name in heads:
            table.add_column(name, justify="right")
        for number, line in enumerate(self.lines):
            if ways and number and line.task != self.lines[number - 1].task:
                table.add_section()
            found = line.metrics
            told = found.get(f"target_category@{k}") if line.told_by == CATEGORY else found.get(RATE)
            ills = ", ".join(short(found[name].value, 2) for name in bad)
            table.add_row(
                _brief(line.task),
                *([line.way] if ways else []),
                f"{line.asked:,}",
                _cell(found.get(f"recall@{k}"), True),
                _cell(found.get(f"ndcg@{k}"), False),
                _cell(found.get(COUNT), False),
                _cell(told, not ways),
                _cell(found.get(OBEYED), False),
                ills,
                _cell(found.get(REACHABLE), False),
            )
        return table

    def markdown(self) -> str:
        """For a document, with the interval of every figure."""
        head = ["task", "lists", "asked", "failed", *map(heading, self.columns)]
        rows = [
            [line.task, line.way, f"{line.asked:,}", f"{line.failed:,}"]
            + [_cell(line.metrics.get(name), True) for name in self.columns]
            for line in self.lines
        ]
        table = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
        table += ["| " + " | ".join(row) + " |" for row in rows]
        return "\n\n".join([f"# {markdown(self.title)}", "\n".join(table), *map(markdown, self.notes)]) + "\n"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Results:
        """What :meth:`to_json` gave."""
        lines = [
            Line(**line | {"metrics": {name: Measure(**one) for name, one in line["metrics"].items()}})
            for line in found["lines"]
        ]
        return cls(**{**found, "lines": lines})

    def save(self, folder: str | Path, name: str) -> None:
        """Write ``NAME.json`` and ``NAME.md``."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / f"{name}.json", self.to_json())
        write_text(root / f"{name}.md", self.markdown())

    @classmethod
    def load(cls, file: str | Path) -> Results:
        """What :meth:`save` wrote.

        Raises:
            ArtifactError: the file is something else.
        """
        try:
            return cls.from_json(json.loads(Path(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{file} holds no results of test tasks: {error}", "Make it by `itemic control evaluate`."
            ) from error


def measures(values: Mapping[str, Float64], seed: int) -> dict[str, Measure]:
    """The mean of each metric and its interval; metrics without a value are left out."""
    return {
        name: Measure(float(own.mean()), *bootstrap(own, seed)) for name, own in values.items() if len(own)
    }


def notes_of(lines: Iterable[Line], shortened: int, counts: Mapping[str, int]) -> list[str]:
    """What a reader has to know of the answers."""
    notes = []
    skipped: dict[str, int] = {}
    for line in lines:
        for reason, count in line.skipped.items():
            skipped[f"{line.task}: {reason}"] = count
    notes += [f"{count:,} requests aren't asked by {reason}" for reason, count in skipped.items()]
    if shortened:
        notes.append(
            f"{shortened:,} histories were longer than the model can read; their oldest items were left out."
        )
    told = [f"{count:,} {kind}" for kind, count in counts.items() if count]
    if told:
        notes.append(f"Answers: {', '.join(told)}; they stay in the table.")
    return notes


def heading(name: str) -> str:
    """What a table calls a metric."""
    metric, at, k = name.partition("@")
    return WORDS.get(metric, metric) + at + k


def _brief(task: str) -> str:
    """RecLM-gen's name without what all of them begin with."""
    return task.removeprefix("SFTTest").replace("SFT+Test", "+").replace("SFT-Test", "-")


def _cell(found: Measure | None, whole: bool) -> str:
    if found is None:
        return ""
    return interval(found) if whole else short(found.value)
