"""The search against `generate`, against scoring the whole catalogue, and against itself in other batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.decode import BeamSearch
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.decode.reference import generate, score_all
from tests.forest.reference import FAMILIES, SPECIAL, special, tiny

BEGIN, END = 4, 5


def catalogue(count: int = 150, seed: int = 0) -> list[list[int]]:
    """Items as begin, three codes, end; the first level has fewer codes than the search has beams."""
    rng = np.random.default_rng(seed)
    levels = [rng.integers(6, 14, count), rng.integers(14, 24, count), rng.integers(24, 40, count)]
    codes = np.unique(np.stack(levels, 1), axis=0)
    rng.shuffle(codes)
    return [[BEGIN, *code, END] for code in codes.tolist()]


def some_prompts(lengths: tuple[int, ...] = (3, 7, 150, 20, 1), seed: int = 1) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[1, 2, 3, 1, 2, *rng.integers(6, 40, n).tolist()] for n in lengths]


@pytest.mark.parametrize("family", FAMILIES)
def test_same_items_and_scores_as_generate(family: str) -> None:
    lm, rows, prompts = tiny(family).eval(), catalogue(), some_prompts()
    search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=12, skip_forced=False)
    items, scores = search.rank(TokenRows.of(prompts), k=12)
    for request, prompt in enumerate(prompts):
        sequences, wanted = generate(lm, prompt, rows, 12)
        assert [rows[item] for item in items[request]] == sequences
        np.testing.assert_allclose(scores[request], wanted, atol=1e-4)


@pytest.mark.parametrize("name", SPECIAL)
def test_windows_caps_and_sinks_hold_for_every_beam(name: str) -> None:
    """Prompts shorter and longer than the windows; a template that begins before the window and ends in it or not."""
    lm, rows, prompts = special(name).eval(), catalogue(), some_prompts((3, 7, 150, 20, 1, 14))
    trie = Trie.build(TokenRows.of(rows))
    wanted = [generate(lm, prompt, rows, 12) for prompt in prompts]
    for template in (None, [1, 2, 3, 1, 2], [1, 2]):
        search = BeamSearch(lm, trie, beams=12, skip_forced=False, template=template)
        items, scores = search.rank(TokenRows.of(prompts), k=12)
        for found, score, (sequences, theirs) in zip(items, scores, wanted, strict=True):
            assert [rows[item] for item in found] == sequences
            np.testing.assert_allclose(score, theirs, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([name for name, (_, options) in SPECIAL.items() if "sliding_window" in options]),
    st.integers(1, 20),
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.integers(0, 12),
    st.sampled_from(["vocab", "level", "legal"]),
)
def test_any_window_and_template(
    name: str, window: int, lengths: list[int], shared: int, normalize: str
) -> None:
    lm, rows = (
        special(name, sliding_window=window, num_hidden_layers=2, layer_types=None).eval(),
        catalogue(12),
    )
    prompts = [[1] * shared + prompt[5:] for prompt in some_prompts(tuple(lengths))]
    search = BeamSearch(
        lm, Trie.build(TokenRows.of(rows)), beams=20, normalize=normalize, template=[1] * shared
    )
    items, scores = search.rank(TokenRows.of(prompts), k=len(rows))
    for request, prompt in enumerate(prompts):
        wanted = np.array(score_all(lm, prompt, rows, normalize, True))
        np.testing.assert_allclose(scores[request], wanted[items[request]], atol=1e-4)


def test_strips_and_explicit_scores_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("caps", "sinks"):
        lm, rows, prompts = special(name).eval(), catalogue(), TokenRows.of(some_prompts())
        whole = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=12).rank(prompts, k=12)
        with monkeypatch.context() as patch:
            patch.setattr("itemic.decode.attention.STRIP", 8)
            patch.setattr("itemic.decode.attention.fused", lambda *_: False)
            found = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=12).rank(prompts, k=12)
        assert (found[0] == whole[0]).all()
        np.testing.assert_allclose(found[1], whole[1], atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(6, 9), min_size=1, max_size=4), min_size=1, max_size=10),
    st.sampled_from(["vocab", "level", "legal"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
)
def test_wide_beams_rank_the_whole_catalogue(
    rows: list[list[int]], normalize: str, skip: bool, wrapped: bool, seed: int
) -> None:
    if wrapped:
        rows = [[BEGIN, *row, END] for row in rows]
    lm = tiny("qwen3").eval()
    prompts = some_prompts((2, 5), seed)
    search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=40, normalize=normalize, skip_forced=skip)
    items, scores = search.rank(TokenRows.of(prompts), k=40)
    for request, prompt in enumerate(prompts):
        wanted = score_all(lm, prompt, rows, normalize, skip)
        found = items[request][items[request] >= 0]
        assert sorted(found.tolist()) == list(range(len(rows)))
        np.testing.assert_allclose(scores[request][: len(rows)], np.array(wanted)[found], atol=1e-3)
        assert (np.diff(scores[request][: len(rows)]) <= 0).all()


@pytest.mark.parametrize("normalize", ["vocab", "level", "legal"])
def test_neither_batches_nor_templates_change_anything(normalize: str) -> None:
    lm, rows = tiny("qwen3").eval(), TokenRows.of(catalogue())
    prompts = TokenRows.of(some_prompts())
    trie = Trie.build(rows)
    together = BeamSearch(lm, trie, beams=20, normalize=normalize).rank(prompts, k=20)
    options = [{"max_batch_tokens": 1}, {"template": [1, 2, 3, 1, 2]}, {"template": [9, 9]}]
    for other in options:
        items, scores = BeamSearch(lm, trie, beams=20, normalize=normalize, **other).rank(prompts, k=20)
        assert (items == together[0]).all()
        np.testing.assert_allclose(scores, together[1], atol=1e-4)


def test_a_template_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rows = tiny("qwen3").eval(), TokenRows.of(catalogue())
    search = BeamSearch(lm, Trie.build(rows), beams=10, template=[1, 2, 3, 1, 2])
    seen: list[int] = []
    forward = BeamSearch._forward
    monkeypatch.setattr(
        BeamSearch, "_forward", lambda self, t, *a: (seen.append(len(t)), forward(self, t, *a))[1]
    )
    for _ in range(3):
        search.rank(TokenRows.of(some_prompts((4, 6))), k=5)
    assert seen.count(5) == 1


def test_forced_tokens_cost_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, trie = tiny("qwen3").eval(), Trie.build(TokenRows.of(catalogue()))
    passes: list[int] = []
    forward = BeamSearch._forward
    monkeypatch.setattr(
        BeamSearch, "_forward", lambda self, t, *a: (passes.append(len(t)), forward(self, t, *a))[1]
    )
    BeamSearch(lm, trie, beams=10).rank(TokenRows.of(some_prompts((4,))), k=5)
    assert len(passes) == 3  # prompt with the opening token, then two codes; the third code is only scored
    passes.clear()
    BeamSearch(lm, trie, beams=10, skip_forced=False).rank(TokenRows.of(some_prompts((4,))), k=5)
    assert len(passes) == 5


def test_excluded_items_take_no_beams_place() -> None:
    lm, rows = tiny("llama").eval(), catalogue()
    trie, prompts = Trie.build(TokenRows.of(rows)), TokenRows.of(some_prompts((4, 9)))
    best, _ = BeamSearch(lm, trie, beams=20, skip_forced=False).rank(prompts, k=20)
    exclude = [best[0][:7], np.array([], np.int64)]
    items, _ = BeamSearch(lm, trie, beams=20, skip_forced=False).rank(prompts, k=20, exclude=exclude)
    left = [row for number, row in enumerate(rows) if number not in set(best[0][:7].tolist())]
    sequences, _ = generate(lm, prompts[0].tolist(), left, 20)
    assert [rows[item] for item in items[0]] == sequences
    assert (items[1] == best[1]).all()


def test_items_that_share_a_sequence_stand_side_by_side() -> None:
    rows = [[6, 7], [8, 9], [6, 7], [6, 8]]
    lm = tiny("qwen3").eval()
    items, scores = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=6).rank(TokenRows.of([[1, 2]]), k=6)
    place = {int(item): at for at, item in enumerate(items[0]) if item >= 0}
    assert sorted(place) == [0, 1, 2, 3]
    assert place[2] == place[0] + 1
    assert scores[0][place[0]] == scores[0][place[2]]
    one, _ = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=6).rank(
        TokenRows.of([[1, 2]]), k=6, exclude=[np.array([0])]
    )
    assert sorted(one[0][one[0] >= 0].tolist()) == [1, 2, 3]


def test_one_item_and_more_beams_than_items() -> None:
    lm = tiny("qwen3").eval()
    items, scores = BeamSearch(lm, Trie.build(TokenRows.of([[6, 7, 8]])), beams=50).rank(
        TokenRows.of([[1]]), k=3
    )
    assert items.tolist() == [[0, -1, -1]]
    assert np.isfinite(scores[0, 0])
    assert (scores[0, 1:] == -np.inf).all()


def test_half_precision_and_shared_key_heads() -> None:
    lm = tiny("qwen3").eval().to(torch.bfloat16)
    items, scores = BeamSearch(lm, Trie.build(TokenRows.of(catalogue())), beams=10).rank(
        TokenRows.of(some_prompts((30, 5))), k=10
    )
    assert (items >= 0).all()
    assert np.isfinite(scores).all()


def test_model_is_left_as_it_was() -> None:
    lm = tiny("qwen3").train()
    before = lm.config._attn_implementation
    search = BeamSearch(lm, Trie.build(TokenRows.of(catalogue())), beams=10)
    with pytest.raises(ConstraintError, match="item row 9999"):
        search.rank(TokenRows.of([[1, 2]]), k=5, exclude=[np.array([9999])])
    search.rank(TokenRows.of([[1, 2]]), k=5)
    assert lm.training
    assert lm.config._attn_implementation == before


def test_a_request_with_nothing_left_changes_nothing_for_the_others() -> None:
    lm = tiny("qwen3").eval()
    search = BeamSearch(lm, Trie.build(TokenRows.of(catalogue())), beams=10)
    prompts, all_of_them = TokenRows.of(some_prompts((7, 5, 9))), np.arange(len(catalogue()))
    some = [np.array([0, 3]), all_of_them, np.array([1])]
    items, scores = search.rank(prompts, k=5, exclude=some)
    assert (items[1] == -1).all()
    assert (scores[1] == -np.inf).all()
    alone = search.rank(prompts.take(np.array([0, 2])), k=5, exclude=[some[0], some[2]])
    assert (items[[0, 2]] == alone[0]).all()
    assert np.allclose(scores[[0, 2]], alone[1], atol=1e-5)
    nothing, _ = search.rank(prompts, k=5, exclude=[all_of_them] * 3)
    assert (nothing == -1).all()


def test_constraints_that_cannot_be_met_are_errors() -> None:
    lm = tiny("qwen3").eval()
    trie = Trie.build(TokenRows.of(catalogue()))
    search = BeamSearch(lm, trie, beams=10)
    with pytest.raises(ConstraintError, match="prompt 1 is empty"):
        search.rank(TokenRows.of([[1], []]), k=5)
    with pytest.raises(ConstraintError, match="prompt 1 has token 99"):
        search.rank(TokenRows.of([[1], [2, 99]]), k=5)
    with pytest.raises(ConstraintError, match="item row 9999"):
        search.rank(TokenRows.of([[1]]), k=5, exclude=[np.array([9999])])
    with pytest.raises(ConfigError, match="k is 11"):
        search.rank(TokenRows.of([[1]]), k=11)
    with pytest.raises(ConstraintError, match="vocabulary ends at 49"):
        BeamSearch(lm, Trie.build(TokenRows.of([[6, 50]])))
    with pytest.raises(ConfigError, match="normalize"):
        BeamSearch(lm, trie, normalize="softmax")


def test_an_excluded_item_that_begins_another_takes_no_place() -> None:
    rows = [[6], [6, 7], [6, 8], [9]]
    lm = tiny("qwen3").eval()
    trie = Trie.build(TokenRows.of(rows))
    for beams in (3, 4):
        items, _ = BeamSearch(lm, trie, beams=beams).rank(
            TokenRows.of([[1, 2]]), k=3, exclude=[np.array([0])]
        )
        assert sorted(items[0].tolist()) == [1, 2, 3]


def test_a_template_is_computed_anew_when_the_weights_change() -> None:
    lm, trie, prompts = (
        tiny("qwen3").eval(),
        Trie.build(TokenRows.of(catalogue())),
        TokenRows.of(some_prompts()),
    )
    search = BeamSearch(lm, trie, beams=10, template=[1, 2, 3, 1, 2])
    before, _ = search.rank(prompts, k=10)
    with torch.no_grad():
        for weight in lm.parameters():
            weight.mul_(1.5)
    after = search.rank(prompts, k=10)
    fresh = BeamSearch(lm, trie, beams=10).rank(prompts, k=10)
    assert not (before == after[0]).all()
    assert (after[0] == fresh[0]).all()
    np.testing.assert_allclose(after[1], fresh[1], atol=1e-4)


def test_long_sequences_outgrow_the_first_store() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(6, 40, n).tolist() for n in rng.integers(1, 12, 30)]
    lm = tiny("qwen3").eval()
    items, scores = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=40, skip_forced=False).rank(
        TokenRows.of([[1, 2, 3]]), k=30
    )
    wanted = score_all(lm, [1, 2, 3], rows, "vocab", False)
    np.testing.assert_allclose(scores[0], np.array(wanted)[items[0]], atol=1e-3)
