"""Collaborative item vectors: which items the same users meet close to each other.

Positive pointwise mutual information of item pairs, factorised by a truncated SVD: what item2vec approximates
(Levy and Goldberg, "Neural word embedding as implicit matrix factorization", 2014).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD

from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.sid.vectors import Float32, check_vectors, normalize

SMOOTHING = 0.75  # of the context distribution, as in word2vec: rare items would get too high a PMI


def cooccurrence_vectors(
    train: Sequences, n_items: int, dims: int = 64, *, window: int = 10, seed: int = 0
) -> Float32:
    """Vectors of length 1 from the training sequences: float32 ``[n_items, min(dims, n_items)]``.

    Two events of one user at a distance of ``s ≤ window`` count ``1/s``. Items that training never shows
    beside another one get a row of zeros.

    Args:
        train: ``Dataset.train``; nothing else may be given, or the vectors know the targets.
        n_items: items of the catalogue.
        dims: length of the vectors.
        window: how far apart two events may be.
        seed: for the randomised SVD.
    """
    if dims < 1 or window < 1:
        raise ConfigError(f"co-occurrence with dims {dims} and window {window}", "Both are at least 1.")
    association = ppmi(_pairs(train, n_items, window))
    if not association.nnz:
        return np.zeros((n_items, min(dims, n_items)), np.float32)
    if dims >= n_items:
        left, scale, _ = np.linalg.svd(association.toarray(), full_matrices=False)
        vectors = normalize(left * np.sqrt(scale))
    else:
        svd = TruncatedSVD(dims, n_iter=5, random_state=seed)
        scaled = svd.fit_transform(association)
        vectors = normalize(scaled / np.sqrt(np.maximum(svd.singular_values_, 1e-12)))
    vectors[np.diff(association.indptr) == 0] = 0  # what a decomposition leaves there is noise
    return vectors


def _pairs(train: Sequences, n_items: int, window: int) -> sparse.csr_matrix:
    """Symmetric pair counts ``[n_items, n_items]``, an item with itself left out."""
    user = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    left, right, weight = [], [], []
    for distance in range(1, window + 1):
        a, b = train.items[:-distance], train.items[distance:]
        pair = (user[:-distance] == user[distance:]) & (a != b)
        left.append(a[pair])
        right.append(b[pair])
        weight.append(np.full(int(pair.sum()), 1 / distance))
    rows, columns, values = np.concatenate(left), np.concatenate(right), np.concatenate(weight)
    half = sparse.coo_matrix((values, (rows, columns)), shape=(n_items, n_items)).tocsr()
    return half + half.T


def ppmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """``max(0, log p(i, j) / (p(i) p'(j)))`` of symmetric counts, ``p'`` smoothed by the exponent .75."""
    table = counts.tocoo()
    total = np.asarray(counts.sum(axis=1)).ravel()
    context = total**SMOOTHING
    with np.errstate(divide="ignore"):
        expected = total[table.row] * context[table.col] / max(context.sum(), 1e-300)
    value = np.maximum(np.log(table.data / expected), 0.0)
    kept = value > 0
    return sparse.csr_matrix((value[kept], (table.row[kept], table.col[kept])), shape=counts.shape)


def fuse(text: Float32, collaborative: Float32, weight: float) -> Float32:
    """Text and collaborative vectors side by side, float32 ``[n, d + e]``, rows of length 1.

    ``weight`` is the collaborative share of the squared length; an item without collaborative vector keeps
    its text alone.

    Raises:
        ConfigError: the weight is not between 0 and 1.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"collaborative_weight is {weight}", "Give a share from 0 (text alone) to 1.")
    if weight == 0:
        return text
    parts = [text * np.float32((1 - weight) ** 0.5), collaborative * np.float32(weight**0.5)]
    return normalize(check_vectors(np.concatenate(parts, axis=1)))
