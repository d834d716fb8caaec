"""RecBole's atomic files: ``X.inter`` and, where there are some, ``X.item`` and ``X.user``, with ``name:type`` headers.

Where there is no ``X.inter`` but ``X.train.inter``, ``X.valid.inter`` and ``X.test.inter``, their split is
kept as the published one; rows with an ``item_id_list`` (a history) are joined to sequences again. Columns that have
no meaning here travel along by their types.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.atomic import Header, atomic_rows, read_header
from itemic.data.readers.chains import Chains
from itemic.data.readers.delimited import Delimited, require_columns, with_unit
from itemic.data.readers.events import Events, read_events
from itemic.data.readers.further import KINDS, own_name
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows, Catalogue
from itemic.data.readers.source import Source
from itemic.data.readers.text import brand_of, category_path
from itemic.data.readers.times import UNITS
from itemic.data.readers.users import UserRows
from itemic.data.settings import SplitRule
from itemic.errors import ConfigError, DataError
from itemic.progress import log

USER, ITEM, HISTORY, RATING, TIME = "user_id", "item_id", "item_id_list", "rating", "timestamp"
_ENDING = re.compile(r"(\.(train|valid|test))?\.(inter|item)$")
REVIEWS = ("review", "review_text", "reviewText")
NAMES = {
    c.TITLE: ("title", "item_title", "movie_title", "book_title", "item_name", "name"),
    c.DESCRIPTION: ("description",),
    c.BRAND: ("brand", "store"),
    c.CATEGORIES: ("categories", "category"),
    c.TAGS: ("genres", "genre", "class", "tags"),
}


def finds(source: Source) -> bool:
    return any(":token" in line for file in source.match("*.inter") for line in source.head(file))


def read(
    source: Source,
    rows: BadRows,
    *,
    prefix: str | None = None,
    separator: str | None = None,
    unit: str | None = None,
    promise_order: bool = False,
) -> Dataset:
    """Read interactions, items and users.

    Args:
        source: the folder.
        rows: what to do with bad ones.
        prefix: which data set, where the folder holds several.
        separator: what parts the fields; None finds it in the headers.
        unit: of ``timestamp``: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``; None tells it from the size of the numbers.
        promise_order: an event earlier than one before it of the same user is a bad row, not one to be
            sorted.
    """
    if unit is not None and unit not in UNITS:
        raise ConfigError(f"unit is {unit!r}", f"Use one of {', '.join(UNITS)}.")
    files = _interaction_files(source, prefix)
    item_file = source.one("*.item", prefix=prefix) if _matching(source, "*.item", prefix) else None
    catalogue = _read_items(source, item_file, separator, rows) if item_file is not None else None
    user_file = source.one("*.user", prefix=prefix) if _matching(source, "*.user", prefix) else None
    users = None if user_file is None else _read_users(source, user_file, separator, rows)
    events, chains = Events(), Chains(rows)
    counts, units = {}, {}
    for split, file in files.items():
        header = read_header(source, file, separator)
        require_columns(source.where(file), (USER, ITEM), header.columns)
        if HISTORY in header.columns:
            counts[file] = _add_windows(source, file, header, split or c.TRAIN, chains, rows)
            continue
        layout = _layout(source, file, header, unit)
        units[file] = layout.unit if layout.time is not None else "order of the rows"
        counts[file] = read_events(source, file, rows, events, header=True, split=split, **layout.reading)
    for file, frame in chains.frames().items():
        events.add(frame, file)
    if item_file is not None and catalogue is not None:
        counts[item_file] = catalogue.taken
    if user_file is not None and users is not None:
        counts[user_file] = users.taken
    return assemble(
        name=_ENDING.sub("", (item_file or next(iter(files.values()))).rsplit("/", 1)[-1]),
        catalogue=catalogue,
        events=events,
        rows=rows,
        files=counts,
        promise_order=promise_order,
        rule=SplitRule() if None in files else SplitRule("published"),
        notes={"format": "recbole", "times": units, "item_file": item_file},
        users=None if users is None else users.frame(),
    )


def _matching(source: Source, pattern: str, prefix: str | None) -> list[str]:
    found = source.match(pattern)
    return found if prefix is None else [file for file in found if file.rsplit("/", 1)[-1].startswith(prefix)]


def _interaction_files(source: Source, prefix: str | None) -> Mapping[str | None, str]:
    """Split (None for everything) → file."""
    parts = {split: source.match(f"*.{split}.inter") for split in c.SPLITS}
    whole = [file for file in source.match("*.inter") if not any(file in part for part in parts.values())]
    if whole:
        names = {file.rsplit("/", 1)[-1] for file in whole}
        patterns = sorted(name for name in names if prefix is None or name.startswith(prefix))
        return {None: source.one(*(patterns or ["*.inter"]), prefix=prefix)}
    if not parts[c.TRAIN]:
        raise DataError(
            f"{source.path} holds no X.inter and no X.train.inter", "Check the folder and the format."
        )
    return {split: source.one(f"*.{split}.inter", prefix=prefix) for split, found in parts.items() if found}


def _layout(source: Source, file: str, header: Header, unit: str | None) -> Delimited:
    """How the events of a file are laid out; what is told of its times is logged."""
    rating, time = (name if name in header.columns else None for name in (RATING, TIME))
    review = next((name for name in REVIEWS if name in header.columns), None)
    further = {
        name: "token" if name == review else _kind(name, kind)
        for name, kind in header.types.items()
        if name not in (USER, ITEM, rating, time)
    }
    names = {review: c.REVIEW} if review is not None else {}
    parts = (header.columns, USER, ITEM, rating, time, header.separator, header.quoted)
    if time is None:
        log.info("%s has no column %s: the order of its rows is the order of time", source.where(file), TIME)
        return Delimited(*parts, more=further, names=names)
    layout = Delimited(*parts, unit=unit or "s", more=further, names=names)
    return with_unit(source, file, layout) if unit is None else layout


def _kind(name: str, kind: str) -> str:
    if name == c.PRICE and kind != "float":
        return "price"
    return kind if kind in KINDS else "token"


def _add_windows(source: Source, file: str, header: Header, split: str, chains: Chains, rows: BadRows) -> int:
    count = 0
    for line, row in atomic_rows(source, file, header, rows):
        chains.add(row[USER], row[HISTORY].split(), row[ITEM], split, source.where(file), line)
        count += 1
    return count


def _read_items(source: Source, file: str, separator: str | None, rows: BadRows) -> Catalogue:
    header, where = read_header(source, file, separator), source.where(file)
    require_columns(where, (ITEM,), header.columns)
    columns = {
        part: next((name for name in names if name in header.columns), None) for part, names in NAMES.items()
    }
    if columns[c.TITLE] is None:
        log.info("%s has no column of titles (%s)", where, ", ".join(NAMES[c.TITLE]))
    further = {
        name: _kind(name, kind)
        for name, kind in header.types.items()
        if name not in (ITEM, *columns.values())
    }
    more: dict[str, Any] = {own_name(name): KINDS[kind].dtype for name, kind in further.items()}
    if columns[c.TAGS] is not None:
        more[c.TAGS] = pl.List(pl.String)
    catalogue = Catalogue(rows, where, more=more)
    for line, row in atomic_rows(source, file, header, rows):
        text = {part: row[name] if name else "" for part, name in columns.items()}
        labels = {
            part: _labels(text[part], header.types.get(columns[part] or "", ""))
            for part in (c.CATEGORIES, c.TAGS)
        }
        try:
            values = {own_name(name): KINDS[kind].parse(row[name], name) for name, kind in further.items()}
        except ValueError as error:
            rows.report("broken line", f"{where}, line {line}", str(error))
            continue
        catalogue.add(
            f"line {line}",
            row[ITEM],
            text[c.TITLE],
            text[c.DESCRIPTION],
            brand_of(text[c.BRAND]),
            labels[c.CATEGORIES],
            values | {c.TAGS: labels[c.TAGS]},
        )
    return catalogue


def _read_users(source: Source, file: str, separator: str | None, rows: BadRows) -> UserRows:
    header, where = read_header(source, file, separator), source.where(file)
    require_columns(where, (USER,), header.columns)
    further = {
        name: kind if kind in KINDS else "token" for name, kind in header.types.items() if name != USER
    }
    found = UserRows(rows, where, {name: KINDS[kind].dtype for name, kind in further.items()})
    for line, row in atomic_rows(source, file, header, rows):
        try:
            known = {name: KINDS[kind].parse(row[name], name) for name, kind in further.items()}
        except ValueError as error:
            rows.report("broken line", f"{where}, line {line}", str(error))
            continue
        found.add(f"line {line}", row[USER], known)
    return found


def _labels(text: str, kind: str) -> list[str]:
    """A ``token_seq`` is parted at spaces, or holds quoted names with commas; a ``token`` is one path."""
    if "', '" in text or (text.startswith("'") and text.endswith("'")):
        try:
            return category_path(list(ast.literal_eval(f"[{text}]")))
        except (ValueError, SyntaxError):
            return category_path(text)
    return category_path(text.split() if kind == "token_seq" else text) if text else []


READER = Reader("recbole", "X.inter with a name:type header, and maybe X.item", finds, read)
