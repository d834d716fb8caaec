"""Samples against `generate`, against transformers' logits processors, and against all that can be written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tokenizers import Tokenizer, decoders, models
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from itemic.decode import Fixed, FreeText, ItemWalk, Sampler, Samples, Sequence
from itemic.decode.attention import PromptPass
from itemic.decode.draw import Filters, draw
from itemic.decode.refill import Run
from itemic.errors import ConfigError, ConstraintError, ModelError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.decode.test_beam import catalogue, score_all
from tests.forest.reference import FAMILIES, SPECIAL, special, tiny

NEW = 20


def some_prompts(lengths: tuple[int, ...] = (3, 7, 60, 20, 1, 14)) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [[1, 2, 3, *rng.integers(6, 40, n).tolist()] for n in lengths]


def greedy(lm: PreTrainedModel, prompt: list[int], **options: Any) -> list[int]:
    """What `generate` writes, one prompt at a time."""
    fixed = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.ones(1, len(prompt), dtype=torch.long)
    out = lm.generate(torch.tensor([prompt]), attention_mask=mask, **(fixed | options))
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


def rows(samples: Samples) -> list[list[int]]:
    return [samples.tokens[row].tolist() for row in range(len(samples.tokens))]


def processors(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
) -> LogitsProcessorList:
    """In the order in which `generate` applies them."""
    found: list[Any] = [RepetitionPenaltyLogitsProcessor(repetition_penalty)]
    found.append(TemperatureLogitsWarper(temperature))
    found += [] if top_k is None else [TopKLogitsWarper(top_k)]
    found += [] if top_p is None else [TopPLogitsWarper(top_p)]
    found += [] if min_p is None else [MinPLogitsWarper(min_p)]
    return LogitsProcessorList(found)


@torch.no_grad()
def by_full_passes(
    lm: PreTrainedModel, prompt: list[int], tokens: list[int], filters: LogitsProcessorList | None = None
) -> np.ndarray:
    """The log-probability of each token, by the plain model over the whole row."""
    logits = lm(torch.tensor([prompt + tokens]), use_cache=False).logits[0].float()[len(prompt) - 1 : -1]
    if filters is not None:
        before = [torch.tensor([prompt + tokens[:at]]) for at in range(len(tokens))]
        logits = torch.cat([filters(ids, line[None]) for ids, line in zip(before, logits, strict=True)])
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].numpy()


@pytest.mark.parametrize("name", [*FAMILIES, *SPECIAL])
def test_greedy_text_is_that_of_generate(name: str) -> None:
    """Windows, caps and sinks too; all at once, and few at a time so that places are filled again."""
    lm, prompts = (tiny if name in FAMILIES else special)(name).eval(), some_prompts()
    wanted = [greedy(lm, prompt) for prompt in prompts]
    for options in ({"temperature": 0}, {"top_k": 1, "max_batch_tokens": 130}):
        found = Sampler(lm, max_new_tokens=NEW, **options).sample(TokenRows.of(prompts), 2)
        assert rows(found) == [row for row in wanted for _ in range(2)]
        assert (found.log_probs == 0).all()
        model = np.concatenate([by_full_passes(lm, *pair) for pair in zip(prompts, wanted, strict=True)])
        own = found.model_log_probs.reshape(len(prompts), 2, NEW)
        np.testing.assert_allclose(own[:, 0].ravel(), model, atol=1e-4)
        np.testing.assert_allclose(own[:, 1], own[:, 0], atol=1e-5)


def test_greedy_text_with_a_penalty_and_without_fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemic.decode.grow.fused", lambda *_: False)
    lm, prompts = tiny("qwen3").eval(), some_prompts()
    sampler = Sampler(lm, max_new_tokens=NEW, temperature=0, repetition_penalty=1.3, max_batch_tokens=150)
    wanted = [greedy(lm, prompt, repetition_penalty=1.3) for prompt in prompts]
    assert wanted != [greedy(lm, prompt) for prompt in prompts]
    assert rows(sampler.sample(TokenRows.of(prompts))) == wanted


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.1, 3),
    st.none() | st.integers(1, 50),
    st.none() | st.floats(0.05, 1),
    st.none() | st.floats(0, 1),
    st.floats(0.5, 2),
    st.integers(0, 99),
)
def test_filters_are_those_of_transformers(
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    penalty: float,
    seed: int,
) -> None:
    noise = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 40, generator=noise) * 3
    seen = torch.randint(0, 40, (5, 7), generator=noise)
    options = (temperature, top_k, top_p, min_p, penalty)
    wanted = processors(*options)(seen, logits.clone())
    filters = Filters(*options)
    torch.testing.assert_close(filters.narrowed(filters.penalized(logits, seen)), wanted)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
def test_draws_are_the_inverse_of_the_distribution(size: int) -> None:
    """Every uniform number leads to the token in whose stretch of the unit interval it lies."""
    torch.manual_seed(size)
    line = torch.randn(size, dtype=torch.float64)
    line[::3] = -torch.inf if size > 1 else 0.0
    shares = line.softmax(0)
    bounds = shares.cumsum(0).numpy()
    uniform = np.linspace(0, 1, 5001)[:-1]
    uniform = np.append(uniform[np.abs(uniform[:, None] - bounds).min(1) > 1e-6], np.nextafter(1, 0))
    tokens, logs = draw(line.float().expand(len(uniform), -1), torch.from_numpy(uniform))
    wanted = np.searchsorted(bounds, uniform, side="right")
    wanted[-1] = np.flatnonzero(shares > 0)[-1]
    assert (tokens.numpy() == wanted).all()
    np.testing.assert_allclose(logs, shares.log()[tokens], atol=1e-5)


FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6, "top_k": 5},
    {"temperature": 1.7, "top_p": 0.7, "repetition_penalty": 1.4},
    {"top_k": 7, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 0.7},
]


@pytest.mark.parametrize("options", FILTERS)
def test_samples_have_the_model_s_distribution(options: dict[str, Any]) -> None:
    """Pairs of tokens, counted against their exact probabilities; log-probabilities as said."""
    lm, prompt, n = tiny("qwen3", vocab_size=8, initializer_range=0.3).eval(), [1, 5, 2], 4000
    sampler = Sampler(lm, max_new_tokens=2, **options)
    found = sampler.sample(TokenRows.of([prompt]), n)
    filters = processors(**options)
    exact = np.zeros((8, 8))
    for first in range(8):
        for second in range(8):
            exact[first, second] = np.exp(by_full_passes(lm, prompt, [first, second], filters).sum())
    assert exact.sum() == pytest.approx(1, abs=1e-4)
    drawn = np.array(rows(found))
    counts = np.zeros((8, 8))
    np.add.at(counts, (drawn[:, 0], drawn[:, 1]), 1)
    assert (counts[exact == 0] == 0).all()
    often = exact * n >= 5
    seldom = n - counts[often].sum(), n - n * exact[often].sum()
    tail = ([seldom[0]], [seldom[1]]) if seldom[1] > 1 else ([], [])
    observed, expected = np.append(counts[often], tail[0]), np.append(exact[often] * n, tail[1])
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3
    for at in range(5):
        own = slice(2 * at, 2 * at + 2)
        tokens = drawn[at].tolist()
        np.testing.assert_allclose(
            found.log_probs[own], by_full_passes(lm, prompt, tokens, filters), atol=1e-4
        )
        np.testing.assert_allclose(found.model_log_probs[own], by_full_passes(lm, prompt, tokens), atol=1e-4)


def test_a_sample_depends_on_prompt_seed_and_number_alone() -> None:
    lm, prompts, seeds = tiny("llama").eval(), some_prompts(), [3, 1, 4, 1, 5, 9]
    options: dict[str, Any] = {"max_new_tokens": 70, "stop_tokens": [7], "top_p": 0.95}
    whole = Sampler(lm, **options).sample(TokenRows.of(prompts), 4, seeds=seeds)
    assert len({tuple(row) for row in rows(whole)}) == len(rows(whole))
    assert max(map(len, rows(whole))) == 70 > min(map(len, rows(whole)))
    for limit in (1, 300, 900):
        found = Sampler(lm, **options, max_batch_tokens=limit).sample(
            TokenRows.of(prompts[::-1]), 3, seeds=seeds[::-1]
        )
        for request in range(6):
            mine = rows(found)[3 * (5 - request) : 3 * (5 - request) + 3]
            assert mine == rows(whole)[4 * request : 4 * request + 3]
    twice = Sampler(lm, **options).sample(TokenRows.of([prompts[0]] * 2), 4, seeds=[3, 8])
    assert rows(twice)[:4] == rows(whole)[:4]
    assert rows(twice)[4:] != rows(whole)[:4]


@pytest.mark.parametrize("name", ["qwen3", "mixed windows", "caps"])
def test_places_are_filled_again_while_others_write(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, prompts = (tiny if name in FAMILIES else special)(name).eval(), some_prompts((3, 7, 30, 20, 1, 14, 9))
    together: list[int] = []
    living: list[int] = []
    forward, compute = Run._forward, Run._compute

    def noted(self: Run, tokens: Any, position: Any, step: Any) -> torch.Tensor:
        if not isinstance(step, PromptPass):
            together.append(len(tokens))
        return forward(self, tokens, position, step)

    def asked(self: Run, requests: Any) -> None:
        living.append(0 if self.places is None else len(self.places))
        compute(self, requests)

    monkeypatch.setattr(Run, "_forward", noted)
    monkeypatch.setattr(Run, "_compute", asked)
    stops = list(range(6, 12))
    found = Sampler(lm, max_new_tokens=40, stop_tokens=stops, max_batch_tokens=400).sample(
        TokenRows.of(prompts), 5
    )
    assert max(together) <= 400 // 40
    assert max(living) > 0
    for number, row in enumerate(rows(found)):
        own = slice(*found.tokens.offsets[number : number + 2].tolist())
        wanted = by_full_passes(lm, prompts[number // 5], row)
        np.testing.assert_allclose(found.log_probs[own], wanted, atol=1e-4)
        assert not set(row[:-1]) & set(stops)
        assert found.why[number] == ("stop token" if row[-1] in stops else "length")
        assert row[-1] in stops or len(row) == 40


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([name for name, (_, options) in SPECIAL.items() if "sliding_window" in options]),
    st.integers(1, 20),
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(1, 400),
    st.integers(0, 12),
    st.booleans(),
)
def test_any_window_and_room(
    name: str, window: int, lengths: list[int], n: int, room: int, stops: int, fused: bool
) -> None:
    lm = special(name, sliding_window=window, num_hidden_layers=2, layer_types=None).eval()
    prompts = some_prompts(tuple(lengths))
    with pytest.MonkeyPatch.context() as patch:
        if not fused:
            patch.setattr("itemic.decode.grow.fused", lambda *_: False)
        options: dict[str, Any] = {"stop_tokens": range(6, 6 + stops), "max_batch_tokens": room}
        found = Sampler(lm, max_new_tokens=40, **options).sample(TokenRows.of(prompts), n)
    wanted = [by_full_passes(lm, prompts[at // n], row) for at, row in enumerate(rows(found))]
    np.testing.assert_allclose(found.log_probs, np.concatenate(wanted), atol=1e-4)


def letters() -> PreTrainedTokenizerFast:
    """Fifty tokens of one or two letters, whose texts stand side by side."""
    single = [chr(97 + at) for at in range(10)]
    pairs = [(first, second) for second in single[:4] for first in single]
    vocabulary = {text: at for at, text in enumerate([*single, *(a + b for a, b in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_stop_strings_end_a_sample_with_the_token_that_completes_one() -> None:
    lm, tokenizer, prompts = tiny("qwen3").eval(), letters(), some_prompts()
    free = Sampler(lm, max_new_tokens=40).sample(TokenRows.of(prompts), 4)
    stops = ["ab", "cad", "b"]
    sampler = Sampler(lm, max_new_tokens=40, stop_strings=stops, tokenizer=tokenizer)
    found = sampler.sample(TokenRows.of(prompts), 4)
    assert set(found.why) == {"stop string"} | ({"length"} & set(found.why))
    for whole, cut, why in zip(rows(free), rows(found), found.why, strict=True):
        texts = [tokenizer.decode(whole[: at + 1]) for at in range(40)]
        ends = [at + 1 for at, text in enumerate(texts) if any(stop in text for stop in stops)]
        assert cut == whole[: ends[0] if ends else 40]
        assert why == ("stop string" if ends else "length")
    wanted = [greedy(lm, prompt, stop_strings=["e"], tokenizer=tokenizer) for prompt in prompts]
    sampler = Sampler(lm, max_new_tokens=NEW, temperature=0, stop_strings=["e"], tokenizer=tokenizer)
    assert rows(sampler.sample(TokenRows.of(prompts))) == wanted


def test_items_come_as_often_as_they_are_probable() -> None:
    """A walk of the trie against the exact probabilities of all items, for each request's own ones."""
    lm, items, n = tiny("qwen3", initializer_range=0.3).eval(), catalogue(14), 2500
    prompts, choice = some_prompts((4, 9)), [np.arange(len(items)), np.array([1, 5, 2, 9])]
    walk = ItemWalk(Trie.build(TokenRows.of(items)), choice)
    grammar = Sequence(Fixed([2, 3]), walk, Fixed([7]))
    for normalize in ("legal", "vocab"):
        sampler = Sampler(lm, max_new_tokens=20, grammar=grammar, normalize=normalize)
        found = sampler.sample(TokenRows.of(prompts), n)
        assert set(found.why) == {"grammar"}
        assert {len(row) for row in rows(found)} == {2 + len(items[0]) + 1}
        for request, prompt in enumerate(prompts):
            own = [items[row] for row in choice[request]]
            exact = np.exp(score_all(lm, [*prompt, 2, 3], own, "legal", False))
            assert exact.sum() == pytest.approx(1, abs=1e-4)
            drawn = [row[2:-1] for row in rows(found)[request * n : (request + 1) * n]]
            counts = [drawn.count(item) for item in own]
            assert sum(counts) == n
            assert chisquare(counts, exact / exact.sum() * n).pvalue > 1e-3
        first = rows(found)[0]
        legal = np.log(exact_of(lm, prompts[0], first, items))
        np.testing.assert_allclose(found.log_probs[: len(first)], legal, atol=1e-4)
        plain = by_full_passes(lm, prompts[0], first)
        wanted = legal if normalize == "legal" else plain
        np.testing.assert_allclose(found.model_log_probs[: len(first)], wanted, atol=1e-4)


