"""Tokens of several requests one after the other, and the same tokens padded for batched attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Int64 = npt.NDArray[np.int64]

_WASTE = 1.25  # how much longer than its shortest prompt a group's longest may be
_SCORES = 1 << 24  # attention scores of a group's leaves in one layer
_UNEVEN = 1.5  # how many places a leaf may take before a group's requests are dealt out
_SPARED = 128  # places that attention of their own must spare some requests


@dataclass(frozen=True)
class Group:
    """Neighbouring requests whose tokens attention sees padded to one width. Everything else sees no padding.

    Attributes:
        start, stop: where their tokens stand among all.
        requests: how many requests (R).
        width: tokens of the longest (W).
        device: where the tensors live.
        lengths: int64 ``[R]``, tokens of each request.
        inside: int64 ``[R · W]``, which token each padded place holds; None where all requests are equally long.
        places: int64 ``[stop - start]``, the padded place of each token; None likewise.
        bias: float32 ``[R, 1, W]``, -inf on padding; None likewise.
    """

    start: int
    stop: int
    requests: int
    width: int
    device: torch.device
    lengths: Int64
    inside: Tensor | None = None
    places: Tensor | None = None
    bias: Tensor | None = None

    @classmethod
    def of(cls, start: int, lengths: Int64, device: torch.device) -> Group:
        """Requests with ``lengths`` tokens, the first of which stands at ``start``."""
        width, total = int(lengths.max()), int(lengths.sum())
        if (lengths == width).all():
            return cls(start, start + total, len(lengths), width, device, lengths)
        real = np.arange(width) < lengths[:, None]
        first = start + np.cumsum(lengths) - lengths
        inside = np.where(real, first[:, None] + np.arange(width), start)  # padding repeats any token
        bias = np.where(real, 0, -np.inf).astype(np.float32)[:, None]
        tensors = (torch.from_numpy(x).to(device) for x in (inside.ravel(), np.flatnonzero(real), bias))
        return cls(start, start + total, len(lengths), width, device, lengths, *tensors)

    def ends(self) -> Tensor:
        """int64 ``[R]``, the last token of each request."""
        if self.places is None:
            return torch.arange(self.start + self.width - 1, self.stop, self.width, device=self.device)
        first = torch.div(self.places, self.width, rounding_mode="floor")
        return self.start - 1 + torch.bincount(first, minlength=self.requests).cumsum(0)

    def pad(self, tokens: Tensor) -> Tensor:
        """``[T, …]`` of all tokens to ``[R, W, …]``."""
        own = tokens[self.start : self.stop] if self.inside is None else tokens.index_select(0, self.inside)
        return own.view(self.requests, self.width, *tokens.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """``[R, W, …]`` to ``[stop - start, …]``."""
        flat = padded.flatten(0, 1)
        return flat if self.places is None else flat.index_select(0, self.places)


def group_prompts(lengths: Int64, device: torch.device, template: int = 0, leaves: int = 1) -> list[Group]:
    """Groups of neighbours that waste little on padding; fewest when like lengths are neighbours.

    Args:
        lengths: int64 ``[R]``, each prompt's own tokens.
        device: where the groups' tensors live.
        template: tokens that all prompts continue.
        leaves: query vectors of one request in a step; bounds what a group's attention holds.
    """
    groups, begin, start = [], 0, 0
    while begin < len(lengths):
        stop = begin + 1
        least = most = int(lengths[begin])
        while stop < len(lengths):
            low, high = min(least, int(lengths[stop])), max(most, int(lengths[stop]))
            scores = (stop + 1 - begin) * (high + template) * leaves
            if high > _WASTE * low + 8 or scores > _SCORES:
                break
            least, most, stop = low, high, stop + 1
        groups.append(Group.of(start, lengths[begin:stop], device))
        start, begin = groups[-1].stop, stop
    return groups


@dataclass(frozen=True)
class Seats:
    """Leaves that attention sees padded to one width, and whose prompts they are below.

    Attributes:
        place: which of the prompts' groups.
        rows: int64 ``[R]``, which requests of that group; None for all of them.
        group: of the leaves, in the order of the pass.
    """

    place: int
    rows: Tensor | None
    group: Group


def group_leaves(
    counts: Int64, prompts: list[Group], device: torch.device
) -> tuple[list[Seats], Int64 | None]:
    """New tokens, ``counts`` for each request, in the groups of their prompts.

    Where padding would be most of a group, its requests are dealt out by how many leaves they have.

    Returns:
        the seats, and int64 ``[T]``, the order in which tokens that stand request by request have to go into the pass
        (None for as they are).
    """
    seats: list[Seats] = []
    dealt: list[Int64] = []  # requests in the order of the pass
    begin, start = 0, 0
    for place, prompt in enumerate(prompts):
        own = counts[begin : begin + prompt.requests]
        parts = _alike(own) if int(own.max()) * len(own) > _UNEVEN * int(own.sum()) else [np.arange(len(own))]
        for rows in parts:
            group = Group.of(start, own[rows], device)
            start = group.stop
            whole = len(rows) == len(own)
            if group.width:
                seats.append(Seats(place, None if whole else torch.from_numpy(rows).to(device), group))
            dealt.append(begin + rows)
        begin += prompt.requests
    if len(dealt) == len(prompts):
        return seats, None
    request = np.concatenate(dealt)
    first = np.cumsum(counts) - counts
    return seats, _ranges(first[request], counts[request])


def _alike(counts: Int64) -> list[Int64]:
    """Which requests have about as many leaves, the most first; those without any are left out."""
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    parts: list[Int64] = []
    while len(order):
        own = counts[order]
        many = int((2 * own > own[0]).sum())
        if many < len(order) and (len(order) - many) * (own[0] - own[many]) < _SPARED:
            many = len(order)
        parts.append(np.sort(order[:many]))
        order = order[many:]
    return parts


def _ranges(first: Int64, lengths: Int64) -> Int64:
    """``first[i] … first[i] + lengths[i] - 1``, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1])) + np.repeat(first - ends + lengths, lengths)
