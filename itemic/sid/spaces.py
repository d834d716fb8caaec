"""The spaces that codebooks stand in: how item vectors get there, and back. A new one is a class and a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol, Self

import numpy as np

from itemic.sid.vectors import Array, Float32

Layer = tuple[Float32, Float32]  # weights [in, out], biases [out]


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


class Rotation:
    """Vectors without their mean, rotated.

    Args:
        rotation: float32 ``[d, d]``, orthogonal.
        mean: float32 ``[d]``.
    """

    name = "rotation"

    def __init__(self, rotation: Float32, mean: Float32) -> None:
        if rotation.shape != (len(mean), len(mean)):
            raise ValueError(f"a rotation of the shape {rotation.shape} for {len(mean)} dimensions")
        self.rotation = np.ascontiguousarray(rotation, np.float32)
        self.mean = np.asarray(mean, np.float32)
        self.width = len(mean)

    def to_latent(self, vectors: Float32) -> Float32:
        return ((vectors - self.mean) @ self.rotation).astype(np.float32, copy=False)

    def from_latent(self, latent: Float32) -> Float32:
        return (latent @ self.rotation.T + self.mean).astype(np.float32, copy=False)

    @property
    def state(self) -> dict[str, Array]:
        return {"rotation": self.rotation, "mean": self.mean}

    @classmethod
    def of(cls, width: int, state: Mapping[str, Array]) -> Rotation:
        return cls(state["rotation"], state["mean"])


class Network:
    """Behind an encoder, with a decoder for the way back: perceptrons with ReLU between their layers.

    Vectors are first centred and divided by one number. With ``skip`` both networks add to what they are given
    instead of replacing it, so the space is as wide as the vectors. Plain numpy: the same codes wherever it is loaded.

    Args:
        mean: float32 ``[d]``.
        scale: what centred vectors are divided by.
        encoder, decoder: weights float32 ``[in, out]`` and biases ``[out]`` of each layer.
        skip: whether input is added to output.
    """

    name = "network"

    def __init__(
        self, mean: Float32, scale: float, encoder: Sequence[Layer], decoder: Sequence[Layer], *, skip: bool
    ) -> None:
        self.mean = np.asarray(mean, np.float32)
        self.scale = np.float32(scale)
        self.encoder = [_layer(*layer) for layer in encoder]
        self.decoder = [_layer(*layer) for layer in decoder]
        self.skip = skip
        self.width = len(mean)
        chain = [weight.shape for weight, _ in (*self.encoder, *self.decoder)]
        ends = chain and chain[0][0] == chain[-1][1] == self.width
        if not ends or any(one[1] != two[0] for one, two in pairwise(chain)):
            raise ValueError(f"layers of the shapes {chain} for {self.width} dimensions")

    def to_latent(self, vectors: Float32) -> Float32:
        return self._run(((vectors - self.mean) / self.scale).astype(np.float32), self.encoder)

    def from_latent(self, latent: Float32) -> Float32:
        return ((self._run(latent, self.decoder) * self.scale + self.mean).astype(np.float32)).astype(
            np.float32, copy=False
        )

    def _run(self, x: Float32, layers: Sequence[Layer]) -> Float32:
        y = x
        for place, (weight, bias) in enumerate(layers):
            y = y @ weight + bias
            if place < len(layers) - 1:
                np.maximum(y, 0, out=y)
        out: Float32 = x + y if self.skip else y
        return out

    @property
    def state(self) -> dict[str, Array]:
        state: dict[str, Array] = {
            "mean": self.mean,
            "scale": np.array([self.scale], np.float32),
            "skip": np.array([self.skip], np.uint8),
        }
        for part, layers in (("encoder", self.encoder), ("decoder", self.decoder)):
            for place, (weight, bias) in enumerate(layers):
                state |= {f"{part}.{place}.weight": weight, f"{part}.{place}.bias": bias}
        return state

    @classmethod
    def of(cls, width: int, state: Mapping[str, Array]) -> Network:
        parts = []
        for part in ("encoder", "decoder"):
            count = sum(name.startswith(f"{part}.") and name.endswith(".weight") for name in state)
            names = [f"{part}.{place}" for place in range(count)]
            parts.append([(state[f"{name}.weight"], state[f"{name}.bias"]) for name in names])
        scale, skip = float(state["scale"][0]), bool(state["skip"][0])
        return cls(state["mean"], scale, parts[0], parts[1], skip=skip)


def _layer(weight: Float32, bias: Float32) -> Layer:
    return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)


SPACES: dict[str, type[Space]] = {
    "identity": Identity,
    "rotation": Rotation,
    "network": Network,
}
