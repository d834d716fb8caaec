"""Residual finite scalar quantization: each level rounds a few directions to a fixed grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.errors import ConfigError
from itemic.sid.codebooks import Codebooks, Int32
from itemic.sid.quantizers.fitting import (
    NOISE,
    ROWS_PER_CODE,
    check_levels,
    check_positive,
    choose_device,
    finish,
    training_rows,
    zero_noise,
)
from itemic.sid.vectors import check_vectors

STEPS = torch.linspace(0.02, 4.0, 200)  # grid steps that are tried, in standard deviations


class RFSQ:
    """Residual FSQ on principal directions.

    Finite scalar quantization (Mentzer et al., "Finite scalar quantization: VQ-VAE made simple", 2024) has no learnt
    codebook: a vector's coordinates are rounded to a few evenly spaced values each, and the code is the tuple of them.
    Here a level's coordinates are the principal directions of what the levels before it left over, so that the grids
    nest as in residual quantization; a size such as 256 is split into value counts such as 4 × 4 × 4 × 4 or 16 × 4 ×
    4, and of all splits the level takes the one, with the grid steps, that leaves the least error. ``notes`` names it
    (``grids``). All codes of a grid exist, whether or not an item uses them.

    There is no random draw but that of the rows to learn from, where there are more than ``rows_per_code`` allows.

    Args:
        max_values: values along one direction; a size with a larger prime factor is refused.
        rows_per_code: vectors to learn from, for each code of the largest level.
        seed: draws the rows to learn from.
        device: ``cpu``, ``cuda``, … or ``auto`` for a GPU where there is one.
    """

    name = "rfsq"

    def __init__(
        self,
        *,
        max_values: int = 16,
        rows_per_code: int = ROWS_PER_CODE,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        check_positive(self.name, max_values=max_values - 1, rows_per_code=rows_per_code)
        self.max_values = max_values
        self.rows_per_code = rows_per_code
        self.seed = seed
        self.device = choose_device(device)
        self.notes: dict[str, Any] = {}

    def fit(self, vectors: npt.NDArray[np.floating], levels: Sequence[int]) -> tuple[Int32, Codebooks]:
        """Codes int32 ``[n, L]``, those that :meth:`Codebooks.assign` gives, and the codebooks.

        Raises:
            DataError: the vectors are empty or have NaN or infinite values.
            ConfigError: no levels, a level without codes, or a size that no grid has.
        """
        sizes = check_levels(levels)
        table = check_vectors(vectors)
        splits = [self._splits(size, table.shape[1]) for size in sizes]
        rows = training_rows(table, self.rows_per_code * max(sizes), self.seed)
        residual = torch.from_numpy(rows).to(self.device)
        noise = NOISE**2 * torch.linalg.vecdot(residual, residual).mean()
        books, grids = [], []
        for choices in splits:
            mean = residual.mean(dim=0)
            residual -= mean
            zero_noise(residual, noise)
            book, grid, rebuilt = _grid_level(residual, choices)
            residual -= rebuilt
            books.append(book + mean)
            grids.append(list(grid))
        codebooks = Codebooks([book.cpu().numpy() for book in books])
        codes, self.notes = finish(table, codebooks, self.device)
        self.notes["grids"] = grids
        return codes, codebooks

    def _splits(self, size: int, dims: int) -> list[tuple[int, ...]]:
        """All ways to split a level's size into value counts, largest first.

        Raises:
            ConfigError: there is none; the nearest sizes that have one are named.
        """
        found = list(_factors(size, self.max_values, dims))
        if not found:
            near = [_next_size(size, step, self.max_values, dims) for step in (-1, 1)]
            names = " or ".join(str(other) for other in near if other is not None)
            raise ConfigError(
                f"rfsq with a level of {size} codes, which is no product of at most {dims} numbers up to "
                f"{self.max_values}",
                f"Ask for {names} codes, or allow more max_values.",
            )
        return found


def _factors(size: int, largest: int, count: int) -> Iterator[tuple[int, ...]]:
    """Products of at most ``count`` non-increasing factors from 2 to ``largest`` that give ``size``."""
    if size == 1:
        yield ()
        return
    if count == 0:
        return
    for first in range(min(size, largest), 1, -1):
        if size % first == 0:
            for rest in _factors(size // first, first, count - 1):
                yield (first, *rest)


def _next_size(size: int, step: int, largest: int, count: int) -> int | None:
    while 1 <= size + step <= largest**count:
        size += step
        if next(_factors(size, largest, count), None) is not None:
            return size
    return None


def _grid_level(x: Tensor, choices: Sequence[tuple[int, ...]]) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """The best grid of centred ``x``: its rows ``[K, d]``, its value counts, and ``x`` rounded to it."""
    count = max(len(choice) for choice in choices)
    if count == 0:
        return torch.zeros(1, x.shape[1], device=x.device), (), torch.zeros_like(x)
    axes = torch.linalg.eigh((x.T @ x).double()).eigenvectors.flip(1)[:, :count].float()
    # an eigenvector's sign is the library's choice: fix it, so that the same vectors give the same codes
    peak = axes.abs().argmax(dim=0)
    axes = axes * torch.where(axes.gather(0, peak[None])[0] < 0, -1.0, 1.0)
    y = x @ axes
    values = sorted({value for choice in choices for value in choice})
    fits = [{value: _best_step(y[:, axis], value) for value in values} for axis in range(count)]

    def gain(choice: tuple[int, ...]) -> float:
        return sum(fits[axis][value][1] for axis, value in enumerate(choice))

    grid = max(choices, key=gain)
    lines = [_line(value, fits[axis][value][0]).to(x.device) for axis, value in enumerate(grid)]
    points = torch.cartesian_prod(*lines).reshape(-1, len(grid))
    rounded = [line[(y[:, axis, None] - line).abs().argmin(dim=1)] for axis, line in enumerate(lines)]
    mine = axes[:, : len(grid)]
    return points @ mine.T, grid, torch.stack(rounded, dim=1) @ mine.T


def _line(values: int, step: float) -> Tensor:
    """Evenly spaced values around 0."""
    return (torch.arange(values) - (values - 1) / 2) * step


def _best_step(y: Tensor, values: int) -> tuple[float, float]:
    """The grid step with the least squared error along one direction, and the error it takes away."""
    spread = float(y.double().square().mean().sqrt())
    if spread == 0:
        return 0.0, 0.0
    half = (values - 1) / 2
    best, gain = 0.0, -float("inf")
    for step in (STEPS * spread).tolist():
        rounded = ((y / step + half).round().clamp(0, values - 1) - half) * step
        taken = float((y.double().square() - (y - rounded).double().square()).sum())
        if taken > gain:
            best, gain = step, taken
    return best, gain
