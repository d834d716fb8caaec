"""Advantages against their definitions, one answer at a time."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from itemic.rl.advantages import ADVANTAGES, signal

ROWS = st.lists(
    st.lists(st.sampled_from([0.0, 0.25, 1.0, -2.0, math.nan]), min_size=4, max_size=4).filter(
        lambda row: not all(map(math.isnan, row))
    ),
    min_size=1,
    max_size=5,
)


@given(ROWS)
def test_they_are_what_they_are_defined_as(rows: list[list[float]]) -> None:
    rewards = np.array(rows)
    found = {name: make(rewards) for name, make in ADVANTAGES.items()}
    every = [x for row in rows for x in row if not math.isnan(x)]
    middle = sum(every) / len(every)
    spread = math.sqrt(sum((x - middle) ** 2 for x in every) / len(every))
    for group, row in enumerate(rows):
        own = [x for x in row if not math.isnan(x)]
        mean = sum(own) / len(own)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in own) / len(own))
        assert signal(rewards)[group] == (len(set(own)) > 1)
        for place, x in enumerate(row):
            if math.isnan(x):
                assert all(math.isnan(each[group, place]) for each in found.values())
                continue
            others = (sum(own) - x) / (len(own) - 1) if len(own) > 1 else x
            wanted = {
                "group": (x - mean) / deviation if deviation > 1e-6 else 0.0,
                "centred": x - mean,
                "leave-one-out": x - others,
                "step": (x - middle) / spread if spread > 1e-6 else 0.0,
            }
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name][group, place], value, atol=1e-9)
