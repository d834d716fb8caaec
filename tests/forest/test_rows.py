from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.forest.rows import TokenRows

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=8)


@given(ROWS, st.data())
def test_take_gives_the_named_rows(rows: list[list[int]], data: st.DataObject) -> None:
    packed = TokenRows.of(rows, [[float(t) for t in row] for row in rows])
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10)) if rows else []
    taken = packed.take(np.array(chosen, np.int64))
    assert [taken[i].tolist() for i in range(len(taken))] == [rows[i] for i in chosen]
    assert taken.weights is not None
    assert taken.weights.tolist() == [float(t) for i in chosen for t in rows[i]]


@given(ROWS, ROWS)
def test_concat_keeps_all_rows_in_order(first: list[list[int]], second: list[list[int]]) -> None:
    both = TokenRows.concat([TokenRows.of(first), TokenRows.of(second)])
    assert [both[i].tolist() for i in range(len(both))] == first + second


def test_concat_refuses_half_a_set_of_weights() -> None:
    with pytest.raises(ValueError, match="weights"):
        TokenRows.concat([TokenRows.of([[1]], [[1.0]]), TokenRows.of([[1]])])