def exact_of(lm: PreTrainedModel, prompt: list[int], row: list[int], items: list[list[int]]) -> list[float]:
    """Each token's probability among what the grammar of the test above allows."""
    with torch.no_grad():
        logits = lm(torch.tensor([prompt + row]), use_cache=False).logits[0].float()[len(prompt) - 1 : -1]
    shares = []
    for at, token in enumerate(row):
        walk = row[2:at]
        inside = 2 <= at < 2 + len(items[0])
        siblings = {item[at - 2] for item in items if item[: at - 2] == walk} if inside else {token}
        shares.append(float((logits[at, token] - logits[at, sorted(siblings)].logsumexp(0)).exp()))
    return shares


def test_a_thought_and_then_a_list_of_items() -> None:
    lm, items = tiny("llama").eval(), catalogue(40)
    walk, think, done = ItemWalk(Trie.build(TokenRows.of(items))), 44, 45
    grammar = Sequence(Fixed([think]), FreeText(done, limit=6), walk, Fixed([3]), walk)
    found = Sampler(lm, max_new_tokens=30, grammar=grammar).sample(TokenRows.of(some_prompts()), 8)
    lengths = set()
    for row in rows(found):
        assert row[0] == think
        end = row.index(done)
        lengths.add(end)
        width = len(items[0])
        assert 1 <= end <= 7
        assert row[end + 1 : end + 1 + width] in items
        assert row[end + 1 + width] == 3
        assert row[end + 2 + width :] in items
    assert len(lengths) > 1
    short = Sampler(lm, max_new_tokens=4, grammar=grammar).sample(TokenRows.of([[1]]), 3)
    assert set(short.why) == {"length"}


