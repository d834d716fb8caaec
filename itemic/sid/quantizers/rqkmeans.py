"""Residual k-means: each level quantizes what the levels before it left over (RQ-KMeans)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from itemic.sid.codebooks import Codebooks, Int32
from itemic.sid.quantizers.fitting import (
    ROWS_PER_CODE,
    check_levels,
    check_positive,
    choose_device,
    finish,
    residual_books,
    training_rows,
)
from itemic.sid.vectors import check_vectors


class RQKMeans:
    """Residual k-means with k-means++ seeding.

    Where a level meets fewer distinct residuals than it has codes (few items, duplicates), the excess codes
    stay unused: their codebook rows repeat used ones. ``notes`` tells the codes used and the relative error
    per level.

    The codebooks are learnt from at most ``rows_per_code`` random vectors for each code of the largest level; then all
    vectors get their codes some thousand at a time, so ``fit`` takes a memory map of any length.

    Args:
        n_init: runs per level, of which the best is kept.
        max_iter: iterations per run.
        tolerance: a run ends when an iteration lessens the squared error by less than this share. A smaller one
            takes longer and gains a little (1e-5 a few percent of the error, for about twice the time).
        rows_per_code: vectors to learn from, for each code of the largest level.
        seed: the random draws; level ``l`` uses ``seed + l``.
        device: ``cpu``, ``cuda``, … or ``auto`` for a GPU where there is one.
    """

    name = "rqkmeans"

    def __init__(
        self,
        *,
        n_init: int = 1,
        max_iter: int = 100,
        tolerance: float = 5e-3,
        rows_per_code: int = ROWS_PER_CODE,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        check_positive(
            self.name, n_init=n_init, max_iter=max_iter, tolerance=tolerance, rows_per_code=rows_per_code
        )
        self.n_init = n_init
        self.max_iter = max_iter
        self.tolerance = tolerance
        self.rows_per_code = rows_per_code
        self.seed = seed
        self.device = choose_device(device)
        self.notes: dict[str, Any] = {}

    def fit(self, vectors: npt.NDArray[np.floating], levels: Sequence[int]) -> tuple[Int32, Codebooks]:
        """Learn the codebooks.

        Args:
            vectors: ``[n, d]``.
            levels: codes of each level.

        Returns:
            codes int32 ``[n, L]``, those that :meth:`Codebooks.assign` gives, and the codebooks.

        Raises:
            DataError: the vectors are empty or have NaN or infinite values.
            ConfigError: no levels, or a level without codes.
        """
        sizes = check_levels(levels)
        table = check_vectors(vectors)
        rows = training_rows(table, self.rows_per_code * max(sizes), self.seed)
        learnt, _ = residual_books(
            torch.from_numpy(rows).to(self.device),
            sizes,
            n_init=self.n_init,
            max_iter=self.max_iter,
            tolerance=self.tolerance,
            seed=self.seed,
        )
        books = Codebooks([book.cpu().numpy() for book in learnt])
        codes, self.notes = finish(table, books, self.device)
        return codes, books
