"""k-means in torch, on CPU or GPU, with the same result for the same seed on the same machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from itemic.sid.nearest import assign_rows, rows

TRIVIAL = 1e-6  # squared distances below this share of the variance are float32 noise
SEEDING_ROWS = 24  # vectors per code that seeding looks at, and no fewer than
SEEDING_LEAST = 1 << 12
SAMPLE_STEPS = 3  # iterations on those vectors alone, before all of them take part
SEEDING_DIMS = 32  # dimensions in which seeding compares them


def kmeans(
    x: Tensor, k: int, *, n_init: int = 1, max_iter: int = 100, tolerance: float = 5e-3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The best of ``n_init`` runs of k-means++ and Lloyd's iterations.

    Where ``x`` has fewer than ``k`` distinct rows, the codebook holds each of them once and then repeats them
    in turn; :func:`itemic.sid.nearest.nearest` never chooses a repeated row, so those codes stay unused.

    Args:
        x: float32 ``[n, d]``.
        k: codes.
        n_init: runs; the one with the least squared error wins.
        max_iter: iterations per run over all rows; fewer when no vector changes its code.
        tolerance: a run also ends when an iteration lessens the squared error by less than this share.
        seed: the random draws.

    Returns:
        the codebook, float32 ``[k, d]``, and the nearest of its rows for each row of ``x``, int64 ``[n]``.
    """
    mean = x.mean(dim=0)
    centred = x - mean  # expanding |x - c|² loses digits where the mean is large
    best: tuple[Tensor, Tensor] | None = None
    least = math.inf
    for run in range(n_init):
        draws = torch.Generator().manual_seed(seed + 7919 * run)
        sample = sample_rows(centred, max(SEEDING_ROWS * k, SEEDING_LEAST), draws)
        book = _seed_codes(sample, k, draws)
        if len(sample) < len(x):
            book = lloyd(sample, book, min(SAMPLE_STEPS, max_iter), tolerance)[0]
        book, codes, error = lloyd(centred, book, max_iter, tolerance)
        if error < least:
            best, least = (book, codes), error
    assert best is not None
    repeated = torch.arange(k, device=x.device) % len(best[0])
    return best[0][repeated] + mean, best[1]


def sample_rows(x: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """``x``, or so many of its rows where it has more."""
    if len(x) <= count:
        return x
    return x[torch.randperm(len(x), generator=draws)[:count].to(x.device)]


def _seed_codes(x: Tensor, k: int, draws: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007): a new code is the best of a few drawn by distance².

    Ends early when every row has met its code: then ``x`` has fewer distinct rows than ``k``.
    """
    if len(x) <= k:
        distinct: Tensor = torch.unique(x, dim=0)
        return distinct
    trials = 2 + int(math.log(k))  # scikit-learn's
    y = _project(x, draws)
    across = y.T.contiguous()
    length = y.square().sum(dim=1)
    trivial = TRIVIAL * length.mean()
    chosen = [int(torch.randint(len(x), (1,), generator=draws))]
    closest = (y - y[chosen[0]]).square().sum(dim=1)
    while len(chosen) < k and bool(closest.max() > trivial):
        closest = torch.where(closest > trivial, closest, 0.0)
        heap = closest.double().cumsum(dim=0)
        drawn = torch.rand(trials, generator=draws, dtype=torch.float64).to(x.device) * heap[-1]
        candidates = torch.searchsorted(heap, drawn, right=True).clamp_max_(len(x) - 1)
        # one row a candidate: the sums and minima run along memory
        table = torch.addmm(length, y[candidates], across, alpha=-2).add_(length[candidates, None])
        torch.minimum(table.clamp_min_(0), closest, out=table)
        winner = int(table.sum(dim=1).argmin())
        chosen.append(int(candidates[winner]))
        closest = table[winner].clone()
        closest[chosen[-1]] = 0
    book: Tensor = x[torch.tensor(chosen, device=x.device)]
    return book


def _project(x: Tensor, draws: torch.Generator) -> Tensor:
    """Fewer dimensions that keep distances nearly (Johnson and Lindenstrauss, 1984)."""
    if x.shape[1] <= SEEDING_DIMS:
        return x
    return x @ torch.randn(x.shape[1], SEEDING_DIMS, generator=draws).to(x.device)


def lloyd(x: Tensor, book: Tensor, max_iter: int, tolerance: float) -> tuple[Tensor, Tensor, float]:
    """Lloyd's iterations from ``book``; returns the codebook, the rows' codes and the squared error."""
    length = torch.linalg.vecdot(x, x)
    codes, distance = assign_rows(x, book, length)
    error = float(distance.double().sum())
    for _ in range(max_iter):
        book = _means(x, codes, distance, book)
        moved, distance = assign_rows(x, book, length)
        before, error = error, float(distance.double().sum())
        same = bool((moved == codes).all())
        codes = moved
        if same or before - error <= tolerance * before:
            break
    return book, codes, error


def _means(x: Tensor, codes: Tensor, distance: Tensor, book: Tensor) -> Tensor:
    """The mean of each code's vectors; a code without any takes over one of the worst-fitting vectors."""
    moved = means(x, codes, book)
    empty = torch.nonzero(torch.bincount(codes, minlength=len(book)) == 0)[:, 0]
    if len(empty):
        far, worst = distance.topk(min(len(empty), len(x)))
        worst = worst[far > TRIVIAL * x.square().sum(dim=1).mean()]
        moved[empty[: len(worst)]] = x[worst]
    return moved


def means(x: Tensor, codes: Tensor, book: Tensor) -> Tensor:
    """The mean of each code's vectors; a code without any keeps its row of ``book``."""
    counts = torch.bincount(codes, minlength=len(book))
    sums = torch.zeros_like(book)
    if x.is_cuda:  # index_add_ adds there in no fixed order
        for part, code in zip(torch.split(x, rows(book)), torch.split(codes, rows(book)), strict=True):
            hot = torch.zeros(len(book), len(part), device=x.device).scatter_(0, code[None], 1.0)
            sums += hot @ part
    else:
        sums.index_add_(0, codes, x)
    return torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], book)
