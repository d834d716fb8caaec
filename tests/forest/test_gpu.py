"""The forest on a CUDA device, against rows that go one by one through the plain model on the CPU."""

from __future__ import annotations

import pytest
import torch

from itemic.forest import TokenRows, build_forest
from itemic.forest.context import forest_attention
from itemic.forest.run import NewRows, forest_loss
from tests.forest.reference import FAMILIES, SPECIAL, gradients, row_by_row, special, tiny
from tests.forest.test_attention import conversations

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("backend", ["flex", "sdpa", "dense"])
@pytest.mark.parametrize("family", [*FAMILIES, *SPECIAL])
def test_loss_and_gradients_equal_row_by_row_training(family: str, backend: str) -> None:
    lm = tiny(family) if family in FAMILIES else special(family)
    rows, weights = conversations(users=5, longest=200)
    wanted, slopes = row_by_row(lm, rows, weights)
    lm.zero_grad()
    lm.to("cuda")
    with forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of(rows, weights)), backend=backend)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(wanted.item(), rel=1e-4)
    for name, gradient in gradients(lm).items():
        gap = (gradient.cpu() - slopes[name]).norm() / slopes[name].norm().clamp_min(1e-6)
        assert gap < 5e-3, name  # float32 products may run in tf32 there


@pytest.mark.parametrize("backend", ["flex", "sdpa"])
def test_bfloat16_is_near(backend: str) -> None:
    lm = tiny("qwen3")
    rows, weights = conversations(users=3, longest=150)
    wanted, _ = row_by_row(lm, rows, weights)
    lm.to("cuda")
    with torch.autocast("cuda", torch.bfloat16), forest_attention(lm):
        loss = forest_loss(lm, build_forest(TokenRows.of(rows, weights)), backend=backend)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(wanted.item(), rel=5e-3)


def test_learning_rows_get_the_slice_of_the_full_gradient() -> None:
    lm = tiny("qwen3").to("cuda")
    forest = build_forest(TokenRows.of([[3, 41, 42, 7], [3, 44, 5, 41]], [[0, 1, 1, 1]] * 2))
    with forest_attention(lm):
        forest_loss(lm, forest).total.backward()
    wanted = lm.get_input_embeddings().weight.grad[40:48].clone()
    wanted_head = lm.get_output_embeddings().weight.grad[40:48].clone()
    lm.zero_grad()
    lm.requires_grad_(False)
    rows = torch.nn.Parameter(lm.get_input_embeddings().weight.data[40:48])
    own = torch.nn.Parameter(lm.get_output_embeddings().weight.data[40:48])
    with forest_attention(lm):
        forest_loss(lm, forest, new_rows=NewRows(40, rows, own)).total.backward()
    torch.testing.assert_close(rows.grad, wanted, atol=1e-4, rtol=1e-2)
    torch.testing.assert_close(own.grad, wanted_head, atol=1e-4, rtol=1e-2)
