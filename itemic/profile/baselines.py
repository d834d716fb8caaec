"""Who else answers the sessions that profiles are tested on: the embedder on the raw history, counting, chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.data.settings import SplitRule
from itemic.errors import DataError
from itemic.evaluate.baselines import Transitions
from itemic.evaluate.compare import Published
from itemic.evaluate.counting import Popularity
from itemic.profile.embedder import Embedder
from itemic.profile.evaluation_settings import Told
from itemic.profile.sessions import Sessions
from itemic.profile.word_settings import FORMS, WordsSettings
from itemic.profile.words import CUTS, ProfileWords
from itemic.tasks.facts import ItemFacts

Int32 = npt.NDArray[np.int32]

COUNTERS: dict[str, type[Popularity] | type[Transitions]] = {
    "transitions": Transitions,
    "popularity": Popularity,
}
_PAPER = (
    "Gao et al., LangPTune, 2024: another dataset (10,945 items of Amazon Movies & TV) and its own sessions"
)
LANGPTUNE = (
    Published("LangPTune", {"ndcg@20": 0.0494}, _PAPER),
    Published("LangPTune, titles and metadata", {"ndcg@20": 0.0543}, _PAPER),
    Published("LangPTune, popularity", {"ndcg@20": 0.0039}, _PAPER),
    Published("LangPTune, random", {"ndcg@20": 0.0006}, _PAPER),
)


def training_alone(dataset: Dataset, sessions: Sessions) -> Dataset:
    """The same catalogue with those interactions alone that training may count, all of them for training.

    Raises:
        DataError: the sessions are of another dataset.
    """
    if len(sessions.training) != len(dataset.interactions) or sessions.catalogue != dataset.catalogue:
        raise DataError(
            f"sessions of a dataset of {len(sessions.training):,} interactions, and {dataset.name!r} has "
            f"{len(dataset.interactions):,} or another catalogue",
            "Make the sessions of this dataset.",
        )
    own = dataset.interactions.filter(pl.Series(sessions.training, dtype=pl.Boolean))
    return replace(
        dataset,
        interactions=own.with_columns(pl.lit(c.TRAIN).alias(c.SPLIT)),
        rule=SplitRule("published"),
    )


def random_lists(requests: Requests, k: int, items: int, seed: int) -> Int32:
    """``k`` items by chance for each request, none of its history, int32 ``[R, k]``; -1 where items run out."""
    found = np.full((len(requests), k), -1, np.int32)
    for row in range(len(requests)):
        had = requests.history(row)
        size = min(items, k + len(had))
        drawn = np.random.default_rng([seed, row]).choice(items, size, replace=False)
        own = drawn[~np.isin(drawn, had)][:k]
        found[row, : len(own)] = own
    return found


def history_texts(
    sessions: Sessions, facts: ItemFacts, told: Told, embedder: Embedder
) -> tuple[list[str], int]:
    """What an embedder reads of each session in the place of a profile, and how many of them it can't read whole.

    Items are told as in a writer's prompt, without its instruction, and the latest first, so that of what is too long
    for the embedder the oldest goes. Descriptions and reviews are cut before that, all at once, until all items fit. A
    session without items has an empty text.

    Args:
        sessions: of the facts' catalogue.
        facts: of its items.
        told: what is said of an item, a name of :data:`itemic.profile.word_settings.FORMS`.
        embedder: who reads it.
    """
    words = ProfileWords(facts, WordsSettings(fields=FORMS[told], instruction=""))

    def text(session: int, cut: int | None) -> str:
        begin, stop = (int(at) for at in sessions.offsets[session : session + 2])
        items = [
            words.item(int(sessions.items[at]), float(sessions.ratings[at]), sessions.reviews[at], cut)
            for at in reversed(range(begin, stop))
        ]
        return "\n\n".join(items)

    texts = [text(session, None) for session in range(len(sessions))]
    long = _long(range(len(texts)), texts, embedder)
    if {"description", "review"} & set(words.rule.fields):
        for cut in CUTS:
            for session in long:
                texts[session] = text(session, cut)
            long = _long(long, texts, embedder)
    return texts, len(long)


def _long(sessions: range | list[int], texts: list[str], embedder: Embedder) -> list[int]:
    """Which texts fill all that the embedder reads."""
    own = embedder.tokens([texts[session] for session in sessions], "profile")
    return [
        session
        for session, length in zip(sessions, own.rows.lengths.tolist(), strict=True)
        if length >= embedder.max_length
    ]
