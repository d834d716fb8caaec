from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import ConfigError
from itemic.sid.nearest import nearest
from itemic.sid.quantizers.kmeans import _means, kmeans
from itemic.sid.quantizers.rqkmeans import RQKMeans
from tests.sid.quantizers.test_quantizers import clouds


def inertia(x: np.ndarray, book: np.ndarray) -> float:
    """The squared error by plain subtraction, in double precision."""
    table = np.stack([((x.astype(np.float64) - row) ** 2).sum(axis=1) for row in book.astype(np.float64)])
    return float(table.min(axis=0).sum())


@pytest.mark.parametrize(
    ("n", "d", "groups", "k"), [(3000, 16, 40, 40), (3000, 16, 300, 64), (1500, 8, 1, 100)]
)
def test_as_good_as_scikit_learn(n: int, d: int, groups: int, k: int) -> None:
    from sklearn.cluster import KMeans

    x = clouds(n, d, groups)
    theirs = np.mean(
        [inertia(x, KMeans(k, n_init=1, random_state=s).fit(x).cluster_centers_) for s in range(3)]
    )
    ours = np.mean(
        [inertia(x, kmeans(torch.from_numpy(x), k, tolerance=1e-4, seed=s)[0].numpy()) for s in range(3)]
    )
    assert ours <= 1.02 * theirs


def test_every_level_is_as_good_as_scikit_learns() -> None:
    from sklearn.cluster import KMeans

    x = clouds(4000, 24, 100)
    codes, books = RQKMeans(tolerance=1e-4).fit(x, (64, 64, 64))
    residual = x
    for level, book in enumerate(books.books):
        reference = KMeans(64, n_init=1, random_state=0).fit(residual)
        assert inertia(residual, book) <= 1.02 * reference.inertia_
        residual = residual - book[codes[:, level]]


def test_more_runs_are_no_worse() -> None:
    x = clouds(800, 6, 30)
    once, often = (inertia(x, kmeans(torch.from_numpy(x), 30, n_init=n)[0].numpy()) for n in (1, 6))
    assert often <= once * (1 + 1e-6)


def test_a_large_mean_costs_no_digits() -> None:
    x = clouds(500, 6, 8)
    far = torch.from_numpy(x + np.float32(300))
    book, _ = kmeans(far, 8)
    assert inertia(x, book.numpy() - 300) <= 1.02 * inertia(x, kmeans(torch.from_numpy(x), 8)[0].numpy())


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_nearest_is_the_nearest_and_the_first_of_equals(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    book = rng.integers(-2, 3, (k, 3)).astype(np.float32)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    codes = nearest(torch.from_numpy(x), torch.from_numpy(book)).numpy()
    distance = ((x[:, None].astype(np.float64) - book) ** 2).sum(axis=2)
    np.testing.assert_allclose(distance[np.arange(n), codes], distance.min(axis=1), atol=1e-5)
    for code in codes:
        assert not (book[:code] == book[code]).all(axis=1).any()


def test_an_empty_code_takes_the_worst_fitting_vector() -> None:
    x = torch.tensor([[0.0], [0.1], [9.0], [0.2]])
    book = torch.tensor([[0.0], [50.0]])
    codes = torch.zeros(4, dtype=torch.int64)
    means = _means(x, codes, (x[:, 0] - 0.0) ** 2, book)
    torch.testing.assert_close(means, torch.tensor([[2.325], [9.0]]))


def test_seeding_looks_at_a_sample_of_many_vectors() -> None:
    x = torch.from_numpy(clouds(20_000, 4, 6))
    book, codes = kmeans(x, 6)  # 4,096 of 20,000
    best = inertia(x.numpy(), kmeans(x, 6, n_init=8)[0].numpy())
    assert inertia(x.numpy(), book.numpy()) < 1.5 * best
    assert (kmeans(x, 6)[0] == book).all()
    assert (nearest(x, book) == codes).all()


@pytest.mark.parametrize("options", [{"n_init": 0}, {"max_iter": 0}])
def test_options_that_cannot_work(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        RQKMeans(**options)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_as_good_and_repeatable() -> None:
    x = clouds(6000, 32, 100)
    here = RQKMeans(device="cpu")
    there = RQKMeans(device="cuda")
    here.fit(x, (64, 64, 64))
    first = there.fit(x, (64, 64, 64))
    again = RQKMeans(device="cuda").fit(x, (64, 64, 64))
    assert (first[0] == again[0]).all()
    for mine, theirs in zip(there.notes["relative_error"], here.notes["relative_error"], strict=True):
        assert mine <= 1.02 * theirs
