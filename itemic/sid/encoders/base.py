"""What every encoder of item texts keeps to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import polars as pl

from itemic.sid.vectors import Array, Float32


class Encoder(Protocol):
    """Turns items into vectors. Options are keyword arguments of the constructor, ``seed`` among them.

    Attributes:
        name: the key in :data:`itemic.sid.encoders.ENCODERS`.
        notes: what the last call found worth telling (JSON).
    """

    name: str
    notes: dict[str, Any]

    def fit_transform(self, items: pl.DataFrame) -> Float32:
        """Float32 ``[n, d]``, finite, one row an item of ``Dataset.items``; learns what there is to learn."""
        ...

    def transform(self, items: pl.DataFrame) -> Float32:
        """Vectors ``[m, d]`` of other items, comparable with those of :meth:`fit_transform`.

        Raises:
            ConfigError: the encoder learns from items and was neither fitted nor restored.
        """
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Plain JSON that two encoders share exactly when their vectors are comparable.

        Name, model and the digest of its weights, pooling, fields, instruction, dimensions; for a learnt encoder the
        digest of what it learnt.
        """
        ...

    @property
    def state(self) -> dict[str, Array]:
        """What was learnt from the items, as arrays of numbers or bytes; empty for an encoder that learns nothing."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what :attr:`state` of an encoder with the same options held."""
        ...
