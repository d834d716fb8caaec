"""What must come next is written in one go, and nothing else changes by that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from itemic.control.form import ListForm
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.want import Want
from itemic.decode import Sampler
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.control.models import labels, model_of
from tests.control.test_written import grammar_of, prompts_of
from tests.decode.test_beam import catalogue
from tests.forest.reference import special, tiny


class Slow:
    """The same grammar, asked state by state."""

    def __init__(self, grammar: ListGrammar) -> None:
        self.start, self.allowed, self.step = grammar.start, grammar.allowed, grammar.step
        self.tokens, self.check = grammar.tokens, grammar.check


def both(lm: Any, grammar: ListGrammar, prompts: TokenRows, n: int, **options: Any) -> list[Any]:
    found = []
    for one in (grammar, Slow(grammar)):
        sampler = Sampler(
            lm, grammar=one, normalize="legal", **{"max_new_tokens": grammar.most_tokens} | options
        )
        assert sampler.runs_ahead == (one is grammar)
        found.append(sampler.sample(prompts, n))
    return found


@pytest.mark.parametrize("kind", ["sid", "title"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_batch_tokens": 400},
        {"temperature": 0},
        {"max_new_tokens": 33},
        {"top_k": 2, "repetition_penalty": 1.2},
    ],
    ids=["all at once", "few at a time", "greedy", "cut off", "filtered"],
)
def test_samples_are_the_same(kind: str, options: dict[str, Any]) -> None:
    model = model_of(kind)
    ahead, slow = both(model.lm, grammar_of(model, ListForm()), prompts_of(model), 3, **options)
    assert ahead.tokens.offsets.tolist() == slow.tokens.offsets.tolist()
    assert ahead.tokens.tokens.tolist() == slow.tokens.tokens.tolist()
    assert ahead.why == slow.why
    np.testing.assert_allclose(ahead.log_probs, slow.log_probs, atol=1e-4)
    np.testing.assert_allclose(ahead.model_log_probs, slow.model_log_probs, atol=1e-4)


def test_a_stop_token_ends_a_run() -> None:
    model = model_of("sid")
    grammar = grammar_of(model, ListForm())
    stop = grammar.text[2][-1]  # of what stands before the third item
    ahead, slow = both(model.lm, grammar, prompts_of(model), 2, stop_tokens=[int(stop)])
    assert ahead.tokens.tokens.tolist() == slow.tokens.tokens.tolist()
    assert ahead.why == slow.why
    assert "stop token" in ahead.why


@pytest.mark.parametrize(
    "name", ["qwen3", "llama", "gemma", "mistral", "mixed windows", "caps", "sinks", "latent heads"]
)
def test_all_kinds_of_attention_see_runs(name: str) -> None:
    """Long runs beside short ones, under windows, caps and sinks, in a fused pass or not."""
    lm = (tiny if name in ("qwen3", "llama", "gemma") else special)(name).eval()
    items = [[*item, *([5, 6, 7] * (row % 4)), 8] for row, item in enumerate(catalogue(20))]
    text = ListTokens(TokenRows.of([[9], [3, 4], [], [3] * 12]), np.array([2, 1], np.int32))
    own = labels()
    prompts = TokenRows.of([[1, 2, 3], [1] * 14, [7, 6]])
    wants = [Want(4), Want(3, wanted=("Drama",)), Want(4, unwanted=("War",))]
    grammar = ListGrammar(Trie.build(TokenRows.of(items)), text, [want.check(own) for want in wants])
    ahead, slow = both(lm, grammar, prompts, 4, temperature=2.0)
    assert ahead.tokens.tokens.tolist() == slow.tokens.tokens.tolist()
    np.testing.assert_allclose(ahead.model_log_probs, slow.model_log_probs, atol=1e-4)
    assert len(np.unique(ahead.tokens.lengths)) > 1
