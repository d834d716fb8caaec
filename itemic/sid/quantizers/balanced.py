"""Balanced residual k-means: at every level all codes hold equally many items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.sid.codebooks import Codebooks, Int32
from itemic.sid.quantizers.fitting import (
    NOISE,
    ROWS_PER_CODE,
    check_levels,
    check_positive,
    choose_device,
    describe,
    zero_noise,
)
from itemic.sid.quantizers.kmeans import means, sample_rows
from itemic.sid.quantizers.transport import balance_prices, exact_sizes, raise_prices, sizes_near
from itemic.sid.vectors import ROWS, check_vectors

BLUR = (
    0.05,
    0.006,
)  # temperature of the first and the last Sinkhorn iteration, as a share of the mean distance
SINKHORN_SHARE = 0.6  # of Lloyd's iterations; the others find their prices by auction
SINKHORN_STEPS = 5
AUCTION_ROUNDS = (3, 10)  # per iteration, and before the sizes are made exact


class Balanced:
    """Residual k-means whose groups have ``⌊n/K⌋`` or ``⌈n/K⌉`` items at every level, over all items.

    Constrained k-means (Bradley, Bennett and Demiriz, "Constrained k-means clustering", 2000), as the levels of
    RQ-KMeans: Lloyd's iterations in which each item takes the code where squared distance plus the code's price is
    least, with prices that keep the sizes near equal; then the sizes are made exact by cheapest paths
    (:mod:`itemic.sid.quantizers.transport`), and each codebook row is the mean of its items.

    The codes of ``fit`` are balanced; :meth:`Codebooks.assign` gives new vectors the nearest code and knows no sizes,
    so it may give an item of ``fit`` another code. Duplicates may be parted: sizes come first.

    Needs memory for one level's distances, ``4 n K`` bytes, and for the residuals, ``4 n d``.

    Args:
        max_iter: iterations per level.
        rows_per_code: vectors that centres and prices are learnt from, for each code of the largest level; the exact
            sizes are over all.
        seed: the random draws; level ``l`` uses ``seed + l``.
        device: ``cpu``, ``cuda``, … or ``auto`` for a GPU where there is one.
    """

    name = "balanced"

    def __init__(
        self,
        *,
        max_iter: int = 17,
        rows_per_code: int = ROWS_PER_CODE,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        check_positive(self.name, max_iter=max_iter, rows_per_code=rows_per_code)
        self.max_iter = max_iter
        self.rows_per_code = rows_per_code
        self.seed = seed
        self.device = choose_device(device)
        self.notes: dict[str, Any] = {}

    def fit(self, vectors: npt.NDArray[np.floating], levels: Sequence[int]) -> tuple[Int32, Codebooks]:
        """Balanced codes int32 ``[n, L]`` of vectors ``[n, d]``, and the codebooks.

        Raises:
            DataError: the vectors are empty or have NaN or infinite values.
            ConfigError: no levels, or a level without codes.
        """
        sizes = check_levels(levels)
        table = check_vectors(vectors)
        residual = torch.from_numpy(np.array(table, np.float32)).to(self.device)
        noise = NOISE**2 * torch.linalg.vecdot(residual, residual).mean()
        codes, books = [], []
        for level, size in enumerate(sizes):
            zero_noise(residual, noise)
            code, centres = self._level(residual, size, self.seed + level)
            book = means(residual, code, centres)
            for rows, chosen in zip(torch.split(residual, ROWS), torch.split(code, ROWS), strict=True):
                rows -= book[chosen]
            codes.append(code.cpu().numpy().astype(np.int32))
            books.append(book.cpu().numpy())
        coded, codebooks = np.stack(codes, axis=1), Codebooks(books)
        self.notes = describe(table, coded, codebooks)
        return coded, codebooks

    def _level(self, x: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Codes int64 ``[n]`` of exact sizes, and the centres that they were chosen by."""
        mean = x.mean(dim=0)
        x = x - mean
        draws = torch.Generator().manual_seed(seed)
        learnt = sample_rows(x, self.rows_per_code * size, draws)
        book, prices = self._lloyd(learnt, _seeds(learnt, size, draws))
        cost = half_distances(x, book)
        prices = raise_prices(cost, prices, AUCTION_ROUNDS[1])
        code = (cost + prices).min(dim=1).indices.cpu().numpy()
        wanted = sizes_near(np.bincount(code, minlength=size), len(x))
        exact = exact_sizes(cost.cpu().numpy(), code, wanted)
        return torch.from_numpy(exact).to(x.device), book + mean

    def _lloyd(self, x: Tensor, book: Tensor) -> tuple[Tensor, Tensor]:
        """Lloyd's iterations under prices that bring the sizes ever closer to equal ones."""
        prices = torch.zeros(len(book), device=x.device)
        length = float(torch.linalg.vecdot(x, x).mean())
        early = math.ceil(SINKHORN_SHARE * self.max_iter)
        blurs = np.geomspace(*BLUR, early)
        for step in range(self.max_iter):
            cost = half_distances(x, book)
            if step < early:
                distance = max(length + 2 * float(cost.amin(dim=1).mean()), 1e-12)
                prices = balance_prices(cost, prices, float(blurs[step]) * distance / 2, SINKHORN_STEPS)
            else:
                prices = raise_prices(cost, prices, AUCTION_ROUNDS[0])
            book = means(x, (cost + prices).min(dim=1).indices, book)
        return book, prices


def _seeds(x: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """``size`` random rows: as dense as the vectors are, which is where groups of equal size have their centres.

    (k-means++ seeds by distance, so it spends codes on outliers that here can't have groups of their own.) Rows are
    drawn anew where there are fewer of them.
    """
    turns = -(-size // len(x))
    order = torch.cat([torch.randperm(len(x), generator=draws) for _ in range(turns)])[:size]
    return x[order.to(x.device)]


def half_distances(x: Tensor, book: Tensor) -> Tensor:
    """``|b|²/2 - x·b``, ``[n, K]``: half the squared distance, less ``|x|²/2`` that no choice changes."""
    return torch.addmm(book.square().sum(dim=1) / 2, x, book.T, alpha=-1)
