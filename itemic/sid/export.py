"""Semantic IDs in another token format, and as the files that other systems read.

| name | file | read by |
|---|---|---|
| ``letter`` | ``X.index.json``: ``{item: ["<a_236>", "<b_231>", …]}`` | LETTER, MiniOneRec |
| ``onerec-think`` | ``X.pretrain.json``: ``{item: {title, description, categories, sid}}`` | OneRec-Think |
| ``openonerec`` | Parquet, ``pid`` and ``sid``, the list of an item's codes | OpenOneRec |

:func:`itemic.sid.published.import_index` reads all of them. A new file is a function and one row in :data:`EXPORTS`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.artifact import write_text
from itemic.data.dataset import Dataset
from itemic.data.writers import find_writer
from itemic.errors import ConfigError
from itemic.sid.format import TOKEN_FORMATS, token_format
from itemic.sid.index import ItemIndex
from itemic.sid.published import PID, SID


def convert(index: ItemIndex, format: str) -> ItemIndex:
    """The same items under the same codes, written in another token format.

    The digest changes with the format, since a model's vocabulary holds the tokens: an index that was converted fits
    no model that was trained before. Converting back gives the old digest again.

    Raises:
        ConfigError: there is no such format.
    """
    token_format(format)
    return replace(index, format=format)


def export_index(index: ItemIndex, file: str | Path, name: str, dataset: Dataset | None = None) -> None:
    """Write the file of another system, whole or not at all.

    Args:
        index: whatever its own token format, the file gets the system's.
        file: where to; a file that is there is replaced.
        name: a key of :data:`EXPORTS`.
        dataset: the items' texts, for ``onerec-think`` alone.

    Raises:
        ConfigError: there is no such export, or it needs the dataset.
        IndexMismatchError: the index is of other items than the dataset.
    """
    if name not in EXPORTS:
        raise ConfigError(f"unknown export {name!r}", f"Use one of {', '.join(EXPORTS)}.")
    if dataset is not None:
        index.check_dataset(dataset)
    EXPORTS[name](index, Path(file), dataset)


def export_dataset(
    dataset: Dataset,
    folder: str | Path,
    format: str,
    *,
    index: ItemIndex | None = None,
    name: str | None = None,
) -> list[str]:
    """Write a dataset, its split included, as the files of another system, which :func:`itemic.read` reads again.

    Args:
        dataset: with whatever split its rule says.
        folder: where to; it is made, and must be empty if it is there.
        format: a key of :data:`itemic.data.writers.WRITERS`.
        index: the items' semantic IDs, written in the system's own token format.
        name: what files are called; by default as the folder, which RecBole wants.

    Returns:
        What these files can't hold of the dataset, in a few words each.

    Raises:
        ConfigError: there is no such format, or it needs the index.
        DataError: the folder isn't empty, or an id can't stand in these files.
        IndexMismatchError: the index is of other items than the dataset.
    """
    writer, root = find_writer(format), Path(folder)
    sids = None
    if index is not None:
        index.check_dataset(dataset)
        sids = convert(index, writer.token_format).texts if writer.token_format else None
    root.mkdir(parents=True, exist_ok=True)
    stem = name or root.resolve().name
    lost = writer.write(dataset, root, stem, sids)
    if dataset.users is not None and not writer.users:
        lost.append("what is known of users")
    if dataset.candidates is not None and not writer.candidates:
        lost.append("the candidates to rank")
    if index is not None and writer.index_file is not None:
        export, file = writer.index_file
        export_index(index, root / file.format(name=stem), export)
    if sids is None and (index is not None or writer.token_format):
        lost.append("semantic IDs" + ("" if index is not None else " (no index was given)"))
    return lost


def _letter(index: ItemIndex, file: Path, dataset: Dataset | None) -> None:
    tables = TOKEN_FORMATS["minionerec"].level_tokens(index.sizes)
    columns = [[table[code] for code in index.codes[:, level]] for level, table in enumerate(tables)]
    tokens = dict(zip(index.item_ids, zip(*columns, strict=True), strict=True))
    write_text(file, json.dumps(tokens))


def _onerec_think(index: ItemIndex, file: Path, dataset: Dataset | None) -> None:
    if dataset is None:
        raise ConfigError(
            "OneRec-Think's file holds titles, descriptions and categories", "Give the dataset as well."
        )
    texts = convert(index, "onerec").texts
    records = {
        item: {
            "title": title or "",
            "description": description or "",
            "categories": " > ".join(path or []),
            "sid": text,
        }
        for item, title, description, path, text in zip(
            index.item_ids,
            *(dataset.items[column].to_list() for column in (c.TITLE, c.DESCRIPTION, c.CATEGORIES)),
            texts,
            strict=True,
        )
    }
    write_text(file, json.dumps(records, indent=0, ensure_ascii=False))


def _openonerec(index: ItemIndex, file: Path, dataset: Dataset | None) -> None:
    """``pid`` is Int64 where every id is a number as Python would write it, else String."""
    ids = pl.Series(PID, index.item_ids, pl.String)
    numbers = ids.cast(pl.Int64, strict=False)
    if not numbers.has_nulls() and numbers.cast(pl.String).equals(ids):
        ids = numbers
    codes = pl.Series(SID, index.codes.astype(np.int64)).cast(pl.List(pl.Int64))
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        pl.DataFrame([ids, codes]).write_parquet(scratch)
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


EXPORTS: dict[str, Callable[[ItemIndex, Path, Dataset | None], None]] = {
    "letter": _letter,
    "onerec-think": _onerec_think,
    "openonerec": _openonerec,
}
