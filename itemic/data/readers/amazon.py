"""What the three generations of raw Amazon dumps share: gzip JSON lines, reviews beside metadata."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.events import Event, Events, read_events
from itemic.data.readers.rows import BadRows, Catalogue
from itemic.data.readers.source import Source
from itemic.errors import DataError

PATTERNS = ("*.json.gz", "*.jsonl.gz", "*.json", "*.jsonl", "*.json.zst", "*.jsonl.zst")
LOOK_AT = 20
Item = tuple[
    Any, Any, Any, str, list[str], dict[str, Any]
]  # id, title, description, brand, categories, further
SUMMARY = "summary"  # the headline of a review
_RANK = re.compile(r"([\d,]*\d)\s+in\s")


@dataclass(frozen=True)
class Dump:
    """One generation.

    Attributes:
        name: the format's name.
        user: the key of the user in a review; likewise ``item``, ``rating`` and ``time``.
        scale: milliseconds in the time's unit.
        text: the key of what the user wrote; ``headline`` that of its summary.
        meta_key: a key that only this generation's metadata has.
        item_of: takes what is needed from a metadata object.
        further: columns that ``item_of`` gives beyond those of every catalogue, and their polars types.
    """

    name: str
    user: str
    item: str
    rating: str
    time: str
    scale: int
    text: str
    headline: str
    meta_key: str
    item_of: Callable[[dict[str, Any]], Item]
    further: Mapping[str, Any]

    @property
    def texts(self) -> dict[str, str]:
        """The columns of what users wrote, and their keys."""
        return {c.REVIEW: self.text, SUMMARY: self.headline}

    def fast(self, data: bytes, texts: Mapping[str, str]) -> pl.DataFrame:
        """Many reviews at once; polars errors where a line is odd."""
        kinds = {self.user: pl.String, self.item: pl.String, self.rating: pl.Float64, self.time: pl.Int64}
        kinds |= dict.fromkeys(texts.values(), pl.String)
        return pl.read_ndjson(io.BytesIO(data), schema=kinds).select(
            pl.col(self.user).alias(c.USER_ID),
            pl.col(self.item).alias(c.ITEM_ID),
            pl.col(self.rating).alias(c.RATING),
            (pl.col(self.time) * self.scale).alias(c.TIMESTAMP),
            *(pl.col(key).alias(name) for name, key in texts.items()),
        )

    def parse(self, line: str, texts: Mapping[str, str]) -> Event:
        """One review; a ValueError says what is wrong with it."""
        review = parse_object(line)
        for key in (self.user, self.item, self.time):
            if review.get(key) in (None, ""):
                raise ValueError(f"the review lacks {key}")
        try:
            rating = review.get(self.rating)
            time = round(float(review[self.time]) * self.scale)
            return (
                str(review[self.user]),
                str(review[self.item]),
                None if rating is None else float(rating),
                time,
                *(None if review.get(key) is None else str(review[key]) for key in texts.values()),
            )
        except (TypeError, OverflowError) as error:
            raise ValueError(f"{self.rating} or {self.time} is not a number") from error

    def finds(self, source: Source) -> bool:
        reviews, metas = _files(source)
        return any(self.meta_key in _keys(source, file) for file in metas) and any(
            {self.user, self.item, self.time} <= _keys(source, file) for file in reviews
        )

    def read(
        self,
        source: Source,
        rows: BadRows,
        *,
        prefix: str | None = None,
        rated_only: bool = False,
        reviews: bool = True,
        promise_order: bool = False,
    ) -> Dataset:
        """Read reviews and metadata in batches.

        Args:
            source: the folder.
            rows: what to do with bad ones.
            prefix: which category, where the folder holds several (``"Gift_Cards"``).
            rated_only: leave out items without a review while reading, which saves memory.
            reviews: keep what users wrote, as ``review`` and ``summary``; without it a dump takes far less memory.
            promise_order: an event earlier than one before it of the same user is a bad row, not one to be
                sorted.
        """
        file, meta = _pair(source, prefix)
        events, texts = Events(), self.texts if reviews else {}
        lines = read_events(
            source,
            file,
            rows,
            events,
            fast=partial(self.fast, texts=texts),
            parse=partial(self.parse, texts=texts),
            more=dict.fromkeys(texts, pl.String),
        )
        wanted = events.item_ids() if rated_only else None
        catalogue = Catalogue(rows, source.where(meta), wanted, markup=True, more=self.further)
        self._read_items(source, meta, rows, catalogue)
        return assemble(
            name=_stem(file),
            catalogue=catalogue,
            events=events,
            rows=rows,
            files={file: lines, meta: catalogue.taken + catalogue.passed_over},
            promise_order=promise_order,
            notes={"format": self.name, "unrated_items_left_out": catalogue.passed_over},
        )

    def _read_items(self, source: Source, file: str, rows: BadRows, catalogue: Catalogue) -> None:
        for lines in source.batches(file):
            for number, raw in lines:
                if not raw.strip():
                    continue
                try:
                    item = self.item_of(parse_object(raw.decode()))
                except ValueError as error:
                    rows.report("broken line", f"{source.where(file)}, line {number}", str(error))
                    continue
                catalogue.add(f"line {number}", *item)


def rank_of(value: Any) -> int | None:
    """The first sales rank of ``{"Beauty": 12}``, ``12``, ``"1,234 in Beauty ("`` or a list of such texts."""
    if isinstance(value, dict):
        value = next(iter(value.values()), None)
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _RANK.search(value) if isinstance(value, str) else None
    return int(found.group(1).replace(",", "")) if found else None


def parse_object(line: str) -> dict[str, Any]:
    """A line of JSON, or the Python literal that some 2014 files hold instead; never evaluated as code."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as fault:
        try:
            value = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"the line is neither JSON ({fault}) nor a Python literal") from fault
    if not isinstance(value, dict):
        raise ValueError("the line holds no object")
    return value


