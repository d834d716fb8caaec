"""Semantic IDs that somebody else published, matched to a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.artifact import digest_files
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.progress import log
from itemic.sid.collisions import Coded, resolve
from itemic.sid.format import TOKEN_FORMATS, TokenFormat
from itemic.sid.index import ItemIndex

MOST_LEVELS = 32
ANY_SIZE = 1 << 31
PID, SID = "pid", "sid"  # the columns of OpenOneRec's table


def import_index(
    dataset: Dataset | None,
    path: str | Path,
    *,
    format: str = "onerec",
    sizes: Sequence[int] | None = None,
    collisions: str = "keep",
    unknown: str = "error",
) -> ItemIndex:
    """Read published semantic IDs for a dataset.

    Two kinds of JSON files are known, each by item id: LETTER's and MiniOneRec's ``X.index.json``
    (``{id: ["<a_1>", "<b_2>", …]}``) and texts in any of the token formats, alone (``{id: text}``) or as the
    key ``sid`` of an item's record (OneRec-Think's ``X.pretrain.json``). A Parquet file is OpenOneRec's table of
    ``pid`` and ``sid``, a list of codes. :mod:`itemic.sid.export` writes all of them.

    Args:
        dataset: the items; all of them must be in the file. None takes the items of the file, in its order.
        path: the file.
        format: the token format of the new index, whatever the file's.
        sizes: codes per level. By default all levels get the least power of two that holds every code; the
            ``offset`` format can't be read without sizes.
        collisions: ``keep`` or ``rank``; ``reassign`` needs vectors, which a file of codes doesn't have.
        unknown: what to do with ids that the dataset doesn't have: ``error`` or ``drop``.

    Raises:
        DataError: the file is no such file; the item at fault is named.
        IndexMismatchError: items of the dataset are missing in the file, or the other way round.
        ConfigError: an argument can't work.
    """
    if unknown not in ("error", "drop"):
        raise ConfigError(f"unknown is {unknown!r}", "Use 'error' or 'drop'.")
    file = Path(path)
    if file.suffix == ".parquet":
        ids, codes = _table_codes(dataset, file, sizes, unknown)
    else:
        texts = read_sid_texts(file)
        ids = _wanted(dataset, texts, file, unknown)
        codes = _codes({item: texts[item] for item in ids}, file, sizes)
    if sizes is None:
        sizes = (1 << max(1, int(codes.max()).bit_length()),) * codes.shape[1]
    plain = Coded(codes, tuple(sizes))
    codes, widened, _ = resolve(plain, collisions)
    origin = {"file": file.name, "file_digest": digest_files(file), "collisions": {"policy": collisions}}
    index = ItemIndex(ids, codes, widened, format, origin)
    if dataset is not None:
        index = index.with_titles(dataset.items)
    stats = index.collisions
    log.info("%s: %d items, %d semantic IDs", file.name, stats.items, stats.sids)
    return index


def _table_codes(
    dataset: Dataset | None, file: Path, sizes: Sequence[int] | None, unknown: str
) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Ids and codes int32 ``[n, L]`` of a table with the columns ``pid`` and ``sid``."""
    table = read_pid_table(file)
    places = {item: row for row, item in enumerate(table[PID].to_list())}
    if len(places) != len(table):
        twice = table.filter(table[PID].is_duplicated())[PID][0]
        raise DataError(f"{file}: item {twice!r} comes twice", "Keep one row an item.")
    ids = _wanted(dataset, places, file, unknown)
    rows = table[[places[item] for item in ids]]
    if not len(rows):
        raise DataError(f"{file} holds no items", "Give a table with a row for each item.")
    levels = rows[SID].list.len()
    wanted = int(levels[0]) if sizes is None else len(sizes)
    if not 1 <= wanted <= MOST_LEVELS:
        raise DataError(f"{file}: item {rows[PID][0]!r} has {wanted} codes", f"Give 1 to {MOST_LEVELS}.")
    broken = (levels != wanted).fill_null(True) | rows[SID].list.eval(pl.element().is_null()).list.any()
    if broken.any():
        item, codes = rows.filter(broken).row(0)
        raise DataError(f"{file}: item {item!r} has the codes {codes}, not {wanted}", "Mend the file.")
    codes = rows[SID].explode().to_numpy().reshape(-1, wanted)
    outside = ((codes < 0) | (codes >= np.array(sizes or [ANY_SIZE] * wanted))).any(axis=1)
    if outside.any():
        item, codes = rows.row(int(outside.argmax()))
        detail = "below 0 or too large" if sizes is None else f"not below {list(sizes)}"
        raise DataError(
            f"{file}: item {item!r} has the codes {codes}, {detail}", "Mend the file or the sizes."
        )
    return ids, codes.astype(np.int32)


