"""Vectors that were made elsewhere: a ``.npy`` file in catalogue order or with ids, or Parquet by item id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.errors import ConfigError, DataError
from itemic.progress import log
from itemic.sid.encoders.npy import read_ids
from itemic.sid.vectors import Array, Float32, normalize

SAMPLE = 64  # items by which a later file is compared with the one that was fitted
SAME_MODEL = "Encode the new items with the model that made the first vectors."
NEW_ITEMS = (
    "Give Parquet with the columns item_id and vector, or a list of ids beside the .npy, for new items."
)


class PrecomputedEncoder:
    """Reads vectors from a file; the items' texts are not looked at.

    A ``.npy`` file holds numbers ``[n, d]``, one row an item of the catalogue and in its order, or, where
    ``X.ids.json`` stands beside ``X.npy``, the items of that list. Parquet, a file or a folder of ``*.parquet``, has a
    column of ids and one of vectors (lists or arrays of numbers), in any order. Only files with ids can tell vectors of
    items that come later, in the same file or in another one. Which model made a file can't be seen, but items that are
    in both files must have equal vectors there: 64 are remembered and compared.

    Args:
        path: the file.
        id_column: of Parquet.
        vector_column: of Parquet.
        unknown: items of the file that the catalogue doesn't have are an ``error``, or ``drop`` passes them over. In
            :meth:`transform` they always are passed over.
        normalize: whether vectors get length 1; by default they stay as they are.
        seed: not used.
    """

    name = "precomputed"

    def __init__(
        self,
        *,
        path: str = "",
        id_column: str = c.ITEM_ID,
        vector_column: str = "vector",
        unknown: str = "error",
        normalize: bool = False,
        seed: int = 0,
    ) -> None:
        if not path:
            raise ConfigError("encoder 'precomputed' needs the option path", "Name a .npy or Parquet file.")
        if unknown not in ("error", "drop"):
            raise ConfigError(f"unknown is {unknown!r}", "Use error or drop.")
        self.path = Path(path)
        self.id_column = id_column
        self.vector_column = vector_column
        self.unknown = unknown
        self.normalize = normalize
        self.notes: dict[str, Any] = {}
        self._rows: dict[str, int] = {}  # of a .npy file, known once it was read for a catalogue
        self._sample_ids: list[str] = []
        self._sample = np.zeros((0, 0), np.float32)

    @property
    def identity(self) -> dict[str, Any]:
        """Dimensions (0 before anything was read) and normalisation; name and place of the file don't count."""
        return {"name": self.name, "dims": self._sample.shape[1], "normalize": self.normalize}

    @property
    def state(self) -> dict[str, Array]:
        """Some items' ids (JSON bytes) and vectors, by which a file of another model is seen."""
        ids = np.frombuffer(json.dumps(self._sample_ids).encode(), np.uint8)
        return {"sample_ids": ids, "sample": self._sample}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over the items that later files are compared by."""
        self._sample_ids = json.loads(np.asarray(state["sample_ids"], np.uint8).tobytes())
        self._sample = np.asarray(state["sample"], np.float32)

    def fit_transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of the catalogue's items, float32 ``[n, d]``.

        Raises:
            DataError: the file can't be read, lacks an item or has a strange one, or a vector is broken; the message
                names file and item.
        """
        ids = items[c.ITEM_ID].to_list()
        table = self._read_table()
        if table is None:
            vectors = self._read_npy(ids)
            self._rows = {item: row for row, item in enumerate(ids)}
        else:
            self._check_unknown(table, ids)
            vectors = self._pick(table, ids)
        some = np.unique(np.linspace(0, len(ids) - 1, SAMPLE).astype(np.int64))
        self._sample_ids, self._sample = [ids[row] for row in some.tolist()], vectors[some]
        return self._finished(vectors)

    def transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of other items, float32 ``[m, d]``, from a file with ids that has them.

        Raises:
            ConfigError: the file is a ``.npy`` without ids and an item wasn't in the catalogue that it was read for.
            DataError: as :meth:`fit_transform`, or the file's vectors aren't those that were fitted.
        """
        ids = items[c.ITEM_ID].to_list()
        table = self._read_table()
        if table is None:
            new = [item for item in ids if item not in self._rows]
            if new:
                raise ConfigError(f"{self.path} has rows without ids, so none for item {new[0]!r}", NEW_ITEMS)
            return self._finished(self._read_npy(list(self._rows))[[self._rows[item] for item in ids]])
        vectors = self._pick(table, ids)
        if self._sample.shape[1] not in (0, vectors.shape[1]):
            raise DataError(
                f"{self.path} has vectors of {vectors.shape[1]} numbers, the file that was fitted "
                f"{self._sample.shape[1]}",
                SAME_MODEL,
            )
        self._check_same_model(table)
        return self._finished(vectors)

    def _finished(self, vectors: Float32) -> Float32:
        self.notes = {"dims": vectors.shape[1]}
        return normalize(vectors) if self.normalize else vectors

    def _read_table(self) -> pl.DataFrame | None:
        """Ids (strings, each once) and vectors of the file; None of a ``.npy`` without ids."""
        if self.path.suffix != ".npy":
            return self._check_once(self._read_parquet())
        ids = read_ids(self.path)
        if ids is None:
            return None
        vectors = pl.Series(self.vector_column, self._read_npy(ids, "its list of ids"))
        return self._check_once(pl.DataFrame([pl.Series(self.id_column, ids, pl.String), vectors]))

    def _read_npy(self, ids: Sequence[str], whose: str = "the catalogue") -> Float32:
        try:
            table = np.load(self.path, allow_pickle=False, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{self.path} can't be read: {error}", "Write it with numpy.save, numbers only."
            ) from error
        if (
            table.ndim != 2
            or table.shape[0] != len(ids)
            or table.shape[1] == 0
            or table.dtype.kind not in "fiu"
        ):
            raise DataError(
                f"{self.path} holds {table.dtype} of the shape {list(table.shape)}, {whose} {len(ids)} items",
                "Give one row of numbers per item in the catalogue's order, or a file with item ids.",
            )
        return self._finite(np.array(table, np.float32), ids)

    def _read_parquet(self) -> pl.DataFrame:
        source = self.path / "*.parquet" if self.path.is_dir() else self.path
        names = (self.id_column, self.vector_column)
        try:
            lazy = pl.scan_parquet(source)
            columns = lazy.collect_schema().names()
            lacking = [name for name in names if name not in columns]
            table = lazy.select(names).collect() if not lacking else pl.DataFrame()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{self.path} can't be read: {str(error).splitlines()[0]}", "Give a .npy or Parquet file."
            ) from error
        if lacking:
            raise DataError(
                f"{self.path} has no column {', '.join(map(repr, lacking))}, but {', '.join(columns)}",
                "Name its columns with id_column and vector_column.",
            )
        return table.with_columns(pl.col(self.id_column).cast(pl.String))

    def _check_once(self, table: pl.DataFrame) -> pl.DataFrame:
        repeated = table[self.id_column].filter(table[self.id_column].is_duplicated())
        if len(repeated):
            raise DataError(
                f"{self.path} has item {repeated[0]!r} more than once", "Keep one vector per item."
            )
        return table

    def _check_unknown(self, table: pl.DataFrame, ids: Sequence[str]) -> None:
        known = pl.Series(ids, dtype=pl.String)
        strange = table[self.id_column].filter(~table[self.id_column].is_in(known.implode()))
        if not len(strange):
            return
        message = (
            f"{self.path} has {len(strange)} items that the catalogue doesn't have, first {strange[0]!r}"
        )
        if self.unknown == "error":
            raise DataError(message, "Set unknown to drop to pass them over, or give this catalogue's file.")
        log.info("%s; they are passed over", message)

    def _pick(self, table: pl.DataFrame, ids: Sequence[str]) -> Float32:
        """The vectors of these items, in their order."""
        wanted = pl.DataFrame({self.id_column: ids}, schema={self.id_column: pl.String})
        found = wanted.join(
            table.with_columns(pl.lit(True).alias("__there")),
            on=self.id_column,
            how="left",
            maintain_order="left",
        )
        missing = found.filter(pl.col("__there").is_null())[self.id_column]
        if len(missing):
            raise DataError(
                f"{self.path} has no vector for {len(missing)} of {len(ids)} items, first {missing[0]!r}",
                "Encode these items as well, or filter them out of the dataset.",
            )
        return self._finite(self._numbers(found[self.vector_column], ids), ids)

    def _numbers(self, column: pl.Series, ids: Sequence[str]) -> Float32:
        """A column of lists as a table ``[n, d]``."""
        kind = column.dtype
        if not (isinstance(kind, pl.List | pl.Array) and kind.inner is not None and kind.inner.is_numeric()):
            raise DataError(
                f"column {self.vector_column!r} of {self.path} holds {kind}, not lists of numbers",
                "Write each vector as a list of numbers.",
            )
        lists = column.arr.to_list() if isinstance(kind, pl.Array) else column
        lengths = lists.list.len().fill_null(0).to_numpy()
        odd = np.flatnonzero((lengths != lengths[0]) | (lengths == 0))
        if len(odd):
            row = int(odd[0])
            raise DataError(
                f"{self.path} has a vector of {lengths[row]} numbers for item {ids[row]!r}, and of {lengths[0]} for "
                f"item {ids[0]!r}",
                "Give every item a vector of one length.",
            )
        flat = lists.explode().cast(pl.Float32).to_numpy()  # a null becomes NaN
        return np.array(flat, np.float32).reshape(len(ids), -1)

    def _finite(self, vectors: Float32, ids: Sequence[str]) -> Float32:
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            row = int(broken[0])
            raise DataError(
                f"{self.path} has NaN, null or infinite values for {len(broken)} items, first row {row} "
                f"(item {ids[row]!r})",
                "Make these vectors again; half precision overflows easily.",
            )
        return vectors

    def _check_same_model(self, table: pl.DataFrame) -> None:
        """Raises where items that were fitted have other vectors in this file."""
        there = set(table.filter(pl.col(self.id_column).is_in(self._sample_ids))[self.id_column])
        rows = [row for row, item in enumerate(self._sample_ids) if item in there]
        if not rows:
            return
        ids = [self._sample_ids[row] for row in rows]
        now, then = self._pick(table, ids), self._sample[rows]
        same = np.isclose(now, then, rtol=1e-2, atol=1e-2 * np.abs(then).max()).all(
            axis=1
        )  # as half precision is
        if not same.all():
            first = ids[int(np.flatnonzero(~same)[0])]
            raise DataError(
                f"{self.path} has another vector for item {first!r} than the file that was fitted",
                SAME_MODEL,
            )
