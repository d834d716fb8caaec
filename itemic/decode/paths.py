"""Answers as walks of the trie, with the log-probability of each of their tokens: the best ones, or drawn ones.

Drawing without replacement is stochastic beam search (Kool, van Hoof and Welling 2019, "Stochastic beams and where to
find them", algorithm 1): every prefix has a Gumbel-perturbed log-probability, of children the highest is their
parent's, and the ``k`` ends with the highest ones are a sample of ``k`` different items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from itemic.decode.beam import BeamSearch
from itemic.decode.plan import Excluded, ancestors, batches, without
from itemic.decode.state import Searched
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Excludes = Sequence[npt.NDArray[np.integer]] | None


@dataclass(frozen=True)
class Paths:
    """``k`` answers to each of ``R`` prompts.

    Attributes:
        items: int32 ``[R, k]``, the first item of each end that may come; -1 where there are fewer ends.
        ends: int64 ``[R, k]``, nodes of the trie where a sequence ends; -1 likewise.
        log_probs: float32 ``[R, k, D]``, of the token that leads to each depth, from 1 to ``D``; 0 for tokens that
            are no choice, and behind the end.
    """

    items: Int32
    ends: Int64
    log_probs: Float32

    @property
    def scores(self) -> Float32:
        """float32 ``[R, k]``: of the whole answers; -inf where there is none."""
        total = self.log_probs.sum(axis=2, dtype=np.float32)
        return np.where(self.ends >= 0, total, -np.inf).astype(np.float32)


def best_paths(search: BeamSearch, prompts: TokenRows, k: int, exclude: Excludes = None) -> Paths:
    """The ``k`` most probable ends of each prompt, best first, as :meth:`BeamSearch.rank` finds them.

    Args:
        search: its beams are the width, at least ``k``.
        prompts: ``R`` prompts.
        k: how many.
        exclude: for each prompt the rows of items that it must not get.

    Raises:
        ConstraintError, ConfigError: as :meth:`BeamSearch.rank` does.
    """

    def best(searched: Searched, asked: Int64) -> tuple[Int64, Int64, Float32]:
        request, node, score = searched.ends
        order = np.lexsort((node, -score, request))
        return request[order], node[order], score[order]

    return _walk(search, prompts, k, exclude, search._search, best)


def drawn_paths(
    search: BeamSearch,
    prompts: TokenRows,
    k: int,
    seeds: Sequence[int],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    exclude: Excludes = None,
) -> Paths:
    """``k`` different ends of each prompt, drawn without replacement, in the order in which they are drawn.

    The chances of what may follow add up to one at each step, whatever the search's ``normalize``; the
    log-probabilities that are given are those of the search all the same. What is drawn depends on weights, prompt and
    seed alone.

    Args:
        search: of the model; ``k`` is at most its beams.
        prompts: ``R`` prompts.
        k: how many.
        seeds: one for each prompt.
        temperature: what log-probabilities are divided by before each step is normalised.
        top_p: of what may follow the smallest set that has at least this chance.
        exclude: for each prompt the rows of items that it must not get.

    Raises:
        ConstraintError, ConfigError: as :meth:`BeamSearch.rank` does, or there is another number of seeds.
    """
    if len(seeds) != len(prompts):
        raise ConfigError(f"{len(seeds)} seeds for {len(prompts)} prompts", "Give one for each.")
    perturbed: list[Float64] = []

    def draw(own: TokenRows, template: list, skip: int, banned: Excluded | None) -> Searched:  # type: ignore[type-arg]
        state, found = _draw(
            search, search._open(own, template, skip, banned), k, generators, temperature, top_p
        )
        perturbed[:] = [found]
        return state

    def best(searched: Searched, asked: Int64) -> tuple[Int64, Int64, Float32]:
        request, node, score = searched.ends
        order = np.lexsort((node, -perturbed[0], request))
        return request[order], node[order], score[order]

    generators: list[np.random.Generator] = []

    def begin(asked: Int64) -> None:
        generators[:] = [np.random.default_rng([seeds[int(row)], 5]) for row in asked]

    return _walk(search, prompts, k, exclude, draw, best, begin)


@torch.inference_mode()
def _walk(
    search: BeamSearch,
    prompts: TokenRows,
    k: int,
    exclude: Excludes,
    run: Callable[..., Searched],
    best: Callable[[Searched, Int64], tuple[Int64, Int64, Float32]],
    begin: Callable[[Int64], None] = lambda asked: None,
) -> Paths:
    """Search batch by batch and keep the first ``k`` ends of each prompt, in the order that ``best`` gives."""
    search._check(prompts, k, exclude)
    trie, depth = search.trie, int(search.trie.depth.max(initial=0))
    found = Paths(
        np.full((len(prompts), k), -1, np.int32),
        np.full((len(prompts), k), -1, np.int64),
        np.zeros((len(prompts), k, depth), np.float32),
    )
    if not len(prompts):
        return found
    with search._searching():
        keys, skip = search._template_for(prompts)
        own = without(prompts, skip, search.forced.lead)
        for rows in batches(own.lengths, search.beams, search.max_batch_tokens):
            asked, banned = search._with_something_left(rows, exclude)
            if not len(asked):
                continue
            begin(asked)
            searched = run(own.take(asked), keys, skip, banned)
            request, node, score = best(searched, asked)
            place = np.arange(len(request)) - np.searchsorted(request, request)
            first = place < k
            request, node, score, place = request[first], node[first], score[first], place[first]
            steps = _steps(searched, trie, request, node, score, depth)
            while not (ended := trie.terminal[node]).all():  # no choice is left below
                node = np.where(ended, node, trie.first[node])
            at = asked[request], place
            found.ends[at], found.log_probs[at] = node, steps
            found.items[at] = _first_items(trie, request, node, banned)
    return found


def _steps(
    searched: Searched, trie: Trie, request: Int64, node: Int64, score: Float32, depth: int
) -> Float32:
    """float32 ``[N, D]``: what each token of a way added to the score of the beam that took it."""
    nodes, way = len(trie), ancestors(trie, node)
    deep = trie.depth[node].astype(np.int64)
    total = np.zeros((len(node), depth + 1), np.float64)
    for beams in searched.trail:
        at = int(trie.depth[beams.node[0]])
        if at >= way.shape[1]:
            break
        inside = np.flatnonzero(deep > at)
        keys = beams.request * nodes + beams.node
        order = np.argsort(keys, kind="stable")
        place = np.searchsorted(keys, request[inside] * nodes + way[inside, at], sorter=order)
        total[inside, at] = beams.score[order[np.minimum(place, len(order) - 1)]]
    total[np.arange(len(node)), deep] = score
    found = np.diff(total, axis=1)
    found[np.arange(depth) >= deep[:, None]] = 0.0
    return found.astype(np.float32)


def _first_items(trie: Trie, request: Int64, node: Int64, banned: Excluded | None) -> Int32:
    rows, offsets = trie.items_at(node)
    owner = np.repeat(np.arange(len(node)), np.diff(offsets))
    if banned is not None and len(rows):
        open_ = ~banned.excluded(request[owner], rows)
        rows, owner = rows[open_], owner[open_]
    found = np.full(len(node), -1, np.int32)
    found[owner[::-1]] = rows[::-1]  # the first one is written last
    return found


def _draw(
    search: BeamSearch,
    state: Searched,
    k: int,
    generators: Sequence[np.random.Generator],
    temperature: float,
    top_p: float,
) -> tuple[Searched, Float64]:
    """Ends drawn from the root down, and their perturbed log-probabilities in the order of the state's ends."""
    trie, beams, depth = search.trie, state.trail[0], int(search.trie.depth[search.forced.root])
    chance, value = np.zeros(len(beams.node)), np.zeros(len(beams.node))  # log; and perturbed
    kept: list[Float64] = []
    while True:
        leaf, node, score = search.candidates(beams, depth, state.banned)
        request = beams.request[leaf]
        step = _normalized(
            (score - beams.score[leaf]).astype(np.float64) / temperature, leaf, len(beams.node)
        )
        if top_p < 1:
            stays = _nucleus(step, leaf, top_p)
            leaf, node, request, score = leaf[stays], node[stays], request[stays], score[stays]
            step = _normalized(step[stays], leaf, len(beams.node))
        noise = np.concatenate(
            [generators[row].gumbel(size=count) for row, count in zip(*_runs(request), strict=True)]
            or [np.zeros(0)]
        )
        log = chance[leaf] + step
        drawn = _below(log + noise, leaf, value)
        ends = trie.terminal[node] | search.resolved[node]
        if state.banned is not None:
            ends &= search.resolved[node] | state.banned.ends(request, node)
        state.done.append((request[ends], node[ends], score[ends]))
        kept.append(drawn[ends])
        lives = ~(trie.leaf[node] | search.resolved[node])
        order = np.flatnonzero(lives)[np.lexsort((node[lives], -drawn[lives], request[lives]))]
        place = np.arange(len(order)) - np.searchsorted(request[order], request[order])
        chosen = np.sort(order[place < k])
        if not len(chosen):
            return state, np.concatenate(kept)
        chance, value = log[chosen], drawn[chosen]
        beams = search.grow(state, beams.path, leaf[chosen], request[chosen], node[chosen], score[chosen])
        state.trail.append(beams)
        depth += 1