def read_pid_table(path: str | Path) -> pl.DataFrame:
    """OpenOneRec's table: ``pid`` (as String, whatever the file has) and ``sid`` (a list of Int64).

    Raises:
        DataError: the file can't be read, or has other columns.
    """
    file = Path(path)
    try:
        table = pl.read_parquet(file, columns=[PID, SID])
        if isinstance(table.schema[SID], pl.Array):
            table = table.with_columns(pl.col(SID).arr.to_list())
        return table.select(pl.col(PID).cast(pl.String), pl.col(SID).cast(pl.List(pl.Int64)))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{file} can't be read as a table of semantic IDs: {error}",
            f"Give a Parquet file with the columns {PID!r} and {SID!r}, a list of codes.",
        ) from error


def read_sid_texts(path: str | Path) -> dict[str, str]:
    """Item id → semantic ID as text, as the file has it (a list of tokens is joined).

    Raises:
        DataError: the file can't be read, names an item twice, or an item has no semantic ID.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} can't be read as semantic IDs: {error}", "Give a JSON file by item id."
        ) from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{file} holds no items", 'It should look like {"0": ["<a_1>", "<b_2>"], …}.')
    return {item: _text(value, item, file) for item, value in content.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} comes twice")
    return found


def _text(value: Any, item: str, file: Path) -> str:
    if isinstance(value, dict):
        value = value.get("sid")
    if isinstance(value, list) and all(isinstance(token, str) for token in value):
        value = "".join(value)
    if not isinstance(value, str) or not value:
        raise DataError(
            f"{file}: item {item!r} has no semantic ID",
            "Give a list of tokens, a text, or a record with the key 'sid'.",
        )
    return value


def _wanted(dataset: Dataset | None, texts: Mapping[str, object], file: Path, unknown: str) -> list[str]:
    """The items of the index: the dataset's, which the file must have, or the file's own."""
    if dataset is None:
        return list(texts)
    missing = [item for item in dataset.item_ids if item not in texts]
    if missing:
        raise IndexMismatchError(
            f"{file} has no semantic ID for {len(missing)} items of {dataset.name!r}: {_some(missing)}",
            "Import the file that belongs to this dataset, or build an index.",
        )
    known = set(dataset.item_ids)
    extra = [item for item in texts if item not in known]
    if extra and unknown == "error":
        raise IndexMismatchError(
            f"{file} names {len(extra)} items that {dataset.name!r} doesn't have: {_some(extra)}",
            "Import this dataset's own file, or pass unknown='drop' if you filtered items out.",
        )
    return dataset.item_ids


def _some(items: Sequence[str]) -> str:
    return ", ".join(repr(item) for item in items[:5]) + (", …" if len(items) > 5 else "")


def _codes(texts: dict[str, str], file: Path, sizes: Sequence[int] | None) -> npt.NDArray[np.int32]:
    """The codes int32 ``[n, L]``; the first item tells the token format and the number of levels."""
    first, text = next(iter(texts.items()))
    form, limits = _detect(text, sizes, f"{file}: item {first!r}")
    rows = [form.parse(text, limits) for text in texts.values()]
    for (item, text), row in zip(texts.items(), rows, strict=True):
        if row is None:
            shape = f"{len(limits)} codes of format {form.name!r}"
            detail = "" if sizes is None else f" below {list(sizes)}"
            raise DataError(
                f"{file}: item {item!r} has {text!r}, not {shape}{detail}", "Mend the file or the sizes."
            )
    return np.array(rows, np.int32)


def _detect(text: str, sizes: Sequence[int] | None, where: str) -> tuple[TokenFormat, tuple[int, ...]]:
    for form in TOKEN_FORMATS.values():
        for levels in range(1, MOST_LEVELS + 1) if sizes is None else [len(sizes)]:
            if form.pattern(levels).fullmatch(text):
                if form.name == "offset" and sizes is None:
                    raise ConfigError(
                        f"{where}: the offset format doesn't tell its sizes", "Pass sizes=[256, …]."
                    )
                return form, tuple(sizes) if sizes is not None else (ANY_SIZE,) * levels
    expected = "" if sizes is None else f" with {len(sizes)} levels"
    raise DataError(
        f"{where} has {text!r}, no semantic ID{expected}", f"Known formats: {', '.join(TOKEN_FORMATS)}."
    )
