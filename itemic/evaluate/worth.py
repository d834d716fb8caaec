"""What words are worth beside items: one table, on a screen, in a document, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from itemic.artifact import write_json, write_text
from itemic.errors import ArtifactError
from itemic.evaluate.report import Measure
from itemic.evaluate.tables import interval, main_k, short
from itemic.screen import Table, rendered
from itemic.text import markdown

POPULAR, ALONE, WORDS, TOGETHER = "popularity", "items alone", "profile alone", "profile and items"


@dataclass(frozen=True)
class Line:
    """How requests fare in one way of asking.

    Attributes:
        shown: how many of the latest items of each history are shown, at most.
        way: ``popularity``, ``items alone``, ``profile alone`` or ``profile and items``.
        metrics: means such as ``ndcg@10``, with intervals.
        gains: by how much it is better than :attr:`against` with as many items shown, paired by request, with
            intervals; empty for that way itself.
        against: ``items alone``, or ``popularity`` where no item is shown.
    """

    shown: int
    way: str
    metrics: dict[str, Measure]
    gains: dict[str, Measure]
    against: str = ALONE


@dataclass(frozen=True)
class Worth:
    """What profiles are worth, by how much else is known.

    Attributes:
        title: of the table.
        requests: how many were asked; the same in every line.
        columns: metrics such as ``ndcg@10``.
        lines: by the number of items shown.
        notes: what a reader has to know.
    """

    title: str
    requests: int
    columns: list[str]
    lines: list[Line]
    notes: list[str]

    def __repr__(self) -> str:
        return f"<Worth {self.title!r}: {len(self.lines)} lines of {self.requests:,} requests>"

    def __str__(self) -> str:
        return rendered(self.table())

    @property
    def main(self) -> list[str]:
        """The columns that the screen shows: those at the main k."""
        k = main_k([int(name.split("@")[1]) for name in self.columns])
        return [name for name in self.columns if name.endswith(f"@{k}")]

    @property
    def verdicts(self) -> list[str]:
        """What a profile brings, a sentence for each number of items."""
        name = next((name for name in self.main if name.startswith("ndcg")), self.main[0])
        found = []
        for line in self.lines:
            if line.way == (TOGETHER if line.shown else WORDS) and line.gains:
                count = {0: "Without any item", 1: "With the latest item"}
                shown = count.get(line.shown, f"With the latest {line.shown} items")
                found.append(f"{shown}, {line.way} {_standing(line.gains[name], line.against, name)}.")
        return found

    def cells(self, columns: Sequence[str], gains: Sequence[str]) -> list[list[str]]:
        """The lines as text: items shown, the way, a cell for each of ``columns``, one for each of ``gains``."""
        return [
            [
                str(line.shown),
                line.way,
                *(interval(line.metrics[name]) for name in columns),
                *(_gain(line.gains.get(name)) for name in gains),
            ]
            for line in self.lines
        ]

    def heads(self, columns: Sequence[str], gains: Sequence[str]) -> list[str]:
        """What stands above them."""
        better = [f"gain in {name.upper()}" for name in gains]
        return ["items shown", "asked by", *(name.upper() for name in columns), *better]

    def table(self) -> Table:
        """For the console: the main k; sentences below say what a profile brings."""
        below = "\n".join([*self.verdicts, *self.notes]) or None
        table = Table(title=self.title, title_justify="left", caption=below, caption_justify="left")
        for head in self.heads(self.main, self.main):
            table.add_column(head, justify="left" if head == "asked by" else "right")
        rows = self.cells(self.main, self.main)
        for at, row in enumerate(rows):
            if at and row[0] != rows[at - 1][0]:
                table.add_section()
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a document: every k, gains at the main one."""
        heads = self.heads(self.columns, self.main)
        table = [f"| {' | '.join(heads)} |", "|---:|---|" + "---:|" * (len(heads) - 2)]
        table += [f"| {' | '.join(row)} |" for row in self.cells(self.columns, self.main)]
        below = [markdown(text) for text in (*self.verdicts, *self.notes)]
        return "\n\n".join([f"# {markdown(self.title)}", "\n".join(table), *below]) + "\n"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, folder: str | Path, name: str) -> None:
        """Write ``NAME.json`` and ``NAME.md``."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / f"{name}.json", self.to_json())
        write_text(root / f"{name}.md", self.markdown())

    @classmethod
    def load(cls, file: str | Path) -> Worth:
        """What :meth:`save` wrote.

        Raises:
            ArtifactError: the file is something else.
        """
        try:
            found = json.loads(Path(file).read_text(encoding="utf-8"))
            lines = [
                Line(**line | {part: _measures(line[part]) for part in ("metrics", "gains")})
                for line in found["lines"]
            ]
            return cls(**found | {"lines": lines})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{file} doesn't say what words are worth: {error}", "Make it by `itemic evaluate words`."
            ) from error


def _measures(values: dict[str, Any]) -> dict[str, Measure]:
    return {name: Measure(**value) for name, value in values.items()}


def _gain(gain: Measure | None) -> str:
    return "" if gain is None else f"{'+' if gain.value > 0 else ''}{interval(gain)}"


def _standing(gain: Measure, against: str, name: str) -> str:
    span = f"[{short(gain.low, 3)}, {short(gain.high, 3)}]"
    if gain.low <= 0 <= gain.high:
        return f"is level with {against} on {name.upper()} ({short(gain.value)} {span})"
    if gain.value > 0:
        return f"is ahead of {against} on {name.upper()} by {short(gain.value)} {span}"
    turned = f"[{short(-gain.high, 3)}, {short(-gain.low, 3)}]"
    return f"is behind {against} on {name.upper()} by {short(-gain.value)} {turned}"
