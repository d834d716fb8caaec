"""Tasks E and sequence against plain loops."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.tasks import TASKS, make_task, prompt_words
from tests.tasks.helpers import make_dataset, make_index, messages, metadata, small

HISTORIES = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(1, 3))
def test_e_hops_are_those_of_a_plain_loop(sequences: dict[str, list[int]], most: int) -> None:
    dataset, index = make_dataset(sequences), make_index()
    counts: Counter[tuple[int, int]] = Counter()
    for user in range(len(dataset.train)):
        items = dataset.train[user].tolist()
        counts.update(pairwise(items))
    after, before = defaultdict(list), defaultdict(list)
    for a, b in sorted(counts, key=lambda pair: (-counts[pair], pair)):
        after[a].append(b)
    for a, b in sorted(counts, key=lambda pair: (-counts[pair], pair[1], pair[0])):
        before[b].append(a)
    expected = set()
    for item in range(7):
        own = f"item:i{item}"
        expected |= {("next", f"{own}:next", index.text(b)) for b in after[item][:most]}
        expected |= {("before", f"{own}:before", index.text(a)) for a in before[item][:most]}
        kind = "next of category"
        path = "Shop > Body > soap"
        expected |= {(kind, f"{own}:{kind}:{path}", index.text(b)) for b in after[item][:most]}
    frame = make_task("E", per_item=most).build(dataset, index)
    rows = [
        (about["kind"], about["group"], messages(row)[2])
        for about, row in zip(metadata(frame), frame[c.MESSAGES], strict=True)
    ]
    assert len(rows) == len(expected)
    assert set(rows) == expected


def test_e_shows_the_item_and_the_category_of_the_answer() -> None:
    dataset, index = small()
    for about, row in zip(
        *(lambda f: (metadata(f), f[c.MESSAGES]))(TASKS["E"].build(dataset, index)), strict=True
    ):
        item = index.text(int(about["group"].split(":")[1][1:]))
        asked = messages(row)[1]
        if about["kind"] == "next of category":
            path = " > ".join(dataset.items[c.CATEGORIES][int(about["target"][0][1:])])
            assert asked.endswith(f"{item}\nCategory: {path}")
        else:
            assert asked.endswith(item)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.sampled_from([None, 2, 3, 5]))
def test_sequences_hold_every_training_item_once(sequences: dict[str, list[int]], most: int | None) -> None:
    dataset, index = make_dataset(sequences), make_index()
    expected = set()
    for user in range(len(dataset.train)):
        items = dataset.train[user].tolist()
        end = len(items)
        while end:
            start = max(0, end - most) if most else 0
            expected.add(
                (f"user:{dataset.train.users[user]}", "".join(index.text(i) for i in items[start:end]))
            )
            end = start
    frame = make_task("sequence", max_items=most).build(dataset, index)
    texts = ["".join(part["text"] for part in json.loads(row)) for row in frame[c.SEGMENTS]]
    rows = [(about["group"], text) for about, text in zip(metadata(frame), texts, strict=True)]
    assert len(rows) == len(set(rows))
    assert set(rows) == expected
    assert frame[c.MESSAGES].null_count() == len(frame)


def test_the_prompt_of_a_sequence_leaves_room_for_the_target() -> None:
    index = make_index()
    asked = make_task("sequence", max_items=4).prompt(index, [1, 2, 3, 4, 5])
    assert asked.messages is None
    assert asked.text == "".join(index.text(item) for item in (3, 4, 5))
    assert TASKS["sequence"].prompt(index, []).text == ""


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(1, 3))
def test_what_goes_together_is_counted_by_users(sequences: dict[str, list[int]], most: int) -> None:
    dataset, index = make_dataset(sequences), make_index()
    counts: Counter[tuple[int, int]] = Counter()
    for user in range(len(dataset.train)):
        had = set(dataset.train[user].tolist())
        counts.update((a, b) for a in had for b in had if a != b)
    wanted = set()
    for item in range(7):
        others = sorted((b for a, b in counts if a == item), key=lambda b, a=item: (-counts[a, b], b))
        wanted |= {(f"item:i{item}:together", index.text(other)) for other in others[:most]}
    frame = make_task("E", kinds=["together"], per_item=most).build(dataset, index)
    rows = [
        (about["group"], messages(row)[2])
        for about, row in zip(metadata(frame), frame[c.MESSAGES], strict=True)
    ]
    assert len(rows) == len(wanted)
    assert set(rows) == wanted


def test_what_goes_together_is_made_where_it_is_named() -> None:
    dataset, index = small()
    usual = TASKS["E"].build(dataset, index)
    assert {about["kind"] for about in metadata(usual)} == {"next", "before", "next of category"}
    named = make_task("E", kinds=("next", "before", "next of category")).build(dataset, index)
    assert named.equals(usual)
    task = make_task("E", kinds=["together", "next"])
    kinds = Counter(about["kind"] for about in metadata(task.build(dataset, index)))
    assert set(kinds) == {"together", "next"}
    assert "have another one as well" in task.prompt(index, [3]).messages[1]["content"]
    # models from scratch keep the tokens they had
    assert not any("as well. Which one" in text for text in prompt_words())
