"""Templated profiles are true, told in several wordings, and teach what the writer will be asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic import schema as c
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.errors import DataError
from itemic.profile.attributes import Attributes
from itemic.profile.judge import faithfulness
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.profile.templated import templated_conversations, templated_profiles
from itemic.profile.word_settings import WordsSettings
from itemic.profile.words import ProfileWords
from itemic.tasks.conversation import Conversations
from itemic.tasks.described import NOTHING, Taste, described, taste_of
from itemic.tasks.facts import ItemFacts
from tests.profile.people import people, walk

FACTS = ItemFacts.of(people({"a": walk([0, 1, 2], 0)}))
ATTRIBUTES = Attributes.of(FACTS)


def test_what_a_history_shows():
    taste = taste_of([0, 1, 6, 4], [5.0, 4.0, 2.0, 5.0], FACTS)
    assert taste == Taste(
        categories=("Cookware", "Writing"),
        brands=("Alba", "Cera"),
        favourite="Cookware",
        loyal=("Alba",),
        latest=("Writing",),
        price="low",
        rating=4.0,
    )
    assert taste_of([6], [1.0], FACTS).categories == ("Percussion",)  # nothing is liked, so that is told
    assert taste_of([], [], FACTS) == Taste()


def test_a_profile_by_hand():
    said = {described(taste_of([2, 3], [5.0, 4.0], FACTS), seed) for seed in range(60)}
    assert len(said) > 20
    every = {described(taste_of([2, 3], [5.0, 4.0], FACTS), seed) for seed in range(3000)}
    dear = "High prices don't put them off."
    assert f"This person likes Camping. They are loyal to Boro. They rate highly. {dear}" in every
    assert described(Taste()) == NOTHING
    assert described(Taste(rating=3.5)) == NOTHING


@given(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from([1.0, 3.0, 5.0, np.nan])), max_size=6),
    st.integers(0, 1000),
)
def test_a_profile_names_what_was_liked_and_nothing_else(history, seed):
    rows, stars = [row for row, _ in history], [star for _, star in history]
    text = described(taste_of(rows, stars, FACTS), seed)
    assert text == described(taste_of(rows, stars, FACTS), seed)
    liked = [row for row, star in history if not star < 3] or rows
    named = {n for each in ATTRIBUTES.find(text) for n in each}
    assert named == ATTRIBUTES.of_rows(liked, finest=True)
    assert "{" not in text


def test_faithful_on_the_simulator():
    dataset = simulate(SimulatorConfig(users=200, items=150)).dataset
    sessions = Sessions.of(dataset, SessionSettings())
    facts = ItemFacts.of(dataset, sessions.training)
    profiles = templated_profiles(sessions, facts, 1)
    found = faithfulness(profiles, [sessions.inputs(s) for s in range(len(sessions))], Attributes.of(facts))
    assert np.nanmin(found.precision) == 1
    assert np.nanmean(found.recall) > 0.9  # what isn't liked isn't told
    assert len(set(profiles)) > len(sessions) / 2
    assert profiles != templated_profiles(sessions, facts, 2)
    some = np.arange(5)
    assert templated_profiles(sessions.take(some), facts, 1) == profiles[:5]


def test_conversations_of_training():
    dataset = people({f"u{n}": walk([0, 6, 2 + n % 2], n, 4.0) for n in range(10)})
    sessions = Sessions.of(dataset, SessionSettings(inputs=2))
    words = ProfileWords(ItemFacts.of(dataset, sessions.training), WordsSettings(fields="titles"))
    train = sessions.split("train")
    texts = [words.text(train, s) for s in range(len(train))]
    frame = templated_conversations(train, words, texts, seed=3)
    said = list(Conversations.open(frame))
    assert len({each.uuid for each in said}) == len(train) == 8
    profiles = templated_profiles(train, words.facts, 3)
    for each, text, profile, user in zip(said, texts, profiles, train.users, strict=True):
        assert [turn["content"] for turn in each.messages] == [text, profile]
        assert each.metadata["group"] == f"user:{user}"
    assert json.loads(frame[c.METADATA][0])["split"] == "train"
    with pytest.raises(DataError, match="of valid or test"):
        templated_conversations(sessions, words, texts)
    with pytest.raises(DataError, match="1 texts for 8"):
        templated_conversations(train, words, texts[:1])
