"""The table of text encoders: a new one is a class and a row, and passes ``tests/sid/test_encoders.py``."""

from __future__ import annotations

from typing import Any, Protocol

import polars as pl

from itemic.sid.lsa import LSAEncoder
from itemic.sid.vectors import Float32


class Encoder(Protocol):
    """Turns items into vectors. Options are keyword arguments of the constructor, ``seed`` among them.

    Attributes:
        name: the key in :data:`ENCODERS`.
        notes: what the last call found worth telling (JSON).
    """

    name: str
    notes: dict[str, Any]

    def fit_transform(self, items: pl.DataFrame) -> Float32:
        """Float32 ``[n, d]``, finite, one row an item of ``Dataset.items``."""
        ...


ENCODERS: dict[str, type[Encoder]] = {
    "lsa": LSAEncoder,
}
