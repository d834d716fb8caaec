"""Collisions taken apart by optimal transport, as LC-Rec does (Zheng et al., "Adapting large language models by
integrating collaborative semantics for recommendation", ICDE 2024, section III-B).

The items of one semantic ID spread evenly over the codes of the last level: the entropic transport plan between them
and the codes (Cuturi, "Sinkhorn distances", 2013) says which code each gets. That may meet items of other semantic IDs,
so it goes round by round and the best round counts; unlike ``reassign`` it promises nothing, what is left is reported.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from itemic.sid.prefixes import Prefixes
from itemic.sid.reassign import squared_distances

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

ROUNDS = 30  # LC-Rec's own number
EPSILON = 0.003  # of the cost's range, likewise
ITERATIONS = 50


def sinkhorn_codes(
    codes: Int32,
    vectors: Float32,
    codebooks: Sequence[Float32],
    taken: Int32 | None = None,
    *,
    epsilon: float = EPSILON,
) -> Int32:
    """Codes int32 ``[n, L]`` with fewer collisions; only last codes of items that collide change.

    Args:
        codes: int32 ``[n, L]``.
        vectors: float32 ``[n, d]``.
        codebooks: float32 ``[K_l, d]`` for every level.
        taken: int32 ``[m, L]``, semantic IDs of other items, which stay as they are.
        epsilon: weight of the entropy against costs that are scaled to [-1, 1].
    """
    codes, sizes = codes.copy(), [len(book) for book in codebooks]
    residual = vectors.astype(np.float32)
    for level, book in enumerate(codebooks[:-1]):
        residual = residual - book[codes[:, level]]
    fixed = np.zeros((0, len(sizes)), np.int32) if taken is None else taken
    best, fewest = codes.copy(), len(codes) + 1
    for _ in range(ROUNDS + 1):
        group = Prefixes.of(np.concatenate([codes, fixed]), sizes).groups[:, -1]
        crowd = np.bincount(group)
        group = group[: len(codes)]
        collided = np.flatnonzero(crowd[group] > 1)
        if len(collided) < fewest:
            best, fewest = codes.copy(), len(collided)
        if not fewest:
            break
        order = collided[np.argsort(group[collided], kind="stable")]
        for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            plan = transport_plan(squared_distances(residual[rows], codebooks[-1]), epsilon)
            codes[rows, -1] = plan.argmax(axis=1)
    return best


def transport_plan(cost: Float64, epsilon: float) -> Float64:
    """The entropic plan float64 ``[m, K]`` with equal rows and equal columns, in logarithms against underflow."""
    low, high = cost.min(), cost.max()
    middle, spread = (low + high) / 2, max((high - low) / 2, 1e-12)
    log_plan = -(cost - middle) / spread / epsilon
    for _ in range(ITERATIONS):
        log_plan = log_plan - np.logaddexp.reduce(log_plan, axis=0, keepdims=True) - np.log(cost.shape[1])
        log_plan = log_plan - np.logaddexp.reduce(log_plan, axis=1, keepdims=True) - np.log(cost.shape[0])
    plan: Float64 = np.exp(log_plan)
    return plan
