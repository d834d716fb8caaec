"""What the attention backends need to know of a forest, worked out once per block and used in every layer.

Tree by tree: from a root a *path* follows the child that holds more than half of what is below, for as long as there
is one: a system prompt, a history with its answers at the sides. Its tokens see the path causally; what hangs from it
sees the path up to where it hangs, and is cut in the same way. Small subtrees stand side by side in *windows* of a few
widths, and all windows of a width are one batched call.

Layers with a sliding window see less: a path is cut into strips, each of which looks back over a window's length, and
what hangs from it looks at its last tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.errors import ModelError
from itemic.forest.build import TokenForest
from itemic.forest.rows import Int64

WIDTHS = (32, 64, 128)  # of windows; a subtree goes into the narrowest that holds it
LITTLE = 0.25  # what hangs from a path must see this share of it, or the path ends where it branches first
STEP = 64  # what hangs from a path is cut where it sees so many tokens less, and a quarter less
STRIP = 128  # tokens of a path, longer than a sliding window, that look back together

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
        blind: int64 ``[b]``, places of the flattened output whose query sees none of the keys; None without any.
    """

    queries: slice | Tensor
    keys: slice | Tensor
    mask: Tensor | None = None
    causal: bool = False
    places: tuple[Tensor, Tensor] | None = None
    spare: Tensor | None = None
    first: bool = False
    blind: Tensor | None = None


@dataclass(frozen=True)
class View:
    """What the layers of one kind see of a block.

    Attributes:
        parts: how "sdpa" cuts the work; empty for the other backends.
        mask: bool ``[1, 1, T, T]`` for "dense", a BlockMask for "flex".
    """

    parts: tuple[Part, ...] = ()
    mask: Any = None


@dataclass(frozen=True)
class ForestLayout:
    """A block as attention sees it.

    Attributes:
        backend: ``"sdpa"``, ``"flex"`` or ``"dense"``.
        views: what layers see, by the length of their sliding window; None is the key of those without.
        wanted: int64 ``[n]``, rising: whose last hidden states are asked for; None for all.
    """

    backend: str
    views: Mapping[int | None, View]
    wanted: Tensor | None = None

    @classmethod
    def of(
        cls,
        forest: TokenForest,
        device: torch.device,
        dtype: torch.dtype,
        backend: str,
        windows: Iterable[int | None] = (None,),
        wanted: Int64 | None = None,
    ) -> ForestLayout:
        """Args:
        forest: ``T`` tokens.
        device: where the tensors go.
        dtype: of additive masks.
        backend: see there.
        windows: of the model's layers. One that is as long as the deepest row is none.
        wanted: see there.
        """
        deepest = int(forest.position.max(initial=0))
        views: dict[int | None, View] = {}
        for window in windows:
            real = None if window is None or window > deepest else window
            if real not in views:
                views[real] = _view(forest, device, dtype, backend, real)
            views[window] = views[real]
        return cls(backend, views, None if wanted is None else torch.from_numpy(wanted).to(device))

    def view(self, window: int | None) -> View:
        """Raises:
        ModelError: no layer was said to have such a window.
        """
        if window not in self.views:
            asked = "to all tokens" if window is None else f"through a sliding window of {window} tokens"
            known = ", ".join("no window" if key is None else f"a window of {key}" for key in self.views)
            raise ModelError(
                f"a layer attends {asked}, by the configuration it has {known}",
                "Save the model again with a configuration (sliding_window, layer_types) that says what it does.",
            )
        return self.views[window]


def _view(
    forest: TokenForest, device: torch.device, dtype: torch.dtype, backend: str, window: int | None
) -> View:
    if backend == "sdpa":
        return View(tuple(attention_parts(forest, device, dtype, window)))
    if backend == "dense":
        return View(mask=torch.from_numpy(forest.dense_mask(window)).to(device)[None, None])
    return View(mask=_block_mask(forest, device, window))


