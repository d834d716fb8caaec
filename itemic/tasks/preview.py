"""Conversations as a reader likes to see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from itemic import schema as c
from itemic.errors import ConfigError
from itemic.screen import plain
from itemic.sid.names import ItemNames
from itemic.tasks.conversation import Conversation, Conversations, decode

COLOURS = {"system": "dim", "user": "cyan", "assistant": "green", "text": "white"}
CONTENT = 1_500  # characters of a turn that are shown


def preview(
    conversations: Conversations | pl.DataFrame | pl.LazyFrame | str | Path,
    n: int = 5,
    *,
    seed: int = 0,
    task: str | None = None,
    index: ItemNames | None = None,
) -> Group:
    """A random sample as panels for rich's console.

    Args:
        conversations: whatever :meth:`Conversations.open` takes.
        n: how many.
        seed: the same seed, the same rows.
        task: only rows of this task, or of this source.
        index: highlights its semantic IDs.

    Raises:
        ConfigError: there is nothing of that task.
        DataError: a file can't be read, or a row is broken.
    """
    rows = sample(Conversations.open(conversations), n, seed, task)
    if not rows:
        raise ConfigError(
            f"there is no conversation of task {task!r}", "Choose another task, or none for all."
        )
    pattern = None if index is None else index.patterns.token
    return Group(*(_panel(row, pattern) for row in rows))


def sample(conversations: Conversations, n: int, seed: int, task: str | None = None) -> list[Conversation]:
    """``n`` random rows in the order in which they are stored; all parts are read, ``n`` rows are held."""
    rng = np.random.default_rng(seed)
    held = pl.DataFrame(schema=dict.fromkeys((*c.CONVERSATION_COLUMNS, "lot", "order"), pl.String))
    read = 0
    for _, frame in conversations.frames():
        lots = pl.DataFrame({"lot": rng.random(len(frame)), "order": np.arange(read, read + len(frame))})
        read += len(frame)
        known = pl.concat([frame, lots], how="horizontal")
        if task is not None:
            named = pl.col(c.METADATA).str.contains(f'"task":"{task}"', literal=True)
            known = known.filter((pl.col(c.SOURCE) == task) | named.fill_null(False))
        held = pl.concat([held, known]) if len(held) else known
        held = held.sort("lot").head(n)
    return [decode(row) for row in held.sort("order").iter_rows(named=True)]


def _panel(row: Conversation, pattern: str | None) -> RenderableType:
    turns = row.messages if row.messages is not None else [{"role": "text", "content": row.text or ""}]
    body = Text()
    for number, turn in enumerate(turns):
        colour = COLOURS.get(turn["role"], "white")
        body.append("\n" if number else "").append_text(plain(f"{turn['role']}\n", f"bold {colour}"))
        content = plain(_shortened(turn["content"]), colour)
        if pattern is not None:
            content.highlight_regex(pattern, "magenta")
        body.append_text(content).append("\n")
    about = {name: row.metadata[name] for name in ("kind", "group", "target") if row.metadata.get(name)}
    words = [
        f"{name} {value if isinstance(value, str) else ' '.join(value)}" for name, value in about.items()
    ]
    title, notes = plain(f"{row.source} · {row.uuid}"), plain(", ".join(words))
    return Panel(body, title=title, subtitle=notes, title_align="left")


def _shortened(text: str) -> str:
    return text if len(text) <= CONTENT else f"{text[:CONTENT]} … ({len(text) - CONTENT:,} more characters)"
