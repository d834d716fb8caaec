from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from itemic.errors import ModelError
from itemic.forest import TokenRows, attention, build_forest
from itemic.forest.context import forest_attention
from itemic.forest.run import forest_hidden, forest_loss
from itemic.forest.support import check_supported
from tests.forest.reference import FAMILIES, SPECIAL, WINDOW, gradients, row_by_row, special, tiny


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


@pytest.mark.parametrize("backend", ["sdpa", "dense"])
@pytest.mark.parametrize("name", SPECIAL)
def test_windows_caps_sinks_and_scales_are_those_of_row_by_row_training(name: str, backend: str) -> None:
    lm = special(name)
    rows, weights = conversations(users=4, longest=180)
    wanted, slopes = row_by_row(lm, rows, weights)
    lm.zero_grad()
    with forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of(rows, weights)), backend=backend, chunk=7)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(wanted.item(), rel=1e-5)
    close(gradients(lm), slopes, 2e-5)


@pytest.mark.parametrize("name", ["mistral", "caps", "sinks", "latent heads"])
def test_flex_attention_is_given_the_same_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, and not compiled: all that flex_attention does on a CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    lm = special(name)
    rows, weights = conversations(users=2, longest=60)
    monkeypatch.setattr(attention, "_flex", lambda: flex_attention)
    with torch.no_grad(), forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of(rows, weights)), backend="flex")
    wanted, _ = row_by_row(lm, rows, weights)
    assert loss.total.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["caps", "sinks", "kept keywords"])
def test_the_other_way_without_fused_kernels(
    name: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores a few queries at a time, as on devices without our kernel, and layers computed twice."""
    lm = special(name)
    rows, weights = conversations(users=3, longest=100)
    wanted, slopes = row_by_row(lm, rows, weights)
    lm.zero_grad()
    monkeypatch.setattr(attention, "fused", lambda *_: False)
    monkeypatch.setattr(attention, "CELLS", 1 << 12)
    if checkpointing:
        lm.train()
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    with forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of(rows, weights)))
        loss.total.backward()
    assert loss.total.item() == pytest.approx(wanted.item(), rel=1e-5)
    close(gradients(lm), slopes, 2e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=9),
    st.sampled_from(sorted(FAMILIES) + sorted(SPECIAL)),
    st.randoms(use_true_random=False),
)
def test_any_forest_equals_its_rows(rows: list[list[int]], family: str, random: object) -> None:
    """In float64, as some gradients of such short rows are zero in theory, and float32 leaves what doesn't cancel."""
    windows = {"sliding_window": 3} if "sliding_window" in SPECIAL.get(family, ("", {}))[1] else {}
    lm = (tiny(family) if family in FAMILIES else special(family, **windows)).double()
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
    state = MambaForCausalLM(MambaConfig(**small, state_size=4))
    encoder = BertLMHeadModel(BertConfig(**small, num_attention_heads=2))
    closed = BloomForCausalLM(BloomConfig(vocab_size=20, hidden_size=16, n_layer=2, n_head=2))
    for lm, words in (
        (state, "carry a state"),
        (encoder, "bert.*other results"),
        (closed, "code of its own"),
    ):
        with pytest.raises(ModelError, match=words), forest_attention(lm):
            pass


def test_a_configuration_that_says_another_thing_than_the_model_does() -> None:
    window = special("mixed windows")
    window.config.sliding_window = WINDOW + 1
    with pytest.raises(ModelError, match=r"sliding_window: 10, but .*self_attn has a window of 9"):
        check_supported(window)
    layers = special("mixed windows")
    layers.config.layer_types = [*layers.config.layer_types[1:], "full_attention"]
    with pytest.raises(ModelError, match=r"other results over a token forest: logits differ by \d"):
        check_supported(layers)
    none = special("mixed windows")
    none.config.layer_types = ["full_attention"] * 3
    with pytest.raises(ModelError, match=r"window of 3 tokens, by the configuration it has no window"):
        check_supported(none)
    capped = special("caps")
    capped.config.final_logit_softcapping = None
    check_supported(capped)  # the model reads it there as well
    for layer in capped.base_model.layers:
        layer.self_attn.attn_logit_softcapping = 1.0
    check_supported(special("caps"))
    broken = special("scaled logits")
    broken.base_model.layers[0].self_attn.head_dim = 7
    with pytest.raises(ModelError, match="the forward pass of this granite model fails"):
        check_supported(broken)


def test_a_trial_leaves_the_model_as_it_was() -> None:
    lm = special("caps").train()
    before = lm.config.to_dict(), lm.config._attn_implementation
    check_supported(lm)
    assert (lm.config.to_dict(), lm.config._attn_implementation) == before
    assert lm.training
    assert [layer.self_attn.sliding_window for layer in lm.base_model.layers] == [WINDOW, None, WINDOW]
