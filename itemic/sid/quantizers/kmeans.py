"""k-means in torch, on CPU or GPU, with the same result for the same seed on the same machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from itemic.sid.nearest import CHUNK, assign_rows

TRIVIAL = 1e-6  # squared distances below this share of the variance are float32 noise
SEEDING_ROWS = 64  # vectors per code that seeding looks at


def kmeans(x: Tensor, k: int, *, n_init: int = 1, max_iter: int = 100, seed: int = 0) -> Tensor:
    """The best of ``n_init`` runs of k-means++ and Lloyd's iterations.

    Where ``x`` has fewer than ``k`` distinct rows, the codebook holds each of them once and then repeats them
    in turn; :func:`itemic.sid.nearest.nearest` never chooses a repeated row, so those codes stay unused.

    Args:
        x: float32 ``[n, d]``.
        k: codes.
        n_init: runs; the one with the least squared error wins.
        max_iter: iterations per run; fewer when no vector changes its code or the error stops falling.
        seed: the random draws.

    Returns:
        the codebook, float32 ``[k, d]``.
    """
    mean = x.mean(dim=0)
    centred = x - mean  # expanding |x - c|² loses digits where the mean is large
    best, least = None, math.inf
    for run in range(n_init):
        draws = torch.Generator().manual_seed(seed + 7919 * run)
        book, error = _lloyd(centred, _seed_codes(centred, k, draws), max_iter)
        if error < least:
            best, least = book, error
    assert best is not None
    repeated = torch.arange(k, device=x.device) % len(best)
    return best[repeated] + mean


def _seed_codes(x: Tensor, k: int, draws: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007): a new code is the best of a few drawn by distance².

    Ends early when every row has met its code: then ``x`` has fewer distinct rows than ``k``.
    """
    if len(x) <= k:
        distinct: Tensor = torch.unique(x, dim=0)
        return distinct
    if len(x) > SEEDING_ROWS * k:
        x = x[torch.randperm(len(x), generator=draws)[: SEEDING_ROWS * k].to(x.device)]
    trials = 4 + 2 * int(math.log(k))
    length = x.square().sum(dim=1)
    trivial = TRIVIAL * length.mean()
    chosen = [int(torch.randint(len(x), (1,), generator=draws))]
    closest = (x - x[chosen[0]]).square().sum(dim=1)
    while len(chosen) < k and bool(closest.max() > trivial):
        closest = torch.where(closest > trivial, closest, 0.0)
        heap = closest.double().cumsum(dim=0)
        drawn = torch.rand(trials, generator=draws, dtype=torch.float64).to(x.device) * heap[-1]
        candidates = torch.searchsorted(heap, drawn, right=True).clamp_max_(len(x) - 1)
        table = torch.addmm(length[:, None], x, x[candidates].T, alpha=-2) + length[candidates]
        table = torch.minimum(table.clamp_min_(0), closest[:, None])
        winner = int(table.sum(dim=0).argmin())
        chosen.append(int(candidates[winner]))
        closest = table[:, winner].contiguous()
        closest[chosen[-1]] = 0
    book: Tensor = x[torch.tensor(chosen, device=x.device)]
    return book


def _lloyd(x: Tensor, book: Tensor, max_iter: int) -> tuple[Tensor, float]:
    """Lloyd's iterations from ``book``; returns the codebook and its squared error."""
    codes, distance = assign_rows(x, book)
    error = float(distance.double().sum())
    for _ in range(max_iter):
        book = _means(x, codes, distance, book)
        moved, distance = assign_rows(x, book)
        before, error = error, float(distance.double().sum())
        same = bool((moved == codes).all())
        codes = moved
        if same or before - error <= 1e-5 * before:
            break
    return book, error


def _means(x: Tensor, codes: Tensor, distance: Tensor, book: Tensor) -> Tensor:
    """The mean of each code's vectors; a code without any takes over one of the worst-fitting vectors."""
    k = len(book)
    rows = max(1, CHUNK // k)
    counts = torch.bincount(codes, minlength=k)
    if x.is_cuda:  # index_add_ adds there in no fixed order
        sums = torch.zeros_like(book)
        for part, code in zip(torch.split(x, rows), torch.split(codes, rows), strict=True):
            hot = torch.zeros(k, len(part), device=x.device).scatter_(0, code[None], 1.0)
            sums += hot @ part
    else:
        sums = torch.zeros_like(book).index_add_(0, codes, x)
    means = sums / counts.clamp_min(1)[:, None]
    empty = torch.nonzero(counts == 0)[:, 0]
    if len(empty):
        far, worst = distance.topk(min(len(empty), len(x)))
        worst = worst[far > TRIVIAL * x.square().sum(dim=1).mean()]
        means[empty] = book[empty]
        means[empty[: len(worst)]] = x[worst]
    return means
