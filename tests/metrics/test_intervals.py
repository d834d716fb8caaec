from __future__ import annotations

import numpy as np
import pytest

from itemic.errors import ConfigError
from itemic.metrics import bootstrap
from itemic.metrics import intervals as module


def slow_bootstrap(values: np.ndarray, groups: np.ndarray, draws: int) -> tuple[float, float]:
    """Draw groups with replacement, one resample after the other."""
    rng = np.random.default_rng(7)
    names = np.unique(groups)
    members = {name: values[groups == name] for name in names}
    means = [
        np.concatenate([members[name] for name in rng.choice(names, len(names))]).mean() for _ in range(draws)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_agrees_with_the_normal_approximation() -> None:
    hits = np.repeat([1.0, 0.0], [100, 900])
    spread = 1.96 * np.sqrt(0.1 * 0.9 / 1000)
    assert bootstrap(hits, draws=4000) == pytest.approx((0.1 - spread, 0.1 + spread), abs=0.002)


def test_agrees_with_resampling_one_by_one() -> None:
    values = np.random.default_rng(1).exponential(size=200)
    assert bootstrap(values, draws=4000) == pytest.approx(
        slow_bootstrap(values, np.arange(200), 4000), rel=0.02
    )


def test_groups_are_resampled_whole() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    values = rng.integers(0, 2, 60)[groups].astype(float)  # a user's requests agree: fewer independent values
    mine = bootstrap(values, groups=groups, draws=4000)
    assert mine == pytest.approx(slow_bootstrap(values, groups, 4000), rel=0.05)
    alone = bootstrap(values, draws=4000)
    assert mine[1] - mine[0] > 1.5 * (alone[1] - alone[0])


def test_batches_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=50)
    whole = bootstrap(values, seed=5, draws=200)
    monkeypatch.setattr(module, "CELLS", 50 * 7)
    assert bootstrap(values, seed=5, draws=200) == whole


def test_same_seed_same_interval_and_a_constant_has_none() -> None:
    values = np.random.default_rng(4).normal(size=100)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert bootstrap(np.full(9, 0.25)) == (0.25, 0.25)


def test_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(300):
        low, high = bootstrap((rng.random(400) < 0.2).astype(float), seed=trial, draws=300, level=0.9)
        inside += low <= 0.2 <= high
    assert 0.84 <= inside / 300 <= 0.96


@pytest.mark.parametrize(
    "arguments", [{"values": []}, {"values": [1.0], "level": 1.0}, {"values": [1.0], "draws": 0}]
)
def test_bad_arguments_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        bootstrap(**arguments)  # type: ignore[arg-type]


def test_groups_must_fit_the_values() -> None:
    with pytest.raises(ConfigError, match="2 groups for 3 values"):
        bootstrap(np.zeros(3), groups=np.array([0, 1]))
