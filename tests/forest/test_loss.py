from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.forest import TokenRows, build_forest
from itemic.forest.context import forest_attention
from itemic.forest.loss import weighted_cross_entropy
from itemic.forest.run import NewRows, forest_loss
from itemic.forest.unwanted import Avoid
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


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 9), st.sampled_from([0.0, 0.1]), st.floats(0, 9), st.integers(0, 99)
)
def test_what_is_unwanted_costs_its_probability(
    n: int, chunk: int, smoothing: float, factor: float, seed: int
) -> None:
    torch.manual_seed(seed)
    hidden, head = torch.randn(n, 6, requires_grad=True), torch.randn(11, 6, requires_grad=True)
    targets, weights, factors = torch.randint(0, 11, (n,)), torch.rand(n), factor * torch.rand(n)
    unwanted = torch.rand(n, 11) < 0.3
    unwanted[torch.arange(n), targets] = False
    row, token = unwanted.nonzero(as_tuple=True)
    avoid = Avoid(row.numpy().astype(np.int64), row, token, factors)
    logits = hidden @ head.T
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    losses = losses - factors * torch.log(1 - (logits.softmax(-1) * unwanted).sum(-1))
    wanted = torch.autograd.grad(2.5 * (losses * weights).sum(), [hidden, head])
    total, each = weighted_cross_entropy(
        hidden, head, targets, weights, chunk=chunk, label_smoothing=smoothing, avoid=avoid
    )
    torch.testing.assert_close(each, losses.detach(), atol=1e-4, rtol=1e-4)
    for found, right in zip(torch.autograd.grad(2.5 * total, [hidden, head]), wanted, strict=True):
        torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-3)


def test_what_is_unwanted_and_certain_stays_a_number() -> None:
    hidden, head = (
        torch.tensor([[1.0]], requires_grad=True),
        torch.tensor([[0.0], [500.0]], requires_grad=True),
    )
    row = torch.tensor([0])
    avoid = Avoid(row.numpy(), row, torch.tensor([1]), torch.tensor([2.0]))
    total, _ = weighted_cross_entropy(hidden, head, torch.tensor([0]), torch.ones(1), avoid=avoid)
    slopes = torch.autograd.grad(total, [hidden, head])
    assert total.item() > 500
    torch.testing.assert_close(
        slopes[1], torch.tensor([[-1.0], [3.0]])
    )  # the token's own, and twice its probability


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
