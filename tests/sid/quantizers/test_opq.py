from __future__ import annotations

import numpy as np
import pytest

from itemic.errors import ConfigError
from itemic.sid.quantizers.opq import OPQ, OPQResidual
from itemic.sid.quantizers.rqkmeans import RQKMeans
from tests.sid.quantizers.test_quantizers import clouds


def correlated(n: int = 3000, d: int = 16) -> np.ndarray:
    mixing = np.random.default_rng(1).normal(size=(d, d)) * np.linspace(2, 0.1, d)
    return (clouds(n, d, 60) @ mixing).astype(np.float32)


def test_levels_code_dimensions_of_their_own() -> None:
    _, books = OPQ().fit(correlated(), (16, 16, 16))
    used = [np.flatnonzero(book.any(axis=0)) for book in books.books]
    assert sorted(np.concatenate(used).tolist()) == list(range(16))
    rotation = books.space.state["rotation"]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(16), atol=1e-5)


def test_the_rotation_pays() -> None:
    x = correlated()
    learnt = OPQ()
    learnt.fit(x, (32, 32, 32, 32))
    plain = 0.0
    for part in np.array_split(np.arange(16), 4):
        codes, books = RQKMeans().fit(x[:, part], (32,))
        plain += float(((x[:, part] - books.rebuild(codes)) ** 2).sum())
    plain /= float(((x - x.mean(axis=0)) ** 2).sum())
    assert learnt.notes["relative_error"][-1] < 0.95 * plain


def test_as_good_as_faiss() -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    x = correlated()
    theirs = faiss.IndexPreTransform(faiss.OPQMatrix(16, 4), faiss.IndexPQ(16, 4, 5))
    theirs.train(x)
    rebuilt = theirs.sa_decode(theirs.sa_encode(x))
    error = ((x - rebuilt) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
    ours = OPQ()
    ours.fit(x, (32, 32, 32, 32))
    assert ours.notes["relative_error"][-1] <= 1.05 * error


def test_more_levels_than_dimensions() -> None:
    with pytest.raises(ConfigError, match="4 product levels of vectors with 3 dimensions"):
        OPQ().fit(clouds(50, 3, 4), (4, 4, 4, 4))


def test_residual_levels_come_first() -> None:
    x = correlated()
    mixed, plain = OPQResidual(product_levels=2), RQKMeans()
    _, books = mixed.fit(x, (32, 16, 16, 16))
    plain.fit(x, (32, 16))
    assert mixed.notes["relative_error"][:2] == pytest.approx(plain.notes["relative_error"], rel=0.05)
    last = [set(np.flatnonzero(book.any(axis=0)).tolist()) for book in books.books[2:]]
    assert last[0].isdisjoint(last[1])
    assert len(last[0] | last[1]) == 16
