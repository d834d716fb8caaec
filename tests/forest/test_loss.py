from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.forest import TokenRows, build_forest
from itemic.forest.context import forest_attention
from itemic.forest.loss import weighted_cross_entropy
from itemic.forest.run import NewRows, forest_loss
from tests.forest.reference import tiny


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 12), st.integers(1, 9), st.sampled_from([0.0, 0.1, 0.5]), st.booleans(), st.integers(0, 99)
)
def test_equals_full_logits(n: int, chunk: int, smoothing: float, with_bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    hidden, head = torch.randn(n, 6, requires_grad=True), torch.randn(11, 6, requires_grad=True)
    bias = torch.randn(11, requires_grad=True) if with_bias else None
    targets, weights = torch.randint(0, 11, (n,)), torch.rand(n)
    leaves = [hidden, head] if bias is None else [hidden, head, bias]
    losses = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(hidden, head, bias), targets, reduction="none", label_smoothing=smoothing
    )
    wanted = torch.autograd.grad(2.5 * (losses * weights).sum(), leaves)
    total, each = weighted_cross_entropy(
        hidden, head, targets, weights, bias=bias, chunk=chunk, label_smoothing=smoothing
    )
    torch.testing.assert_close(each, losses.detach(), atol=1e-5, rtol=1e-4)
    assert not each.requires_grad
    assert total.item() == pytest.approx((losses * weights).sum().item(), rel=1e-4, abs=1e-5)
    for found, right in zip(torch.autograd.grad(2.5 * total, leaves), wanted, strict=True):
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-4)


def test_a_second_backward_pass_is_refused() -> None:
    hidden = torch.randn(3, 4, requires_grad=True)
    total, _ = weighted_cross_entropy(hidden, torch.randn(5, 4), torch.tensor([0, 1, 2]), torch.ones(3))
    (2 * total).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass only"):
        total.backward()


def test_evaluating_needs_no_gradient() -> None:
    with torch.no_grad():
        total, _ = weighted_cross_entropy(
            torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 1, 2]), torch.ones(3)
        )
    assert torch.isfinite(total)


@pytest.mark.parametrize("family", ["qwen3", "gemma"])
@pytest.mark.parametrize("tied", [True, False])
def test_learning_rows_get_the_slice_of_the_full_gradient(family: str, tied: bool) -> None:
    lm = tiny(family, tie_word_embeddings=tied)
    forest = build_forest(TokenRows.of([[3, 41, 42, 7], [3, 44, 5, 41]], [[0, 1, 1, 1]] * 2))
    with forest_attention(lm):
        forest_loss(lm, forest).total.backward()
    table, head = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
    wanted = [table.grad[40:48].clone(), head.grad[40:48].clone()]
    lm.zero_grad()
    lm.requires_grad_(False)
    rows = torch.nn.Parameter(table.data[40:48])
    own_head = None if tied else torch.nn.Parameter(head.data[40:48])
    with forest_attention(lm):
        forest_loss(lm, forest, new_rows=NewRows(40, rows, own_head)).total.backward()
    assert rows.data_ptr() == table.data[40:48].data_ptr()
    torch.testing.assert_close(rows.grad, wanted[0], atol=1e-5, rtol=1e-4)
    if own_head is not None:
        torch.testing.assert_close(own_head.grad, wanted[1], atol=1e-5, rtol=1e-4)
    assert all(p.grad is None for p in lm.parameters())
