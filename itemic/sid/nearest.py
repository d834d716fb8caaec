"""The nearest codebook row of each vector, in blocks that bound the memory."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1 << 24  # numbers in one block of the distance table


def nearest(x: Tensor, book: Tensor) -> Tensor:
    """The nearest row of ``book`` for each row of ``x``, int64 ``[n]``; of equal rows the first."""
    mean = book.mean(dim=0)
    centred = book - mean
    _, group = torch.unique(book, dim=0, return_inverse=True)
    places = torch.arange(len(book), device=book.device)
    first = torch.full_like(places, len(book)).scatter_reduce_(0, group, places, "amin")[group]
    rows = max(1, CHUNK // len(book))
    return torch.cat([first[assign_rows(part - mean, centred)[0]] for part in torch.split(x, rows)])


def assign_rows(x: Tensor, book: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest code and squared distance of each row, block by block."""
    half = book.square().sum(dim=1) / 2
    codes, distances = [], []
    for part in torch.split(x, max(1, CHUNK // len(book))):
        score = torch.addmm(-half, part, book.T)
        code = score.argmax(dim=1)
        codes.append(code)
        distances.append(part.square().sum(dim=1) - 2 * score.gather(1, code[:, None])[:, 0])
    return torch.cat(codes), torch.cat(distances).clamp_min_(0)