def _block_mask(forest: TokenForest, device: torch.device, window: int | None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    end, depth = (torch.from_numpy(x.astype(np.int64)).to(device) for x in (forest.end, forest.position))

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end[key])

    reach = len(end) if window is None else window

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return rule(batch, head, query, key) & (depth[query] - depth[key] < reach)

    return create_block_mask(
        rule if window is None else near, None, None, len(end), len(end), device=str(device)
    )


def attention_parts(
    forest: TokenForest, device: torch.device, dtype: torch.dtype, window: int | None = None
) -> list[Part]:
    """Parts in which every token sees what it may see once, and nothing else."""
    return _Cutter(forest, device, dtype, window).parts()


class _Cutter:
    """Cuts a forest into parts.

    As the child with most below it comes first, a path is a slice, and what hangs from it follows, the deeper the
    earlier. In another depth-first order the parts are right as well, and more.
    """

    def __init__(
        self, forest: TokenForest, device: torch.device, dtype: torch.dtype, window: int | None
    ) -> None:
        self.device, self.dtype = device, dtype
        self.window = window
        self.reach = len(forest) if window is None else window  # how far back a token sees, itself included
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
        self._follow(root, fork)
        at = 0
        while at < len(roots):  # a stair of few steps
            less = seen <= seen[at] - max(STEP, min(int(seen[at]), self.reach) // 4)
            to = at + int(np.argmax(less[at:])) if less[at:].any() else len(roots)
            queries = slice(int(roots[at]), int(self.end[roots[to - 1]]))
            self._look_back(queries, root, seen[at:to])
            at = to
        return [int(root) for root in roots]

    def _follow(self, root: int, fork: int) -> None:
        """A path ``root:fork``, each of whose tokens sees those before it."""
        if fork - root <= self.reach:
            self._add(slice(root, fork), slice(root, fork), causal=True)
            return
        for start in range(root, fork, STRIP):
            stop = min(start + STRIP, fork)
            self._add(slice(start, stop), slice(max(root, start - self.reach + 1), stop), masked=True)

    def _look_back(self, queries: slice, root: int, seen: Int64) -> None:
        """What hangs from a path that begins at ``root``: subtrees that see ``seen`` of its tokens each."""
        deep, depth = int(seen.max()), self.depth[queries] - self.depth[root]
        first = max(0, int(depth.min()) - self.reach + 1)
        if first < deep:
            cut = bool((seen < deep).any() or int(depth.max()) - first >= self.reach)
            self._add(queries, slice(root + first, root + deep), masked=cut)

    def _branches(self, start: int, stop: int) -> Int64:
        """The roots of the subtrees that make up a slice."""
        found, at = [], start
        while at < stop:
            found.append(at)
            at = int(self.end[at])
        return np.array(found, np.int64)

    def _add(self, queries: slice, keys: slice, *, causal: bool = False, masked: bool = False) -> None:
        own, others = (np.arange(each.start, each.stop)[None] for each in (queries, keys))
        mask = blind = None
        if masked:
            sees = self._sees(own, others)
            mask, nothing = self._additive(sees), np.flatnonzero(~sees.any(-1))
            blind = self._tensor(nothing) if len(nothing) else None
        self.found.append(Part(queries, keys, mask, causal, first=self._first(own[0]), blind=blind))

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
        # a spare query repeats its window's first token and sees that one
        mask = self._additive(self._sees(index, index) & inside[:, None, :])
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

    def _sees(self, queries: Int64, keys: Int64) -> Bool:
        """``[n, w, w']`` of ``[n, w]`` and ``[n, w']``: the rule."""
        query, key = queries[:, :, None], keys[:, None, :]
        sees: Bool = (key <= query) & (query < self.end[key])
        return sees if self.window is None else sees & (self.depth[query] - self.depth[key] < self.reach)

    def _additive(self, sees: Bool) -> Tensor:
        """``[n, 1, w, w']`` of ``[n, w, w']``."""
        mask = torch.zeros(sees.shape, dtype=self.dtype)
        mask.masked_fill_(torch.from_numpy(~sees), float("-inf"))
        return mask[:, None].to(self.device)

    def _tensor(self, array: Int64) -> Tensor:
        return torch.from_numpy(array).to(self.device)
