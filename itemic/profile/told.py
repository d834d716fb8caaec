"""What is told of a profile: its sentences, the items that it brings up, what it names; and what an edit changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from itemic.screen import Table, rendered

Change = Literal["came", "went", "moved", "stayed"]
Why = Literal["named now", "no longer named", "moved"]
MARKS = {"gone": "-", "new": "+", "kept": ""}


@dataclass(frozen=True)
class Shown:
    """An item that a profile was written of, and how the user rated it; None where nobody knows."""

    item_id: str
    title: str
    rating: float | None = None


@dataclass(frozen=True)
class Sentence:
    """A sentence of a profile.

    Attributes:
        number: from 1 on.
        text: without blanks at its ends.
        brings: how much the scores of the items found fall without it, on average; None where nothing was found.
    """

    number: int
    text: str
    brings: float | None


@dataclass(frozen=True)
class Brought:
    """An item that a profile brings up.

    Attributes:
        rank: its place, from 1 on.
        item_id: of the catalogue.
        title: what to call it.
        score: its similarity to the profile.
        had: whether the user has had it, before or after what the profile was written of.
        pulls: of each sentence of the profile how much the score falls without it.
    """

    rank: int
    item_id: str
    title: str
    score: float
    had: bool = False
    pulls: list[float] = field(default_factory=list)

    @property
    def by(self) -> int | None:
        """The number of the sentence that pulls it up most; None where none does."""
        most = max(self.pulls, default=0.0)
        return self.pulls.index(most) + 1 if most > 0 else None


@dataclass(frozen=True)
class Named:
    """A category or brand that a profile names.

    Attributes:
        name: as the catalogue writes it.
        kind: ``category``, ``brand``, or ``category or brand`` where it may mean either.
        supported: whether an item of the history has it.
    """

    name: str
    kind: str
    supported: bool


@dataclass(frozen=True)
class Told:
    """A profile, and what comes of it.

    Attributes:
        text: as it was written.
        ended: whether its writer came to an end.
        tokens: how many it wrote; None where a person did.
        sentences: in their order.
        items: that it brings up, best first.
        named: categories and brands, in the order in which they are named.
        missing: categories and brands of the history that it doesn't name.
        precision: share of the named ones that the history supports; None where none is named.
        recall: share of what there is to name that is named; None where there is nothing.
        notes: what a reader has to know.
    """

    text: str
    ended: bool
    tokens: int | None
    sentences: list[Sentence]
    items: list[Brought]
    named: list[Named]
    missing: list[str]
    precision: float | None
    recall: float | None
    notes: list[str]

    def tables(self, which: str = "") -> list[Table]:
        """The sentences, the items and the names, for the console.

        Args:
            which: what is said of the profile in titles, such as ``"2 of 3"``.
        """
        title = f"Profile {which}".strip()
        found = [_sentences_table(self, title), _items_table(self, f"What {title.lower()} brings up")]
        return [*found, _names_table(self)] if self.named or self.missing else found


def _sentences_table(told: Told, title: str) -> Table:
    table = Table(title=title, title_justify="left", caption="\n".join(told.notes) or None)
    table.add_column("", justify="right")
    table.add_column("brings", justify="right")
    table.add_column("sentence", ratio=1)
    for line in told.sentences:
        table.add_row(str(line.number), _signed(line.brings), line.text)
    if not told.sentences:
        table.add_row("", "", "(nothing)")
    return table


def _items_table(told: Told, title: str) -> Table:
    had = any(item.had for item in told.items)
    table = Table(title=title, title_justify="left")
    for name in ("", "item", "title", "score", "sentence", "pulls", *(["had"] if had else [])):
        table.add_column(name, justify="right" if name in ("", "score", "sentence", "pulls") else "left")
    for item in told.items:
        pulled = ["", ""] if item.by is None else [str(item.by), _signed(max(item.pulls))]
        mark = (["yes" if item.had else ""]) if had else []
        table.add_row(str(item.rank), item.item_id, item.title, f"{item.score:.3f}", *pulled, *mark)
    return table


def _names_table(told: Told) -> Table:
    shares = [
        f"{what} {share:.2f}"
        for what, share in (("precision", told.precision), ("recall", told.recall))
        if share is not None
    ]
    table = Table(
        "name", "", "history", title="What it names", title_justify="left", caption=", ".join(shares) or None
    )
    for name in told.named:
        table.add_row(name.name, name.kind, "has it" if name.supported else "lacks it")
    for missing in told.missing:
        table.add_row(missing, "", "has it, not named")
    return table


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _history_table(user: str | None, history: Sequence[Shown]) -> Table:
    who = "What was read" if user is None else f"What was read of user {user}"
    table = Table("item", "title", "rating", title=f"{who}, oldest first", title_justify="left")
    for item in history:
        table.add_row(item.item_id, item.title, "" if item.rating is None else f"{item.rating:g}")
    return table


@dataclass(frozen=True)
class Described:
    """What a user is like, in words.

    Attributes:
        user: None where a history was given.
        history: what the writer read, oldest first.
        profiles: the most probable one, or those that were drawn.
        notes: what a reader has to know.
    """

    user: str | None
    history: list[Shown]
    profiles: list[Told]
    notes: list[str]

    def __repr__(self) -> str:
        who = "a history" if self.user is None else f"user {self.user!r}"
        return f"<Described: {len(self.profiles)} profiles of {who}>"

    def __str__(self) -> str:
        return rendered(*self.tables())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def tables(self) -> list[Table]:
        """What was read, and the profiles, for the console."""
        past = _history_table(self.user, self.history)
        if self.notes:
            past.caption = "\n".join(self.notes)
        count = len(self.profiles)
        every = [
            table
            for number, told in enumerate(self.profiles, 1)
            for table in told.tables(f"{number} of {count}" if count > 1 else "")
        ]
        return [past, *every]


# ------------------------------------------------------------------------------------------------- edits


@dataclass(frozen=True)
class Line:
    """A sentence of two profiles: ``kept``, ``gone`` or ``new``."""

    text: str
    what: Literal["kept", "gone", "new"]


@dataclass(frozen=True)
class Moved:
    """An item of either list.

    Attributes:
        item_id: of the catalogue.
        title: what to call it.
        what: it ``came`` into the list, ``went`` out of it, ``moved`` in it or ``stayed`` where it was.
        before: its rank among all items under the profile as it was, from 1 on.
        after: under the new one.
    """

    item_id: str
    title: str
    what: Change
    before: int
    after: int


@dataclass(frozen=True)
class Share:
    """How much of the lists an attribute has.

    Attributes:
        name: as the catalogue writes it.
        kind: ``category`` or ``brand``.
        why: it is told because the edit made it ``named now`` or ``no longer named``, or because it ``moved``.
        before: the share of the items that had it.
        after: the share that have it now.
        closed: of an attribute that is named now, which part of the way to a list full of it was gone; None where all
            had it already.
    """

    name: str
    kind: str
    why: Why
    before: float
    after: float
    closed: float | None = None


@dataclass(frozen=True)
class Edited:
    """The same person with another profile.

    Attributes:
        user: None where there is none, or a history was given.
        history: what the first profile was written of, which isn't found.
        before: the profile as it was, and what it brings up.
        after: the new one.
        lines: the sentences of both.
        items: those of both lists, in the new one's order, then those that went.
        attributes: whose shares changed, or were meant to.
        overlap: the share of items that both lists have; None where both are empty.
        rbo: their rank-biased overlap, likewise.
        notes: what a reader has to know.
    """

    user: str | None
    history: list[Shown]
    before: Told
    after: Told
    lines: list[Line]
    items: list[Moved]
    attributes: list[Share]
    overlap: float | None
    rbo: float | None
    notes: list[str]

    def __repr__(self) -> str:
        counts = {what: sum(item.what == what for item in self.items) for what in ("came", "went", "moved")}
        return f"<Edited: {', '.join(f'{count} {what}' for what, count in counts.items())}>"

    def __str__(self) -> str:
        return rendered(*self.tables())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def tables(self) -> list[Table]:
        """The sentences, both lists side by side, and the attributes, for the console."""
        found = [_history_table(self.user, self.history)] if self.history else []
        words = Table(title="The profile", title_justify="left", caption="\n".join(self.notes) or None)
        words.add_column("")
        words.add_column("sentence", ratio=1)
        for line in self.lines:
            words.add_row(MARKS[line.what], line.text)
        found += [words, _lists_table(self)]
        return [*found, _shares_table(self.attributes)] if self.attributes else found


def _lists_table(edited: Edited) -> Table:
    alike = [
        f"{what} {value:.2f}"
        for what, value in (("overlap", edited.overlap), ("rank-biased overlap", edited.rbo))
        if value is not None
    ]
    table = Table(title="The lists", title_justify="left", caption=", ".join(alike) or None)
    for name in ("", "before", "after", "what changed"):
        table.add_column(name, justify="left" if name else "right")
    first, second = (
        [f"{item.item_id}  {item.title}" for item in told.items] for told in (edited.before, edited.after)
    )
    told = [_said(item) for item in edited.items]
    for place in range(max(len(first), len(second))):
        before, after = (own[place] if place < len(own) else "" for own in (first, second))
        table.add_row(str(place + 1), before, after, told[place] if place < len(second) else "")
    for item, said in zip(edited.items, told, strict=True):
        if item.what == "went":
            table.add_row("", f"{item.item_id}  {item.title}", "", said)
    return table


def _said(item: Moved) -> str:
    if item.what == "came":
        return f"came, was {item.before:,}"
    if item.what == "went":
        return f"went, is {item.after:,} now"
    steps = item.before - item.after
    return "stayed" if not steps else f"{'up' if steps > 0 else 'down'} {abs(steps)}"


def _shares_table(shares: Sequence[Share]) -> Table:
    table = Table(title="What the lists have of it", title_justify="left")
    for name in ("name", "", "before", "after", "of the way", "why"):
        table.add_column(name, justify="right" if name in ("before", "after", "of the way") else "left")
    for share in shares:
        way = f"{share.closed:.0%}" if share.closed is not None and share.closed > 0 else ""
        table.add_row(share.name, share.kind, f"{share.before:.0%}", f"{share.after:.0%}", way, share.why)
    return table
