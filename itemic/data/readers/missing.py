"""Items without text: those that the metadata lack, and those whose title is empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from itemic import schema as c
from itemic.data.readers.events import FILE, LINE
from itemic.data.readers.rows import ITEM_SCHEMA
from itemic.errors import ConfigError, DataError
from itemic.progress import log

POLICIES = ("keep", "drop", "error")
REMEDY = "Mend the source, or set missing_text to keep (items known by id) or drop (they and their interactions go)."


def check_policy(policy: str) -> None:
    """Raises:
    ConfigError: there is no such policy.
    """
    if policy not in POLICIES:
        raise ConfigError(f"missing_text is {policy!r}", f"Use one of {', '.join(POLICIES)}.")


class Items(Protocol):
    """What is known of items: the name of their file, the first one without a title ("" if all have one), and all."""

    @property
    def file(self) -> str: ...

    @property
    def first_untitled(self) -> str: ...

    def frame(self) -> pl.DataFrame: ...


@dataclass(frozen=True)
class Settled:
    """What is left under a policy.

    Attributes:
        items: the catalogue, with items that only events name behind the others.
        events: as :meth:`itemic.data.readers.events.Events.table` gives them.
        notes: the policy, how many items were ``unlisted`` and ``untitled``, and how many ``interactions`` these have.
    """

    items: pl.DataFrame
    events: pl.DataFrame
    notes: dict[str, Any]


def settle(catalogue: Items | None, events: pl.DataFrame, files: list[str], policy: str) -> Settled:
    """Keep or drop items without text, or refuse them.

    Args:
        catalogue: what is known of items; None where the source has no file of them.
        events: all interactions.
        files: the names of the events' files.
        policy: ``keep``, ``drop`` or ``error``.

    Raises:
        DataError: under ``error``, where an item has no text; and always where a catalogue knows none of the items
            that events name, for then ids of two kinds were put together.
    """
    items = catalogue.frame() if catalogue is not None else pl.DataFrame(schema=ITEM_SCHEMA)
    named = events.get_column(c.ITEM_ID).unique(maintain_order=True)
    unlisted = named.filter(~named.cast(pl.String).is_in(items[c.ITEM_ID].implode()))
    untitled = items.filter(pl.col(c.TITLE) == "")[c.ITEM_ID]
    silent = named.filter(named.cast(pl.String).is_in(untitled.implode()))
    lost = events.get_column(c.ITEM_ID).is_in(pl.concat([unlisted, silent]).implode())
    if policy == "error":
        _refuse(catalogue, events, files, unlisted, len(untitled))
    if policy == "drop":
        items, events = items.filter(pl.col(c.TITLE) != ""), events.filter(~lost)
    else:
        if catalogue is not None and len(unlisted) == len(named) > 0:
            raise DataError(
                f"{catalogue.file} knows none of the {len(named)} items that {', '.join(files)} name: "
                f"{items[c.ITEM_ID][0]!r} here, {named[0]!r} there",
                "Give the files of one source, with ids of one kind.",
            )
        items = _with_unlisted(items, unlisted.cast(pl.String))
    notes = {
        "policy": policy,
        "unlisted": len(unlisted),
        "untitled": len(untitled),
        "interactions": int(lost.sum()),
    }
    if catalogue is not None and len(unlisted) + len(untitled):
        log.info("missing_text: %s", in_words(notes))
    return Settled(items, events, notes)


def in_words(notes: dict[str, Any]) -> str:
    """The notes of :class:`Settled` as a person reads them; empty where every item has a title."""
    kinds = {"unlisted": "not in the metadata", "untitled": "without a title"}
    parts = [f"{notes[key]:,} {what}" for key, what in kinds.items() if notes[key]]
    if not parts:
        return ""
    done = "dropped" if notes["policy"] == "drop" else "kept, known by id"
    noun = " item " if parts[0].startswith("1 ") else " items "
    parts[0] = parts[0].replace(" ", noun, 1)
    return f"{' and '.join(parts)} ({notes['interactions']:,} interactions): {done}"


def _with_unlisted(items: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    if not len(ids):
        return items
    texts = (c.TITLE, c.DESCRIPTION, c.BRAND)
    lists = [name for name in (c.CATEGORIES, c.TAGS) if name in items.columns]
    return pl.concat([items, ids.alias(c.ITEM_ID).to_frame()], how="diagonal").with_columns(
        pl.col(*texts).fill_null(""), pl.col(*lists).fill_null([])
    )


def _refuse(
    catalogue: Items | None, events: pl.DataFrame, files: list[str], unlisted: pl.Series, untitled: int
) -> None:
    """Raises:
    DataError: an item has no text; the first one is named with its place.
    """
    if len(unlisted):
        here = events.row(
            int(events.get_column(c.ITEM_ID).is_in(unlisted.implode()).arg_true()[0]), named=True
        )
        where = catalogue.file if catalogue is not None else "any file of items"
        others = f" ({len(unlisted) - 1} more such items)" if len(unlisted) > 1 else ""
        raise DataError(
            f"{place(here, files)}: user {here[c.USER_ID]!r} has item {here[c.ITEM_ID]!r}, which is not in {where}"
            + others,
            REMEDY,
        )
    if untitled and catalogue is not None:
        others = f" ({untitled - 1} more such items)" if untitled > 1 else ""
        raise DataError(f"{catalogue.first_untitled} has no title{others}", REMEDY)


def place(event: dict[str, Any], files: list[str]) -> str:
    """Where an event stands: its file, and its line where lines mean something."""
    file = files[event[FILE]]
    return f"{file}, line {event[LINE]}" if event[LINE] else file
