"""What the quantizers share around their fits: checks, the device, training rows, codes and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.errors import ConfigError
from itemic.sid.codebooks import Codebooks, Int32
from itemic.sid.quantizers.kmeans import kmeans
from itemic.sid.vectors import ROWS, Float32, check_vectors

ROWS_PER_CODE = 256  # vectors per code that k-means learns from, as faiss does
NOISE = 1e-6  # a residual this small against the vectors is what float32 leaves of an exact hit


def check_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """The sizes of the levels.

    Raises:
        ConfigError: no levels, or a level without codes.
    """
    if not levels or min(levels) < 1:
        raise ConfigError(
            f"levels are {list(levels)}", "Give the number of codes of each level, e.g. [256, 256]."
        )
    return tuple(int(size) for size in levels)


def check_positive(name: str, **options: float) -> None:
    """All options of quantizer ``name`` are above 0.

    Raises:
        ConfigError: the first that is not.
    """
    for option, value in options.items():
        if not value > 0:
            raise ConfigError(f"{name} with {option} {value}", f"Give a positive {option}.")


def choose_device(device: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def training_rows(table: Float32, count: int, seed: int) -> Float32:
    """A copy of the table, or of ``count`` random rows of a longer one."""
    if len(table) <= count:
        return np.array(table, np.float32)
    drawn = np.random.default_rng(seed).choice(len(table), count, replace=False)
    return np.array(table[np.sort(drawn)], np.float32)


def zero_noise(residual: Tensor, noise: Tensor) -> Tensor:
    """Rows whose squared length is rounding noise become zero, in place: k-means should see them as one."""
    return residual.masked_fill_(
        torch.linalg.vector_norm(residual, dim=1, keepdim=True).square() <= noise, 0.0
    )


def residual_books(
    residual: Tensor, levels: Sequence[int], *, seed: int, **options: Any
) -> tuple[list[Tensor], Tensor]:
    """One k-means codebook per level, each of what the levels before it left over of ``residual [n, d]``.

    ``residual`` is changed in place. Returns the books and the codes int64 ``[n, L]``.
    """
    noise = NOISE**2 * torch.linalg.vecdot(residual, residual).mean()
    books, codes = [], []
    for level, size in enumerate(levels):
        book, code = kmeans(zero_noise(residual, noise), size, seed=seed + level, **options)
        for rows, chosen in zip(torch.split(residual, ROWS), torch.split(code, ROWS), strict=True):
            rows -= book[chosen]
        books.append(book)
        codes.append(code)
    return books, torch.stack(codes, dim=1)


def finish(
    table: npt.NDArray[np.floating], books: Codebooks, device: torch.device
) -> tuple[Int32, dict[str, Any]]:
    """The codes of all vectors, streamed, and the notes on them."""
    codes = books.assign(table, device)
    return codes, describe(table, codes, books)


def describe(table: npt.NDArray[np.floating], codes: Int32, books: Codebooks) -> dict[str, Any]:
    """``codes_used`` and ``relative_error`` per level.

    The relative error of level ``l`` is ``Σ|x - x̂_l|² / Σ|x - mean|²``, where ``x̂_l`` is rebuilt from the codes up to
    that level; 0 where all vectors are equal.
    """
    check = check_vectors(table)
    starts = range(0, len(check), ROWS)
    mean = sum(check[i : i + ROWS].sum(axis=0, dtype=np.float64) for i in starts) / len(check)
    total, errors = 0.0, np.zeros(len(books.books))
    for start in starts:
        part = check[start : start + ROWS]
        total += _squares(part - mean.astype(np.float32))
        latent = np.zeros((len(part), books.books[0].shape[1]), np.float32)
        for level, book in enumerate(books.books):
            latent += book[codes[start : start + ROWS, level]]
            errors[level] += _squares(part - books.space.from_latent(latent))
    relative = errors / total if total else np.zeros_like(errors)
    return {
        "codes_used": [len(np.unique(code)) for code in codes.T],
        "relative_error": [round(float(error), 6) for error in relative],
    }


def _squares(x: Float32) -> float:
    return float(np.einsum("nd,nd->n", x, x).sum(dtype=np.float64))
