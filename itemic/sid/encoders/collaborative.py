"""Vectors from behaviour alone: for catalogues that say little or nothing of their items."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError, DataError
from itemic.sid.cooccurrence import cooccurrence_vectors
from itemic.sid.encoders.silent import Known, fill_silent, mean_vector
from itemic.sid.vectors import Array, Float32

ALONE = "stand beside no other item in training"


class CollaborativeEncoder:
    """What the same users met close to each other in training, see :mod:`itemic.sid.cooccurrence`.

    Texts are not read. Items that training never shows beside another one, and items that come later, get the mean of
    the others; how many did is logged and stands in ``notes``.

    Args:
        dims: length of the vectors; fewer where there are fewer items.
        window: how far apart two events of a user may be.
        seed: for the randomised SVD.
    """

    name = "collaborative"

    def __init__(self, *, dims: int = 64, window: int = 10, seed: int = 0) -> None:
        for key, value in (("dims", dims), ("window", window)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"{key} of encoder {self.name!r} is {value!r}", "Give a positive whole number."
                )
        self.dims, self.window, self.seed = dims, window, seed
        self.notes: dict[str, Any] = {}
        self._train: Sequences | None = None
        self._ids: list[str] = []
        self._vectors = np.zeros((0, 0), np.float32)
        self._mean = np.zeros((1, 0), np.float32)

    def observe(self, train: Sequences) -> None:
        """Take ``Dataset.train`` of the items that :meth:`fit_transform` will be asked for, and nothing else of it."""
        self._train = train

    def fit_transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of length 1 for all items: float32 ``[n, min(dims, n)]``.

        Raises:
            ConfigError: no interactions were observed.
            DataError: no two items stand beside each other.
        """
        if self._train is None:
            raise ConfigError(
                "the collaborative encoder has seen no interactions",
                "Encode a dataset, or call observe first.",
            )
        vectors = cooccurrence_vectors(self._train, len(items), self.dims, window=self.window, seed=self.seed)
        known: Known = np.asarray(vectors.any(axis=1))
        if not known.any():
            raise DataError(
                "no two items stand beside each other in the training part of any user",
                "Import longer histories, or items with texts for a text encoder.",
            )
        self._mean = mean_vector(vectors, known, unit=True)
        self.notes = {
            "dims": vectors.shape[1],
            "items_without_neighbours": fill_silent(vectors, known, self._mean, items, ALONE),
        }
        self._ids, self._vectors = items[c.ITEM_ID].to_list(), vectors
        return vectors

    def transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of items by id, float32 ``[m, d]``; the mean for those that were not there.

        Raises:
            ConfigError: nothing was learnt yet.
        """
        if not self._ids:
            raise ConfigError(
                "the collaborative encoder hasn't been fitted", "Fit it, or load a tokenizer that holds it."
            )
        place = {item: row for row, item in enumerate(self._ids)}
        rows = np.array([place.get(item, -1) for item in items[c.ITEM_ID].to_list()], np.int64)
        vectors = self._vectors[rows]
        fill_silent(vectors, rows >= 0, self._mean, items, ALONE)
        return vectors

    @property
    def identity(self) -> dict[str, Any]:
        """Dimensions, window and a digest of the vectors."""
        learnt = hashlib.sha256(json.dumps(self._ids).encode() + self._vectors.tobytes())
        return {
            "name": self.name,
            "dims": self._vectors.shape[1],
            "window": self.window,
            "learnt": learnt.hexdigest()[:16],
        }

    @property
    def state(self) -> dict[str, Array]:
        """``item_ids`` (JSON bytes), ``vectors [n, d]``, ``mean [1, d]``."""
        ids = np.frombuffer(json.dumps(self._ids).encode(), np.uint8)
        return {"item_ids": ids, "vectors": self._vectors, "mean": self._mean}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what was learnt."""
        self._ids = json.loads(np.asarray(state["item_ids"], np.uint8).tobytes())
        self._vectors = np.asarray(state["vectors"], np.float32)
        self._mean = np.asarray(state["mean"], np.float32)
