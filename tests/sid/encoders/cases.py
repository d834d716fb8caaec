"""A factory for every encoder, so that all of them go through one contract."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic import schema as c
from itemic.sid.encoders import ENCODERS, Encoder
from itemic.sid.encoders.collaborative import CollaborativeEncoder
from itemic.sid.text import item_texts
from itemic.sid.vectors import normalize
from tests.sid.encoders.server import Embedder, hash_words, serving
from tests.sid.helpers import make_dataset

COLOURS = ("red", "green", "blue", "white")
THINGS = ("soap", "shampoo", "brush", "towel", "mirror")
TITLES = [f"{colour} {thing} number {k}" for k in range(3) for colour in COLOURS for thing in THINGS]
CATEGORIES = [["Home", thing.title()] for _ in range(3) for _ in COLOURS for thing in THINGS]
ITEMS = make_dataset(TITLES, categories=CATEGORIES).items
FRESH = make_dataset(["pink soap number 9", "red towel"], ids=["new0", "new1"]).items


class Site:
    """What encoders read, each made when it is first asked for: model folders, files, a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closing = ExitStack()

    @cached_property
    def bert(self) -> Path:
        from tests.sid.encoders import models  # torch and transformers, which not every test needs

        return models.bert(self.folder / "bert")

    @cached_property
    def qwen3(self) -> Path:
        from tests.sid.encoders import models

        return models.qwen3(self.folder / "qwen3")

    @cached_property
    def sentence_model(self) -> Path:
        pytest.importorskip("sentence_transformers", reason="sentence-transformers isn't installed")
        from tests.sid.encoders import models

        return models.sentence_model(self.folder / "sentence", self.bert)

    @cached_property
    def server(self) -> Embedder:
        return self.closing.enter_context(serving())

    @cached_property
    def parquet(self) -> Path:
        items = pl.concat([ITEMS, FRESH])
        vectors = normalize(np.array([hash_words(text) for text in item_texts(items)]))
        file = self.folder / "vectors.parquet"
        pl.DataFrame({c.ITEM_ID: items[c.ITEM_ID], "vector": vectors.tolist()}).reverse().write_parquet(file)
        return file


CASES: dict[str, tuple[str, Callable[[Site], dict[str, Any]]]] = {
    "lsa": ("lsa", lambda site: {}),
    "collaborative": ("collaborative", lambda site: {}),
    "sentence-transformers": ("sentence-transformers", lambda site: {"model": str(site.sentence_model)}),
    "transformers-mean": ("transformers", lambda site: {"model": str(site.bert)}),
    "transformers-cls": ("transformers", lambda site: {"model": str(site.bert), "pooling": "cls"}),
    "transformers-last": ("transformers", lambda site: {"model": str(site.qwen3), "pooling": "last"}),
    "openai": ("openai", lambda site: {"model": "words", "base_url": site.server.url}),
    "precomputed-parquet": ("precomputed", lambda site: {"path": str(site.parquet), "unknown": "drop"}),
}
# what a case can't promise, and why
GIVEN = "its vectors are given by item id, whatever the texts"
BEHAVIOUR = "it looks at who met what, not at texts"
# five users, each of whom had all items of one kind
TRAIN = make_dataset(TITLES, {thing: range(k, len(TITLES), 5) for k, thing in enumerate(THINGS)}).sequences
EXCUSED = {
    ("collaborative", "texts"): BEHAVIOUR,
    ("collaborative", "any order"): "its sequences name rows",
    ("collaborative", "one item"): "an item alone has no neighbours",
    ("collaborative", "meaning of new items"): "nobody has met them",
    ("precomputed-parquet", "texts"): GIVEN,
    (
        "transformers-last",
        "meaning",
    ): "the last state of a causal model with random weights tells little of the words",
}


class Maker:
    """``make(seed=3)``: the case's encoder."""

    def __init__(self, case: str, site: Site) -> None:
        self.case, self.site = case, site
        self.name, self._options = CASES[case]

    def __call__(self, **options: Any) -> Encoder:
        encoder = ENCODERS[self.name](**self._options(self.site), **options)
        if isinstance(encoder, CollaborativeEncoder):
            encoder.observe(TRAIN)
        return encoder

    def promises(self, what: str) -> None:
        """Skip a test that the case is excused from."""
        if (self.case, what) in EXCUSED:
            pytest.skip(EXCUSED[self.case, what])
