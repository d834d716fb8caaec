"""The spaces that codebooks stand in: how item vectors get there, and back. A new one is a class and a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self

from itemic.sid.vectors import Array, Float32


class Space(Protocol):
    """A map of vectors ``[n, d]`` to ``[n, d']`` and back.

    Attributes:
        name: the key in :data:`SPACES`.
        width: ``d``.
    """

    name: str
    width: int

    def to_latent(self, vectors: Float32) -> Float32:
        """float32 ``[n, d]`` to ``[n, d']``."""
        ...

    def from_latent(self, latent: Float32) -> Float32:
        """float32 ``[n, d']`` to ``[n, d]``."""
        ...

    @property
    def state(self) -> dict[str, Array]:
        """All arrays that the map needs."""
        ...

    @classmethod
    def of(cls, width: int, state: Mapping[str, Array]) -> Self:
        """The space with that state.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays don't fit together.
        """
        ...


class Identity:
    """The vectors' own space."""

    name = "identity"

    def __init__(self, width: int) -> None:
        self.width = width

    def to_latent(self, vectors: Float32) -> Float32:
        return vectors

    def from_latent(self, latent: Float32) -> Float32:
        return latent

    @property
    def state(self) -> dict[str, Array]:
        return {}

    @classmethod
    def of(cls, width: int, state: Mapping[str, Array]) -> Identity:
        return cls(width)


SPACES: dict[str, type[Space]] = {
    "identity": Identity,
}
