"""Paint of five colours, people who take it, and a run's parts made by hand: a writer that says who likes what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.pipeline.described import Parts
from itemic.profile.embedder import Embedder, item_vectors
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.profile.telling import Teller
from itemic.profile.turn_settings import Drawing
from itemic.profile.word_settings import WordsSettings
from itemic.profile.words import ProfileWords
from itemic.sid.text import item_texts
from itemic.tasks.facts import ItemFacts
from tests.profile.people import people, walk
from tests.profile.writers import taught, untaught
from tests.sid.encoders.models import bert

TITLES = [
    "red soap",
    "green brush",
    "blue towel",
    "white mirror",
    "pink soap",
    "red towel",
    "blue brush",
    "twin",
]
SHADES = ["Red", "Green", "Blue", "White", "Pink", "Red", "Blue", "Green"]
BRANDS = ["Alba", "Boro", "Alba", "Boro", "Alba", "Boro", "Alba", ""]
RULE = SessionSettings(inputs=2)
WORDS = WordsSettings(fields=("title",), instruction="Had: ", max_tokens=100)
DRAWING = Drawing(max_new_tokens=8)


def shop(**columns: Any) -> Dataset:
    """Users a to f, whose walks differ in length."""
    walks = {name: [(start + step) % 8 for step in range(5)] for start, name in enumerate("abcdef")}
    events = {name: walk(walks[name], 10 * at, 4.0) for at, name in enumerate(walks)}
    events["short"] = walk([3], 99, None, "")
    own: dict[str, Any] = {
        c.TITLE: TITLES,
        c.BRAND: BRANDS,
        c.CATEGORIES: [["Paint", shade] for shade in SHADES],
    }
    return people(events, **(own | columns))


def teller(folder: Path, dataset: Dataset) -> Teller:
    embedder = Embedder.load(str(bert(folder / "bert")))
    vectors = item_vectors(embedder, item_texts(dataset.items))
    return Teller(dataset.item_ids, ItemFacts.of(dataset), embedder, vectors)


def parts(folder: Path, dataset: Dataset | None = None, *, skilled: bool = True, **changes: Any) -> Parts:
    """A run's parts; the writer that can't write says nothing that ends."""
    data = dataset or shop()
    (taught() if skilled else untaught()).save(folder / "writer")
    sessions = Sessions.of(data, RULE)
    own: dict[str, Any] = {
        "dataset": data,
        "sessions": sessions,
        "rule": RULE,
        "words": ProfileWords(ItemFacts.of(data, sessions.training), WORDS),
        "item_texts": item_texts(data.items),
        "writer": folder / "writer",
        "embedder": bert(folder / "bert"),
        "drawing": DRAWING,
    }
    return Parts(**(own | changes))


def scores(told: Teller, texts: list[str], history: list[int]) -> Any:
    """Of all items, the history's out of reach, one by one in float64."""
    items = told.embedder.encode(item_texts_of(told), "item").astype(np.float64)
    found = told.embedder.encode(texts, "profile").astype(np.float64) @ items.T
    found[:, history] = -np.inf
    return found


def item_texts_of(told: Teller) -> list[str]:
    facts = told.facts
    rows = zip(facts.titles, facts.brands, facts.categories, facts.descriptions, strict=True)
    return [
        "\n".join(
            line
            for line in (
                f"Title: {title}",
                f"Brand: {brand}" if brand else "",
                f"Categories: {' > '.join(path)}",
                f"Description: {text}",
            )
            if line
        )
        for title, brand, path, text in rows
    ]
