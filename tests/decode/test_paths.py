"""Answers with the log-probability of each token: the best ones, and drawn ones against their distribution."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from itemic.decode import BeamSearch
from itemic.decode.paths import best_paths, drawn_paths
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.decode.reference import score_all
from tests.decode.test_beam import catalogue, some_prompts
from tests.forest.reference import tiny

PROMPTS = some_prompts((3, 7, 20, 1))


@pytest.mark.parametrize("normalize", ["vocab", "level", "legal"])
@pytest.mark.parametrize("skip", [True, False])
def test_best_paths_are_the_beams_and_their_steps_add_up(normalize: str, skip: bool) -> None:
    lm, rows = tiny("qwen3").eval(), catalogue(60)
    trie = Trie.build(TokenRows.of(rows))
    search = BeamSearch(lm, trie, beams=8, normalize=normalize, skip_forced=skip)
    prompts = TokenRows.of(PROMPTS)
    exclude = [np.array([0, 5, 9])] * len(PROMPTS) if normalize != "legal" else None
    items, scores = search.rank(prompts, k=6, exclude=exclude)
    found = best_paths(search, prompts, 6, exclude)
    np.testing.assert_array_equal(found.items, items)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    np.testing.assert_array_equal(trie.items[trie.item_first[found.ends]], items)
    for request, prompt in enumerate(PROMPTS):
        wanted = np.array(score_all(lm, prompt, rows, normalize, skip))
        np.testing.assert_allclose(found.scores[request], wanted[items[request]], atol=1e-4)


def test_each_step_is_the_token_s_own_log_probability() -> None:
    lm, rows = tiny("qwen3").eval(), catalogue(60)
    search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=8, skip_forced=False)
    found = best_paths(search, TokenRows.of(PROMPTS), 4)
    for request, prompt in enumerate(PROMPTS):
        for place, item in enumerate(found.items[request]):
            with torch.no_grad():
                logits = lm(torch.tensor([prompt + rows[item]]), use_cache=False).logits[0]
            own = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            steps = own[torch.arange(len(rows[item])), rows[item]].numpy()
            np.testing.assert_allclose(found.log_probs[request, place, : len(steps)], steps, atol=1e-4)


def chances(rows: list[list[int]], prompt: list[int], temperature: float) -> np.ndarray:
    """Each item's chance where every step is normalised over what may follow, by enumeration."""
    lm = tiny("qwen3").eval()
    found = []
    for row in rows:
        with torch.no_grad():
            logits = lm(torch.tensor([prompt + row]), use_cache=False).logits[0].double() / temperature
        total = 0.0
        for at in range(len(row)):
            legal = sorted({other[at] for other in rows if other[:at] == row[:at]})
            line = logits[len(prompt) + at - 1]
            total += float(line[row[at]] - line[legal].logsumexp(-1))
        found.append(np.exp(total))
    return np.array(found)


@pytest.mark.parametrize(("normalize", "temperature"), [("vocab", 1.0), ("legal", 1.0), ("level", 2.0)])
def test_drawn_without_replacement_as_by_enumeration(normalize: str, temperature: float) -> None:
    rows = [[4, 6, 14], [4, 6, 15], [4, 7, 14], [4, 7, 16], [4, 8, 15]]
    chance = chances(rows, PROMPTS[0], temperature)
    assert chance.sum() == pytest.approx(1)
    search = BeamSearch(tiny("qwen3").eval(), Trie.build(TokenRows.of(rows)), beams=3, normalize=normalize)
    times = 3000
    prompts = TokenRows.of([PROMPTS[0]] * times)
    found = drawn_paths(search, prompts, 2, range(times), temperature=temperature)
    assert (found.items[:, 0] != found.items[:, 1]).all()
    pairs = list(itertools.permutations(range(len(rows)), 2))
    wanted = np.array([chance[a] * chance[b] / (1 - chance[a]) for a, b in pairs]) * times
    seen = np.array([((found.items == pair).all(axis=1)).sum() for pair in pairs])
    rare = wanted < 5  # too few for the test: together
    if rare.any():
        wanted = np.append(wanted[~rare], wanted[rare].sum())
        seen = np.append(seen[~rare], seen[rare].sum())
    assert stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > 1e-3


def test_a_draw_depends_on_its_seed_and_not_on_the_company() -> None:
    lm, rows = tiny("qwen3").eval(), catalogue(60)
    search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=8)
    together = drawn_paths(search, TokenRows.of(PROMPTS), 5, [3, 1, 4, 1])
    for number, seed in enumerate([3, 1, 4, 1]):
        alone = drawn_paths(search, TokenRows.of([PROMPTS[number]]), 5, [seed])
        np.testing.assert_array_equal(alone.items[0], together.items[number])
    scores = np.array(score_all(lm, PROMPTS[1], rows, "vocab", True))
    np.testing.assert_allclose(together.scores[1], scores[together.items[1]], atol=1e-4)


def test_nucleus_keeps_the_smallest_set_that_has_the_mass() -> None:
    rows = [[4, 6], [4, 7], [4, 8], [4, 9], [4, 10]]
    chance = chances(rows, PROMPTS[1], 1.0)
    order = np.argsort(-chance)
    count = int(np.searchsorted(np.cumsum(chance[order]), 0.6) + 1)
    search = BeamSearch(tiny("qwen3").eval(), Trie.build(TokenRows.of(rows)), beams=5)
    found = drawn_paths(search, TokenRows.of([PROMPTS[1]] * 50), 5, range(50), top_p=0.6)
    assert {int(item) for item in found.items.ravel() if item >= 0} == set(order[:count].tolist())
    assert ((found.items >= 0).sum(axis=1) == count).all()


def test_seeds_are_counted() -> None:
    search = BeamSearch(tiny("qwen3").eval(), Trie.build(TokenRows.of(catalogue(20))), beams=5)
    with pytest.raises(ConfigError, match="2 seeds for 4 prompts"):
        drawn_paths(search, TokenRows.of(PROMPTS), 3, [1, 2])