def test_no_prompts_and_half_precision() -> None:
    lm = tiny("qwen3").to(torch.bfloat16).train()
    sampler = Sampler(lm, max_new_tokens=5, top_p=0.9)
    assert len(sampler.sample(TokenRows.of([]), 3).tokens) == 0
    found = sampler.sample(TokenRows.of(some_prompts()), 3)
    assert np.isfinite(found.log_probs).all()
    assert (found.tokens.lengths == 5).all()
    assert lm.training


def test_what_cannot_be_sampled_is_refused_by_name() -> None:
    lm, trie = tiny("qwen3").eval(), Trie.build(TokenRows.of(catalogue(9)))
    with pytest.raises(ConfigError, match=r"temperature is -1.*top_p is 2"):
        Sampler(lm, max_new_tokens=3, temperature=-1, top_p=2)
    with pytest.raises(ConfigError, match="0 new tokens"):
        Sampler(lm, max_new_tokens=0)
    with pytest.raises(ConfigError, match="without a tokenizer"):
        Sampler(lm, max_new_tokens=3, stop_strings=["a"])
    with pytest.raises(ConfigError, match="aren't empty"):
        Sampler(lm, max_new_tokens=3, stop_strings=["a", ""], tokenizer=letters())
    with pytest.raises(ConfigError, match="normalize 'level'"):
        Sampler(lm, max_new_tokens=3, normalize="level")
    with pytest.raises(ConstraintError, match="the stop has token 50"):
        Sampler(lm, max_new_tokens=3, stop_tokens=[50])
    with pytest.raises(ConstraintError, match="the grammar has token 77"):
        Sampler(lm, max_new_tokens=3, grammar=Sequence(Fixed([1]), FreeText(77)))
    with pytest.raises(ConstraintError, match="item row 0 begin another"):
        ItemWalk(Trie.build(TokenRows.of([[1], [1, 2]])))
    with pytest.raises(ConstraintError, match="request 1 may get item row 99"):
        ItemWalk(trie, [np.array([0]), np.array([99])])
    with pytest.raises(ConstraintError, match="request 0 may get no item"):
        ItemWalk(trie, [np.array([], np.int64)])
    with pytest.raises(ConfigError, match="part 0 is text without an end"):
        Sequence(FreeText(), Fixed([1]))
    sampler = Sampler(lm, max_new_tokens=3, grammar=ItemWalk(trie, [np.array([0])]))
    with pytest.raises(ConfigError, match="items for 1 requests of 2"):
        sampler.sample(TokenRows.of([[1], [2]]))
    sampler = Sampler(lm, max_new_tokens=3)
    with pytest.raises(ConstraintError, match="prompt 1 is empty"):
        sampler.sample(TokenRows.of([[1], []]))
    with pytest.raises(ConstraintError, match="prompt 1 has token 99"):
        sampler.sample(TokenRows.of([[1], [2, 99]]))
    with pytest.raises(ConfigError, match="0 samples"):
        sampler.sample(TokenRows.of([[1]]), 0)
    with pytest.raises(ConfigError, match="2 seeds for 1 prompts"):
        sampler.sample(TokenRows.of([[1]]), seeds=[1, 2])
    with torch.no_grad():
        lm.get_output_embeddings().weight[3] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        sampler.sample(TokenRows.of([[1]]))


def test_learned_positions_end_somewhere() -> None:
    torch.manual_seed(0)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16)).eval()
    prompts = TokenRows.of([[1, 2], [3] * 10])
    assert len(Sampler(lm, max_new_tokens=7).sample(prompts).tokens) == 2
    with pytest.raises(ConstraintError, match=r"prompt 1 has 10 tokens, up to 7 more .* end at 16"):
        Sampler(lm, max_new_tokens=8).sample(prompts)
