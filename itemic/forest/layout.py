"""What the attention backends need to know of a forest, worked out once per block and used in every layer.

Tree by tree: a tree is a *trunk* (the chain from its root to the first branching: a system prompt, a history) and the
subtrees below it. Trunk tokens see the trunk causally; tokens below see the whole trunk, and of their own subtree what
the rule allows. Neighbouring small ones share a *window*, and all windows of a block are one batched call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from itemic.forest.build import TokenForest

WINDOW = 128  # tokens of neighbouring small subtrees that are attended together
STRIDE = 16  # a window's width is a multiple of it


@dataclass(frozen=True)
class Part:
    """Queries that look at keys, in one call of scaled dot-product attention.

    Attributes:
        queries, keys: a slice of the block, or an index ``[n, w]`` of batched windows.
        mask: additive float mask ``[n, 1, w, w]``; None means all keys.
        causal: keys up to the query's own place.
        places: for windows, where in the flattened ``[n * w]`` output the real tokens stand, and which they are.
    """

    queries: slice | Tensor
    keys: slice | Tensor
    mask: Tensor | None = None
    causal: bool = False
    places: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class ForestLayout:
    """A block as attention sees it.

    Attributes:
        end: int64 ``[T]`` on the device.
        parts: how "sdpa" cuts the work; empty for the other backends.
        backend: ``"sdpa"``, ``"flex"`` or ``"dense"``.
        mask: bool ``[1, 1, T, T]`` for "dense", a BlockMask for "flex".
    """

    end: Tensor
    parts: tuple[Part, ...]
    backend: str
    mask: Any = None

    @classmethod
    def of(cls, forest: TokenForest, device: torch.device, dtype: torch.dtype, backend: str) -> ForestLayout:
        end = torch.from_numpy(forest.end.astype(np.int64)).to(device)
        if backend == "sdpa":
            return cls(end, tuple(attention_parts(forest, device, dtype)), backend)
        if backend == "dense":
            return cls(end, (), backend, torch.from_numpy(forest.dense_mask()).to(device)[None, None])
        return cls(end, (), backend, _block_mask(end))


def _block_mask(end: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end[key])

    return create_block_mask(rule, None, None, len(end), len(end), device=str(end.device))


def attention_parts(forest: TokenForest, device: torch.device, dtype: torch.dtype) -> list[Part]:
    roots = np.flatnonzero(forest.parent < 0)
    parts: list[Part] = []
    small: list[tuple[int, int]] = []
    for root in roots.tolist():
        stop = int(forest.end[root])
        fork = _trunk_end(forest, root, stop)
        if fork == stop or stop - root <= WINDOW:  # a chain, or too small to be worth cutting
            _place(small, parts, root, stop, forest, device, dtype)
            continue
        parts.append(Part(slice(root, fork), slice(root, fork), causal=True))
        parts.append(Part(slice(fork, stop), slice(root, fork)))
        child = fork
        while child < stop:
            _place(small, parts, child, int(forest.end[child]), forest, device, dtype)
            child = int(forest.end[child])
    if small:
        parts.append(_windows(small, forest, device, dtype))
    return parts


def _trunk_end(forest: TokenForest, root: int, stop: int) -> int:
    """One past the last token of the unary chain from the root."""
    ends = forest.end[root:stop]
    broken = np.flatnonzero(ends != stop)
    return root + int(broken[0]) if len(broken) else stop


def _place(
    small: list[tuple[int, int]],
    parts: list[Part],
    start: int,
    stop: int,
    forest: TokenForest,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    if stop - start <= WINDOW:
        if small and small[-1][1] == start and stop - small[-1][0] <= WINDOW:
            small[-1] = (small[-1][0], stop)
        else:
            small.append((start, stop))
        return
    own = slice(start, stop)
    if bool((forest.end[own] == stop).all()):
        parts.append(Part(own, own, causal=True))
    else:
        parts.append(Part(own, own, mask=_mask(forest, np.arange(start, stop)[None], device, dtype)))


def _windows(
    small: list[tuple[int, int]], forest: TokenForest, device: torch.device, dtype: torch.dtype
) -> Part:
    width = -(-max(stop - start for start, stop in small) // STRIDE) * STRIDE
    starts = np.array([start for start, _ in small])
    lengths = np.array([stop - start for start, stop in small])
    inside = np.arange(width)[None] < lengths[:, None]
    index = np.where(inside, starts[:, None] + np.arange(width)[None], starts[:, None])
    places = torch.from_numpy(np.flatnonzero(inside)).to(device)
    tokens = torch.from_numpy(index[inside]).to(device)
    where = torch.from_numpy(index).to(device)
    return Part(where, where, _mask(forest, index, device, dtype, inside), places=(places, tokens))


def _mask(
    forest: TokenForest,
    index: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    device: torch.device,
    dtype: torch.dtype,
    inside: np.ndarray[tuple[int, int], np.dtype[np.bool_]] | None = None,
) -> Tensor:
    query, key = index[:, :, None], index[:, None, :]
    sees = (key <= query) & (query < forest.end[key])
    if inside is not None:
        sees &= inside[:, None, :]  # a padded query repeats its window's first token and sees that one
    mask = torch.zeros(sees.shape, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(~sees), float("-inf"))
    return mask[:, None].to(device)
