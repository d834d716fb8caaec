from __future__ import annotations

import numpy as np
import pytest

from itemic.sid.quantizers.balanced import Balanced
from itemic.sid.quantizers.rqkmeans import RQKMeans
from tests.sid.quantizers.test_quantizers import clouds


@pytest.mark.parametrize(
    ("n", "levels"), [(601, (20, 7)), (97, (96, 2)), (12, (5, 40)), (1000, (64, 64, 64))]
)
def test_sizes_are_exact_at_every_level(n: int, levels: tuple[int, ...]) -> None:
    codes, _ = Balanced().fit(clouds(n, 8, 15), levels)
    for code, size in zip(codes.T, levels, strict=True):
        counts = np.bincount(code, minlength=size)
        assert counts.min() >= n // size
        assert counts.max() <= -(-n // size)


def test_sizes_are_exact_over_all_items_when_learnt_from_some() -> None:
    codes, _ = Balanced(rows_per_code=30).fit(clouds(5000, 8, 15), (32, 32))
    for code in codes.T:
        counts = np.bincount(code, minlength=32)
        assert counts.min() >= 156
        assert counts.max() <= 157


def test_duplicates_and_constants_still_have_exact_sizes() -> None:
    for table in (np.ones((50, 3), np.float32), np.repeat(clouds(10, 4, 3), 30, axis=0)):
        codes, _ = Balanced().fit(table, (8, 8))
        for code in codes.T:
            counts = np.bincount(code, minlength=8)
            assert counts.max() - counts.min() <= 1


def test_codebook_rows_are_the_means_of_their_items() -> None:
    x = clouds(300, 6, 10)
    codes, books = Balanced().fit(x, (10, 10))
    residual = x
    for level, book in enumerate(books.books):
        means = np.stack([residual[codes[:, level] == code].mean(axis=0) for code in range(10)])
        np.testing.assert_allclose(book, means, atol=1e-4)
        residual = residual - book[codes[:, level]]


def test_balance_costs_little_where_the_clusters_are_balanced() -> None:
    rng = np.random.default_rng(0)
    x = (np.repeat(rng.normal(size=(20, 8)), 30, axis=0) * 3 + 0.1 * rng.normal(size=(600, 8))).astype(
        np.float32
    )
    free, even = RQKMeans(n_init=5), Balanced()
    free.fit(x, (20,))
    even.fit(x, (20,))
    assert even.notes["relative_error"][0] < free.notes["relative_error"][0] + 0.15


@pytest.mark.parametrize(("n", "d", "groups"), [(600, 8, 20), (601, 16, 60)])
def test_as_good_as_constrained_k_means(n: int, d: int, groups: int) -> None:
    package = pytest.importorskip("k_means_constrained", reason="k-means-constrained is not installed")
    x = clouds(n, d, groups)
    theirs, ours = [], []
    for seed in range(3):
        bounds = {"size_min": n // 20, "size_max": -(-n // 20)}
        theirs.append(package.KMeansConstrained(20, **bounds, n_init=1, random_state=seed).fit(x).inertia_)
        codes, books = Balanced(seed=seed).fit(x, (20,))
        ours.append(float(((x - books.rebuild(codes)) ** 2).sum()))
    assert np.mean(ours) <= 1.02 * np.mean(theirs)
