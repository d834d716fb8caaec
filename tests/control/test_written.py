"""Lists that models write: against `generate` under the definition, and read again."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from itemic.control.form import ListForm
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.parse import parse
from itemic.control.terms import TermsOf
from itemic.control.want import Want
from itemic.decode import Fixed, Sampler, Sequence
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.sid.trie import Trie
from tests.control.models import TITLES, labels, model_of, names_of

FORMS = [
    ListForm(),
    ListForm(numbered=False),
    ListForm(numbered=False, separator=", "),
    ListForm(separator="; "),
]
WANTS = [
    Want(5),
    Want(4, wanted=("Drama",)),
    Want(3, unwanted=("Comedy", "War")),
    Want(6, shares=(("Drama", "about", 0.5), ("War", "at most", 0.2))),  # type: ignore[arg-type]
    Want(4, wanted=("Comedy",), shares=(("Drama", "at least", 0.75),)),  # type: ignore[arg-type]
    Want(3, candidates=(1, 4, 7, 9, 10), avoid=(9,)),
]
HISTORIES = [[], [0, 2], [1], [6, 12], [3, 3], [12]]


def grammar_of(model: Model, form: ListForm) -> ListGrammar:
    names = model.index
    terms = TermsOf(labels(), names=names.name_numbers).many(WANTS, HISTORIES)
    return ListGrammar(Trie.build(model.item_rows), ListTokens.of(model, form, 6), terms)


def prompts_of(model: Model) -> TokenRows:
    return model.chat.prompt_batch([[{"role": "user", "content": f"Ask {n}"}] for n in range(len(WANTS))])


@cache
def known() -> list[set[str]]:
    own = labels()
    return [{own.names[n] for n in own.numbers_of(row)} for row in range(len(TITLES))]


def fine(want: Want, history: list[int], rows: list[int], numbers: Any, *, whole: bool) -> bool:
    """Whether some rows are a list, or may begin one, by its definition and by trying what may follow."""
    has = known()
    out = {int(numbers[row]) for row in (*history, *want.avoid)}
    if len({int(numbers[row]) for row in rows}) != len(rows) or any(int(numbers[row]) in out for row in rows):
        return False
    for row in rows:
        if want.wanted and not has[row] & set(want.wanted):
            return False
        if has[row] & set(want.unwanted) or (want.candidates is not None and row not in want.candidates):
            return False
    for part in want.shares:
        there, exact = sum(part.label in has[row] for row in rows), part.portion * want.count
        rest = want.count - len(rows)
        low, high = {
            "at most": (-1.0, exact),
            "at least": (exact, 99.0),
            "about": (exact - 0.5, exact + 0.5),
        }[part.how]
        if there > high + 1e-6 or there + rest < low - 1e-6:
            return False
    return len(rows) == want.count if whole else True


@pytest.mark.parametrize("kind", ["sid", "title"])
@pytest.mark.parametrize("form", FORMS, ids=["numbered", "lines", "commas", "numbered in a line"])
def test_lists_are_written_as_they_are_read_and_keep_to_the_terms(kind: str, form: ListForm) -> None:
    model = model_of(kind)
    grammar, numbers = grammar_of(model, form), model.index.name_numbers
    sampler = Sampler(model.lm, max_new_tokens=grammar.most_tokens, grammar=grammar, max_batch_tokens=1200)
    samples = sampler.sample(prompts_of(model), 8)
    assert Counter(samples.why) == {"grammar": 8 * len(WANTS)}
    whose = np.repeat(np.arange(len(WANTS)), 8)
    lists = grammar.read(samples.tokens, whose)
    different = set()
    for place, (request, rows) in enumerate(zip(whose.tolist(), lists, strict=True)):
        want, history = WANTS[request], HISTORIES[request]
        assert fine(want, history, rows.tolist(), numbers, whole=True)
        assert grammar.terms is not None
        assert grammar.terms[request].kept_by(rows)
        own = samples.tokens[place].tolist()
        # the very tokens that a conversation with this list has
        said = form.text([model.index.text(int(row)) for row in rows])
        asked = {"role": "user", "content": f"Ask {request}"}
        tokens, ours = model.chat.encode([asked, {"role": "assistant", "content": said}])
        start = len(prompts_of(model)[request])
        assert own == [token for token, mine in zip(tokens[start:], ours[start:], strict=True) if mine]
        text = model.tokenizer.decode(own, skip_special_tokens=kind == "title").removesuffix("<|im_end|>")
        read = parse(text, model.index, form, meant=grammar.terms[request].rows)
        assert read.items.tolist() == rows.tolist()
        assert read.other == 0
        different.add((request, *rows.tolist()))
    assert len(different) > 5 * len(WANTS)


@pytest.mark.parametrize("kind", ["sid", "title"])
def test_greedy_lists_are_those_of_generate(kind: str) -> None:
    """Under a prefix function that knows all names and tries what may still come, item by item."""
    model = model_of(kind)
    form = ListForm()
    grammar, numbers = grammar_of(model, form), model.index.name_numbers
    sampler = Sampler(model.lm, max_new_tokens=grammar.most_tokens, grammar=grammar, temperature=0)
    prompts = prompts_of(model)
    found = sampler.sample(prompts).tokens
    rows = [model.item_rows[row].tolist() for row in range(len(TITLES))]
    tokens = ListTokens.of(model, form, 6)
    for request, (want, history) in enumerate(zip(WANTS, HISTORIES, strict=True)):
        start = len(prompts[request])

        def allowed(_: int, ids: torch.Tensor, want=want, history=history, start=start) -> list[int]:  # type: ignore[no-untyped-def]
            rest, chosen = ids[start:].tolist(), []
            while True:
                text = (tokens.before[len(chosen)] if len(chosen) < want.count else tokens.end).tolist()
                if len(rest) < len(text):
                    return [text[len(rest)]]
                rest = rest[len(text) :]
                may = [
                    r for r in range(len(TITLES)) if fine(want, history, [*chosen, r], numbers, whole=False)
                ]
                done = [r for r in may if rest[: len(rows[r])] == rows[r]]
                if not done:
                    return sorted({rows[r][len(rest)] for r in may if rows[r][: len(rest)] == rest})
                chosen.append(done[0])
                rest = rest[len(rows[done[0]]) :]

        out = model.lm.generate(
            torch.tensor([prompts[request].tolist()]),
            attention_mask=torch.ones(1, start, dtype=torch.long),
            max_new_tokens=len(found[request]),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            prefix_allowed_tokens_fn=allowed,
        )
        assert out[0, start:].tolist() == found[request].tolist()


@pytest.mark.parametrize("kind", ["sid", "title"])
def test_soft_lists_hold_only_names_and_end_where_the_model_likes(kind: str) -> None:
    model = model_of(kind)
    tokens = ListTokens.of(model, ListForm(), 7)
    grammar = ListGrammar(Trie.build(model.item_rows), tokens, most=5)
    samples = Sampler(model.lm, max_new_tokens=grammar.most_tokens, grammar=grammar).sample(
        TokenRows.of([[1, 2], [3]]), 150
    )
    assert set(samples.why) == {"grammar"}
    lists = grammar.read(samples.tokens)
    lengths = Counter(map(len, lists))
    assert max(lengths) == 5
    assert min(lengths) == 1
    assert any(len(set(own.tolist())) < len(own) for own in lists)
    for place in range(30):
        text = model.tokenizer.decode(samples.tokens[place], skip_special_tokens=kind == "title")
        read = parse(text.removesuffix("<|im_end|>"), model.index)
        assert read.items.tolist() == lists[place].tolist()


def test_lists_cut_off_and_lists_inside_of_other_text() -> None:
    model = model_of("title")
    grammar = grammar_of(model, ListForm())
    whole = Sampler(model.lm, max_new_tokens=grammar.most_tokens, grammar=grammar, temperature=0)
    part = Sampler(model.lm, max_new_tokens=20, grammar=grammar, temperature=0)
    prompts = prompts_of(model)
    lists = [grammar.read(one.sample(prompts).tokens) for one in (whole, part)]
    for longer, shorter in zip(*lists, strict=True):
        assert len(shorter) < len(longer)
        assert longer[: len(shorter)].tolist() == shorter.tolist()
    said = Sequence(Fixed([5, 6]), grammar)
    found = Sampler(model.lm, max_new_tokens=200, grammar=said).sample(prompts)
    assert all(found.tokens[row][:2].tolist() == [5, 6] for row in range(len(WANTS)))
    rows = grammar.read(TokenRows.of([found.tokens[row][2:].tolist() for row in range(len(WANTS))]))
    assert grammar.terms is not None
    assert all(terms.kept_by(own) for terms, own in zip(grammar.terms, rows, strict=True))


def test_grammars_that_cannot_be() -> None:
    trie = Trie.build(TokenRows.of([[1, 2], [1, 3], [1, 3]]))
    terms = Want(1).check(labels(), names=None)
    tokens = ListTokens(TokenRows.of([[], [7]]), np.array([9], np.int32))
    with pytest.raises(ConfigError, match="with tokens for 2"):
        ListGrammar(trie, tokens, [Want(3).check(labels())])
    with pytest.raises(ConfigError, match="terms of 1 requests for 2"):
        ListGrammar(trie, tokens, [terms]).check(2)
    with pytest.raises(ConfigError, match="don't say where they end"):
        ListGrammar(trie, ListTokens(tokens.before, np.zeros(0, np.int32)))
    with pytest.raises(ConfigError, match="end begins as what goes on"):
        ListGrammar(trie, ListTokens(tokens.before, np.array([7], np.int32)))
    with pytest.raises(ConstraintError, match="begin another"):
        ListGrammar(Trie.build(TokenRows.of([[1], [1, 2]])), tokens)
    model = model_of("sid")
    shared = [Want(2, candidates=(7, 12)).check(labels())]
    with pytest.raises(ConfigError, match="item row 12, whose tokens are those of another"):
        ListGrammar(Trie.build(model.item_rows), ListTokens.of(model, ListForm(), 2), shared).start(0)
    with pytest.raises(ConstraintError, match="2 items are wanted, and 1 may come"):
        Want(2, candidates=(7, 12)).check(labels(), names=names_of("sid").name_numbers)
