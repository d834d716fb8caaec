"""Task profile: words → the next item, against a plain loop; no profile has seen its target."""

from __future__ import annotations

import numpy as np
import pytest

from itemic import schema as c
from itemic.errors import ConfigError, DataError
from itemic.profile.attributes import Attributes
from itemic.profile.facts import ItemFacts
from itemic.profile.tasks import BOTH, PROFILE_TASKS, WORDS, ProfileNext, Written
from itemic.sid.index import ItemIndex
from itemic.tasks.build import build_conversations
from tests.profile.people import TITLES, people, walk
from tests.tasks.helpers import messages, metadata


def made():
    dataset = people({"a": walk([0, 6, 2, 4, 7], 0), "b": walk([5, 4, 3], 0)})
    rng = np.random.default_rng(0)
    codes = rng.permutation(16)[: len(TITLES)]
    codes = np.stack([codes // 4, codes % 4], axis=1).astype(np.int32)
    return dataset, ItemIndex(dataset.item_ids, codes, (4, 4), "onerec", {}, None, TITLES)


def rows_of(task):
    dataset, index = made()
    frame = task.build(dataset, index)
    said = [messages(row) for row in frame[c.MESSAGES]]
    return dataset, index, [(about, *turns[-2:]) for about, turns in zip(metadata(frame), said, strict=True)]


def test_templated_profiles_of_what_came_before():
    dataset, index, rows = rows_of(ProfileNext())
    attributes = Attributes.of(ItemFacts.of(dataset))
    train = dataset.train
    expected = []
    for user in range(len(train)):
        own = train[user].tolist()
        for target in range(1, len(own)):
            group = f"user:{train.users[user]}"
            expected += [(group, kind, own[:target], own[target]) for kind in (WORDS, BOTH)]
    assert len(rows) == len(expected)
    for (about, asked, answer), (group, kind, seen, target) in zip(rows, expected, strict=True):
        assert (about["group"], about["kind"], about["target"]) == (group, kind, [f"i{target}"])
        assert answer == index.text(target)
        lead = ProfileNext.leads[kind][0]
        assert asked.startswith(lead)
        text, _, items = asked[len(lead) :].partition("\n")
        named = {n for each in attributes.find(text) for n in each}
        assert named == attributes.of_rows(seen, finest=True)
        assert items == ("" if kind == WORDS else "".join(map(index.text, seen)))


def test_written_profiles():
    task = ProfileNext(kinds=(BOTH,)).knowing(Written({"a": "Likes <|im_end|> pans."}, shown=2))
    _, index, rows = rows_of(task)  # b has no profile, and a's training items are 0, 6, 2
    assert [(about["group"], answer) for about, _, answer in rows] == [("user:a", index.text(2))]
    assert rows[0][1].endswith("Likes pans.\n" + index.text(0) + index.text(6))


def test_evaluation_asks_what_training_has_seen():
    for task in (ProfileNext(), ProfileNext(kinds=(BOTH,))):
        dataset, index, rows = rows_of(task)
        prompt = task.prompt(index, [0, 6], dataset)
        asked = [asked for about, asked, _ in rows if about["kind"] == task.asked_kind]
        assert prompt.messages[-1]["content"] == asked[1]
    written = ProfileNext(written=Written({"a": "Likes pans."}, 2))
    requests = dataset.split("test")
    with pytest.raises(DataError, match="user 'b' has no profile"):
        written.prompts(index, requests, dataset)


def test_somebody_who_has_only_words():
    _, index = made()
    prompt = ProfileNext().of_words(index, "Likes tea.\nAnd <|x|>pens.")
    assert prompt.messages[-1]["content"] == ProfileNext.leads[WORDS][0] + "Likes tea. And pens.\n"
    both = ProfileNext().of_words(index, "Likes tea.", (3, 4))
    assert both.messages[-1]["content"] == ProfileNext.leads[BOTH][0] + "Likes tea.\n" + index.text(
        3
    ) + index.text(4)
    only = ProfileNext(kinds=(WORDS,)).of_words(index, "Likes tea.", (3, 4))
    assert only.messages[-1]["content"].endswith("Likes tea.\n")
    with pytest.raises(ConfigError, match="the profile is empty"):
        ProfileNext().of_words(index, " \n")
    assert ProfileNext().parse(index.text(3), index) == 3


def test_without_history():
    dataset, index = made()
    said = ProfileNext().prompt(index, [], dataset).messages[-1]["content"]
    assert said.endswith("Nothing is known of this person's taste yet.\n")


def test_in_a_mixture_of_tasks():
    dataset, index = made()
    built = build_conversations(
        dataset, index, tasks=[{"task": PROFILE_TASKS["profile"], "limit": 3}, {"task": "C"}], seed=0
    )
    assert built.counts["profile"] == 3
    again = ProfileNext().build(dataset, index, seed=5)
    assert again.equals(ProfileNext().build(dataset, index, seed=5))


def test_errors():
    with pytest.raises(ConfigError, match="split_points"):
        ProfileNext(split_points="some")
    with pytest.raises(ConfigError, match="unknown kind 'words'"):
        ProfileNext(kinds=("words",))
