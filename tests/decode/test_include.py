"""Included items against their definition: full forward passes of the plain model, whatever the beams found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.decode import BeamSearch, Include, beam, layout
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.decode.test_beam import BEGIN, END, catalogue, score_all, some_prompts
from tests.forest.reference import FAMILIES, special, tiny


def every(prompts: int, items: int) -> list[np.ndarray]:
    return [np.arange(items) for _ in range(prompts)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_item_has_its_score_and_the_beams_theirs(family: str) -> None:
    lm, rows, prompts = tiny(family).eval(), catalogue(), some_prompts()
    search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=3, normalize="level")
    alone = search.rank(TokenRows.of(prompts), k=3)
    items, scores, included = search.rank_including(
        TokenRows.of(prompts), Include(every(len(prompts), len(rows))), k=3
    )
    assert (items == alone[0]).all()
    assert (scores == alone[1]).all()
    for prompt, found in zip(prompts, included, strict=True):
        np.testing.assert_allclose(found, score_all(lm, prompt, rows, "level", True), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(6, 9), min_size=1, max_size=4), min_size=1, max_size=12),
    st.sampled_from(["vocab", "level", "legal"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([1, 6, 4096]),
    st.data(),
)
def test_any_trie_and_any_items(
    rows: list[list[int]],
    normalize: str,
    skip: bool,
    wrapped: bool,
    beams: int,
    batch: int,
    data: st.DataObject,
) -> None:
    """Sequences of any length, that begin one another or are shared; some items excluded; in parts of any size."""
    rows = [[BEGIN, *row, END] for row in rows] if wrapped else rows
    some = st.lists(st.integers(0, len(rows) - 1), max_size=6)
    asked = [np.array(data.draw(some), np.int64) for _ in range(3)]
    exclude = [np.array(data.draw(some), np.int64) for _ in range(3)]
    lm, prompts = tiny("qwen3").eval(), some_prompts((2, 5, 4))
    search = BeamSearch(
        lm,
        Trie.build(TokenRows.of(rows)),
        beams=beams,
        normalize=normalize,
        skip_forced=skip,
        max_batch_tokens=batch,
    )
    ranked = search.rank(TokenRows.of(prompts), k=beams)
    items, scores, included = search.rank_including(TokenRows.of(prompts), Include(asked), k=beams)
    assert (items == ranked[0]).all()
    assert (scores == ranked[1]).all()
    for prompt, some_rows, found in zip(prompts, asked, included, strict=True):
        truth = np.array(score_all(lm, prompt, rows, normalize, skip))
        np.testing.assert_allclose(found, truth[some_rows], atol=1e-3)
    *left, without = search.rank_including(TokenRows.of(prompts), Include(asked), k=beams, exclude=exclude)
    assert (left[0] == search.rank(TokenRows.of(prompts), k=beams, exclude=exclude)[0]).all()
    for request, found in enumerate(without):
        allowed = ~np.isin(asked[request], exclude[request])
        assert np.isneginf(found[~allowed]).all()
        if normalize != "legal":  # which is over what isn't excluded
            np.testing.assert_allclose(found[allowed], included[request][allowed], atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.floats(-12, -2), st.integers(1, 8), st.booleans())
def test_what_is_below_its_floor_may_be_given_up_and_nothing_else(
    floor: float, beams: int, legal: bool
) -> None:
    lm, rows, prompts = tiny("qwen3").eval(), catalogue(), TokenRows.of(some_prompts((4, 9)))
    search = BeamSearch(
        lm, Trie.build(TokenRows.of(rows)), beams=beams, normalize="legal" if legal else "vocab"
    )
    truth = search.rank_including(prompts, Include(every(2, len(rows))), k=beams)[2]
    told: list[tuple[int, list[int]]] = []

    def floors(prompt: int, items: np.ndarray, scores: np.ndarray) -> np.ndarray:
        told.append((prompt, items.tolist()))
        return np.full(len(rows), floor + prompt)

    items, _, found = search.rank_including(prompts, Include(every(2, len(rows)), floors), k=beams)
    assert sorted(told) == [(0, items[0].tolist()), (1, items[1].tolist())]
    for prompt in range(2):
        kept = np.isfinite(found[prompt])
        assert (kept | (truth[prompt] < floor + prompt + 1e-4)).all()
        np.testing.assert_allclose(found[prompt][kept], truth[prompt][kept], atol=1e-4)


@pytest.mark.parametrize("name", ["mistral", "mixed windows", "caps", "sinks"])
def test_prefixes_beside_the_beams_see_what_beams_see(name: str) -> None:
    lm, rows, prompts = special(name).eval(), catalogue(40), some_prompts((3, 14))
    search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=2, template=[1, 2, 3])
    *_, found = search.rank_including(TokenRows.of(prompts), Include(every(2, len(rows))), k=2)
    for prompt, scores in zip(prompts, found, strict=True):
        np.testing.assert_allclose(scores, score_all(lm, prompt, rows, "vocab", True), atol=1e-4)


@pytest.mark.parametrize("name", ["mistral", "mixed windows", "sinks"])
def test_requests_with_many_and_with_few_leaves(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(layout, "_SPARED", 1)  # deal them out, few as they are
    lm, rows, prompts = special(name).eval(), catalogue(40), some_prompts((3, 14, 12, 13))
    asked = [np.arange(2), np.arange(len(rows)), np.zeros(0, np.int64), np.arange(3)]
    orders: list[object] = []
    group = layout.group_leaves
    monkeypatch.setattr(beam, "group_leaves", lambda *a: (orders.append(group(*a)[1]), group(*a))[1])
    search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=1, template=[1, 2, 3])
    *_, found = search.rank_including(TokenRows.of(prompts), Include(asked), k=1)
    assert any(order is not None for order in orders)
    for prompt, items, scores in zip(prompts, asked, found, strict=True):
        truth = score_all(lm, prompt, rows, "vocab", True)
        np.testing.assert_allclose(scores, np.asarray(truth)[items], atol=1e-4)


def test_only_what_matters_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rows = tiny("qwen3").eval(), catalogue()
    search, prompts = (
        BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=8),
        TokenRows.of(some_prompts((4,))),
    )
    passes: list[int] = []
    forward = BeamSearch._forward
    monkeypatch.setattr(
        BeamSearch, "_forward", lambda self, t, *a: (passes.append(len(t)), forward(self, t, *a))[1]
    )
    items, _ = search.rank(prompts, k=8)
    alone = list(passes)
    found = {int(item) for item in items[0]}
    hidden = np.array([item for item in range(len(rows)) if item not in found])

    def cost(include: Include) -> int:
        passes.clear()
        search.rank_including(prompts, include, k=8)
        assert passes[: len(alone)] == alone  # the beams' own
        return sum(passes[len(alone) :])

    assert cost(Include([items[0]])) == 0
    assert cost(Include([hidden], lambda *_: np.full(len(hidden), np.inf))) == 0
    middle = float(np.median(search.rank_including(prompts, Include([hidden]), k=8)[2][0]))
    floor = middle * 2 / 3  # about what two of three codes cost, in a model that has learnt nothing
    some = cost(Include([hidden], lambda *_: np.full(len(hidden), floor)))
    assert 0 < some < cost(Include([hidden])) <= len({tuple(row[:n]) for row in rows for n in (2, 3)})


def test_nothing_included_and_nothing_asked() -> None:
    search = BeamSearch(tiny("qwen3").eval(), Trie.build(TokenRows.of(catalogue())), beams=4)
    prompts = TokenRows.of(some_prompts((4, 5)))
    empty = [np.zeros(0, np.int64)] * 2
    items, _, found = search.rank_including(prompts, Include(empty), k=4)
    assert (items >= 0).all()
    assert [len(one) for one in found] == [0, 0]
    assert search.rank_including(TokenRows.of([]), Include([]), k=4)[2] == []


def test_a_prompt_with_nothing_left_has_no_scores() -> None:
    rows = catalogue(20)
    search = BeamSearch(tiny("qwen3").eval(), Trie.build(TokenRows.of(rows)), beams=4)
    prompts = TokenRows.of(some_prompts((4, 5)))
    exclude = [np.arange(len(rows)), np.array([], np.int64)]
    *_, found = search.rank_including(prompts, Include(every(2, len(rows))), k=4, exclude=exclude)
    assert np.isneginf(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_faults() -> None:
    rows = catalogue(20)
    search = BeamSearch(tiny("qwen3").eval(), Trie.build(TokenRows.of(rows)), beams=4)
    prompts = TokenRows.of(some_prompts((4, 5)))
    with pytest.raises(ConfigError, match="1 lists of included items for 2 prompts"):
        search.rank_including(prompts, Include([np.array([1])]), k=4)
    with pytest.raises(ConstraintError, match="prompt 1 includes item row 99"):
        search.rank_including(prompts, Include([np.array([1]), np.array([99])]), k=4)
    both = Include([np.array([1])] * 2, lambda *_: np.zeros(1), lambda *_: np.zeros(2))
    with pytest.raises(ConfigError, match="floors both one by one and together"):
        search.rank_including(prompts, both, k=4)
    with pytest.raises(ConfigError, match=r"floors of shape \(3,\) for 2 included"):
        search.rank_including(prompts, Include([np.array([1])] * 2, together=lambda *_: np.zeros(3)), k=4)
    with pytest.raises(ConfigError, match=r"floors of shape \(3,\) for 1 included"):
        search.rank_including(prompts, Include([np.array([1])] * 2, lambda *_: np.zeros(3)), k=4)
