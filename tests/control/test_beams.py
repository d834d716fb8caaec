"""The best lists by probability: against all lists that there are, and against `generate` with beams."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from itemic.control.form import ListForm
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.terms import TermsOf
from itemic.control.want import Want
from itemic.decode import FreeText, ItemList, Sampler, TextSearch
from itemic.errors import ConfigError, ConstraintError, ModelError
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.sid.trie import Trie
from tests.control.models import labels, model_of
from tests.decode.test_beam import catalogue
from tests.decode.test_lists import written
from tests.forest.reference import special, tiny

WANTS = [
    Want(2),
    Want(3, wanted=("War",)),
    Want(2, candidates=(1, 4, 7, 9), shares=(("Drama", "about", 0.5),)),  # type: ignore[arg-type]
]
HISTORIES = [[], [0, 2], [1]]


@cache
def grammar_of(model: Model, *, soft: bool = False) -> ListGrammar:
    tokens = ListTokens.of(model, ListForm(), 3)
    trie = Trie.build(model.item_rows)
    if soft:
        return ListGrammar(trie, tokens, most=2)
    terms = TermsOf(labels(), names=model.index.name_numbers).many(WANTS, HISTORIES)
    return ListGrammar(trie, tokens, terms)


def prompts_of(model: Model) -> TokenRows:
    return model.chat.prompt_batch([[{"role": "user", "content": "Ask " * (1 + 3 * n)}] for n in range(3)])


@cache
def state_after(grammar: Any, request: int, text: tuple[int, ...]) -> Any:
    if not text:
        return grammar.start(request)
    return grammar.step(state_after(grammar, request, text[:-1]), text[-1])


@cache
def allowed_after(grammar: Any, request: int, text: tuple[int, ...]) -> list[int]:
    found: list[int] = grammar.allowed(state_after(grammar, request, text)).tolist()
    return found


def plain_scores(
    lm: Any, grammar: Any, request: int, prompt: Any, texts: list[tuple[int, ...]], normalize: str
) -> np.ndarray:
    """Sums of log-probabilities by plain forward passes, some texts at a time."""
    width = max(map(len, texts))
    found = []
    for first in range(0, len(texts), 128):
        some = texts[first : first + 128]
        ids = torch.tensor([[*prompt.tolist(), *text, *[0] * (width - len(text))] for text in some])
        with torch.no_grad():
            logits = lm(ids).logits[:, len(prompt) - 1 : -1].double()
        if normalize == "legal":
            mask = torch.full_like(logits, -torch.inf)
            for row, text in enumerate(some):
                for at in range(len(text)):
                    mask[row, at, allowed_after(grammar, request, text[:at])] = 0
                mask[row, len(text) :] = 0
            logits = logits + mask
        logs = logits.log_softmax(-1)
        for row, text in enumerate(some):
            found.append(float(logs[row, range(len(text)), list(text)].sum()))
    return np.array(found)


@pytest.mark.parametrize("kind", ["sid", "title"])
@pytest.mark.parametrize("normalize", ["vocab", "legal"])
@pytest.mark.parametrize(("soft", "power"), [(False, 0.0), (True, 0.0), (True, 0.7)])
def test_the_best_of_all_lists(kind: str, normalize: str, soft: bool, power: float) -> None:
    model = model_of(kind)
    grammar, prompts = grammar_of(model, soft=soft), prompts_of(model)
    search = TextSearch(
        model.lm,
        grammar,
        max_new_tokens=grammar.most_tokens,
        beams=500,
        normalize=normalize,
        length_power=power,
    )
    found = search.best(prompts, 20)
    lists = grammar.read(found.tokens, np.repeat(np.arange(len(WANTS)), 20))
    for request in range(len(WANTS)):
        texts = written(grammar, request)
        assert len(texts) <= search.beams
        sums = plain_scores(model.lm, grammar, request, prompts[request], texts, normalize)
        scores = sums / np.array([len(text) for text in texts]) ** power
        order = np.argsort(-scores, kind="stable")[:20]
        rows = [found.tokens[20 * request + place].tolist() for place in range(20)]
        assert len({tuple(row) for row in rows}) == min(20, len(texts)) + (len(texts) < 20)
        np.testing.assert_allclose(found.scores[request, : len(order)], scores[order], atol=1e-4)
        assert np.isneginf(found.scores[request, len(order) :]).all()
        assert found.why[20 * request : 20 * request + 20] == ["grammar"] * len(order) + [""] * (
            20 - len(order)
        )
        number = {text: place for place, text in enumerate(texts)}
        for place, row in enumerate(rows[: len(order)]):
            assert abs(scores[number[tuple(row)]] - scores[order[place]]) < 1e-4
            assert np.argmax(scores) == number[tuple(rows[0])]
        if grammar.terms is not None:
            own = lists[20 * request : 20 * request + len(order)]
            assert all(grammar.terms[request].kept_by(rows) for rows in own)
    # token by token, the very logarithms
    sums = np.add.reduceat(found.log_probs, found.tokens.offsets[:-1][found.tokens.lengths > 0])
    lengths = found.tokens.lengths[found.tokens.lengths > 0]
    np.testing.assert_allclose(
        sums / lengths**power, found.scores[np.isfinite(found.scores)], rtol=1e-5, atol=1e-5
    )


class Masked(LogitsProcessor):
    """What a grammar allows, of each beam's whole text; ``legal`` makes what is left sum to one."""

    def __init__(self, grammar: ListGrammar, start: int, legal: bool) -> None:
        self.grammar, self.start, self.legal = grammar, start, legal

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        mask = torch.full_like(scores, -torch.inf)
        for row, ids in enumerate(input_ids[:, self.start :].tolist()):
            state: Any = self.grammar.start(0)
            for token in ids:
                state = None if state is None else self.grammar.step(state, token)
            mask[row, [0] if state is None else self.grammar.allowed(state).tolist()] = 0
        return (scores + mask).log_softmax(-1) if self.legal else scores + mask


