"""A shop of coloured things and models small enough to test profiles of its people in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import GenerationConfig

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.profile.embedder import Embedder
from itemic.profile.evaluation import ProfileAsking
from itemic.profile.evaluation_settings import ProfileTests
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.profile.word_settings import WordsSettings
from itemic.profile.words import ProfileWords
from itemic.sid.text import item_texts
from itemic.tasks.facts import ItemFacts
from tests.profile.writers import taught, untaught
from tests.sid.encoders.models import bert

COLOURS, THINGS = ("red", "green", "blue", "white", "pink"), ("soap", "towel", "brush", "mirror")
USERS = 60
TESTS: dict[str, Any] = {
    "users": 20,
    "k": (2, 5),
    "drawing": {"max_new_tokens": 8, "samples": 2},
    "items": 2,
    "places": 5,
}


def shop(users: int = USERS, reviews: str = "fine", **columns: Any) -> Dataset:
    """People who like a colour, and take four things of theirs and others, a day after each other."""
    titles = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    items = pl.DataFrame(
        {
            c.ITEM_ID: [f"i{row}" for row in range(len(titles))],
            c.TITLE: titles,
            c.DESCRIPTION: [f"number {row}" for row in range(len(titles))],
            c.BRAND: [""] * len(titles),
            c.CATEGORIES: [["Home", title.split()[1]] for title in titles],
            c.PRICE: pl.Series([float(row + 1) for row in range(len(titles))], dtype=pl.Float64),
        }
        | columns
    )
    rows, rng = [], np.random.default_rng(0)
    for user in range(users):
        own = rng.permutation(4)[:3] + 4 * (user % 5)
        taken = [*own.tolist(), int(rng.integers(20))]
        rows += [(f"u{user:02}", f"i{item}", 10 * user + at) for at, item in enumerate(taken)]
    interactions = pl.DataFrame(
        {
            c.USER_ID: [row[0] for row in rows],
            c.ITEM_ID: [row[1] for row in rows],
            c.TIMESTAMP: pl.Series([row[2] for row in rows], dtype=pl.Int64),
            c.RATING: pl.Series([5.0] * len(rows), dtype=pl.Float32),
            c.SPLIT: pl.Series([None] * len(rows), dtype=pl.String),
            c.REVIEW: [reviews] * len(rows),
        }
    )
    return Dataset(items, interactions)


def models(root: Path) -> dict[str, dict[str, Path]]:
    """Folders of writers and embedders: what is trained, and what isn't."""
    taught().save(root / "taught")
    untaught().save(root / "untaught")
    bert(root / "bert")
    embedder = Embedder.load(str(root / "bert"))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in embedder.parameters():
            weight.add_(torch.randn(weight.shape, generator=draw) * 0.05)
    embedder.save(root / "learned")
    return {
        "writers": {"trained": root / "taught", "untrained": root / "untaught"},
        "embedders": {"trained": root / "learned", "untrained": root / "bert"},
    }


def mute(folder: Path) -> Path:
    """A writer that says nothing: whatever it draws ends its text."""
    writer = untaught()
    every = list(range(writer.lm.config.vocab_size))
    writer.lm.generation_config = GenerationConfig(eos_token_id=every)  # type: ignore[no-untyped-call]
    writer.save(folder)
    return folder


def asking(
    folders: dict[str, dict[str, Path]],
    output: Path,
    dataset: Dataset | None = None,
    tests: dict[str, Any] | None = None,
    latest: int | None = None,
    **keys: Any,
) -> ProfileAsking:
    data = dataset or shop()
    sessions = Sessions.of(data, SessionSettings(inputs=2, ratios=(0.5, 0.1, 0.4)))
    sessions = sessions if latest is None else sessions.latest(latest)
    rule = WordsSettings(fields="titles", instruction="had ", max_tokens=100)  # type: ignore[arg-type]
    words = ProfileWords(ItemFacts.of(data, sessions.training), rule)
    settings = ProfileTests(**TESTS | (tests or {}))
    told = folders | keys
    return ProfileAsking(
        data, sessions, words, item_texts(data.items), output=output, settings=settings, **told
    )
