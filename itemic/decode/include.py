"""Items that are scored whatever the beams: what the beams know of them, and the prefixes that are computed beside.

The beams go first and know nothing of this, so that their result doesn't change. What they leave behind (their hidden
states, and the keys of prompts and leaves) is where the other items' prefixes go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from itemic.decode.plan import Excluded, Forced, ancestors
from itemic.decode.state import Beams, Searched
from itemic.errors import ConfigError, ConstraintError
from itemic.sid.trie import Trie

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Include:
    """Items whose scores are wanted beside those of the beams.

    Attributes:
        items: for each prompt the rows of its items.
        floors: is told a prompt's number, its best items int32 ``[k]`` and their scores float32 ``[k]``, and gives
            for each of the prompt's own items the least score that would matter, ``[m]``. An item is given up where
            the score of a prefix, which only falls, is below that already. None: every score matters.
        together: the same for ``Q`` prompts at once, which is faster: is told int64 ``[Q]``, int32 and float32
            ``[Q, k]``, and gives the floors of one prompt after the other, ``[M]``. Instead of ``floors``.
    """

    items: Sequence[npt.NDArray[np.integer]]
    floors: Callable[[int, Int32, Float32], npt.NDArray[np.floating]] | None = None
    together: Callable[[Int64, Int32, Float32], npt.NDArray[np.floating]] | None = None

    def check(self, prompts: int, trie: Trie) -> None:
        """Make sure that there are items for each prompt, and all of them in the trie.

        Raises:
            ConfigError: there are more or fewer lists than prompts, or floors of both kinds.
            ConstraintError: an item isn't in the catalogue; the prompt is named.
        """
        if len(self.items) != prompts:
            raise ConfigError(
                f"{len(self.items)} lists of included items for {prompts} prompts", "Give one for each."
            )
        if self.floors is not None and self.together is not None:
            raise ConfigError("floors both one by one and together", "Give one of the two.")
        size = len(trie.items)
        for prompt, rows in enumerate(self.items):
            wrong = rows[(rows < 0) | (rows >= size)]
            if len(wrong):
                raise ConstraintError(
                    f"prompt {prompt} includes item row {wrong[0]}, which is not in the catalogue",
                    "Include rows of the same index.",
                )

    def below(self, prompts: Int64, items: Int32, scores: Float32) -> Float64:
        """The floors of the prompts' items, one prompt after the other, ``[M]``.

        Raises:
            ConfigError: there isn't a floor for each item.
        """
        counts = [len(self.items[prompt]) for prompt in prompts.tolist()]
        if self.together is not None:
            return _checked(self.together(prompts, items, scores), sum(counts))
        if self.floors is None:
            return np.full(sum(counts), -np.inf)
        told = zip(prompts.tolist(), items, scores, counts, strict=True)
        found = [_checked(self.floors(prompt, *beams), count) for prompt, *beams, count in told]
        return np.concatenate([*found, np.zeros(0)])


def _checked(floors: npt.NDArray[np.floating], count: int) -> Float64:
    found = np.asarray(floors, np.float64)
    if found.shape != (count,):
        raise ConfigError(
            f"floors of shape {found.shape} for {count} included items", "Give one for each item."
        )
    return found


class Search(Protocol):
    """What is asked of the search that the beams went through, see :class:`itemic.decode.beam.BeamSearch`."""

    trie: Trie
    forced: Forced
    max_batch_tokens: int

    @property
    def goals(self) -> Int64: ...

    def candidates(
        self, beams: Beams, depth: int, banned: Excluded | None
    ) -> tuple[Int64, Int64, Float32]: ...

    def grow(
        self, state: Searched, paths: Int64, leaf: Int64, request: Int64, node: Int64, score: Float32
    ) -> Beams: ...


@dataclass(frozen=True)
class Wanted:
    """Items that are still to be scored, ordered by request.

    Attributes:
        request: int64 ``[W]``, within the batch.
        goal: int64 ``[W]``, the node where the item's score is complete.
        floor: float64 ``[W]``, what its score must reach.
        at: int64 ``[W]``, its place among all wanted items of the batch.
    """

    request: Int64
    goal: Int64
    floor: Float64
    at: Int64

    def __len__(self) -> int:
        return len(self.request)

    def take(self, rows: npt.NDArray[np.integer] | Bool | slice) -> Wanted:
        return Wanted(self.request[rows], self.goal[rows], self.floor[rows], self.at[rows])


def score_included(search: Search, searched: Searched, rows: list[Int64], floors: Float64) -> list[Float32]:
    """Scores of the included items of a batch, float32 ``[m]`` for each prompt; -inf where excluded or given up.

    Args:
        search: who has searched.
        searched: what that left behind.
        rows: for each prompt the rows of its items.
        floors: what the scores of these items must reach to matter, one prompt after the other, ``[M]``.
    """
    item, nodes = np.concatenate(rows), len(search.trie)
    request = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
    wanted = Wanted(request, search.goals[item], floors, np.arange(len(item)))
    if searched.banned is not None:
        wanted = wanted.take(~searched.banned.excluded(request, item))
    result = np.full(len(item), -np.inf, np.float32)
    ends, node, score = searched.ends
    known = places(ends * nodes + node, wanted.request * nodes + wanted.goal)
    result[wanted.at[known >= 0]] = score[known[known >= 0]]
    _follow(search, searched, wanted.take((known < 0) & (wanted.floor < np.inf)), result)
    return np.split(result, np.cumsum([len(some) for some in rows])[:-1])


def _follow(search: Search, searched: Searched, wanted: Wanted, result: Float32) -> None:
    """Go down to the wanted items, from the beams that are above them, and write their scores.

    Where a beam went on, the score of its prefix is known and nothing is computed. ``beside`` are the prefixes that no
    beam went through; of more than fit into memory at once those of some items come after the others.
    """
    if not len(wanted):
        return
    before, searched = searched, replace(searched, leaves=list(searched.leaves))
    trie, nodes = search.trie, len(search.trie)
    path = ancestors(trie, wanted.goal)
    beside: list[Beams] = []
    for step, depth in enumerate(range(int(trie.depth[search.forced.root]), path.shape[1] - 1)):
        known = Beams.joined([*searched.trail[step : step + 1], *beside])
        key, child = wanted.request * nodes, path[:, depth + 1]
        above = places(known.request * nodes + known.node, key + path[:, depth])
        score = np.full(len(wanted), -np.inf, np.float32)
        left = np.arange(len(wanted))
        for request, node, scores in searched.scored[step : step + 1]:
            found = places(request * nodes + node, key + child)
            score[found >= 0] = scores[found[found >= 0]]
            left = np.flatnonzero(found < 0)
        if len(left):
            beams, which = _parents(known, above[left])
            leaf, node, scores = search.candidates(beams, depth, searched.banned)
            found = places(leaf * nodes + node, which * nodes + child[left])
            score[left[found >= 0]] = scores[found[found >= 0]]
        ends = child == wanted.goal
        result[wanted.at[ends]] = score[ends]
        score[ends] = -np.inf  # they need nothing more
        stays = np.flatnonzero(_stays(score, wanted.floor))
        wanted, path, child, above, score = (
            wanted.take(stays),
            path[stays],
            child[stays],
            above[stays],
            score[stays],
        )
        if not len(wanted):
            return
        key, first = np.unique(wanted.request * nodes + child, return_index=True)
        for beams in searched.trail[step + 1 : step + 2]:
            first = first[places(beams.request * nodes + beams.node, key) < 0]
        if len(first) > search.max_batch_tokens:
            for half in np.array_split(np.arange(len(wanted)), 2):
                _follow(search, before, wanted.take(half), result)
            return
        beside = []
        if len(first):
            request = wanted.request[first]
            beside = [search.grow(searched, known.path, above[first], request, child[first], score[first])]


def _stays(score: Float32, floor: Float64) -> Bool:
    stays: Bool = (score >= floor) & (score > -np.inf)
    return stays


def _parents(known: Beams, at: Int64) -> tuple[Beams, Int64]:
    """The beams at the given places, each once and ordered by request, and which of them each place is."""
    rows = np.unique(at)
    rows = rows[np.argsort(known.request[rows], kind="stable")]
    return known.take(rows), places(rows, at)


def goals(trie: Trie, resolved: Bool, root: int) -> Int64:
    """int64 ``[items]``: for each item the node at which a search is done with it.

    That is the end of its sequence, or the first node on the way there below which there is no choice.
    """
    goal = np.arange(len(trie))
    first_choice = int(trie.depth[root]) + 1
    for low, high in zip(
        trie.depth_first[first_choice + 1 : -1], trie.depth_first[first_choice + 2 :], strict=True
    ):
        above = goal[trie.parent[low:high]]
        goal[low:high] = np.where(resolved[above], above, goal[low:high])
    of_item = np.empty(len(trie.items), np.int64)
    of_item[trie.items] = np.repeat(goal, np.diff(trie.item_first))
    return of_item


def places(keys: Int64, wanted: Int64) -> Int64:
    """Where each wanted number stands among ``keys``, which are all different and in any order; -1 for nowhere."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where(keys[at] == wanted, at, -1)
