from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import ModelError
from itemic.forest import TokenForest, TokenRows, build_forest
from itemic.forest import layout as layouts
from itemic.forest.context import forest_attention
from itemic.forest.layout import ForestLayout, Part, attention_parts
from itemic.forest.run import forest_hidden, forest_loss
from itemic.training.language.engine import _switch
from tests.forest.reference import gradients, tiny


def seen_by(parts: list[Part], tokens: int) -> np.ndarray:
    """How often each query (row) sees each key (column) in all parts together, and whether `first` is true of them."""
    count = np.zeros((tokens, tokens), int)
    met = np.zeros(tokens, bool)  # who was among the queries of a part before
    for part in parts:
        queries, keys = (
            np.arange(where.start, where.stop)[None] if isinstance(where, slice) else where.numpy()
            for where in (part.queries, part.keys)
        )
        sees = np.ones((*queries.shape, keys.shape[1]), bool)
        if part.causal:
            sees &= np.arange(queries.shape[1])[:, None] >= np.arange(keys.shape[1])
        if part.mask is not None:
            sees &= part.mask[:, 0].numpy() == 0
        real = np.ones(queries.size, bool)
        if part.spare is not None:
            real[part.spare.numpy()] = False
        if part.places is not None:
            assert np.flatnonzero(real).tolist() == part.places[0].tolist()
            assert queries.flatten()[real].tolist() == part.places[1].tolist()
        own = queries.flatten()[real]
        assert not met[own].any() if part.first else met[own].all()
        met[own] = True
        blind = [] if part.blind is None else part.blind.tolist()
        assert blind == np.flatnonzero(~sees.any(-1)).tolist()
        n, q, k = np.nonzero(sees & real.reshape(queries.shape)[:, :, None])
        np.add.at(count, (queries[n, q], keys[n, k]), 1)
    return count


def check(forest: TokenForest, window: int | None = None) -> None:
    parts = attention_parts(forest, torch.device("cpu"), torch.float32, window)
    assert (seen_by(parts, len(forest)) == forest.dense_mask(window)).all()


def chain_mask(forest: TokenForest, window: int) -> np.ndarray:
    """By walking up from each token, one parent at a time."""
    sees = np.zeros((len(forest), len(forest)), bool)
    for query in range(len(forest)):
        key, left = query, window
        while key >= 0 and left:
            sees[query, key] = True
            key, left = int(forest.parent[key]), left - 1
    return sees


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), max_size=14), max_size=25),
    st.sampled_from([(2,), (1, 3), (4, 8)]),
    st.sampled_from([0.0, 0.25, 0.9]),
    st.sampled_from([1, 3]),
    st.sampled_from([None, 1, 2, 3, 7, 50]),
)
def test_parts_of_any_forest_are_what_its_rule_says(
    rows: list[list[int]], widths: tuple[int, ...], little: float, step: int, window: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WIDTHS", widths), ("LITTLE", little), ("STEP", step), ("STRIP", 2 + step)):
            patch.setattr(layouts, name, value)
        check(build_forest(TokenRows.of(rows)), window)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=9), max_size=9), st.integers(1, 10))
def test_a_window_is_a_token_and_those_right_above_it(rows: list[list[int]], window: int) -> None:
    forest = build_forest(TokenRows.of(rows))
    assert (forest.dense_mask(window) == chain_mask(forest, window)).all()


def in_order_of_tokens(rows: list[list[int]]) -> TokenForest:
    """The forest of some rows with siblings by token, whatever is below them."""
    prefixes = sorted({tuple(row[: depth + 1]) for row in rows for depth in range(len(row))})
    index = {prefix: at for at, prefix in enumerate(prefixes)}
    ends = [max(at for other, at in index.items() if other[: len(p)] == p) + 1 for p in prefixes]
    columns = (
        [prefix[-1] for prefix in prefixes],
        [len(prefix) - 1 for prefix in prefixes],
        [index.get(prefix[:-1], -1) for prefix in prefixes],
        ends,
    )
    arrays = [np.array(column, np.int32) for column in columns]
    return TokenForest(*arrays, np.zeros(len(prefixes), np.float32), np.zeros(0, np.int32))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=14), max_size=25), st.sampled_from([0.0, 0.25]))