@pytest.mark.parametrize("normalize", ["vocab", "legal"])
def test_narrow_beams_are_those_of_generate(normalize: str) -> None:
    """Items of equal length, so that all lists end at the same step: both must keep the same beams all the way."""
    model = model_of("sid")
    trie = Trie.build(model.item_rows)
    tokens = ListTokens.of(model, ListForm(numbered=False), 4)
    own = labels()
    prompts = prompts_of(model)
    for width, want in ((1, Want(4)), (3, Want(4, unwanted=("War",))), (7, Want(3))):
        terms = want.check(own, [2], names=model.index.name_numbers)
        grammar = ListGrammar(trie, tokens, [terms])
        search = TextSearch(
            model.lm, grammar, max_new_tokens=grammar.most_tokens, beams=width, normalize=normalize
        )
        # token by token: what must come next takes a step, as it does there
        search.sampler.runs_ahead = False
        ours = search.best(prompts.take(np.array([1])), width)
        prompt = prompts[1]
        out = model.lm.generate(  # type: ignore[operator]
            torch.from_numpy(prompt.astype(np.int64))[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=False,
            max_new_tokens=grammar.most_tokens,
            eos_token_id=int(tokens.end[-1]),
            pad_token_id=0,
            logits_processor=LogitsProcessorList([Masked(grammar, len(prompt), normalize == "legal")]),
            output_scores=True,
            return_dict_in_generate=True,
        )
        theirs = out.sequences[:, len(prompt) :].tolist()
        stop = len(ours.tokens[0])
        assert [ours.tokens[place].tolist() for place in range(width)] == [row[:stop] for row in theirs]
        if width > 1:
            np.testing.assert_allclose(ours.scores[0], out.sequences_scores.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["sid", "title"])
def test_one_beam_is_greedy(kind: str) -> None:
    model = model_of(kind)
    grammar, prompts = grammar_of(model), prompts_of(model)
    for normalize in ("vocab", "legal"):
        options: dict[str, Any] = {"max_new_tokens": grammar.most_tokens, "normalize": normalize}
        greedy = Sampler(model.lm, grammar=grammar, temperature=0, **options).sample(prompts)
        found = TextSearch(model.lm, grammar, beams=1, **options).best(prompts)
        assert found.tokens.tokens.tolist() == greedy.tokens.tokens.tolist()
        np.testing.assert_allclose(found.log_probs, greedy.model_log_probs, atol=1e-5)


@pytest.mark.parametrize("normalize", ["vocab", "legal"])
def test_who_is_written_beside_it_changes_nothing(normalize: str) -> None:
    model = model_of("title")
    grammar = grammar_of(model)
    options: dict[str, Any] = {
        "max_new_tokens": grammar.most_tokens,
        "beams": 4,
        "normalize": normalize,
        "length_power": 0.5,
    }
    prompts = prompts_of(model)
    together = TextSearch(model.lm, grammar, **options).best(prompts, 3)
    room = 5 * grammar.most_tokens
    few = TextSearch(model.lm, grammar, **options, max_batch_tokens=room).best(prompts, 3)
    assert few.tokens.tokens.tolist() == together.tokens.tokens.tolist()
    np.testing.assert_allclose(few.scores, together.scores, atol=1e-5)
    for request in range(3):
        alone = ListGrammar(grammar.trie, ListTokens.of(model, ListForm(), 3), [grammar.terms[request]])  # type: ignore[index]
        own = TextSearch(model.lm, alone, **options).best(prompts.take(np.array([request])), 3)
        np.testing.assert_allclose(own.scores[0], together.scores[request], atol=1e-5)
        assert own.tokens[0].tolist() == together.tokens[3 * request].tolist()


@pytest.mark.parametrize("name", ["qwen3", "mistral", "mixed windows", "caps", "sinks"])
def test_beams_split_under_all_kinds_of_attention(name: str) -> None:
    """A grammar that is asked state by state, with items of several lengths, against plain forward passes."""
    lm = (tiny if name == "qwen3" else special)(name).eval()
    items = [[*item, *([5, 6] * (row % 3)), 8] for row, item in enumerate(catalogue(6))]
    grammar = ItemList(Trie.build(TokenRows.of(items)), 3, 2, between=[3], end=[4, 2])
    prompts = TokenRows.of([[1, 2, 3], [1] * 14])
    found = TextSearch(lm, grammar, max_new_tokens=60, beams=200).best(prompts, 5)
    texts = written(grammar, 0)
    for request in range(2):
        scores = plain_scores(lm, grammar, request, prompts[request], texts, "vocab")
        order = np.argsort(-scores)[:5]
        assert [tuple(found.tokens[5 * request + place].tolist()) for place in range(5)] == [
            texts[place] for place in order
        ]
        np.testing.assert_allclose(found.scores[request], scores[order], atol=1e-4)


def test_a_text_that_is_cut_off_says_so() -> None:
    lm = tiny("qwen3").eval()
    grammar = ItemList(Trie.build(TokenRows.of(catalogue(6))), 3, end=[4])
    found = TextSearch(lm, grammar, max_new_tokens=4, beams=3).best(TokenRows.of([[1, 2]]), 3)
    assert found.why == ["length"] * 3
    assert found.tokens.lengths.tolist() == [4, 4, 4]


def test_what_cannot_be_searched() -> None:
    lm = tiny("qwen3").eval()
    grammar = ItemList(Trie.build(TokenRows.of(catalogue(6))), 2)
    prompts = TokenRows.of([[1]])
    with pytest.raises(ConfigError, match="0 beams"):
        TextSearch(lm, grammar, max_new_tokens=9, beams=0)
    with pytest.raises(ConfigError, match="length_power is -1"):
        TextSearch(lm, grammar, max_new_tokens=9, length_power=-1.0)
    with pytest.raises(ConfigError, match="3 texts with 2 beams"):
        TextSearch(lm, grammar, max_new_tokens=9, beams=2).best(prompts, 3)
    with pytest.raises(ConfigError, match="any token may follow"):
        TextSearch(lm, FreeText(3), max_new_tokens=9).best(prompts)
    with pytest.raises(ConstraintError, match="prompt 0 is empty"):
        TextSearch(lm, grammar, max_new_tokens=9).best(TokenRows.of([[]]))
    with torch.no_grad():
        lm.get_input_embeddings().weight[1] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        TextSearch(lm, grammar, max_new_tokens=9).best(prompts)
