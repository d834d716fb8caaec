"""What the attention backends need to know of a forest, worked out once per block and used in every layer.

Tree by tree: from a root a *path* follows the child that holds more than half of what is below, for as long as there
is one: a system prompt, a history with its answers at the sides. Its tokens see the path causally; what hangs from it
sees the path up to where it hangs, and is cut in the same way. Small subtrees stand side by side in *windows* of a few
widths, and all windows of a width are one batched call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.forest.build import TokenForest
from itemic.forest.rows import Int64

WIDTHS = (32, 64, 128)  # of windows; a subtree goes into the narrowest that holds it
LITTLE = 0.25  # what hangs from a path must see this share of it, or the path ends where it branches first
STEP = 64  # what hangs from a path is cut where it sees so many tokens less, and a quarter less

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """Queries that look at keys, in one call of scaled dot-product attention.

    Attributes:
        queries, keys: a slice of the block, or an index ``[n, w]`` of batched windows.
        mask: additive float mask ``[n, 1, w, w']``; None means all keys.
        causal: keys up to the query's own place.
        places: for an index, where in the flattened ``[n * w]`` output the real tokens stand, and which they are.
        spare: where there are any, the other places of the output; their queries only fill up.
        first: whether the queries have seen nothing in the parts before; else none of them is new.
    """

    queries: slice | Tensor
    keys: slice | Tensor
    mask: Tensor | None = None
    causal: bool = False
    places: tuple[Tensor, Tensor] | None = None
    spare: Tensor | None = None
    first: bool = False


@dataclass(frozen=True)
class ForestLayout:
    """A block as attention sees it.

    Attributes:
        end: int64 ``[T]`` on the device.
        parts: how "sdpa" cuts the work; empty for the other backends.
        backend: ``"sdpa"``, ``"flex"`` or ``"dense"``.
        mask: bool ``[1, 1, T, T]`` for "dense", a BlockMask for "flex".
        wanted: int64 ``[n]``, rising: whose last hidden states are asked for; None for all.
    """

    end: Tensor
    parts: tuple[Part, ...]
    backend: str
    mask: Any = None
    wanted: Tensor | None = None

    @classmethod
    def of(
        cls,
        forest: TokenForest,
        device: torch.device,
        dtype: torch.dtype,
        backend: str,
        wanted: Int64 | None = None,
    ) -> ForestLayout:
        at = None if wanted is None else torch.from_numpy(wanted).to(device)
        end = torch.from_numpy(forest.end.astype(np.int64)).to(device)
        if backend == "sdpa":
            return cls(end, tuple(attention_parts(forest, device, dtype)), backend, wanted=at)
        mask = (
            torch.from_numpy(forest.dense_mask()).to(device)[None, None]
            if backend == "dense"
            else _block_mask(end)
        )
        return cls(end, (), backend, mask, at)


def _block_mask(end: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end[key])

    return create_block_mask(rule, None, None, len(end), len(end), device=str(end.device))


def attention_parts(forest: TokenForest, device: torch.device, dtype: torch.dtype) -> list[Part]:
    """Parts in which every token sees what it may see once, and nothing else."""
    return _Cutter(forest, device, dtype).parts()


class _Cutter:
    """Cuts a forest into parts.

    As the child with most below it comes first, a path is a slice, and what hangs from it follows, the deeper the
    earlier. In another depth-first order the parts are right as well, and more.
    """

    def __init__(self, forest: TokenForest, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.end, self.depth, self.parent = (
            array.astype(np.int64) for array in (forest.end, forest.position, forest.parent)
        )
        size = self.end - np.arange(len(forest))
        small = (self.parent >= 0) & (2 * size <= size[self.parent] - 1)
        self.hangs = np.flatnonzero(small)  # the roots of what hangs from a path
        self.seen = np.zeros(len(forest), bool)
        self.windows: dict[tuple[int, bool], list[list[Int64]]] = {}
        self.found: list[Part] = []

    def parts(self) -> list[Part]:
        waiting = np.flatnonzero(self.parent < 0)[::-1].tolist()
        while waiting:
            root = waiting.pop()
            stop = int(self.end[root])
            if stop - root <= WIDTHS[-1]:
                self._keep(np.arange(root, stop))
            else:
                waiting += self._cut(root, stop)[::-1]
        for (width, _), windows in self.windows.items():
            self._window([np.concatenate(window) for window in windows], width)
        return self.found

    def _cut(self, root: int, stop: int) -> list[int]:
        """The parts of a subtree's path; returns the roots of what hangs from it."""
        first = np.searchsorted(self.hangs, root, "right")
        fork = int(self.hangs[first]) if first < len(self.hangs) else stop
        fork = min(fork, stop)  # the path is root:fork
        roots = self._branches(fork, stop)
        seen = self.depth[roots] - self.depth[root]  # tokens of the path that each of them sees
        held = self.end[roots] - roots
        if (seen * held).sum() < LITTLE * (fork - root) * held.sum():  # others hang high up on a long path
            fork = root + int(np.argmax(self.end[root:stop] != stop))
            roots = self._branches(fork, stop)
            seen = np.full(len(roots), fork - root)
        self._add(slice(root, fork), slice(root, fork), causal=True)
        at = 0
        while at < len(roots):  # a stair of few steps
            less = seen <= seen[at] - max(STEP, int(seen[at]) // 4)
            to = at + int(np.argmax(less[at:])) if less[at:].any() else len(roots)
            deep = int(seen[at:to].max())
            queries = slice(int(roots[at]), int(self.end[roots[to - 1]]))
            self._add(queries, slice(root, root + deep), masked=bool((seen[at:to] < deep).any()))
            at = to
        return [int(root) for root in roots]

    def _branches(self, start: int, stop: int) -> Int64:
        """The roots of the subtrees that make up a slice."""
        found, at = [], start
        while at < stop:
            found.append(at)
            at = int(self.end[at])
        return np.array(found, np.int64)

    def _add(self, queries: slice, keys: slice, *, causal: bool = False, masked: bool = False) -> None:
        own, others = (np.arange(each.start, each.stop)[None] for each in (queries, keys))
        mask = self._mask(own, others) if masked else None
        self.found.append(Part(queries, keys, mask, causal, first=self._first(own[0])))

    def _keep(self, own: Int64) -> None:
        """Into the last window of its width, or a new one. What sees something else already has windows of its own."""
        width = next(width for width in WIDTHS if len(own) <= width)
        windows = self.windows.setdefault((width, bool(self.seen[own[0]])), [])
        if windows and sum(map(len, windows[-1])) + len(own) <= width:
            windows[-1].append(own)
        else:
            windows.append([own])

    def _window(self, windows: list[Int64], width: int) -> None:
        lengths = np.array([len(window) for window in windows])
        inside = np.arange(width) < lengths[:, None]
        index = np.repeat(np.array([window[0] for window in windows])[:, None], width, 1)
        index[inside] = np.concatenate(windows)
        mask = self._mask(index, index, inside)
        places = (self._tensor(np.flatnonzero(inside)), self._tensor(index[inside]))
        spare = None if inside.all() else self._tensor(np.flatnonzero(~inside))
        where = self._tensor(index)
        first = self._first(index[inside])
        self.found.append(Part(where, where, mask, places=places, spare=spare, first=first))

    def _first(self, queries: Int64) -> bool:
        """Whether they have seen nothing yet; from now on they have."""
        first = not self.seen[queries[0]]
        self.seen[queries] = True
        return first

    def _mask(self, queries: Int64, keys: Int64, inside: Bool | None = None) -> Tensor:
        """``[n, 1, w, w']`` of ``[n, w]`` and ``[n, w']``."""
        query, key = queries[:, :, None], keys[:, None, :]
        sees = (key <= query) & (query < self.end[key])
        if inside is not None:
            sees &= inside[:, None, :]  # a spare query repeats its window's first token and sees that one
        mask = torch.zeros(sees.shape, dtype=self.dtype)
        mask.masked_fill_(torch.from_numpy(~sees), float("-inf"))
        return mask[:, None].to(self.device)

    def _tensor(self, array: Int64) -> Tensor:
        return torch.from_numpy(array).to(self.device)
