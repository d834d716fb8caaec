from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from itemic.errors import ConfigError
from itemic.sid.quantizers.rfsq import RFSQ, _factors
from tests.sid.quantizers.test_quantizers import clouds

X = clouds(600, 12, 20)


@pytest.mark.parametrize("size", [1, 2, 12, 64, 96, 256, 17, 34])
def test_factors_are_all_splits(size: int) -> None:
    brute = {
        split
        for count in range(5)
        for split in itertools.product(range(16, 1, -1), repeat=count)
        if math.prod(split) == size and list(split) == sorted(split, reverse=True)
    }
    assert set(_factors(size, 16, 4)) == brute


def test_books_are_grids() -> None:
    quantizer = RFSQ()
    _, books = quantizer.fit(X, (24, 24))
    for book, grid in zip(books.books, quantizer.notes["grids"], strict=True):
        assert math.prod(grid) == len(book)
        corner = book.reshape(*grid, 12)
        for axis in range(len(grid)):  # neighbours along an axis all lie the same step apart
            steps = np.diff(corner, axis=axis).reshape(-1, 12)
            np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-4)


def test_the_grid_is_as_good_as_the_best_of_a_search() -> None:
    """One direction, uniform: the best step of 8 values is an eighth of the range."""
    x = np.linspace(-1, 1, 4001, dtype=np.float32)[:, None]
    _, books = RFSQ().fit(x, (8,))
    steps = np.diff(np.sort(books.books[0][:, 0]))
    np.testing.assert_allclose(steps, 0.25, rtol=0.05)


@pytest.mark.parametrize(("size", "near"), [(257, "256 or 260"), (37, "36 or 39"), (2 * 19, "36 or 39")])
def test_sizes_without_a_grid_name_the_nearest(size: int, near: str) -> None:
    with pytest.raises(ConfigError, match=f"level of {size} codes") as caught:
        RFSQ().fit(X, (size,))
    assert near in caught.value.remedy


def test_more_values_allow_a_prime() -> None:
    codes, _ = RFSQ(max_values=19).fit(X, (19,))
    assert codes.max() < 19
