"""From items to vectors: a text encoder, and what users of the training split bought together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import polars as pl

from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.progress import log
from itemic.sid.cooccurrence import cooccurrence_vectors, fuse
from itemic.sid.encoders import ENCODERS, Encoder
from itemic.sid.encoders.collaborative import CollaborativeEncoder
from itemic.sid.text import item_texts
from itemic.sid.vectors import Array, Float32, check_vectors

Part = TypeVar("Part")
AUTO = "auto"
COLLABORATIVE = {"collaborative_weight": 0.0, "collaborative_dims": 64, "collaborative_window": 10}


class ItemEncoder:
    """An encoder and, by a weight, collaborative vectors beside it.

    Args:
        name: a key of :data:`itemic.sid.encoders.ENCODERS`.
        options: arguments of the encoder, and those below.
        seed: for the encoder and the co-occurrence vectors.

    Options:
        collaborative_weight: 0 to 1, the share of co-occurrence vectors in the items' vectors.
        collaborative_dims: length of the co-occurrence vectors.
        collaborative_window: how far apart two events of a user may be to count as taken together.

    Raises:
        ConfigError: the encoder or an option is unknown.
    """

    def __init__(self, name: str = "lsa", options: Mapping[str, Any] | None = None, *, seed: int = 0) -> None:
        given = dict(options or {})
        self.shared = {key: given.pop(key, default) for key, default in COLLABORATIVE.items()}
        self.name, self.options, self.seed = name, given, seed
        self.text: Encoder = make_part("encoder", ENCODERS, name, given, seed)
        if isinstance(self.text, CollaborativeEncoder) and self.shared["collaborative_weight"]:
            raise ConfigError(
                f"collaborative_weight is {self.shared['collaborative_weight']} beside encoder {name!r}",
                "Leave it out: all of these vectors is collaborative.",
            )
        self.record: dict[str, Any] = {}
        self._collaborative_width = 0

    @property
    def all_options(self) -> dict[str, Any]:
        """The options as they were given, with those of the collaborative vectors where these take part."""
        return self.options | (self.shared if self.shared["collaborative_weight"] else {})

    def fit_transform(self, dataset: Dataset) -> Float32:
        """The items' vectors float32 ``[n, d]``; of the interactions ``Dataset.train`` alone is read."""
        if isinstance(self.text, CollaborativeEncoder):
            self.text.observe(dataset.train)
        vectors = check_vectors(
            self.text.fit_transform(dataset.items), f"the vectors of encoder {self.name!r}"
        )
        self.record = {"name": self.name, "options": self.options, **self.text.notes}
        weight = self.shared["collaborative_weight"]
        if weight == 0:
            return vectors
        together = cooccurrence_vectors(
            dataset.train,
            len(vectors),
            self.shared["collaborative_dims"],
            window=self.shared["collaborative_window"],
            seed=self.seed,
        )
        self._collaborative_width = together.shape[1]
        self.record |= self.shared | {"items_without_neighbours": int((~together.any(axis=1)).sum())}
        return fuse(vectors, together, weight)

    def transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of items that nobody has bought yet, float32 ``[m, d]``: their text alone."""
        vectors = check_vectors(self.text.transform(items), f"the vectors of encoder {self.name!r}")
        if not self._collaborative_width:
            return vectors
        nothing = np.zeros((len(vectors), self._collaborative_width), np.float32)
        return fuse(vectors, nothing, self.shared["collaborative_weight"])

    @property
    def identity(self) -> dict[str, Any]:
        """Plain JSON that is equal exactly where vectors are comparable."""
        return {
            "text": self.text.identity,
            "collaborative_width": self._collaborative_width,
            **(self.shared if self._collaborative_width else {}),
        }

    @property
    def state(self) -> dict[str, Array]:
        """What was learnt, as arrays."""
        return self.text.state | {"collaborative_width": np.array([self._collaborative_width])}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what :attr:`state` held."""
        self._collaborative_width = int(state["collaborative_width"][0])
        self.text.restore({key: value for key, value in state.items() if key != "collaborative_width"})


def chosen_encoder(name: str, items: pl.DataFrame) -> str:
    """The name of an encoder; for ``"auto"`` the one that fits the items, which is logged.

    ``lsa`` where at least half of the items have text, else ``collaborative``.
    """
    if name != AUTO:
        return name
    silent = sum(not text for text in item_texts(items))
    chosen = "collaborative" if 2 * silent > len(items) else "lsa"
    log.info("encoder %s: %d of %d items have text", chosen, len(items) - silent, len(items))
    return chosen


def make_part(
    kind: str, table: Mapping[str, Callable[..., Part]], name: str, options: Mapping[str, Any], seed: int
) -> Part:
    """An encoder or quantizer of that name with those options.

    Raises:
        ConfigError: it or one of the options is unknown.
    """
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}", f"Use one of {', '.join(table)}.")
    known = [key for key in inspect.signature(table[name]).parameters if key != "seed"]
    wrong = [key for key in options if key not in known]
    if wrong:
        extra = list(COLLABORATIVE) if kind == "encoder" else []
        raise ConfigError(
            f"{kind} {name!r} has no option {', '.join(map(repr, wrong))}",
            f"It has {', '.join(known + extra)}.",
        )
    return table[name](**options, seed=seed)
