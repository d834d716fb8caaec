"""A part of a conversation file taken apart: a line per turn, and what the metadata say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.errors import DataError
from itemic.tasks.conversation import content_text, decode

TEXT = "text"  # the role of a segment
MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
SEGMENTS = pl.List(pl.Struct({"type": pl.String, "text": pl.String}))
METADATA = pl.Struct(
    {**dict.fromkeys(("task", "kind", "group", "split"), pl.String), "target": pl.List(pl.String)}
)
# What the decoder of tables would bend into shape: contents as lists of parts (rare, but right), other types
ODD = r'"(?:content|role|text|type)"\s*:\s*[^"\s]'
ODD_TARGET = r'"target"\s*:\s*(?:[^\[\s]|\[\s*[^"\]\s])'


@dataclass(frozen=True)
class Turns:
    """A part, decoded.

    Attributes:
        turns: ``row``, ``role`` and ``text``, in order.
        rows: one line per row of the part that could be read: ``row``, ``uuid``, ``source``, ``task``,
            ``kind``, ``group``, ``split`` and ``target`` (List of item ids).
        broken: (row, what is wrong) of the others.
    """

    turns: pl.DataFrame
    rows: pl.DataFrame
    broken: list[tuple[int, str]]


def take_apart(frame: pl.DataFrame) -> Turns:
    """Decode a table with the columns of the form."""
    numbered = frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    odd = pl.any_horizontal(
        pl.col(c.MESSAGES).str.contains(ODD).fill_null(False),
        pl.col(c.SEGMENTS).str.contains(ODD).fill_null(False),
        pl.col(c.METADATA).str.contains(ODD_TARGET).fill_null(False),
    )
    plain, rest = numbered.filter(~odd), numbered.filter(odd)
    try:
        found = [_whole(plain)]
    except pl.exceptions.PolarsError:
        found, rest = [], numbered
    found.append(_one_by_one(rest))
    turns = pl.concat([part.turns for part in found]).sort("row", maintain_order=True)
    rows = pl.concat([part.rows for part in found]).sort("row")
    return Turns(turns, rows, sorted(fault for part in found for fault in part.broken))


def _whole(frame: pl.DataFrame) -> Turns:
    decoded = frame.with_columns(
        pl.col(c.MESSAGES).str.json_decode(MESSAGES),
        pl.col(c.SEGMENTS).str.json_decode(SEGMENTS),
        pl.col(c.METADATA).str.json_decode(METADATA),
    )
    empty = decoded.filter(pl.col(c.MESSAGES).is_null() & pl.col(c.SEGMENTS).is_null())
    typed = decoded.filter(pl.col(c.MESSAGES).is_null()).explode(c.SEGMENTS, empty_as_null=False)
    if typed.select((pl.col(c.SEGMENTS).struct.field("type") != "text").any()).item():
        raise pl.exceptions.ComputeError("a segment of another type")  # to be named, row by row
    spoken = decoded.filter(pl.col(c.MESSAGES).is_not_null()).explode(c.MESSAGES, empty_as_null=False)
    turns = pl.concat(
        [
            spoken.select(
                "row",
                role=pl.col(c.MESSAGES).struct.field("role"),
                text=pl.col(c.MESSAGES).struct.field("content"),
            ),
            typed.filter(pl.col(c.SEGMENTS).is_not_null()).select(
                "row", role=pl.lit(TEXT), text=pl.col(c.SEGMENTS).struct.field("text")
            ),
        ]
    )
    rows = decoded.filter(~pl.col("row").is_in(empty["row"].implode())).select(
        "row", c.UUID, c.SOURCE, pl.col(c.METADATA).struct.unnest()
    )
    broken = [(row, "it has neither messages nor segments") for row in empty["row"]]
    return Turns(turns, rows.select(list(_ROWS)), broken)


_ROWS: dict[str, pl.DataType | type[pl.DataType]] = {
    "row": pl.Int64,
    "uuid": pl.String,
    "source": pl.String,
    "task": pl.String,
    "kind": pl.String,
    "group": pl.String,
    "split": pl.String,
    "target": pl.List(pl.String),
}


def _one_by_one(frame: pl.DataFrame) -> Turns:
    turns: list[tuple[int, str, str]] = []
    rows: list[dict[str, Any]] = []
    broken: list[tuple[int, str]] = []
    for row in frame.iter_rows(named=True):
        number = row["row"]
        try:
            said = decode(row)
            target = said.metadata.get("target")
            if target is not None and not (
                isinstance(target, list) and all(isinstance(t, str) for t in target)
            ):
                raise DataError("metadata: target is no list of item ids")
        except DataError as error:
            broken.append((number, error.message.split(" is broken: ")[-1]))
            continue
        if said.messages is not None:
            turns += [(number, turn["role"], turn["content"]) for turn in said.messages]
        else:
            turns += [(number, TEXT, content_text([part])) for part in json.loads(row[c.SEGMENTS])]
        known = {name: said.metadata.get(name) for name in ("task", "kind", "group", "split")}
        texts = {name: None if value is None else str(value) for name, value in known.items()}
        rows.append({"row": number, "uuid": said.uuid, "source": said.source, "target": target} | texts)
    table = pl.DataFrame(turns, schema={"row": pl.Int64, "role": pl.String, "text": pl.String}, orient="row")
    return Turns(table, pl.DataFrame(rows, schema=_ROWS), broken)
