"""What all encoders share that hand an item's text to a model: texts, order, cache, checks, silent items."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.errors import ConfigError, DataError
from itemic.progress import log, progress_bar
from itemic.sid.encoders.cache import VectorCache
from itemic.sid.encoders.silent import Known, fill_silent, mean_vector, require_text
from itemic.sid.text import TEXT_FIELDS, field_texts, join_fields
from itemic.sid.vectors import Array, Float32, normalize

_WORD = re.compile(r"\w")


class TextEncoder(ABC):
    """An encoder whose model is there already: it learns the mean vector alone, for items without text.

    Equal texts are encoded once, the longest first (so that a batch holds texts of like length, and memory runs out
    at once or never).

    Args:
        model: what makes the vectors.
        fields: the text fields of an item, in the order in which they are written.
        batch_size: texts per call of the model.
        dims: how many of the leading dimensions are kept (for models trained to be cut); None keeps all.
        normalize: whether vectors get length 1.
        cache: a folder that keeps vectors by content; None keeps nothing.
    """

    name: str

    def __init__(
        self,
        *,
        model: str,
        fields: Sequence[str] | None,
        batch_size: int,
        dims: int | None,
        normalize: bool,
        cache: str | None,
    ) -> None:
        self.fields = tuple(TEXT_FIELDS if fields is None else fields)
        unknown = [field for field in self.fields if field not in TEXT_FIELDS]
        if isinstance(fields, str) or unknown or not self.fields:
            raise ConfigError(
                f"fields of encoder {self.name!r} are {fields!r}",
                f"Give a list of some of {', '.join(TEXT_FIELDS)}.",
            )
        if not model:
            raise ConfigError(
                f"encoder {self.name!r} needs the option model", "Name it under encoder_options."
            )
        for key, value in (("batch_size", batch_size), ("dims", 1 if dims is None else dims)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"{key} of encoder {self.name!r} is {value!r}", "Give a positive whole number."
                )
        self.model = model
        self.batch_size = batch_size
        self.dims = dims
        self.normalize = normalize
        self.cache = cache
        self.notes: dict[str, Any] = {}
        self._mean = np.zeros((1, 0), np.float32)

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """See :class:`itemic.sid.encoders.base.Encoder`."""

    @property
    def precision(self) -> dict[str, Any]:
        """What changes the last digits of the vectors, and so parts caches, but leaves vectors comparable."""
        return {}

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Iterator[Float32]:
        """Vectors ``[m, d]`` of the texts, batch by batch and in their order; float32, not yet checked."""

    def fit_transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of all items, float32 ``[n, d]``; keeps their mean for items without text.

        Raises:
            DataError: no item has text, or the model gave NaN or infinite values.
        """
        texts, known = self._texts(items)
        require_text(known, self.fields)
        vectors = self._encode_known(texts, known, items)
        self._mean = mean_vector(vectors, known, self.normalize)
        return self._filled(vectors, known, items)

    def transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of other items, float32 ``[m, d]``.

        Raises:
            ConfigError: an item has no text and no mean is known, or the model has other dimensions by now.
            DataError: the model gave NaN or infinite values.
        """
        texts, known = self._texts(items)
        if not known.all() and self._mean.shape[1] == 0:
            first = items[c.ITEM_ID][int(np.flatnonzero(~known)[0])]
            raise ConfigError(
                f"item {first!r} has no text, and encoder {self.name!r} knows no mean vector yet",
                "Fit the encoder, or load a tokenizer that holds it.",
            )
        if not known.any():
            vectors = np.zeros((len(items), self._mean.shape[1]), np.float32)
        else:
            vectors = self._encode_known(texts, known, items)
        if self._mean.shape[1] not in (0, vectors.shape[1]):
            raise ConfigError(
                f"encoder {self.name!r} gave {vectors.shape[1]} dimensions, and {self._mean.shape[1]} when it was "
                "fitted",
                f"Use the model that it was fitted with, {self.model!r} was replaced.",
            )
        return self._filled(vectors, known, items)

    @property
    def state(self) -> dict[str, Array]:
        """``mean [1, d]``, what items without text get."""
        return {"mean": self._mean}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over the mean vector."""
        self._mean = np.asarray(state["mean"], np.float32)

    def _texts(self, items: pl.DataFrame) -> tuple[list[str], Known]:
        columns = [field_texts(items, field) for field in self.fields]
        known = [any(map(_WORD.search, row)) for row in zip(*columns, strict=True)]
        return join_fields(self.fields, columns), np.array(known, np.bool_)

    def _filled(self, vectors: Float32, known: Known, items: pl.DataFrame) -> Float32:
        silent = fill_silent(vectors, known, self._mean, items)
        self.notes = {"dims": vectors.shape[1], "items_without_text": silent}
        return vectors

    def _encode_known(self, texts: list[str], known: Known, items: pl.DataFrame) -> Float32:
        rows = np.flatnonzero(known)
        place: dict[str, int] = {}
        which = np.array([place.setdefault(texts[row], len(place)) for row in rows.tolist()], np.int64)
        first = rows[np.unique(which, return_index=True)[1]]  # the row that each distinct text is named by
        vectors = self._encode_distinct(list(place), first, items)
        table = np.zeros((len(items), vectors.shape[1]), np.float32)
        table[rows] = vectors[which]
        return table

    def _encode_distinct(self, texts: list[str], rows: Array, items: pl.DataFrame) -> Float32:
        cache = VectorCache(self.cache, self.identity | self.precision)
        found, table = cache.read(texts)
        lengths = np.array([len(text) for text in texts], np.int64)
        missing = np.flatnonzero(~found)
        order = missing[np.argsort(-lengths[missing], kind="stable")]
        if found.any():
            log.info("%d of %d texts are in the cache, %d to encode", found.sum(), len(texts), len(order))
        if not len(order):
            return table
        done = 0
        with progress_bar(f"{self.name} {self.model}", len(order)) as bar, cache.writing():
            for batch in self.encode([texts[place] for place in order.tolist()]):
                places = order[done : done + len(batch)]
                vectors = self._checked(batch, rows[places], items)
                if table.shape[1] == 0:
                    table = np.zeros((len(texts), vectors.shape[1]), np.float32)
                if table.shape[1] != vectors.shape[1]:
                    raise DataError(
                        f"encoder {self.name!r} gave vectors of {table.shape[1]} and of {vectors.shape[1]} dimensions",
                        "Use one model for all items; an empty cache folder helps where the model was replaced.",
                    )
                table[places] = vectors
                cache.put([texts[place] for place in places.tolist()], vectors)
                done += len(batch)
                bar.advance(len(batch))
        return table

    def _checked(self, batch: Float32, rows: Array, items: pl.DataFrame) -> Float32:
        vectors = np.asarray(batch, np.float32)
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            row = int(rows[broken[0]])
            raise DataError(
                f"encoder {self.name!r} with model {self.model!r} gave NaN or infinite values for {len(broken)} of "
                f"{len(rows)} texts of a batch, first for row {row} (item {items[c.ITEM_ID][row]!r})",
                self.remedy,
            )
        if self.dims is not None:
            if self.dims > vectors.shape[1]:
                raise ConfigError(
                    f"dims is {self.dims}, and model {self.model!r} gives {vectors.shape[1]}", "Lower dims."
                )
            vectors = vectors[:, : self.dims]
        return normalize(vectors) if self.normalize else vectors

    @property
    def remedy(self) -> str:
        """What to do about values that are no numbers."""
        return "Look at the model: it can't encode this item's text."
