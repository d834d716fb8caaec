"""Product quantization after a learnt rotation (OPQ), and its mix with residual k-means."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.errors import ConfigError
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
from itemic.sid.quantizers.kmeans import kmeans, lloyd
from itemic.sid.spaces import Rotation
from itemic.sid.vectors import check_vectors


class OPQ:
    """Optimized product quantization: each level codes its own dimensions of the rotated vectors.

    The rotation begins with the principal directions, dealt out so that the levels' variances have like products, and
    is then refined in turn with the codebooks (Ge, He, Ke and Sun, "Optimized product quantization", 2013, its
    parametric and its non-parametric solution). Levels stand in the order of the variance they hold. The codebooks are
    as wide as the vectors, with zeros in the other levels' dimensions, so they add up as everywhere.

    Args:
        rotations: turns of codebooks and rotation.
        max_iter: k-means iterations of each level at the end.
        tolerance: as in ``rqkmeans``.
        rows_per_code: vectors to learn from, for each code of the largest level.
        seed: the random draws; level ``l`` uses ``seed + l``.
        device: ``cpu``, ``cuda``, … or ``auto`` for a GPU where there is one.
    """

    name = "opq"

    def __init__(
        self,
        *,
        rotations: int = 10,
        max_iter: int = 100,
        tolerance: float = 5e-3,
        rows_per_code: int = ROWS_PER_CODE,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        check_positive(
            self.name,
            rotations=rotations,
            max_iter=max_iter,
            tolerance=tolerance,
            rows_per_code=rows_per_code,
        )
        self.rotations = rotations
        self.max_iter = max_iter
        self.tolerance = tolerance
        self.rows_per_code = rows_per_code
        self.seed = seed
        self.device = choose_device(device)
        self.notes: dict[str, Any] = {}

    def fit(self, vectors: npt.NDArray[np.floating], levels: Sequence[int]) -> tuple[Int32, Codebooks]:
        """Codes int32 ``[n, L]``, those that :meth:`Codebooks.assign` gives, and the codebooks.

        Raises:
            DataError: the vectors are empty or have NaN or infinite values.
            ConfigError: no levels, a level without codes, or more levels than the vectors have dimensions.
        """
        sizes = check_levels(levels)
        table = check_vectors(vectors)
        return self._fit(table, sizes, residual_levels=0)

    def _fit(
        self, table: npt.NDArray[np.float32], sizes: tuple[int, ...], residual_levels: int
    ) -> tuple[Int32, Codebooks]:
        product = sizes[residual_levels:]
        if len(product) > table.shape[1]:
            raise ConfigError(
                f"{self.name} with {len(product)} product levels of vectors with {table.shape[1]} dimensions",
                "Each product level needs a dimension of its own: ask for fewer levels.",
            )
        rows = training_rows(table, self.rows_per_code * max(sizes), self.seed)
        x = torch.from_numpy(rows).to(self.device)
        mean = x.mean(dim=0)
        x -= mean
        options: dict[str, Any] = {"max_iter": self.max_iter, "tolerance": self.tolerance}
        books: list[Tensor] = []
        if residual_levels:
            books, _ = residual_books(x, sizes[:residual_levels], seed=self.seed, **options)
            books[0] = books[0] + x.mean(dim=0)  # what is left over has mean zero, as the rotation takes it
            x -= x.mean(dim=0)
        rotation, own = self._rotation(x, product)
        books = [book @ rotation for book in books]
        y = x @ rotation
        for level, (size, dims) in enumerate(zip(product, own, strict=True), start=residual_levels):
            wide = torch.zeros(size, table.shape[1], device=self.device)
            wide[:, dims] = kmeans(y[:, dims].contiguous(), size, seed=self.seed + level, **options)[0]
            books.append(wide)
        space = Rotation(rotation.cpu().numpy(), mean.cpu().numpy())
        codebooks = Codebooks([book.cpu().numpy() for book in books], space)
        codes, self.notes = finish(table, codebooks, self.device)
        return codes, codebooks

    def _rotation(self, x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """An orthogonal ``[d, d]`` and the rotated dimensions of each level."""
        variance, axes = torch.linalg.eigh((x.T @ x).double() / len(x))
        variance, axes = variance.flip(0).clamp_min(0), axes.flip(1)
        dims = _deal(variance.cpu().numpy(), len(sizes))
        rotation = axes[:, torch.tensor(np.concatenate(dims), device=x.device)].float()
        bounds = np.cumsum([0, *(len(group) for group in dims)])
        own = [torch.arange(a, b, device=x.device) for a, b in itertools.pairwise(bounds)]
        if len(sizes) == 1:  # one level codes all dimensions: no rotation changes a distance
            return rotation, own
        books: list[Tensor | None] = [None] * len(sizes)
        for _ in range(self.rotations):
            y = x @ rotation
            rebuilt = torch.empty_like(y)
            for level, (size, part) in enumerate(zip(sizes, own, strict=True)):
                mine = y[:, part].contiguous()
                start = books[level]
                if start is None:
                    book, codes = kmeans(mine, size, max_iter=3, seed=self.seed + level)
                else:
                    book, codes, _ = lloyd(mine, start, 1, self.tolerance)
                books[level] = book
                rebuilt[:, part] = book[codes]
            left, _, right = torch.linalg.svd((x.T @ rebuilt).double())
            rotation = (left @ right).float()
        return rotation, own


def _deal(variance: npt.NDArray[np.float64], groups: int) -> list[list[int]]:
    """Directions to groups of nearly equal numbers, the next largest to the group with the least product so far.

    The groups come in the order of their variance, largest first.
    """
    room = [len(part) for part in np.array_split(np.arange(len(variance)), groups)]
    logs = np.log(variance + 1e-12 * max(float(variance.sum()), 1e-30))
    dealt: list[list[int]] = [[] for _ in range(groups)]
    weight = np.zeros(groups)
    for direction in range(len(variance)):
        free = [group for group in range(groups) if len(dealt[group]) < room[group]]
        group = min(free, key=lambda g: (weight[g], g))
        dealt[group].append(direction)
        weight[group] += logs[direction] - logs.min()
    return sorted(dealt, key=lambda group: -float(variance[group].sum()))


class OPQResidual(OPQ):
    """Residual k-means first, then OPQ of what it left over: coarse levels that nest, fine levels side by side.

    The tokenizer of OneSearch ("OneSearch: a preliminary exploration of the unified end-to-end generative framework
    for e-commerce search", 2025, section on RQ-OPQ): the levels of a hierarchy say what items share, the product
    levels what is their own.

    Args:
        product_levels: how many of the last levels are OPQ's; at least one level stays before them.
        rotations, max_iter, tolerance, rows_per_code, seed, device: as in ``opq``.
    """

    name = "opq-residual"

    def __init__(
        self,
        *,
        product_levels: int = 2,
        rotations: int = 10,
        max_iter: int = 100,
        tolerance: float = 5e-3,
        rows_per_code: int = ROWS_PER_CODE,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        check_positive(self.name, product_levels=product_levels)
        self.product_levels = product_levels
        super().__init__(
            rotations=rotations,
            max_iter=max_iter,
            tolerance=tolerance,
            rows_per_code=rows_per_code,
            seed=seed,
            device=device,
        )

    def fit(self, vectors: npt.NDArray[np.floating], levels: Sequence[int]) -> tuple[Int32, Codebooks]:
        """As in ``opq``; with one level it is residual k-means."""
        sizes = check_levels(levels)
        table = check_vectors(vectors)
        product = min(self.product_levels, max(len(sizes) - 1, 1))
        return self._fit(table, sizes, residual_levels=len(sizes) - product)
