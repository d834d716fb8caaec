"""What the checks of conversations found, and how it is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from itemic.screen import Table, plain, rendered

CHECKS = {
    "uuid": "every row has a uuid of its own, and a source",
    "form": "messages, segments and metadata are JSON of the right form",
    "roles": "system first if at all, then user and assistant in turn, the assistant last",
    "empty": "no turn is empty",
    "length": "no row is too long",
    "sid": "semantic IDs are whole, and are those of items",
    "target": "targets are items, and the answer names them",
    "duplicate": "no row of a group says what another one says",
    "balance": "no item is the target of too many rows",
    "leakage": "nothing is told that only validation or test may know",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: which check, where, and what."""

    check: str
    part: str
    row: int  # within the part; -1 for a whole source
    uuid: str | None
    detail: str


@dataclass(frozen=True)
class Balance:
    """How the targets of a source are distributed.

    Attributes:
        rows: rows that name a target.
        items: distinct targets.
        top_item: the most frequent target.
        top_share: its share of the targets.
        evenness: entropy of the targets over that of as many equally frequent ones: 1 is even.
    """

    rows: int
    items: int
    top_item: str
    top_share: float
    evenness: float


@dataclass
class ValidationReport:
    """What was found. Prints as a table; ``ok`` is the exit status.

    Attributes:
        rows: how many were read.
        sources: rows by source.
        counts: faults by check.
        faults: the first ones of each check.
        balance: by source, where targets are named.
    """

    rows: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    balance: dict[str, Balance] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.rows > 0 and not self.counts

    def __repr__(self) -> str:
        faults = ", ".join(f"{check} {count:,}" for check, count in self.counts.items()) or "no faults"
        return f"<ValidationReport: {self.rows:,} rows, {faults}>"

    def __str__(self) -> str:
        return rendered(self)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "ok": self.ok,
            "rows": self.rows,
            "sources": dict(self.sources),
            "counts": dict(self.counts),
            "faults": [vars(fault) for fault in self.faults],
            "balance": {source: vars(balance) for source, balance in self.balance.items()},
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        checks = Table(title=f"{self.rows:,} conversations", title_justify="left")
        for column in ("check", "what must hold", "faults"):
            checks.add_column(column, justify="right" if column == "faults" else "left")
        for check, meaning in CHECKS.items():
            count = self.counts[check]
            checks.add_row(check, meaning, Text(f"{count:,}", style="red" if count else "green"))
        yield checks
        targets = Table(title="targets", title_justify="left")
        for column in ("source", "rows", "with target", "items", "most frequent", "its share", "evenness"):
            targets.add_column(column, justify="left" if column in ("source", "most frequent") else "right")
        for source, rows in self.sources.items():
            found = self.balance.get(source)
            if found is None:
                targets.add_row(source, f"{rows:,}", *["–"] * 5)
            else:
                share = (found.top_item, f"{found.top_share:.2%}", f"{found.evenness:.3f}")
                targets.add_row(source, f"{rows:,}", f"{found.rows:,}", f"{found.items:,}", *share)
        yield targets
        for fault in self.faults:
            where = fault.part if fault.row < 0 else f"{fault.part} row {fault.row} ({fault.uuid})"
            yield plain(f"{fault.check}: {where}: {fault.detail}")
        more = sum(self.counts.values()) - len(self.faults)
        yield f"… and {more:,} more" if more else "all well" if self.ok else "not usable as it is"
