"""What must come next is written in one go, and nothing else changes by that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from itemic.control.form import ListForm
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.want import Want
from itemic.decode import Sampler, refill
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


def test_only_what_is_legal_for_somebody_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("title")
    grammar, prompts = grammar_of(model, ListForm()), prompts_of(model)
    found = []
    for times in (1, 1 << 30):
        monkeypatch.setattr(refill, "_FEW", times)
        options: dict[str, Any] = {"max_new_tokens": grammar.most_tokens, "normalize": "legal"}
        found += [
            Sampler(model.lm, grammar=grammar, **options, **more).sample(prompts, 3)  # type: ignore[arg-type]
            for more in ({}, {"temperature": 0}, {"top_p": 0.8, "temperature": 1.5})
        ]
    for few, whole in zip(found[:3], found[3:], strict=True):
        assert few.tokens.tokens.tolist() == whole.tokens.tokens.tolist()
        np.testing.assert_allclose(few.log_probs, whole.log_probs, atol=1e-5)
        np.testing.assert_allclose(few.model_log_probs, whole.model_log_probs, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "gemma", "mistral", "mixed windows", "sinks"])
def test_what_prompts_share_and_long_runs_are_computed_right(name: str) -> None:
    """Against plain forward passes: a common beginning, one run much longer than the others."""
    lm = (tiny if name in ("qwen3", "gemma") else special)(name).eval()
    items = [[*item, *([5, 6, 7] * (6 if row == 4 else 0)), 8] for row, item in enumerate(catalogue(20))]
    text = ListTokens(TokenRows.of([[9], [3, 4], [3]]), np.array([2, 1], np.int32))
    shared = [1, 5, 3, 2, 2, 7]
    prompts = TokenRows.of([[*shared, *[4] * n] for n in (1, 2, 9, 3)])
    grammar = ListGrammar(Trie.build(TokenRows.of(items)), text, [Want(3).check(labels())] * 4)
    found = Sampler(lm, max_new_tokens=grammar.most_tokens, grammar=grammar, normalize="legal").sample(
        prompts, 6
    )
    for number in range(24):
        prompt, own = prompts[number // 6].tolist(), found.tokens[number].tolist()
        with torch.no_grad():
            logits = lm(torch.tensor([[*prompt, *own]])).logits[0, len(prompt) - 1 : -1]
        state: Any = grammar.start(number // 6)
        for at, token in enumerate(own):
            legal = grammar.allowed(state).tolist()
            log = logits[at, legal].log_softmax(-1)[legal.index(token)]
            begin = found.tokens.offsets[number]
            assert abs(float(log) - found.model_log_probs[begin + at]) < 1e-4
            state = grammar.step(state, token)
    assert found.tokens.lengths.max() > found.tokens.lengths.min() + 10
