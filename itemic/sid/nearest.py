"""The nearest codebook row of each vector, in blocks that bound the memory."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1 << 19  # numbers in one block of the distance table: it stays in the cache
GPU_CHUNK = 1 << 26


def nearest(x: Tensor, book: Tensor) -> Tensor:
    """The nearest row of ``book`` for each row of ``x``, int64 ``[n]``; of equal rows the first."""
    mean = book.mean(dim=0)
    centred = book - mean
    _, group = torch.unique(book, dim=0, return_inverse=True)
    places = torch.arange(len(book), device=book.device)
    first = torch.full_like(places, len(book)).scatter_reduce_(0, group, places, "amin")[group]
    half = centred.square().sum(dim=1) / 2
    parts = torch.split(x, rows(book))
    return torch.cat([first[torch.addmm(-half, part - mean, centred.T).argmax(dim=1)] for part in parts])


def rows(book: Tensor) -> int:
    """Vectors whose distances to all rows of ``book`` are computed at a time."""
    return max(1, (GPU_CHUNK if book.is_cuda else CHUNK) // len(book))


def assign_rows(x: Tensor, book: Tensor, length: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nearest code and squared distance of each row, block by block; ``length`` is ``|x|²`` where it is known."""
    half = book.square().sum(dim=1) / 2
    codes, scores = [], []
    for part in torch.split(x, rows(book)):
        score, code = torch.addmm(-half, part, book.T).max(dim=1)
        codes.append(code)
        scores.append(score)
    if length is None:
        length = torch.linalg.vecdot(x, x)
    return torch.cat(codes), (length - 2 * torch.cat(scores)).clamp_min_(0)
