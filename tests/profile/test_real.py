"""Sessions, profiles and prompts of real data: what docs/profiles.md says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from itemic.data import detect_format, read
from itemic.model.chat import ChatRenderer
from itemic.profile.attributes import Attributes
from itemic.profile.judge import faithfulness
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.profile.templated import templated_profiles
from itemic.profile.word_settings import WordsSettings
from itemic.profile.words import ProfileWords
from itemic.tasks.facts import ItemFacts
from tests.model.helpers import family_tokenizer


def test_templated_profiles_of_scientific_are_true_and_whole(shared: Path) -> None:
    folder = str(shared / "scientific")
    dataset = read(detect_format(folder), folder)
    sessions = Sessions.of(dataset, SessionSettings(split="dataset"))
    sessions = sessions.take(np.arange(0, len(sessions), 20))
    facts = ItemFacts.of(dataset, sessions.training)
    attributes = Attributes.of(facts)
    assert attributes.ordinary == {"Grip", "Ideal", "Peak"}
    histories = [sessions.inputs(session) for session in range(len(sessions))]
    found = faithfulness(templated_profiles(sessions, facts), histories, attributes)
    assert np.nanmin(found.precision) == np.nanmin(found.recall) == 1


def test_prompts_of_reviews_fit(shared: Path) -> None:
    folder = str(shared / "amazon18")
    dataset = read(detect_format(folder), folder)
    sessions = Sessions.of(dataset)
    assert [len(sessions.split(name)) for name in ("train", "valid", "test")] == [365, 46, 41]
    assert sum(text != "" for text in sessions.reviews) > 0.9 * len(sessions.reviews)
    words = ProfileWords(ItemFacts.of(dataset, sessions.training), WordsSettings(max_tokens=2000))
    some = sessions.take(np.arange(30))
    prompts = words.prompts(some, ChatRenderer(family_tokenizer("qwen3")))
    assert prompts.lengths.max() <= 2000
    assert (prompts.cut >= 0).any()
    kept = prompts.cut != 0
    assert kept.any()
    assert all(
        ("This person's review: " in text) >= keep for text, keep in zip(prompts.texts, kept, strict=True)
    )
    assert not any("&#34;" in text or "<br" in text for text in prompts.texts)
