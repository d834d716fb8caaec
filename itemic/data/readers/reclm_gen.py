"""RecLM-gen's files: ``sequential`` {user: [item, …]}, oldest first, ``meta`` {item: {title, …}}, ``category``
{category: [item, …]} and ``ranking_candidate`` {user: [item, …]}, each a pickle or JSON. The last two may be missing.

Pickles are read by :mod:`itemic.data.pickles`, which runs nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.categories import paths_of
from itemic.data.dataset import Dataset
from itemic.data.pickles import load_plain
from itemic.data.readers.assemble import assemble
from itemic.data.readers.events import Events
from itemic.data.readers.further import own_name, price_of
from itemic.data.readers.letter import add_sequences, entries
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows, Catalogue
from itemic.data.readers.source import AGAIN, Source
from itemic.data.readers.text import brand_of, clean, unlisted
from itemic.errors import DataError

SEQUENCES, ITEMS, CATEGORIES, CANDIDATES = "sequential", "meta", "category", "ranking_candidate"
WIDE = 1 << 63  # what a column of whole numbers holds
READ = (c.TITLE, c.DESCRIPTION, c.BRAND, c.PRICE)  # fields of an item that have a place of their own


def finds(source: Source) -> bool:
    return bool(source.match(*_files(SEQUENCES)) and source.match(*_files(ITEMS)))


def read(source: Source, rows: BadRows) -> Dataset:
    """Read the files.

    Categories that are the cumulative prefixes of one path an item (``"A"`` and ``"A, B"``) become that path; any other
    ones stay names beside each other, as tags.

    Args:
        source: the folder.
        rows: what to do with bad ones.

    Raises:
        DataError: a pickle isn't plain, or as for every reader.
    """
    try:
        return _read(source, rows)
    except UnicodeEncodeError as error:  # halves of pairs, which both forms can hold and no table takes
        raise DataError(f"{source.path} holds text that is no text: {error}", AGAIN) from error


def _read(source: Source, rows: BadRows) -> Dataset:
    sequence_file, item_file = source.one(*_files(SEQUENCES)), source.one(*_files(ITEMS))
    events = Events()
    files = {}
    pairs = _pairs(source, sequence_file, "duplicate user", rows)
    files[sequence_file] = add_sequences(pairs, source.where(sequence_file), rows, events)
    items = _pairs(source, item_file, "duplicate item", rows)
    known = {item.strip() for item, _ in items} | events.item_ids()
    filed, notes = {}, {}
    if source.match(*_files(CATEGORIES)):
        file = source.one(*_files(CATEGORIES))
        named = _lists(source, file, "category", known, rows)
        filed = _by_item(named)
        files[file] = len(named)
        notes["empty_categories"] = sum(not listed for _, listed in named)
    candidates = None
    if source.match(*_files(CANDIDATES)):
        file = source.one(*_files(CANDIDATES))
        lists = _lists(source, file, "candidates", known, rows)
        files[file] = len(lists)
        schema: dict[str, Any] = {c.USER_ID: pl.String, c.CANDIDATES: pl.List(pl.String)}
        candidates = pl.DataFrame(lists, schema=schema, orient="row")
    catalogue = _catalogue(items, filed, source.where(item_file), rows)
    return assemble(
        name=source.folder_name,
        catalogue=catalogue,
        events=events,
        rows=rows,
        files={**files, item_file: catalogue.taken},
        notes={"format": "reclm-gen", **{key: count for key, count in notes.items() if count}},
        candidates=candidates,
    )


def _files(name: str) -> tuple[str, ...]:
    return f"{name}.pickle", f"{name}.json"


def _pairs(source: Source, file: str, kind: str, rows: BadRows) -> list[tuple[str, Any]]:
    """The pairs of a file; of keys that are the same as text the first one stands, others are reported as ``kind``.

    Raises:
        DataError: it holds something else.
    """
    if file.endswith(".json"):
        return entries(source, file, kind, rows)
    where = source.where(file)
    with source.open(file) as stream:
        content = load_plain(stream, where)
    if not isinstance(content, dict):
        raise DataError(f"{where} holds no dict, but a {type(content).__name__}", AGAIN)
    found: dict[str, Any] = {}
    for key, value in content.items():
        if not isinstance(key, int | str):
            rows.report("broken key", f"{where}, key {key!r}", "the key is neither a text nor a whole number")
        elif str(key) in found:
            rows.report(kind, f"{where}, key {str(key)!r}", "the key comes twice")
        else:
            found[str(key)] = value
    return list(found.items())


def _lists(
    source: Source, file: str, what: str, known: set[str], rows: BadRows
) -> list[tuple[str, list[str]]]:
    """Lists of known items, each once; any other one is reported."""
    found = []
    for key, value in _pairs(source, file, f"duplicate {what}", rows):
        place = f"{source.where(file)}, key {key!r}"
        if not isinstance(value, list | tuple) or any(not isinstance(item, int | str) for item in value):
            rows.report(f"broken {what}", place, "the value is no list of item ids")
            continue
        items = [str(item) for item in value]
        if lost := next((item for item in items if item not in known), None):
            rows.report(f"unknown item in {what}", place, f"it names item {lost!r}, which is nowhere else")
        elif len(set(items)) < len(items):
            rows.report(f"repeated item in {what}", place, "it names an item twice")
        else:
            found.append((key, items))
    return found


def _by_item(named: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """The names of an item's categories, in the order of the file."""
    filed: dict[str, list[str]] = {}
    for name, items in named:
        for item in items:
            filed.setdefault(item, []).append(name)
    return filed


