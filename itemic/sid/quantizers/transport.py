"""Which item goes to which code when every code may hold only so many: the transportation problem.

Prices come first: with a price on every code, each item takes the code where cost plus price is least, and such a
choice costs least among all choices with the same sizes. Sinkhorn's iterations (Cuturi, "Sinkhorn distances", 2013)
find prices that bring the sizes close; an auction (Bertsekas, 1988), in which full codes raise theirs, sharpens them;
shortest augmenting paths (Busacker and Gowen, 1960) mend what is left, and keep the cost the least possible for the
sizes reached.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.sid.nearest import CHUNK
from itemic.sid.vectors import Float32

Int64 = npt.NDArray[np.int64]
KEPT = 1 << 27  # numbers of the kernel that are kept between iterations; a larger one is made anew in each
SMALLEST = -60.0  # exponent: numbers below float32's normal ones make everything slow
LEAST = 1e-30  # of a sum of kernel values, so that its logarithm exists


def sizes_near(counts: Int64, total: int) -> Int64:
    """Sizes ``⌊n/K⌋`` and ``⌈n/K⌉`` that sum to ``total``; the larger ones where there are most items already."""
    small, extra = divmod(total, len(counts))
    sizes = np.full(len(counts), small, np.int64)
    sizes[np.argsort(-counts, kind="stable")[:extra]] += 1
    return sizes


def balance_prices(cost: Tensor, prices: Tensor, blur: float, steps: int) -> Tensor:
    """Prices ``[K]`` under which the codes are chosen about equally often.

    Args:
        cost: ``[n, K]``.
        prices: where to begin.
        blur: the entropic temperature, in units of cost.
        steps: Sinkhorn iterations.
    """
    share = cost.shape[0] / cost.shape[1]
    size = cost.shape[0] if cost.numel() <= KEPT else max(1, KEPT // cost.shape[1])
    parts = torch.split(cost, size)
    kept = _kernel(parts[0], prices, blur) if len(parts) == 1 else None
    scale = torch.ones_like(prices)
    for _ in range(steps):
        sums = torch.zeros_like(prices)
        for part in parts:
            kernel = _kernel(part, prices, blur) if kept is None else kept
            sums += kernel.T @ (kernel @ scale).clamp_min_(LEAST).reciprocal_()
        scale = share / sums.clamp_min_(LEAST)
    return prices - blur * scale.log()


def raise_prices(cost: Tensor, prices: Tensor, rounds: int) -> Tensor:
    """Prices under which no code is chosen much too often.

    In each round every code with more than ``⌈n/K⌉`` items raises its price until the surplus prefers another one.
    """
    limit = -(-cost.shape[0] // cost.shape[1])
    prices = prices - prices.mean()
    if cost.shape[1] == 1:
        return prices
    for _ in range(rounds):
        totals, choices = _two_least(cost, prices)
        counts = torch.bincount(choices, minlength=len(prices))
        full = torch.nonzero(counts > limit)[:, 0]
        if not len(full):
            break
        margin = totals[1] - totals[0]
        order = torch.argsort(margin, stable=True)
        order = order[torch.argsort(choices[order], stable=True)]  # by code, then by margin
        last = (counts.cumsum(dim=0) - limit - 1)[full]
        prices[full] += margin[order[last]] * (1 + 1e-3)
    return prices


def _two_least(cost: Tensor, prices: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The least and second least of cost plus price in each row, and where the least stands; block by block."""
    least, second, places = [], [], []
    for part in torch.split(cost, max(1, CHUNK // len(prices))):
        totals = part + prices
        lowest, at = totals.min(dim=1)
        second.append(totals.scatter_(1, at[:, None], torch.inf).amin(dim=1))  # twice as fast as topk
        least.append(lowest)
        places.append(at)
    return (torch.cat(least), torch.cat(second)), torch.cat(places)


def _kernel(cost: Tensor, prices: Tensor, blur: float) -> Tensor:
    table = cost + prices
    table -= table.amin(dim=1, keepdim=True)
    return table.mul_(-1 / blur).clamp_min_(SMALLEST).exp_()


def exact_sizes(cost: Float32, codes: Int64, sizes: Int64) -> Int64:
    """Move items along cheapest paths of codes until code ``j`` holds ``sizes[j]`` of them.

    Where ``codes`` cost least for the sizes they have, the result costs least for ``sizes``.

    Args:
        cost: ``[n, K]``.
        codes: ``[n]``, the choice to begin with.
        sizes: ``[K]``, with the sum ``n``.
    """
    codes = codes.copy()
    excess = np.bincount(codes, minlength=len(sizes)) - sizes
    moves = np.stack([_cheapest_moves(cost, codes, code) for code in range(len(sizes))])
    slack = 1e-6 * float(np.abs(cost).mean())
    while (excess > 0).any():
        for path in _disjoint_paths(moves, excess, slack):
            items = []
            for here, there in itertools.pairwise(path):
                members = np.flatnonzero(codes == here)
                items.append(members[(cost[members, there] - cost[members, here]).argmin()])
            codes[items] = path[1:]
            excess[path[0]] -= 1
            excess[path[-1]] += 1
            for code in path:
                moves[code] = _cheapest_moves(cost, codes, code)
    return codes


def _cheapest_moves(cost: Float32, codes: Int64, code: int) -> Float32:
    """What it costs to move one of the code's items to each other code, ``[K]``; infinite where it has none."""
    members = cost[codes == code]
    if not len(members):
        return np.full(cost.shape[1], np.inf, np.float32)
    least: Float32 = (members - members[:, [code]]).min(axis=0)
    return least


def _disjoint_paths(moves: Float32, excess: Int64, slack: float) -> list[list[int]]:
    """Cheapest ways from codes with too many items to codes with too few (Bellman and Ford), at least one.

    The paths are of one shortest-path tree and share no code, so all of them can be gone at once: under the tree's
    distances as prices their moves cost nothing, which keeps the assignment the cheapest for its sizes.
    ``slack`` is the gain that counts as one: smaller ones are rounding, and could send a path round in circles.
    """
    reach = np.where(excess > 0, 0.0, np.inf).astype(np.float32)
    before = np.full(len(moves), -1)
    active = np.flatnonzero(excess > 0)
    for _ in range(len(moves)):
        table = reach[active, None] + moves[active]
        best = table.argmin(axis=0)
        least = table[best, np.arange(len(moves))]
        better = np.flatnonzero(least < reach - slack)
        if not len(better):
            break
        reach[better] = least[better]
        before[better] = active[best[better]]
        active = better
    paths: list[list[int]] = []
    taken: set[int] = set()
    poor = np.flatnonzero(excess < 0)
    for code in poor[np.argsort(reach[poor], kind="stable")]:
        path = [int(code)]
        while before[path[-1]] >= 0 and len(path) <= len(moves):
            path.append(int(before[path[-1]]))
        if taken.isdisjoint(path):
            taken.update(path)
            paths.append(path[::-1])
    return paths
