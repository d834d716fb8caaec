from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from itemic.errors import ConfigError
from itemic.sid.cooccurrence import _pairs, cooccurrence_vectors, fuse, ppmi
from tests.sid.helpers import make_dataset

HISTORIES = {"u": [0, 1, 2, 1, 4, 5], "v": [3, 3, 0, 5, 4], "w": [2]}


def test_pairs_equal_a_loop() -> None:
    train = make_dataset(["t"] * 7, HISTORIES).sequences
    expected = np.zeros((7, 7))
    for history in HISTORIES.values():
        for i, a in enumerate(history):
            for j, b in enumerate(history):
                if a != b and 1 <= abs(i - j) <= 3:
                    expected[a, b] += 1 / abs(i - j)
    np.testing.assert_allclose(_pairs(train, 7, 3).toarray(), expected)


def test_ppmi_equals_its_formula() -> None:
    counts = np.array([[0, 4, 1.0], [4, 0, 0], [1, 0, 0]])
    p, row = counts / counts.sum(), counts.sum(axis=1)
    context = row**0.75 / (row**0.75).sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(np.log(p / (p.sum(axis=1)[:, None] * context[None])), 0)
    np.testing.assert_allclose(ppmi(sparse.csr_matrix(counts)).toarray(), expected)


@pytest.mark.parametrize("dims", [3, 500])
def test_items_of_the_same_users_are_near(dims: int) -> None:
    rng = np.random.default_rng(0)
    histories = {f"u{k}": (10 * (k % 3) + rng.permutation(10)).tolist() for k in range(90)}
    train = make_dataset(["t"] * 31, histories).sequences
    vectors = cooccurrence_vectors(train, 31, dims)
    assert vectors.dtype == np.float32
    assert (vectors[30] == 0).all()  # nobody met it
    np.testing.assert_allclose(np.linalg.norm(vectors[:30], axis=1), 1, atol=1e-5)
    near = vectors[:30] @ vectors[:30].T
    same = np.arange(30)[:, None] // 10 == np.arange(30)[None] // 10
    assert near[same].mean() > near[~same].mean() + 0.5
    assert (vectors == cooccurrence_vectors(train, 31, dims)).all()


def test_only_training_counts() -> None:
    """The last two items of each user are targets of the split: changing them changes no vector."""
    one = make_dataset(["t"] * 6, {"u": [0, 1, 2, 3, 4], "v": [1, 2, 0, 3, 5]})
    other = make_dataset(["t"] * 6, {"u": [0, 1, 2, 5, 5], "v": [1, 2, 0, 4, 3]})
    first, second = (cooccurrence_vectors(data.train, 6, 3) for data in (one, other))
    assert (first == second).all()
    assert (cooccurrence_vectors(one.sequences, 6, 3) != first).any()


def test_nothing_to_learn_from() -> None:
    assert (cooccurrence_vectors(make_dataset(["t"] * 3, {"u": [1]}).sequences, 3, 2) == 0).all()
    assert (cooccurrence_vectors(make_dataset(["t"] * 3).sequences, 3, 2) == 0).all()


def test_fusing_weighs_the_cosines() -> None:
    rng = np.random.default_rng(0)
    text, together = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 5, 4)))
    text, together = text.astype(np.float32), together.astype(np.float32)
    together[4] = 0
    fused = fuse(text, together, 0.3)
    np.testing.assert_allclose(
        (fused @ fused.T)[:4, :4], (0.7 * text @ text.T + 0.3 * together @ together.T)[:4, :4], atol=1e-6
    )
    np.testing.assert_allclose(fused[4], [*text[4], 0, 0, 0, 0], atol=1e-6)
    assert fuse(text, together, 0) is text
    with pytest.raises(ConfigError, match="collaborative_weight"):
        fuse(text, together, 1.2)
    with pytest.raises(ConfigError, match="window"):
        cooccurrence_vectors(make_dataset(["t"] * 3).sequences, 3, window=0)
