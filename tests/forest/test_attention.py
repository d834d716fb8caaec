from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertLMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from itemic.errors import ModelError
from itemic.forest import TokenRows, build_forest
from itemic.forest.attention import forest_attention
from itemic.forest.run import forest_hidden, forest_loss
from tests.forest.reference import FAMILIES, SHAPE, gradients, row_by_row, tiny


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, gradient in wanted.items():
        scale = gradient.abs().max().clamp_min(1e-3)
        assert (found[name] - gradient).abs().max() <= tolerance * scale, name


def conversations(users: int, longest: int, seed: int = 0) -> tuple[list[list[int]], list[list[float]]]:
    """Rows as next-item training has them: a system prompt, a growing history, an answer that counts."""
    rng = np.random.default_rng(seed)
    rows, weights = [], []
    for _ in range(users):
        history = rng.integers(6, 49, rng.integers(5, longest)).tolist()
        for k in range(1, 6):
            row = [1, 2, 3, 4, 5, *history[: len(history) * k // 5], 49, *rng.integers(6, 49, 3).tolist()]
            rows.append(row)
            weights.append([0.0] * (len(row) - 3) + [1.0, 1.0, 0.5])
    return rows, weights


@pytest.mark.parametrize("backend", ["sdpa", "dense"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_row_by_row_training(family: str, backend: str) -> None:
    lm = tiny(family)
    rows, weights = conversations(users=5, longest=200)  # subtrees below and above the window of neighbours
    wanted, slopes = row_by_row(lm, rows, weights)
    lm.zero_grad()
    with forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of(rows, weights)), backend=backend, chunk=7)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert loss.weight == pytest.approx(sum(map(sum, weights)))
    close(gradients(lm), slopes, 2e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=9),
    st.sampled_from(sorted(FAMILIES)),
    st.randoms(use_true_random=False),
)
def test_any_forest_equals_its_rows(rows: list[list[int]], family: str, random: object) -> None:
    """In float64, as some gradients of such short rows are zero in theory, and float32 leaves what doesn't cancel."""
    lm = tiny(family).double()
    weights = [[random.choice([0.0, 1.0, 0.5]) for _ in row] for row in rows]  # type: ignore[attr-defined]
    wanted, slopes = row_by_row(lm, rows, weights)
    lm.zero_grad()
    with forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of(rows, weights)))
    if loss.total.requires_grad:
        loss.total.backward()
    assert loss.total.item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-6)
    close(gradients(lm), slopes, 1e-5)


def test_a_gradient_that_is_zero_in_theory_is_zero() -> None:
    """A token that sees itself alone has nothing to choose from: its query and key don't matter."""
    lm = tiny("qwen3").double()
    with forest_attention(lm):
        forest_loss(lm, build_forest(TokenRows.of([[0, 1]], [[0.0, 1.0]]))).total.backward()
    for name, gradient in gradients(lm).items():
        if "q_proj" in name or "k_proj" in name:
            assert gradient.abs().max() < 1e-14, name


def test_bfloat16_is_near() -> None:
    lm = tiny("qwen3")
    rows, weights = conversations(users=3, longest=150)
    wanted, _ = row_by_row(lm, rows, weights)
    with torch.autocast("cpu", torch.bfloat16), forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of(rows, weights)))
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(wanted.item(), rel=5e-3)


def test_the_models_own_attention_comes_back_even_after_an_error() -> None:
    lm = tiny("qwen3")
    before = lm.config._attn_implementation
    with pytest.raises(RuntimeError, match="without `forest=`"), forest_attention(lm):
        lm(torch.tensor([[1, 2, 3]]), use_cache=False)
    assert lm.config._attn_implementation == before


def test_hidden_states_are_those_of_the_rows() -> None:
    lm = tiny("llama").eval()
    rows = [[1, 2, 3, 4], [1, 2, 9], [8, 7]]
    forest = build_forest(TokenRows.of(rows))
    with torch.no_grad(), forest_attention(lm):
        hidden = forest_hidden(lm, forest)
    for row, leaf in zip(rows, forest.row_leaf, strict=True):
        with torch.no_grad():
            alone = lm.base_model(torch.tensor([row]), use_cache=False).last_hidden_state[0, -1]
        torch.testing.assert_close(hidden[int(leaf)], alone, atol=1e-5, rtol=1e-4)


def test_models_that_a_forest_cannot_mask_are_refused() -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 20, "intermediate_size": 32}
    window = MistralForCausalLM(MistralConfig(**(SHAPE | {"sliding_window": 4})))
    state = MambaForCausalLM(MambaConfig(**small, state_size=4))
    encoder = BertLMHeadModel(BertConfig(**small, num_attention_heads=2))
    for lm, words in ((window, "sliding window"), (state, "mamba"), (encoder, "bert")):
        with pytest.raises(ModelError, match=words), forest_attention(lm):
            pass
