"""Profiles by rule: true descriptions of a history in several wordings, for a small writer's first training."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import polars as pl

from itemic import schema as c
from itemic.errors import DataError
from itemic.profile.sessions import Sessions
from itemic.profile.words import ProfileWords
from itemic.tasks.conversation import SCHEMA, json_strings, make_uuids
from itemic.tasks.described import described, taste_of
from itemic.tasks.facts import ItemFacts

NAME = "profile-text"  # source and task of these conversations


def templated_profiles(sessions: Sessions, facts: ItemFacts, seed: int = 0) -> list[str]:
    """A profile of each session, true to what it shows; wordings differ by seed, user and the session's length."""
    found = []
    for session, user in enumerate(sessions.users):
        span = slice(int(sessions.offsets[session]), int(sessions.offsets[session + 1]))
        items, ratings = sessions.items[span].tolist(), sessions.ratings[span].tolist()
        lot = [seed, crc32(str(user).encode()), *items]
        found.append(described(taste_of(items, ratings, facts), lot))
    return found


def templated_conversations(
    sessions: Sessions, words: ProfileWords, texts: Sequence[str], *, seed: int = 0, source: str = NAME
) -> pl.DataFrame:
    """What a writer first learns from: the prompt that it will be asked by, and a templated profile as the answer.

    Args:
        sessions: those of training; others are refused.
        words: whose facts the profiles are made of.
        texts: what the user says in each session (:attr:`itemic.profile.words.Prompts.texts`), so that training and
            writing read the same.
        seed: of the wordings.
        source: the name that the conversations carry.

    Returns:
        One conversation a session, columns ``schema.CONVERSATION_COLUMNS``.

    Raises:
        DataError: a session is of valid or test, or there are not as many texts.
    """
    if sessions.labels.any():
        raise DataError(
            f"{int((sessions.labels > 0).sum())} sessions are of valid or test",
            "Give `sessions.split('train')`.",
        )
    if len(texts) != len(sessions):
        raise DataError(f"{len(texts)} texts for {len(sessions)} sessions", "Give one for each.")
    profiles = templated_profiles(sessions, words.facts, seed)
    asked, answers = (json_strings(pl.Series(each, dtype=pl.String)) for each in (list(texts), profiles))
    groups = json_strings("user:" + pl.Series(sessions.users, dtype=pl.String))
    return pl.DataFrame(
        {
            c.UUID: make_uuids(source, seed, 0, len(sessions)),
            c.SOURCE: [source] * len(sessions),
            c.MESSAGES: '[{"role":"user","content":'
            + asked
            + '},{"role":"assistant","content":'
            + answers
            + "}]",
            c.SEGMENTS: None,
            c.METADATA: f'{{"task":"{NAME}","kind":"profile","group":' + groups + f',"split":"{c.TRAIN}"}}',
        },
        schema=SCHEMA,
    )
