"""A factory for every encoder, so that all of them go through one contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from itemic.sid.encoders import ENCODERS, Encoder
from tests.sid.encoders import models
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

    @cached_property
    def bert(self) -> Path:
        return models.bert(self.folder / "bert")

    @cached_property
    def qwen3(self) -> Path:
        return models.qwen3(self.folder / "qwen3")

    @cached_property
    def sentence_model(self) -> Path:
        pytest.importorskip("sentence_transformers", reason="sentence-transformers isn't installed")
        return models.sentence_model(self.folder / "sentence", self.bert)


CASES: dict[str, tuple[str, Callable[[Site], dict[str, Any]]]] = {
    "lsa": ("lsa", lambda site: {}),
    "sentence-transformers": ("sentence-transformers", lambda site: {"model": str(site.sentence_model)}),
    "transformers-mean": ("transformers", lambda site: {"model": str(site.bert)}),
    "transformers-cls": ("transformers", lambda site: {"model": str(site.bert), "pooling": "cls"}),
    "transformers-last": ("transformers", lambda site: {"model": str(site.qwen3), "pooling": "last"}),
}
# what a case can't promise, and why
EXCUSED = {
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
        return ENCODERS[self.name](**self._options(self.site), **options)

    def promises(self, what: str) -> None:
        """Skip a test that the case is excused from."""
        if (self.case, what) in EXCUSED:
            pytest.skip(EXCUSED[self.case, what])