def _below(noisy: Float64, leaf: Int64, value: Float64) -> Float64:
    """Perturbed log-probabilities whose highest among each leaf's is the leaf's own ``value`` (Kool et al. 2019,
    appendix B.3)."""
    most = np.full(len(value), -np.inf)
    np.maximum.at(most, leaf, noisy)
    gap = noisy - most[leaf]
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = value[leaf] - noisy + np.where(gap < -1e-12, np.log1p(-np.exp(gap)), -np.inf)
        found = value[leaf] - np.maximum(shift, 0) - np.log1p(np.exp(-np.abs(shift)))
    return np.where(gap < -1e-12, found, value[leaf])


def _normalized(values: Float64, leaf: Int64, count: int) -> Float64:
    """Log-probabilities that add up to one over each leaf's candidates."""
    most = np.full(count, -np.inf)
    np.maximum.at(most, leaf, values)
    total = np.bincount(leaf, np.exp(values - most[leaf]), minlength=count)
    return np.asarray(values - most[leaf] - np.log(total[leaf]))


def _nucleus(values: Float64, leaf: Int64, top_p: float) -> Bool:
    """Which candidates are in the smallest set of their leaf's that has ``top_p``."""
    order = np.lexsort((-values, leaf))
    chance = np.exp(values[order])
    before = np.cumsum(chance) - chance
    first = np.searchsorted(leaf[order], leaf[order])
    stays = np.zeros(len(values), bool)
    stays[order] = before - before[first] < top_p
    return stays


def _runs(request: Int64) -> tuple[list[int], list[int]]:
    """Distinct requests, in order, and how many candidates each has; candidates are ordered by request."""
    own, count = np.unique(request, return_counts=True)
    return own.tolist(), count.tolist()