def _files(source: Source) -> tuple[list[str], list[str]]:
    """Files that may be reviews, and those named as metadata."""
    found = source.match(*PATTERNS)
    metas = [file for file in found if file.rsplit("/", 1)[-1].startswith("meta")]
    return [file for file in found if file not in metas], metas


def _keys(source: Source, file: str) -> set[str]:
    """The keys of the first objects of a file; empty if they are no objects."""
    keys: set[str] = set()
    for line in source.head(file, LOOK_AT):
        try:
            keys |= parse_object(line).keys()
        except ValueError:
            continue
    return keys


def _stem(file: str) -> str:
    """``reviews_Beauty_5.json.gz`` → ``Beauty_5``; ``meta_Beauty.json.gz`` → ``Beauty``."""
    return (
        file.rsplit("/", 1)[-1]
        .split(".json")[0]
        .removeprefix("reviews_")
        .removeprefix("metadata")
        .removeprefix("meta_")
    )


def _pair(source: Source, prefix: str | None) -> tuple[str, str]:
    reviews, metas = _files(source)
    if prefix is not None:
        reviews = [file for file in reviews if _stem(file) == prefix] or [
            file for file in reviews if _stem(file).startswith(prefix)
        ]
    wanted = f" for {prefix!r}" if prefix else ""
    if len(reviews) != 1:
        raise DataError(
            f"{source.path} holds {len(reviews) or 'no'} review files{wanted} ({', '.join(PATTERNS[:2])}, …)"
            + "".join(f", {file}" for file in reviews),
            "Choose one with the option prefix, or check the folder.",
        )
    name = _stem(reviews[0])
    fitting = [file for file in metas if f"{name}_".startswith(f"{_stem(file)}_") or not _stem(file)]
    chosen = max(
        fitting or (metas if len(metas) == 1 else []), key=lambda file: len(_stem(file)), default=None
    )
    if chosen is None:
        raise DataError(
            f"{source.path} holds no metadata file meta_{name}.json.gz for {reviews[0]}",
            "Put the category's metadata beside its reviews.",
        )
    return reviews[0], chosen
