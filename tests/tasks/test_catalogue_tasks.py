"""Tasks A, B and D: what they say is what the catalogue says."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from itemic import schema as c
from itemic.tasks import TASKS, make_task
from itemic.tasks.catalogue import Catalogue, clip
from itemic.tasks.semantic import members_of, neighbours
from tests.tasks.helpers import N, make_dataset, make_index, make_items, messages, metadata, small


def answers(frame: pl.DataFrame) -> dict[tuple[str, str], tuple[str, str]]:
    """(kind, group) → question and answer."""
    rows = zip(metadata(frame), frame[c.MESSAGES], strict=True)
    return {(about["kind"], about["group"]): tuple(messages(row)[1:]) for about, row in rows}  # type: ignore[misc]


def test_a_makes_four_rows_an_item_and_says_what_is_there() -> None:
    dataset, index = small()
    found = answers(TASKS["A"].build(dataset, index))
    assert len(found) == 4 * N - 1  # item 9 has no category
    title = 'The "rose" soap no 0 \\ for daily use'
    assert found["title", "item:i0:title"][1] == title
    assert found["description", "item:i0:description"][1] == "A soap that smells of rose. Sold in pack 0."
    assert found["description", "item:i1:description"][1] == (
        'The "mint" soap no 1 \\ for daily use, by Mint, in Shop > Body > soap.'
    )
    assert found["category", "item:i0:category"][1] == "Shop > Body > soap"
    assert found["context", "item:i0:context"][1] == (
        f"Title: {title}\nCategory: Shop > Body > soap\n"
        "Description: A soap that smells of rose. Sold in pack 0."
    )
    assert found["title", "item:i7:title"][1] == "Amber soap"  # brand and category stand for a missing title
    for (kind, group), (question, _) in found.items():
        item = int(group.split(":")[1][1:])
        assert question in [lead + index.text(item) for lead in TASKS["A"].leads[kind]]


def test_an_item_without_any_text_is_silent_and_one_without_category_asks_three_times() -> None:
    items = make_items().with_columns(
        title=pl.when(pl.col(c.ITEM_ID) == "i5").then(pl.lit("")).otherwise("title"),
        brand=pl.when(pl.col(c.ITEM_ID) == "i5").then(pl.lit("")).otherwise("brand"),
        description=pl.when(pl.col(c.ITEM_ID) == "i5").then(pl.lit("")).otherwise("description"),
        categories=pl.when(pl.col(c.ITEM_ID) == "i5")
        .then(pl.lit([], pl.List(pl.String)))
        .otherwise("categories"),
    )
    counts = Counter(
        group.split(":")[1] for _, group in answers(TASKS["A"].build(make_dataset({}, items), make_index()))
    )
    assert "i5" not in counts
    assert counts["i9"] == 3
    assert set(counts.values()) == {3, 4}


def test_catalogue_text_can_not_speak_as_tokens_or_roles() -> None:
    dataset, index = small()
    for name in TASKS:
        frame = TASKS[name].build(dataset, index)
        text = " ".join(
            str(value) for row in frame.select(c.MESSAGES, c.SEGMENTS).iter_rows() for value in row
        )
        assert "<|im_" not in text
        thoughts = len(frame) if name == "rationale" else 0
        assert text.count("think>") == 2 * thoughts
    title = Catalogue(index, dataset.items).names[8]
    assert title == "Bad system < |sid_begin|> title with é 😀"
    assert not any(token in title for token in index.tokens)


def test_clip_cuts_between_words() -> None:
    table = pl.DataFrame({"t": ["one two three", "onetwothree", "one two", ""]})
    assert table.select(clip(pl.col("t"), 7))["t"].to_list() == ["one two", "onetwot", "one two", ""]
    assert table.select(clip(pl.col("t"), 6))["t"].to_list() == ["one", "onetwo", "one", ""]


def test_b_asks_only_what_one_item_answers_but_for_categories() -> None:
    dataset, index = small()
    frame = TASKS["B"].build(dataset, index)
    questions: dict[tuple[str, str], set[str]] = {}
    for about, row in zip(metadata(frame), frame[c.MESSAGES], strict=True):
        _, asked, answer = messages(row)
        value = asked.split("\n", 1)[1]
        questions.setdefault((about["kind"], value.lower()), set()).add(answer)
    for (kind, value), said in questions.items():
        assert kind == "category" or len(said) == 1, (kind, value)
    kinds = Counter(about["kind"] for about in metadata(frame))
    assert kinds["title"] == N - 2  # the twins
    assert kinds["category"] == N - 1
    assert kinds["description"] == 14
    assert kinds["title and category"] == N - 3  # nor the one without category
    assert kinds["context"] == N
    assert max(Counter(about["target"][0] for about in metadata(frame)).values()) == 6
    groups = {about["group"] for about in metadata(frame) if about["kind"] == "category"}
    assert groups == {
        f"category:Shop > {p}" for p in ("Body > soap", "Body > cream", "Hair > oil", "Hair > brush")
    }


def test_b_parts_are_runs_of_words_of_their_own_title() -> None:
    dataset, index = small()
    catalogue = Catalogue(index, dataset.items)
    frame = TASKS["B"].build(dataset, index, seed=4)
    lengths = set()
    for about, row in zip(metadata(frame), frame[c.MESSAGES], strict=True):
        if about["kind"] == "title part":
            part = messages(row)[1].split("\n", 1)[1]
            title = catalogue.names[int(about["target"][0][1:])]
            assert f" {part} " in f" {title} "
            assert part != title
            lengths.add(len(part.split()) / len(title.split()))
    assert lengths
    assert min(lengths) >= 0.3
    assert max(lengths) <= 0.75


def test_d_names_the_category_most_items_share_and_real_neighbours() -> None:
    dataset, index = small()
    frame = make_task("D", examples=3, templates=1).build(dataset, index)
    found = answers(frame)
    head = "<|sid_begin|>"
    for first, category in enumerate(("Body > soap", "Body > cream", "Hair > oil", "Hair > brush")):
        assert found["category", f"prefix:{head}<s_a_{first}>:category"][1] == f"Shop > {category}"
    for (kind, group), (_, answer) in found.items():
        sids = answer.split("\n")
        if kind == "examples":
            prefix = group.split(":")[1]
            assert len(sids) == len(set(sids)) == 3
            assert all(sid.startswith(prefix) and sid in index.texts for sid in sids)
        if kind == "similar":
            own = index.text(int(group.split(":")[1][1:]))
            assert own not in sids
            assert len(sids) == len(set(sids)) == 3
            assert all(sid[: len(head) + 14] == own[: len(head) + 14] and sid in index.texts for sid in sids)
    assert Counter(kind for kind, _ in found) == {"similar": N, "category": 12, "examples": 12}
    for about, row in zip(metadata(frame), frame[c.MESSAGES], strict=True):
        if "target" in about:
            assert messages(row)[2] == "\n".join(index.text(int(t[1:])) for t in about["target"])


def test_d_shared_category_is_the_deepest_majority() -> None:
    items = make_items().with_columns(
        categories=pl.Series([["Shop", "Body" if i % 10 < 6 else "Hair", str(i)] for i in range(N)])
    )
    catalogue = Catalogue(make_index(), items)
    found = catalogue.shared_category(np.arange(N) // 10)
    assert sorted(found.iter_rows()) == [(group, "Shop > Body") for group in range(4)]
    halves = catalogue.shared_category(np.arange(N) // 2)
    assert dict(halves.iter_rows())[0] == "Shop > Body"  # items 0 and 1
    even = items.with_columns(categories=pl.Series([["Shop", str(i % 2)] for i in range(N)]))
    assert set(Catalogue(make_index(), even).shared_category(np.arange(N) // 10)["category"]) == {"Shop"}


def test_neighbours_and_members_cover_small_groups() -> None:
    groups = np.array([4, 0, 4, 0, 4, 2])
    offsets, items = neighbours(groups, 2, np.random.default_rng(0))
    lists = [set(items[a:b].tolist()) for a, b in pairwise(offsets)]
    assert lists == [{2, 4}, {3}, {0, 4}, {1}, {0, 2}, set()]
    offsets, items = members_of(groups, np.array([0, 4]), 5, np.random.default_rng(0))
    assert [set(items[a:b].tolist()) for a, b in pairwise(offsets)] == [
        {1, 3},
        {0, 2, 4},
    ]


@pytest.mark.parametrize("levels", [1, 2])
def test_d_of_few_levels(levels: int) -> None:
    index = make_index()
    flat = type(index)(
        index.item_ids, np.stack([np.arange(N) // 8, np.arange(N) % 8], 1)[:, -levels:], (8, 8)[:levels]
    )
    frame = TASKS["D"].build(make_dataset({}), flat)
    kinds = Counter(about["kind"] for about in metadata(frame))
    assert kinds == ({} if levels == 1 else {"similar": N, "category": 5, "examples": 5})
