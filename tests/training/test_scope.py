"""Inside an item only what some item has there competes: against a slow loss of each row under plain transformers."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from itemic import train
from itemic.errors import ConfigError
from itemic.forest import TokenRows, build_forest
from itemic.forest.build import chain_forest
from itemic.model import Model, new_model
from itemic.sid.index import ItemIndex
from itemic.sid.trie import Trie
from itemic.training.language.learning import learning
from itemic.training.language.next_token import NextToken
from itemic.training.language.scope import Mentions, item_scope
from itemic.training.language.stage import NextTokenSettings, Stage
from tests.control.models import TINY, TITLES, model_of
from tests.training.helpers import copy_of

Row = tuple[list[int], list[float]]


def rows_of(model: Model) -> list[Row]:
    """Chats that name items on both sides, rows with a common beginning, and text that only begins as an item does."""
    names = model.index.texts
    rng = np.random.default_rng(0)
    found: list[Row] = []
    for _ in range(5):
        a, b, c, d = rng.integers(0, len(names), 4).tolist()
        talk = [
            {"role": "user", "content": f"After {names[a]}?"},
            {"role": "assistant", "content": f"1. {names[b]}\n2. {names[c]}{names[d]}, so {{to say}}"},
        ]
        tokens, own = model.chat.encode(talk)
        found += [
            (list(tokens), [float(flag) for flag in own]),
            (list(tokens)[:-3], [1.0] * (len(tokens) - 3)),
        ]
    item = model.item_rows[2].tolist()
    text = model.chat.encode([{"role": "user", "content": "so"}])[0]
    found.append(([*text, *item[:2]], [1.0] * (len(text) + 2)))  # cut off within an item
    found.append(([*text, *item[:2], *text], [1.0] * (2 * len(text) + 2)))
    found.append((item, [0.5] * len(item)))
    return found


def competing(tokens: list[int], model: Model) -> list[set[int] | None]:
    """For each token who competes there; None for everybody. One place and one item after the other."""
    items = [model.item_rows[row].tolist() for row in range(len(model.item_rows))]
    found: list[set[int] | None] = [None] * len(tokens)
    at = 0
    while at < len(tokens):
        own = next((item for item in items if tokens[at : at + len(item)] == item), None)
        if own is None:
            at += 1
            continue
        for depth in range(1, len(own)):
            found[at + depth] = {
                item[depth] for item in items if item[:depth] == own[:depth] and len(item) > depth
            }
        at += len(own)
    return found


def slow_loss(model: Model, rows: list[Row], smoothing: float) -> torch.Tensor:
    total = torch.zeros(())
    for tokens, weights in rows:
        logits = model.lm(torch.tensor([tokens]), use_cache=False).logits[0]
        for at, who in list(enumerate(competing(tokens, model)))[1:]:
            places = sorted(who) if who is not None else range(logits.shape[1])
            kept = logits[at - 1][list(places)].log_softmax(0)
            goal = kept[list(places).index(tokens[at])]
            total = total - weights[at] * ((1 - smoothing) * goal + smoothing * kept.mean())
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("kind", "what"),
    [("sid", "all"), ("sid", "lora"), ("sid", "embeddings"), ("title", "all"), ("title", "lora")],
)
def test_equals_a_slow_loss_of_each_row(kind: str, what: str, smoothing: float) -> None:
    model = deepcopy(model_of(kind))
    rows = rows_of(model)
    forest = build_forest(TokenRows.of([tokens for tokens, _ in rows], [weights for _, weights in rows]))
    assert len(forest) < forest.row_tokens  # some of it is shared
    objective = {"scope": "items", "label_smoothing": smoothing}
    stage = Stage.of({"train": what, "objective": objective, "engine": {"minibatch_size": 7}})
    trie = Trie.build(model.item_rows)
    with learning(model.lm, stage, range(*model.new_token_range)) as learns:
        if what == "lora":  # a fresh adapter adds nothing
            torch.manual_seed(1)
            with torch.no_grad():
                for name, weight in learns.named.items():
                    if "lora_B" in name:
                        weight.normal_(std=0.05)
        ours = NextToken.of(model.lm, stage, learns, items=trie)
        with ours.running(), ours.stepping():
            cost = ours(forest)
            named = ours.learning()
            found = dict(zip(named, torch.autograd.grad(cost.sum, list(named.values())), strict=True))
        table: Any = model.lm.get_input_embeddings().weight
        table.requires_grad_(True)
        wanted = slow_loss(model, rows, smoothing)
        assert cost.sum.item() == pytest.approx(wanted.item(), rel=1e-5)
        assert cost.weight == pytest.approx(sum(sum(weights[1:]) for _, weights in rows))
        right = {
            name: torch.autograd.grad(wanted, table if name == "input_rows" else weight, retain_graph=True)[0]
            for name, weight in named.items()
        }
        for name, slope in found.items():
            whole = right[name]
            if name == "input_rows":
                whole = whole[model.new_token_range[0] : model.new_token_range[1]]
            torch.testing.assert_close(slope, whole, atol=1e-5 * float(whole.abs().max()) + 1e-6, rtol=1e-4)
    everything = NextToken(model.lm)
    with everything.running(), everything.stepping():
        assert everything(forest).sum.item() > cost.sum.item()


def test_an_item_without_a_rival_costs_nothing_and_still_weighs() -> None:
    """All semantic IDs begin apart, so that behind the first code nothing is open."""
    codes = np.array([[n, 3 - n] for n in range(4)], np.int32)
    index = ItemIndex([f"i{n}" for n in range(4)], codes, (4, 4), "minionerec", {}, None, TITLES[:4])
    model = new_model("qwen3-pico", index, TITLES[:4], seed=0, vocab_size=300, **TINY)  # type: ignore[arg-type]
    tokens = model.item_rows[1].tolist()
    forest = chain_forest(TokenRows.of([[5, *tokens]], [[0.0, 0.0, 2.0]]))
    ours = NextToken(model.lm, settings=NextTokenSettings(scope="items"), items=Trie.build(model.item_rows))
    with ours.running(), ours.stepping():
        cost = ours(forest)
    assert (cost.sum.item(), cost.weight) == (0.0, 2.0)
    cost.sum.backward()
    assert not any(weight.grad is not None and weight.grad.abs().sum() for weight in model.lm.parameters())


def test_of_names_that_overlap_the_first_counts() -> None:
    trie = Trie.build(TokenRows.of([[1, 2, 3], [1, 2, 4], [2, 5], [2, 6]]))
    forest = chain_forest(TokenRows.of([[9, 1, 2, 3, 2, 6], [1, 2, 5], [1, 2, 2, 5]]))
    scope = item_scope(Mentions.of(forest, trie), trie)
    stands = [trie.token[place] if place >= 0 else -1 for place in scope.place]
    assert stands == [-1, -1, 1, 2, -1, 2, -1, -1, 2, -1, -1, -1, 2]
    assert scope.widths(np.arange(6)).tolist() == [0, 0, 1, 2, 0, 2]


def table(chats: list[tuple[str, str]]) -> pl.DataFrame:
    talks = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in chats]
    return pl.DataFrame(
        {
            "uuid": [str(n) for n in range(len(talks))],
            "source": ["talk"] * len(talks),
            "messages": [json.dumps(talk) for talk in talks],
            "segments": pl.Series([None] * len(talks), dtype=pl.String),
            "metadata": ["{}"] * len(talks),
        }
    )


def test_a_stage_learns_by_it_and_is_another_one(tmp_path: Path) -> None:
    model = model_of("sid")
    names = model.index.texts
    talks = table([(f"After {names[n]}?", names[n + 1]) for n in range(12)])
    plain = {"steps": 3, "learning_rate": 1e-3, "data": {"tokens_per_step": 128, "block_tokens": 128}}
    ends: list[dict[str, torch.Tensor]] = []
    for objective in ({}, {"scope": "items"}):
        own = deepcopy(model)
        stage = Stage.of(plain | {"objective": objective})
        train(own, talks, stage=stage, output=tmp_path / str(len(ends)))
        ends.append(copy_of(own.lm))
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert "objective.scope" not in Stage().decisive()
    assert Stage.of({"objective": {"scope": "items"}}).decisive()["objective.scope"] == "items"


def test_codes_alone_have_no_items() -> None:
    index = ItemIndex.of_codes((4, 4), "onerec")
    model = new_model("qwen3-pico", index, TITLES, seed=0, vocab_size=300, **TINY)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="knows codes alone"):
        train(model, table([("a", "b")]), stage={"steps": 1, "objective": {"scope": "items"}})
