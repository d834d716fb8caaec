"""Residual k-means: each level quantizes what the levels before it left over (RQ-KMeans)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.errors import ConfigError
from itemic.sid.codebooks import ROWS, Codebooks
from itemic.sid.nearest import nearest
from itemic.sid.quantizers.kmeans import kmeans
from itemic.sid.vectors import check_vectors

Int32 = npt.NDArray[np.int32]
NOISE = 1e-6  # a residual this small against the vectors is what float32 leaves of an exact hit


class RQKMeans:
    """Residual k-means with k-means++ seeding.

    Where a level meets fewer distinct residuals than it has codes (few items, duplicates), the excess codes
    stay unused: their codebook rows repeat used ones. ``notes`` tells the codes used and the relative error
    per level.

    Args:
        n_init: runs per level, of which the best is kept.
        max_iter: iterations per run.
        seed: the random draws; level ``l`` uses ``seed + l``.
        device: ``cpu``, ``cuda``, … or ``auto`` for a GPU where there is one.
    """

    name = "rqkmeans"

    def __init__(self, *, n_init: int = 1, max_iter: int = 100, seed: int = 0, device: str = "auto") -> None:
        if n_init < 1 or max_iter < 1:
            raise ConfigError(
                f"rqkmeans with n_init {n_init} and max_iter {max_iter}", "Both are at least 1."
            )
        self.n_init = n_init
        self.max_iter = max_iter
        self.seed = seed
        self.device = torch.device(_auto() if device == "auto" else device)
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
        if not levels or min(levels) < 1:
            raise ConfigError(
                f"levels are {list(levels)}", "Give the number of codes of each level, e.g. [256, 256]."
            )
        table = check_vectors(vectors)
        residual = torch.from_numpy(table).to(self.device)
        total = float((residual - residual.mean(dim=0)).double().square().sum())
        noise = NOISE**2 * residual.square().sum(dim=1).mean()
        codes, books, errors = [], [], []
        for level, size in enumerate(levels):
            length = residual.square().sum(dim=1, keepdim=True)
            learnt = torch.where(length > noise, residual, 0.0)
            book = kmeans(learnt, size, n_init=self.n_init, max_iter=self.max_iter, seed=self.seed + level)
            code = _nearest_in_parts(residual, book)
            residual = residual - book[code]
            errors.append(float(residual.double().square().sum()) / total if total else 0.0)
            codes.append(code.cpu().numpy().astype(np.int32))
            books.append(book.cpu().numpy())
        used = [len(np.unique(code)) for code in codes]
        self.notes = {"codes_used": used, "relative_error": [round(error, 6) for error in errors]}
        return np.stack(codes, axis=1), Codebooks(books)


def _nearest_in_parts(x: Tensor, book: Tensor) -> Tensor:
    """In the parts that ``Codebooks.assign`` uses: other block shapes could round a tie to another code."""
    return torch.cat([nearest(part, book) for part in torch.split(x, ROWS)])


def _auto() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
