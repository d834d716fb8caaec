"""Naming an item again costs its probability: against a slow loss of each row under plain transformers."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import train
from itemic.errors import ConfigError
from itemic.forest import TokenRows, build_forest
from itemic.forest.build import chain_forest
from itemic.model import Model
from itemic.sid.trie import Trie
from itemic.training.language.learning import learning
from itemic.training.language.next_token import NextToken
from itemic.training.language.scope import Mentions, named_again
from itemic.training.language.stage import Stage
from tests.control.models import model_of
from tests.training.helpers import copy_of
from tests.training.test_scope import competing

Row = tuple[list[int], list[float]]


def again(tokens: list[int], weights: list[float], items: list[tuple[int, ...]]) -> list[set[int]]:
    """For each token with weight what would have led to nothing but items named before. One after the other."""
    found: list[set[int]] = [set() for _ in tokens]
    named: set[tuple[int, ...]] = set()
    at = 0
    while at < len(tokens):
        own = next((item for item in items if tuple(tokens[at : at + len(item)]) == item), None)
        if own is None:
            at += 1
            continue
        for depth in range(len(own)):
            if weights[at + depth] > 0:
                below = [item for item in items if item[:depth] == own[:depth]]
                ways = {item[depth] for item in below}
                found[at + depth] = {
                    way for way in ways if all(item in named for item in below if item[depth] == way)
                } - {own[depth]}
        at += len(own)
        if weights[at - 1] > 0:
            named.add(own)
    return found


def items_of(model: Model) -> list[tuple[int, ...]]:
    return sorted({tuple(model.item_rows[row].tolist()) for row in range(len(model.item_rows))})


def ends_of(tokens: list[int], items: list[tuple[int, ...]]) -> list[int]:
    """One past the last token of each item."""
    found, at = [], 0
    while at < len(tokens):
        own = next((item for item in items if tuple(tokens[at : at + len(item)]) == item), None)
        at += len(own or (0,))
        found += [at] if own else []
    return found


def rows_of(model: Model) -> list[Row]:
    """Chats whose answers are lists, in some of which an item comes again, and the same up to the last item but one."""
    names = model.index.texts
    found: list[Row] = []
    for list_ in ([0, 1, 2, 3], [0, 1, 17, 16, 5, 6], [4, 4, 8, 9, 4], [7, 12, 7, 10]):
        answer = "\n".join(f"{place}. {names[row]}" for place, row in enumerate(list_))
        talk = [
            {"role": "user", "content": f"After {names[5]} and {names[1]}?"},
            {"role": "assistant", "content": answer},
        ]
        tokens, flags = (list(part) for part in model.chat.encode(talk))
        own, stop = [0.5 * float(flag) for flag in flags], ends_of(tokens, items_of(model))[-2]
        found += [(tokens, own), (tokens[:stop], own[:stop])]
    return found


def slow_loss(model: Model, rows: list[Row], weight: float, scope: bool, smoothing: float) -> torch.Tensor:
    items = items_of(model)
    total = torch.zeros(())
    for tokens, weights in rows:
        logits = model.lm(torch.tensor([tokens]), use_cache=False).logits[0]
        who = competing(tokens, model) if scope else [None] * len(tokens)
        for at, unwanted in list(enumerate(again(tokens, weights, items)))[1:]:
            places = sorted(who[at] or range(logits.shape[1]))
            kept = logits[at - 1][places].log_softmax(0)
            loss = -(1 - smoothing) * kept[places.index(tokens[at])] - smoothing * kept.mean()
            if unwanted:
                chance = sum(kept[places.index(token)].exp() for token in unwanted)
                loss = loss - weight * torch.log(1 - chance)
            total = total + weights[at] * loss
    return total


@pytest.mark.parametrize(("scope", "smoothing"), [(False, 0.0), (False, 0.1), (True, 0.1)])
@pytest.mark.parametrize(
    ("kind", "what"),
    [("sid", "all"), ("sid", "lora"), ("sid", "embeddings"), ("title", "all"), ("title", "lora")],
)
def test_equals_a_slow_loss_of_each_row(kind: str, what: str, scope: bool, smoothing: float) -> None:
    model = deepcopy(model_of(kind))
    rows = rows_of(model)
    forest = build_forest(TokenRows.of([tokens for tokens, _ in rows], [weights for _, weights in rows]))
    assert len(forest) < forest.row_tokens
    objective = {"unlikelihood": {"weight": 3.0}, "label_smoothing": smoothing} | (
        {"scope": "items"} if scope else {}
    )
    stage = Stage.of({"train": what, "objective": objective, "engine": {"minibatch_size": 5}})
    with learning(model.lm, stage, range(*model.new_token_range)) as learns:
        ours = NextToken.of(model.lm, stage, learns, items=Trie.build(model.item_rows))
        with ours.running(), ours.stepping():
            cost = ours(forest)
            named = ours.learning()
            found = dict(zip(named, torch.autograd.grad(cost.sum, list(named.values())), strict=True))
        table = model.lm.get_input_embeddings().weight
        table.requires_grad_(True)
        wanted = slow_loss(model, rows, 3.0, scope, smoothing)
        assert cost.sum.item() == pytest.approx(wanted.item(), rel=1e-5)
        with torch.no_grad():
            assert wanted.item() > slow_loss(model, rows, 0.0, scope, smoothing).item() + 1e-3
        assert cost.weight == pytest.approx(sum(sum(weights[1:]) for _, weights in rows))
        leaves = [table if name == "input_rows" else weight for name, weight in named.items()]
        for name, whole in zip(named, torch.autograd.grad(wanted, leaves), strict=True):
            if name == "input_rows":
                whole = whole[model.new_token_range[0] : model.new_token_range[1]]
            torch.testing.assert_close(
                found[name], whole, atol=1e-5 * float(whole.abs().max()) + 1e-6, rtol=1e-4
            )


WORDS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(WORDS, st.data())
def test_what_is_unwanted_is_what_a_slow_search_finds(words: list[list[int]], data: st.DataObject) -> None:
    items = sorted({(*word, 4) for word in words})  # none begins another one
    rows = data.draw(st.lists(st.lists(st.sampled_from(items), max_size=5), min_size=1, max_size=4))
    texts = [[9, *(token for item in row for token in (*item, 8))] for row in rows]
    loud = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    weights = [[float(flag)] * len(text) for text, flag in zip(texts, loud, strict=True)]
    forest = chain_forest(TokenRows.of(texts, weights))
    trie = Trie.build(TokenRows.of(items))
    unwanted = named_again(forest, Mentions.of(forest, trie), trie, (forest.weight > 0).astype(np.float32))
    right = [
        (at, token)
        for at, tokens in enumerate(
            tokens for text, own in zip(texts, weights, strict=True) for tokens in again(text, own, items)
        )
        for token in sorted(tokens)
    ]
    assert sorted(zip(unwanted.node.tolist(), unwanted.token.tolist(), strict=True)) == right
    assert (np.diff(unwanted.node) >= 0).all()


def test_a_tree_of_rows_has_what_each_of_its_rows_has() -> None:
    """1 4, 2 4 and 3 4 are items: behind 1 4 and 2 4 another third may not be them."""
    trie = Trie.build(TokenRows.of([[1, 4], [2, 4], [3, 4]]))
    rows = TokenRows.of(
        [[9, 1, 4, 2, 4, 3, 4], [9, 1, 4, 3, 4], [9, 2, 4]], [[1.0] * 7, [1.0] * 5, [1.0] * 3]
    )
    forest = build_forest(rows)
    found = named_again(forest, Mentions.of(forest, trie), trie, np.ones(len(forest), np.float32))
    ways = {(forest.tokens[: node + 1].tolist()[-1], forest.position[node]): [] for node in found.node}
    for node, token in zip(found.node, found.token, strict=True):
        ways[forest.tokens[node], forest.position[node]].append(token)
    assert ways == {(2, 3): [1], (3, 5): [1, 2], (3, 3): [1]}


def table(chats: list[tuple[str, str, str]]) -> pl.DataFrame:
    talks = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for _, a, b in chats]
    return pl.DataFrame(
        {
            "uuid": [str(n) for n in range(len(talks))],
            "source": [source for source, _, _ in chats],
            "messages": [json.dumps(talk) for talk in talks],
            "segments": pl.Series([None] * len(talks), dtype=pl.String),
            "metadata": ["{}"] * len(talks),
        }
    )


def chats_of(model: Model) -> pl.DataFrame:
    names = model.index.texts
    lists = [f"1. {names[n]}\n2. {names[n + 1]}\n3. {names[n + 2]}" for n in range(8)]
    return table(
        [("lists", f"After {names[n + 3]}?", own) for n, own in enumerate(lists)]
        + [("talk", "And?", own) for own in lists]
    )


def test_a_stage_learns_by_it_in_the_sources_that_are_named(tmp_path: Path) -> None:
    model = model_of("title")
    plain = {"steps": 6, "learning_rate": 1e-3, "data": {"tokens_per_step": 128, "block_tokens": 128}}
    ends: list[dict[str, torch.Tensor]] = []
    for told in (
        None,
        {"weight": 2.0},
        {"weight": 0.0, "sources": {"lists": 2.0}},
        {"sources": {"lists": 2.0, "talk": 2.0}},
    ):
        own = deepcopy(model)
        stage = Stage.of(plain | {"objective": {} if told is None else {"unlikelihood": told}})
        train(own, chats_of(model), stage=stage, output=tmp_path / str(len(ends)))
        ends.append(copy_of(own.lm))

    def same(a: int, b: int) -> bool:
        return all(torch.equal(ends[a][name], ends[b][name]) for name in ends[a])

    assert same(1, 3)
    assert not any(same(a, b) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert "objective.unlikelihood" not in Stage().decisive()


def test_a_source_without_conversations_is_an_error() -> None:
    stage = {"steps": 1, "objective": {"unlikelihood": {"sources": {"lsits": 1.0}}}}
    with pytest.raises(ConfigError, match="names lsits, of which there is no conversation"):
        train(deepcopy(model_of("title")), chats_of(model_of("title")), stage=stage)


def test_it_makes_naming_an_item_again_rare() -> None:
    """Lists in a random order, none with an item twice: of what a model is sure of it says less again."""
    model = model_of("title")
    names, rng = model.index.texts, np.random.default_rng(0)
    few = [3, 4, 5, 7, 8, 9]
    prompt = {"role": "user", "content": "Three?"}

    def encoded(rows: list[int]) -> Row:
        talk = [prompt, {"role": "assistant", "content": "\n".join(names[row] for row in rows)}]
        tokens, flags = model.chat.encode(talk)
        return list(tokens), [float(flag) for flag in flags]

    taught = [encoded(rng.permutation(few)[:3].tolist()) for _ in range(16)]
    forest = build_forest(TokenRows.of([tokens for tokens, _ in taught], [own for _, own in taught]))
    twice = {row: encoded([row, row])[0] for row in few}
    chances = []
    for told in (None, {"weight": 8.0}):
        own = deepcopy(model)
        stage = Stage.of({"objective": {"unlikelihood": told} if told else {}})
        with learning(own.lm, stage, range(*own.new_token_range)) as learns:
            ours = NextToken.of(own.lm, stage, learns, items=Trie.build(own.item_rows))
            steps = torch.optim.Adam(ours.learning().values(), 1e-2)
            with ours.running(), ours.stepping():
                for _ in range(40):
                    cost = ours(forest)
                    steps.zero_grad()
                    (cost.sum / cost.weight).backward()  # type: ignore[no-untyped-call]
                    steps.step()
        found = []
        for row, tokens in twice.items():
            stop, size = ends_of(tokens, items_of(own))[-1], len(own.item_rows[row])
            with torch.no_grad():
                said = own.lm(torch.tensor([tokens[:stop]])).logits[0].log_softmax(-1)
            found.append(sum(float(said[at - 1, tokens[at]]) for at in range(stop - size, stop)))
        chances.append(float(np.exp(found).mean()))
    assert chances[0] > 0.005
    assert chances[1] < 0.5 * chances[0]
