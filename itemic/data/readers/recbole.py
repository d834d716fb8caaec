"""RecBole's atomic files: ``X.inter`` and ``X.item``, tab-separated with ``name:type`` headers.

Where there is no ``X.inter`` but ``X.train.inter``, ``X.valid.inter`` and ``X.test.inter``, their split is
kept as the published one; rows with an ``item_id_list`` (a history) are joined to sequences again.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.chains import Chains
from itemic.data.readers.delimited import Delimited, require_columns
from itemic.data.readers.events import Events, read_events
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows, Catalogue
from itemic.data.readers.source import Source
from itemic.data.readers.text import brand_of, category_path
from itemic.data.split import SplitRule
from itemic.errors import ConfigError, DataError

USER, ITEM, HISTORY, RATING, TIME = "user_id", "item_id", "item_id_list", "rating", "timestamp"
UNITS = {"s": 1000, "ms": 1}
NAMES = {
    c.TITLE: ("title", "item_title", "movie_title", "book_title", "item_name", "name"),
    c.DESCRIPTION: ("description",),
    c.BRAND: ("brand", "store"),
    c.CATEGORIES: ("categories", "category", "genres", "genre", "class"),
}


def finds(source: Source) -> bool:
    return bool(source.match("*.item")) and any(
        ":token" in line for file in source.match("*.inter") for line in source.head(file)
    )


def read(
    source: Source,
    rows: BadRows,
    *,
    prefix: str | None = None,
    time_unit: str = "s",
    promise_order: bool = False,
) -> Dataset:
    """Read interactions and items.

    Args:
        source: the folder.
        rows: what to do with bad ones.
        prefix: which data set, where the folder holds several.
        time_unit: of ``timestamp``: ``"s"`` or ``"ms"``.
        promise_order: an event earlier than one before it of the same user is a bad row, not one to be
            sorted.
    """
    if time_unit not in UNITS:
        raise ConfigError(f"time_unit is {time_unit!r}", f"Use one of {', '.join(UNITS)}.")
    files = _interaction_files(source, prefix)
    item_file = source.one("*.item", prefix=prefix)
    catalogue = _read_items(source, item_file, rows)
    events, chains = Events(), Chains(rows)
    counts = {}
    for split, file in files.items():
        header = tuple(_header(source, file))
        require_columns(source.where(file), (USER, ITEM), header)
        if HISTORY in header:
            counts[file] = _add_windows(source, file, header, split or c.TRAIN, chains, rows)
        else:
            layout = _layout(header, UNITS[time_unit])
            counts[file] = read_events(
                source,
                file,
                rows,
                events,
                fast=layout.fast,
                parse=layout.parse,
                header=True,
                split=split,
                timed=layout.time is not None,
            )
    for file, frame in chains.frames().items():
        events.add(frame, file)
    return assemble(
        name=item_file.rsplit("/", 1)[-1].removesuffix(".item"),
        catalogue=catalogue,
        events=events,
        rows=rows,
        files={**counts, item_file: catalogue.taken},
        promise_order=promise_order,
        rule=SplitRule() if None in files else SplitRule("published"),
        notes={"format": "recbole"},
    )


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


def _header(source: Source, file: str) -> dict[str, str]:
    """Column → type."""
    pairs = (field.partition(":") for field in next(iter(source.head(file)), "").split("\t"))
    return {name: kind for name, _, kind in pairs}


def _layout(header: tuple[str, ...], scale: int) -> Delimited:
    rating, time = (name if name in header else None for name in (RATING, TIME))
    return Delimited(header, USER, ITEM, rating, time, separator="\t", quoted=False, scale=scale)


def _add_windows(
    source: Source, file: str, header: tuple[str, ...], split: str, chains: Chains, rows: BadRows
) -> int:
    count = 0
    for line, row in _rows(source, file, header, rows):
        chains.add(row[USER], row[HISTORY].split(), row[ITEM], split, source.where(file), line)
        count += 1
    return count


def _rows(
    source: Source, file: str, header: tuple[str, ...], rows: BadRows
) -> list[tuple[int, dict[str, str]]]:
    found = []
    for lines in source.batches(file):
        for number, raw in lines:
            if number == 1 or not raw.strip():
                continue
            where = f"{source.where(file)}, line {number}"
            try:
                values = raw.decode().split("\t")
            except UnicodeDecodeError as error:
                rows.report("broken line", where, str(error))
                continue
            if len(values) != len(header):
                rows.report("broken line", where, f"{len(values)} fields where the header has {len(header)}")
                continue
            found.append((number, dict(zip(header, values, strict=True))))
    return found


def _read_items(source: Source, file: str, rows: BadRows) -> Catalogue:
    header = _header(source, file)
    columns = {part: next((name for name in names if name in header), None) for part, names in NAMES.items()}
    require_columns(source.where(file), (ITEM, columns[c.TITLE] or NAMES[c.TITLE][0]), tuple(header))
    catalogue = Catalogue(rows, source.where(file))
    for line, row in _rows(source, file, tuple(header), rows):
        text = {part: row[name] if name else "" for part, name in columns.items()}
        categories = _categories(text[c.CATEGORIES], header.get(columns[c.CATEGORIES] or "", ""))
        catalogue.add(
            f"line {line}", row[ITEM], text[c.TITLE], text[c.DESCRIPTION], brand_of(text[c.BRAND]), categories
        )
    return catalogue


def _categories(text: str, kind: str) -> list[str]:
    """A ``token_seq`` is parted at spaces, or holds quoted names with commas; a ``token`` is one path."""
    if "', '" in text or (text.startswith("'") and text.endswith("'")):
        try:
            return category_path(list(ast.literal_eval(f"[{text}]")))
        except (ValueError, SyntaxError):
            return category_path(text)
    return category_path(text.split() if kind == "token_seq" else text) if text else []


READER = Reader("recbole", "X.inter and X.item with name:type headers", finds, read)
