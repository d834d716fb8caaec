"""Tiny models with random weights whose items go by titles or by semantic IDs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from itemic.control.labels import Labels
from itemic.model import Model, new_model
from itemic.sid.index import ItemIndex
from itemic.sid.names import ItemNames
from itemic.sid.titles import TitleNames
from tests.control.catalogues import tagged

TITLES = [
    "Alien", "Aliens", "Alien (1979)", "Brazil", "2. Fast 2 Furious", "7 Samurai", 'The "Burbs"', "Jaws", "Cars",
    "Heat", "A.I.", "Ran", "M", "Up", "Big Fish", "Big", "Dune", "Dune: Part Two", "Amélie", "Léon",
]  # fmt: skip
TINY = {"hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 32}


def names_of(kind: str) -> ItemNames:
    ids = [f"i{row}" for row in range(len(TITLES))]
    if kind == "title":
        return TitleNames(ids, TITLES)
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 4, (len(ids), 3)).astype(np.int32)
    codes[7] = codes[12]  # two items that share a name
    return ItemIndex(ids, codes, (4, 4, 4), "onerec", {}, None, TITLES)


@lru_cache(maxsize=2)
def model_of(kind: str) -> Model:
    return new_model("qwen3-pico", names_of(kind), TITLES, seed=0, vocab_size=400, **TINY)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def labels() -> Labels:
    """Every other item a drama, every third one a comedy, every fifth one of war."""
    words = (("Drama", 2), ("Comedy", 3), ("War", 5))
    return tagged([[name for name, every in words if row % every == 0] for row in range(len(TITLES))])