def test_another_order_of_siblings_is_right_as_well(rows: list[list[int]], little: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WIDTHS", (2,)), ("LITTLE", little), ("STEP", 2)):
            patch.setattr(layouts, name, value)
        check(in_order_of_tokens(rows))


def users(count: int, items: int, answer: int, prompt: int = 40, seed: int = 0) -> TokenForest:
    """A prompt, then users with a history of some items each, an answer at every one of them."""
    rng = np.random.default_rng(seed)
    rows, weights = [], []
    for user in range(count):
        history = rng.integers(6, 49, (rng.integers(2, items + 1), 5))
        for seen in range(1, len(history)):
            row = [*range(prompt), user, *history[:seen].ravel(), 50, *rng.integers(6, 49, answer)]
            rows.append([int(token) % 48 for token in row])
            weights.append([0.0] * (len(row) - answer) + [1.0] * answer)
    return build_forest(TokenRows.of(rows, weights))


@pytest.mark.parametrize(("count", "items", "answer"), [(1, 60, 12), (8, 40, 12), (60, 4, 3), (3, 30, 80)])
def test_parts_at_their_real_sizes(count: int, items: int, answer: int) -> None:
    forest = users(count, items, answer).padded(128)
    for window in (None, 8, 100, 200, 10_000):
        check(forest, window)


def test_a_window_longer_than_every_row_costs_nothing() -> None:
    forest = users(3, 30, 5)
    deepest = int(forest.position.max())
    device = torch.device("cpu")
    layout = ForestLayout.of(forest, device, torch.float32, "sdpa", [None, deepest + 1, deepest])
    assert layout.view(deepest + 1) is layout.view(None)
    assert layout.view(deepest) is not layout.view(None)
    with pytest.raises(ModelError, match=r"window of 5 .* it has no window"):
        layout.view(5)


def pairs(forest: TokenForest, window: int | None = None) -> int:
    """How many scores its parts compute."""
    found = 0
    for part in attention_parts(forest, torch.device("cpu"), torch.float32, window):
        sizes = [
            (1, w.stop - w.start) if isinstance(w, slice) else w.shape for w in (part.queries, part.keys)
        ]
        found += sizes[0][0] * sizes[0][1] * sizes[1][1]
    return found


def test_a_long_history_costs_less_than_all_pairs() -> None:
    forest = users(1, 60, 12)
    assert forest.dense_mask().sum() <= pairs(forest) < len(forest) ** 2 / 2


def test_a_window_spares_what_it_hides() -> None:
    forest = users(2, 400, 12)
    assert forest.dense_mask(128).sum() <= pairs(forest, 128) < pairs(forest) / 4


@pytest.mark.parametrize("family", ["qwen3", "gemma", "llama"])
def test_wanted_tokens_have_the_hidden_states_that_they_have_among_all(family: str) -> None:
    lm = tiny(family)
    forest = users(4, 12, 3)
    wanted = np.arange(3, len(forest), 5)
    with forest_attention(lm), torch.no_grad():
        whole = forest_hidden(lm, forest)
        some = forest_hidden(lm, forest, wanted=wanted)
    torch.testing.assert_close(some[wanted], whole[wanted])
    others = torch.ones(len(forest), dtype=torch.bool)
    others[wanted] = False
    assert (some[others] != whole[others]).any(), "the last layer was computed for all of them"


def test_a_block_without_weight_goes_through_all_of_the_last_layer() -> None:
    """Engines that share layers out among ranks wait for each of them in every block."""
    lm = tiny("qwen3")
    with forest_attention(lm):
        pass
    asked: list[int] = []
    lm.base_model.layers[-1].mlp.register_forward_hook(lambda _, x, __: asked.append(x[0].shape[1]))
    lm.base_model.layers[-1].mlp.down_proj.register_forward_hook(lambda _, x, __: asked.append(x[0].shape[1]))
    with forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of([[1, 2, 3]], [[0.0] * 3])))
    loss.total.backward()
    assert loss.total == 0
    assert asked == [128, 128]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_short_last_layer_changes_no_gradient(checkpointing: bool) -> None:
    lm, forest = tiny("qwen3"), users(6, 20, 3)
    if checkpointing:
        _switch(lm, "enable")({"use_reentrant": False})
    lm.train()
    with forest_attention(lm):
        pass  # it is tried out on a few tokens the first time
    asked: list[int] = []
    handle = lm.base_model.layers[-1].mlp.down_proj.register_forward_hook(
        lambda _, x, __: asked.append(x[0].shape[1])
    )
    with forest_attention(lm):
        forest_loss(lm, forest).total.backward()
    handle.remove()
    found = gradients(lm)
    lm.zero_grad()
    with forest_attention(lm), pytest.MonkeyPatch.context() as patch:
        patch.setattr("itemic.forest.run._wanted", lambda *_: None)
        forest_loss(lm, forest).total.backward()
    for name, gradient in gradients(lm).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    assert len(asked) == 1 + checkpointing
    assert max(asked) < len(forest) / 2
    assert "forward" not in vars(lm.base_model.layers[-1])
    assert "forward" not in vars(lm.base_model.layers[-1].mlp)
