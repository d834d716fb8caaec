"""Thoughts and the beams under them, against the definition of their scores over the plain model."""

from __future__ import annotations

import numpy as np
import pytest

from itemic.decode import BeamSearch, FreeText, Sampler, ThoughtSearch
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.decode.reference import score_all
from tests.decode.test_beam import catalogue, some_prompts
from tests.forest.reference import tiny

DONE, BEHIND = 45, [3, 4]
LENGTHS = (3, 30, 12)
ITEMS = catalogue(40)


def searches(merge: str, *, beams: int, limit: int | None = 4, **options: object) -> ThoughtSearch:
    lm = tiny("qwen3", initializer_range=0.3).eval()
    grammar = FreeText(DONE, limit=limit)
    sampler = Sampler(lm, max_new_tokens=5, temperature=0.7, grammar=grammar)
    trie = Trie.build(TokenRows.of(ITEMS))
    search = BeamSearch(lm, trie, beams=beams, **options)  # type: ignore[arg-type]
    return ThoughtSearch(sampler, search, merge=merge, end=[DONE], behind=BEHIND)


def exact(search: ThoughtSearch, prompt: list[int], thoughts: list[list[int]]) -> np.ndarray:
    """log P(item | thought), ``[n, items]``."""
    lm, items = search.search.lm, ITEMS
    own = search.search
    return np.array(
        [
            score_all(lm, [*prompt, *thought, *BEHIND], items, own.normalize, own.skip_forced)
            for thought in thoughts
        ]
    )


@pytest.mark.parametrize("merge", ["best", "mass"])
@pytest.mark.parametrize("normalize", ["vocab", "legal"])
def test_scores_are_those_of_all_items_under_all_thoughts(merge: str, normalize: str) -> None:
    """With beams for all items nothing is cut away, so the order is the catalogue's own."""
    search = searches(merge, beams=len(ITEMS), normalize=normalize)
    prompts = some_prompts(LENGTHS)
    found = search.rank(TokenRows.of(prompts), 6, k=10, seeds=[3, 4, 5])
    for request, prompt in enumerate(prompts):
        thoughts = [found.samples.tokens[6 * request + n].tolist() for n in range(6)]
        assert all(thought[-1] == DONE for thought in thoughts)
        each = exact(search, prompt, thoughts)
        whole = each.max(0) if merge == "best" else np.logaddexp.reduce(each, axis=0) - np.log(6)
        order = np.argsort(-whole, kind="stable")[:10]
        np.testing.assert_allclose(found.scores[request], whole[order], atol=1e-4)
        np.testing.assert_allclose(whole[found.items[request]], whole[order], atol=1e-4)
        highest = each[found.thought[request], found.items[request]]
        np.testing.assert_allclose(highest, each.max(0)[found.items[request]], atol=1e-4)


@pytest.mark.parametrize("merge", ["best", "mass"])
def test_what_few_beams_find_has_its_whole_score(merge: str) -> None:
    search = searches(merge, beams=4)
    prompts = some_prompts(LENGTHS)
    exclude = [np.array([0, 3, 7]), np.arange(0), np.arange(2, len(ITEMS))]
    found = search.rank(TokenRows.of(prompts), 5, k=4, exclude=exclude)
    differ = False
    for request, prompt in enumerate(prompts):
        thoughts = [found.samples.tokens[5 * request + n].tolist() for n in range(5)]
        rows = TokenRows.of([[*prompt, *thought, *BEHIND] for thought in thoughts])
        each = exact(search, prompt, thoughts)
        whole = each.max(0) if merge == "best" else np.logaddexp.reduce(each, axis=0) - np.log(5)
        beams, _ = search.search.rank(rows, k=4, exclude=[exclude[request]] * 5)
        candidates = np.unique(beams[beams >= 0])
        differ |= len(candidates) > 4
        best = candidates[np.argsort(-whole[candidates], kind="stable")][:4]
        kept = found.items[request] >= 0
        assert kept.sum() == len(best)
        np.testing.assert_allclose(found.scores[request][kept], whole[best], atol=1e-4)
        assert not np.isin(found.items[request][kept], exclude[request]).any()
        assert (found.thought[request][~kept] == -1).all()
        assert np.isneginf(found.scores[request][~kept]).all()
    assert differ  # or the thoughts all lead to the same


def test_a_thought_that_was_cut_off_is_closed() -> None:
    search = searches("mass", beams=len(ITEMS), limit=None)  # few thoughts end by themselves
    (prompt,) = some_prompts((8,))
    found = search.rank(TokenRows.of([prompt]), 4, k=3)
    assert "length" in found.samples.why
    thoughts = [found.samples.tokens[n].tolist() for n in range(4)]
    closed = [thought if thought[-1] == DONE else [*thought, DONE] for thought in thoughts]
    whole = np.logaddexp.reduce(exact(search, prompt, closed), axis=0) - np.log(4)
    np.testing.assert_allclose(found.scores[0], np.sort(whole)[::-1][:3], atol=1e-4)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("normalize", ["vocab", "level", "legal"])
def test_given_items_are_scored_without_beams(skip: bool, normalize: str) -> None:
    lm, items, prompts = tiny("llama").eval(), ITEMS, some_prompts((3, 40, 7, 1))
    search = BeamSearch(
        lm,
        Trie.build(TokenRows.of(items)),
        beams=2,
        normalize=normalize,
        skip_forced=skip,
        max_batch_tokens=100,
    )
    wanted = [np.array([5, 5, 0]), np.arange(len(items)), np.arange(0), np.array([len(items) - 1])]
    found = search.score(TokenRows.of(prompts), wanted)
    for prompt, rows, scores in zip(prompts, wanted, found, strict=True):
        exact = np.array(score_all(lm, prompt, items, normalize, skip))
        np.testing.assert_allclose(scores, exact[rows], atol=1e-4)
    assert search.score(TokenRows.of([]), []) == []
    with pytest.raises(ConstraintError, match="prompt 0 includes item row 99"):
        search.score(TokenRows.of([[1]]), [np.array([99])])


def test_what_cannot_be_is_refused() -> None:
    search = searches("mass", beams=4)
    with pytest.raises(ConfigError, match="unknown merge 'votes'"):
        ThoughtSearch(search.sampler, search.search, merge="votes")
    other = BeamSearch(tiny("llama").eval(), search.search.trie)
    with pytest.raises(ConfigError, match="two models"):
        ThoughtSearch(search.sampler, other)
    with pytest.raises(ConfigError, match="1 lists of excluded items for 2 prompts"):
        search.rank(TokenRows.of([[1], [2]]), 1, k=1, exclude=[np.arange(2)])
    found = search.rank(TokenRows.of([]), 2, k=1)
    assert found.items.shape == (0, 1)
    nothing = search.rank(TokenRows.of([[1]]), 2, k=2, exclude=[np.arange(len(ITEMS))])
    assert nothing.items.tolist() == [[-1, -1]]
