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


def group_leaves(counts: Int64, prompts: list[Group], device: torch.device) -> list[Group]:
    """New tokens, ``counts`` for each request, in the groups of their prompts."""
    groups, begin, start = [], 0, 0
    for prompt in prompts:
        groups.append(Group.of(start, counts[begin : begin + prompt.requests], device))
        start, begin = groups[-1].stop, begin + prompt.requests
    return groups