def _catalogue(
    items: list[tuple[str, Any]], filed: Mapping[str, list[str]], file: str, rows: BadRows
) -> Catalogue:
    paths = paths_of(list(filed.values()))
    labels = dict(zip(filed, filed.values() if paths is None else paths, strict=True))
    further = _further(items)
    more: dict[str, Any] = {own_name(field): kind for field, kind in further.items()}
    if any(isinstance(item, dict) and price_of(item.get(c.PRICE)) is not None for _, item in items):
        more[c.PRICE] = pl.Float64
    if paths is None:
        more[c.TAGS] = pl.List(pl.String)
    catalogue = Catalogue(rows, file, more=more)
    for key, item in items:
        if not isinstance(item, dict):
            rows.report("broken item", f"{file}, key {key!r}", "the item is no dict of fields")
            continue
        names = [name for name in (clean(part, markup=True) for part in labels.get(key, [])) if name]
        values = {own_name(field): item.get(field) for field in further}
        values |= {c.PRICE: price_of(item.get(c.PRICE)), c.TAGS: names}
        about, brand = unlisted(item.get(c.DESCRIPTION)), brand_of(item.get(c.BRAND))
        path = names if paths is not None else []
        catalogue.add(f"key {key!r}", key, item.get(c.TITLE), about, brand, path, values)
    return catalogue


def _further(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """The other fields whose values are texts, or numbers, in all items that have them, and their polars types."""
    kinds: dict[str, set[type]] = {}
    for _, item in items:
        for field, value in item.items() if isinstance(item, dict) else ():
            if isinstance(field, str) and field not in READ and value is not None:
                large = isinstance(value, int) and not -WIDE <= value < WIDE
                kinds.setdefault(field, set()).add(object if large else type(value))
    types = {frozenset([str]): pl.String, frozenset([int]): pl.Int64}
    types |= {frozenset([float]): pl.Float64, frozenset([int, float]): pl.Float64}
    return {field: types[frozenset(kind)] for field, kind in kinds.items() if frozenset(kind) in types}


READER = Reader("reclm-gen", f"{SEQUENCES}.pickle and {ITEMS}.pickle, or these as .json", finds, read)
