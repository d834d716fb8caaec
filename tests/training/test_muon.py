"""Muon against singular values, and against torch's own with its iteration done by them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from itemic.training.muon import Muon, orthogonal

SHAPES = [(6, 4), (4, 6), (5, 5), (1, 7)]


def by_singular_values(matrix: Tensor, *given: object) -> Tensor:
    """What the iteration makes of a matrix: the polynomial of its singular values, in float64."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm().clamp(min=1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    found: Tensor = (left * values) @ right
    return found.to(matrix.dtype)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000), st.sampled_from([1e-6, 1.0, 1e6]))
def test_the_iteration_is_a_polynomial_of_singular_values(m: int, n: int, seed: int, scale: float) -> None:
    matrix = torch.randn(m, n, generator=torch.Generator().manual_seed(seed)) * scale
    found = orthogonal(matrix)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, by_singular_values(matrix), rtol=2e-4, atol=2e-4)


def test_a_well_conditioned_matrix_comes_near_an_orthogonal_one() -> None:
    matrix = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.6 < values.min() <= values.max() < 1.3


def test_nothing_stays_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", by_singular_values)
    draw = torch.Generator().manual_seed(1)
    ours = [torch.nn.Parameter(torch.randn(shape, generator=draw).to(dtype)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in ours]
    one = Muon(ours, lr=0.05, weight_decay=0.3, momentum=0.9)
    two = torch.optim.Muon(theirs, lr=0.05, weight_decay=0.3, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for own, other in zip(ours, theirs, strict=True):
            own.grad = torch.randn(own.shape, generator=draw).to(dtype)
            other.grad = own.grad.clone()
        ours[-1].grad = theirs[-1].grad = (
            theirs[-1].grad if step else None
        )  # one that had none in the first step
        one.step()
        two.step()  # type: ignore[no-untyped-call]
    close = 1e-4 if dtype == torch.float32 else 2e-2
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=close, atol=close)
        assert one.state[own].keys() == two.state[other].keys() == {"momentum_buffer"}
        assert torch.equal(one.state[own]["momentum_buffer"], two.state[other]["momentum_buffer"])


def test_a_closure_computes_the_gradient() -> None:
    weight = torch.nn.Parameter(torch.eye(3))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.0, momentum=0.9)

    def closure() -> None:
        torch.autograd.backward(weight.square().sum())

    optimizer.step(closure)
    assert weight.diagonal().max() < 1
    torch.testing.assert_close(weight.grad, 2 * torch.eye(3))


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="2D"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1, weight_decay=0.0, momentum=0.9)
