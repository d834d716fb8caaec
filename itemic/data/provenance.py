"""Where a dataset comes from and what was done to it, out of its notes: for descriptions."""

from __future__ import annotations

from typing import Any

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.limits import in_words as limits_in_words
from itemic.data.readers.further import has_value
from itemic.data.readers.missing import in_words as missing_in_words


def further_columns(dataset: Dataset) -> dict[str, dict[str, float]]:
    """By table (``items``, ``interactions``, and ``users`` where there are some), the columns that travel along and the
    share of rows that have a value."""
    tables = {
        "items": (dataset.items, (*c.ITEM_COLUMNS, c.TAGS)),
        "interactions": (dataset.interactions, c.INTERACTION_COLUMNS),
    }
    if dataset.users is not None:
        tables["users"] = dataset.users, (c.USER_ID,)
    return {
        name: {
            column: int(has_value(table[column]).sum()) / max(len(table), 1)
            for column in table.columns
            if column not in known
        }
        for name, (table, known) in tables.items()
    }


def history_of(notes: dict[str, Any]) -> dict[str, Any]:
    """What was read, left out, limited and filtered, of ``Dataset.notes``; empty for data that were made up."""
    read = notes.get("read", {})
    kept = {key: read[key] for key in ("format", "missing_text", "dropped", "times") if read.get(key)}
    return kept | {key: notes[key] for key in ("limits", "filters") if notes.get(key)}


def provenance_rows(description: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values for the table of a description, those alone that have something to say."""
    history = description["history"]
    rows = [
        ("further columns", _columns_in_words(description["further_columns"])),
        ("format", history.get("format", "")),
        ("times", ", ".join(dict.fromkeys(history.get("times", {}).values()))),
        ("missing text", missing_in_words(history["missing_text"]) if "missing_text" in history else ""),
        ("left out", ", ".join(f"{count:,} × {kind}" for kind, count in history.get("dropped", {}).items())),
        ("limits", _limits(history["limits"]) if "limits" in history else ""),
        *(("filter", _filter(entry)) for entry in history.get("filters", [])),
    ]
    return [(name, text) for name, text in rows if text]


def _columns_in_words(tables: dict[str, dict[str, float]]) -> str:
    return "; ".join(
        f"{name}: " + ", ".join(f"{column} {share:.1%}" for column, share in columns.items())
        for name, columns in tables.items()
        if columns
    )


def _limits(limits: dict[str, Any]) -> str:
    given = ", ".join(f"{key} {value:,}" for key, value in limits.items() if key.startswith("limit_"))
    return f"{given} (seed {limits['seed']}): {limits_in_words(limits)}"


def _filter(entry: dict[str, Any]) -> str:
    steps = entry["steps"]
    names = ", ".join(step["rule"] for step in steps[1:]) or "nothing taken"
    return f"{names}: {steps[-1]['interactions']:,} of {steps[0]['interactions']:,} interactions"
