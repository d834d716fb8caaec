"""What was asked of a model and what came out, for the console and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itemic.screen import Table

SHOWN = 15  # items of a history on the screen


@dataclass(frozen=True)
class Item:
    """An item as a reader wants to see it."""

    item_id: str
    title: str


@dataclass(frozen=True)
class Ranked(Item):
    """A recommended item: its place from 1 on, its log-probability, and what the model calls it (``sid``): its
    semantic ID, or its title between marks. ``thought`` is the number of what the model thought before; None where it
    wasn't asked to think."""

    rank: int
    score: float
    sid: str
    thought: int | None = None


@dataclass(frozen=True)
class Idea:
    """What the model thought before it recommended some items: its number from 1 on, its text, how many tokens it has,
    and whether it was cut off."""

    number: int
    text: str
    tokens: int
    cut: bool


@dataclass(frozen=True)
class Answer:
    """What was asked and what came out.

    Attributes:
        user: None where a history was given.
        history: what the model was shown, oldest first.
        items: best first.
        notes: what a reader has to know.
        thoughts: those that the items go back to, each once, by the best of its items; None where the model wasn't
            asked to think.
        profile: what was said of the person, as the model read it; None where nothing was.
    """

    user: str | None
    history: list[Item]
    items: list[Ranked]
    notes: list[str]
    thoughts: list[Idea] | None = None
    profile: str | None = None

    def __repr__(self) -> str:
        nobody = "a history" if self.profile is None or self.history else "a profile"
        who = nobody if self.user is None else f"user {self.user!r}"
        return f"<Answer for {who}: {', '.join(item.item_id for item in self.items)}>"

    def __str__(self) -> str:
        from itemic.screen import rendered

        return rendered(*self.tables())

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        if self.thoughts is None:
            del found["thoughts"]
            for item in found["items"]:
                del item["thought"]
        if self.profile is None:
            del found["profile"]
        return found

    def tables(self) -> list[Table]:
        """The profile and the history, the thoughts where there are any, and the ranking for the console."""
        from itemic.screen import Table

        nobody = "this history" if self.profile is None or self.history else "this profile"
        who = f"user {self.user}" if self.user is not None else nobody
        whose = f"History of {who}" if self.user is not None else "The history"
        hidden = len(self.history) - SHOWN
        past = Table("item", "title", title=f"{whose}, oldest first", title_justify="left")
        if hidden > 0:
            past.add_row("…", f"{hidden} earlier items")
        for item in self.history[-SHOWN:]:
            past.add_row(item.item_id, item.title)
        caption = "\n".join(self.notes) or None
        ranked = Table(title=f"Recommended for {who}", title_justify="left", caption=caption)
        thinks = self.thoughts is not None
        for name in ("", "item", "title", "score", "name", *(["thought"] if thinks else [])):
            ranked.add_column(name, justify="right" if name in ("", "score", "thought") else "left")
        for place in self.items:
            thought = [str(place.thought)] if thinks else []
            ranked.add_row(
                str(place.rank), place.item_id, place.title, f"{place.score:.3f}", place.sid, *thought
            )
        before = [past] if self.history or self.profile is None else []
        if self.profile is not None:
            said = Table(title="The profile, as the model reads it", title_justify="left", show_header=False)
            said.min_width = 40  # room for the title
            said.add_row(self.profile)
            before = [said, *before]
        return [*before, *([_thoughts_table(self.thoughts)] if self.thoughts else []), ranked]


def _thoughts_table(thoughts: Sequence[Idea]) -> Table:
    from itemic.screen import Table

    table = Table(title="What the model thought", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("thought")
    for idea in thoughts:
        table.add_row(str(idea.number), f"{idea.text} …" if idea.cut else idea.text)
    return table
