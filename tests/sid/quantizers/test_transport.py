from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from itemic.sid.quantizers.transport import balance_prices, exact_sizes, raise_prices, sizes_near


def cheapest(cost: np.ndarray, sizes: np.ndarray) -> float:
    """The least cost for those sizes, by the Hungarian method on one column per place."""
    wide = np.repeat(cost.astype(np.float64), sizes, axis=1)
    rows, columns = linear_sum_assignment(wide)
    return float(wide[rows, columns].sum())


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_exact_sizes_cost_the_least_possible(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.normal(size=(n, k)).astype(np.float32)
    codes = (cost + rng.normal(size=k).astype(np.float32)).argmin(
        axis=1
    )  # any prices: cheapest for its sizes
    sizes = sizes_near(np.bincount(codes, minlength=k), n)
    exact = exact_sizes(cost, codes, sizes)
    assert (np.bincount(exact, minlength=k) == sizes).all()
    assert cost[np.arange(n), exact].sum() == pytest.approx(cheapest(cost, sizes), abs=1e-3)


@given(st.integers(0, 500), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_sizes_near(n: int, k: int, seed: int) -> None:
    counts = np.random.default_rng(seed).multinomial(n, np.full(k, 1 / k))
    sizes = sizes_near(counts, n)
    assert sizes.sum() == n
    assert set(sizes.tolist()) <= {n // k, -(-n // k)}
    large = counts[sizes > n // k]
    assert not len(large) or large.min() >= counts[sizes == n // k].max(initial=0)


def crowded() -> torch.Tensor:
    """Costs of 400 items under which most want the same of 8 codes."""
    draws = torch.Generator().manual_seed(0)
    return torch.randn(400, 8, generator=draws) + torch.arange(8) / 2


def surplus(cost: torch.Tensor, prices: torch.Tensor) -> int:
    counts = torch.bincount((cost + prices).argmin(dim=1), minlength=cost.shape[1])
    return int((counts - 50).clamp_min(0).sum())


def test_prices_spread_the_choices() -> None:
    cost, none = crowded(), torch.zeros(8)
    before = surplus(cost, none)
    assert surplus(cost, balance_prices(cost, none, 0.1, 30)) < before / 8
    assert surplus(cost, raise_prices(cost, none, 40)) < before / 8


def test_prices_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from itemic.sid.quantizers import transport

    whole = balance_prices(crowded(), torch.zeros(8), 0.1, 10)
    monkeypatch.setattr(transport, "KEPT", 500)
    torch.testing.assert_close(
        balance_prices(crowded(), torch.zeros(8), 0.1, 10), whole, rtol=1e-4, atol=1e-4
    )


def test_equal_costs_are_divided() -> None:
    cost = np.zeros((10, 4), np.float32)
    codes = np.zeros(10, np.int64)
    exact = exact_sizes(cost, codes, sizes_near(np.bincount(codes, minlength=4), 10))
    assert sorted(np.bincount(exact).tolist()) == [2, 2, 3, 3]
