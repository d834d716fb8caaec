"""Exact beam search over a trie of items.

Each prompt is computed once, all prompts of a batch side by side without padding; what they all begin with is computed
once for all. Then every step adds one leaf per beam below its prompt. Only legal tokens are scored. With the same
scores, the result is that of ``generate(num_beams=…, prefix_allowed_tokens_fn=…)`` without a length penalty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from itemic.decode.attention import KeyValue, LeafPass, Pass, PromptPass
from itemic.decode.body import body_of, evaluating
from itemic.decode.include import Include, goals, score_included
from itemic.decode.layout import group_leaves, group_prompts
from itemic.decode.plan import (
    SHORTEST_TEMPLATE,
    Excluded,
    Forced,
    batches,
    chains,
    check_prompts,
    common_prefix,
    forced_tokens,
    without,
)
from itemic.decode.scores import NORMALIZE, Head
from itemic.decode.state import Beams, Searched
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.head import OutputHead
from itemic.forest.rows import TokenRows
from itemic.forest.support import check_supported
from itemic.model.positions import learned_positions
from itemic.progress import progress_bar
from itemic.sid.trie import Trie

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


class BeamSearch:
    """Finds the items whose token sequences a model holds most probable after a prompt.

    A beam's score is the sum of its tokens' log-probabilities; the best ``beams`` of a request stay alive at each
    step. Sequences may have different lengths: finished ones keep their sum and go on competing with it.

    Args:
        lm: a causal language model that :func:`itemic.forest.support.check_supported` lets pass.
        trie: of the items' token sequences.
        beams: width of the search. Never less than what the catalogue offers is lost when it is wider.
        normalize: over what a token's probability is normalised: ``vocab`` (the whole vocabulary, as ``generate``
            does), ``level`` (all tokens that stand at this place in some item's sequence) or ``legal`` (the tokens that
            may follow here).
        skip_forced: leave out of steps and scores the tokens that all items have at the same place (those that open
            and close a semantic ID). The scores are then sums over the tokens that tell items apart; under ``legal`` a
            beam that has one item left is done at once and makes room. False scores every token, as ``generate`` does.
        template: tokens that prompts begin with; their keys are kept from call to call. Prompts that begin otherwise
            are computed without them. Without a template, what the prompts of a call have in common is used in that
            call. Keys are computed anew when the weights have changed.
        max_batch_tokens: prompt tokens, and leaves, computed at once; bounds the memory.

    Raises:
        ModelError: the model has layers that can't be searched this way.
        ConfigError: an unknown normalisation, or a width below 1.
        ConstraintError: the trie has tokens that the model doesn't.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        trie: Trie,
        *,
        beams: int = 50,
        normalize: str = "vocab",
        skip_forced: bool = True,
        template: Sequence[int] | None = None,
        max_batch_tokens: int = 4096,
    ) -> None:
        if normalize not in NORMALIZE:
            raise ConfigError(f"unknown normalize {normalize!r}", f"Use one of {', '.join(NORMALIZE)}.")
        if beams < 1 or max_batch_tokens < 1:
            raise ConfigError(
                f"{beams} beams in batches of {max_batch_tokens} tokens", "Give 1 or more of both."
            )
        check_supported(lm)
        self.lm, self.trie, self.beams, self.normalize = lm, trie, beams, normalize
        self.body = body_of(lm)
        self.head = Head(OutputHead.of(lm), normalize)
        if int(trie.token.max()) >= self.head.size:
            raise ConstraintError(
                f"the trie has token {trie.token.max()}, the model's vocabulary ends at {self.head.size - 1}",
                "Expand the model by the index that the trie was built from.",
            )
        self.skip_forced = skip_forced
        nothing = np.zeros(len(trie.levels) + 1, bool)
        self.forced = (
            forced_tokens(trie) if skip_forced else Forced((), 0, nothing, np.zeros(len(trie), bool))
        )
        self.resolved = self.forced.tail | (chains(trie) if normalize == "legal" and skip_forced else False)
        self.max_batch_tokens = max_batch_tokens
        self.template = np.asarray(template or (), np.int32)
        self._template_keys: list[KeyValue] | None = None
        self._template_version: tuple[int, ...] = ()

    @torch.inference_mode()
    def rank(
        self,
        prompts: TokenRows,
        *,
        k: int,
        exclude: Sequence[npt.NDArray[np.integer]] | None = None,
        progress: bool = False,
    ) -> tuple[Int32, Float32]:
        """The ``k`` best items of each prompt.

        Args:
            prompts: ``R`` prompts.
            k: at most ``beams``.
            exclude: for each prompt, the rows of items that it must not get; they take no beam's place.
            progress: show a bar.

        Returns:
            ``(items, scores)``, int32 and float32 ``[R, k]``, best first; equal scores in the order of the trie, then
            of the rows. -1 and -inf where fewer than ``k`` items can be reached: a prompt that all items are excluded
            for has nothing else, and the others have theirs.

        Raises:
            ConstraintError: a prompt is empty, has unknown tokens or goes past learned positions; it is named.
            ConfigError: ``k`` is out of range.
        """
        return self._rank(prompts, k, exclude, None, progress)[:2]

    @torch.inference_mode()
    def rank_including(
        self,
        prompts: TokenRows,
        include: Include,
        *,
        k: int,
        exclude: Sequence[npt.NDArray[np.integer]] | None = None,
        progress: bool = False,
    ) -> tuple[Int32, Float32, list[Float32]]:
        """The same, and the scores of further items, whether beams find them or not.

        Only prefixes that no beam went through are computed, and no two of a prompt twice; prompts aren't computed
        again.

        Args:
            prompts: as in :meth:`rank`.
            include: whose scores are wanted.
            k: as in :meth:`rank`.
            exclude: as in :meth:`rank`.
            progress: as in :meth:`rank`.

        Returns:
            items and scores as :meth:`rank` gives them, and for each prompt the scores of its included items, float32
            ``[m]``: -inf where an item is excluded or given up.

        Raises:
            ConstraintError: as in :meth:`rank`, or an included item isn't in the catalogue.
            ConfigError: as in :meth:`rank`, or there isn't a list of included items, or a floor, for each.
        """
        include.check(len(prompts), self.trie)
        items, scores, included = self._rank(prompts, k, exclude, include, progress)
        return items, scores, included

    @torch.inference_mode()
    def score(
        self, prompts: TokenRows, items: Sequence[npt.NDArray[np.integer]], *, progress: bool = False
    ) -> list[Float32]:
        """The scores of given items, without any beams: what :meth:`rank` would give each if it found it.

        Prefixes that items share are computed once.

        Args:
            prompts: as in :meth:`rank`.
            items: for each prompt the rows whose scores are wanted.
            progress: as in :meth:`rank`.

        Returns:
            for each prompt float32 ``[m]``.

        Raises:
            ConstraintError: as in :meth:`rank`, or an item isn't in the catalogue.
            ConfigError: there isn't a list of items for each prompt.
        """
        Include(items).check(len(prompts), self.trie)
        self._check(prompts, 1, None)
        found = [np.zeros(0, np.float32)] * len(prompts)
        if not len(prompts):
            return found
        with self._searching(), progress_bar("ranking", len(prompts) if progress else None) as bar:
            keys, skip = self._template_for(prompts)
            own = without(prompts, skip, self.forced.lead)
            for rows in batches(own.lengths, 1, self.max_batch_tokens):
                wanted = [np.asarray(items[row], np.int64) for row in rows.tolist()]
                floors = np.full(sum(map(len, wanted)), -np.inf)
                begun = self._open(own.take(rows), keys, skip, None)
                for row, scores in zip(
                    rows.tolist(), score_included(self, begun, wanted, floors), strict=True
                ):
                    found[row] = scores
                bar.advance(len(rows))
        return found

    def _rank(
        self,
        prompts: TokenRows,
        k: int,
        exclude: Sequence[npt.NDArray[np.integer]] | None,
        include: Include | None,
        progress: bool,
    ) -> tuple[Int32, Float32, list[Float32]]:
        self._check(prompts, k, exclude)
        items = np.full((len(prompts), k), -1, np.int32)
        scores = np.full((len(prompts), k), -np.inf, np.float32)
        included = [np.full(len(rows), -np.inf, np.float32) for rows in include.items] if include else []
        if not len(prompts):
            return items, scores, included
        with self._searching(), progress_bar("ranking", len(prompts) if progress else None) as bar:
            keys, skip = self._template_for(prompts)
            own = without(prompts, skip, self.forced.lead)
            for rows in batches(own.lengths, self.beams, self.max_batch_tokens):
                asked, banned = self._with_something_left(rows, exclude)
                if len(asked):
                    searched = self._search(own.take(asked), keys, skip, banned)
                    self._write(searched, asked, items, scores)
                    if include is not None:
                        self._add_included(searched, include, asked, items, scores, included)
                bar.advance(len(rows))
        return items, scores, included

    # --------------------------------------------------------------------------- before the search

    @contextmanager
    def _searching(self) -> Iterator[None]:
        """The model in evaluation mode, in its own numbers."""
        with evaluating(self.lm), torch.autocast(self.lm.device.type, enabled=False):
            yield

    def _check(self, prompts: TokenRows, k: int, exclude: Sequence[npt.NDArray[np.integer]] | None) -> None:
        if not 1 <= k <= self.beams:
            raise ConfigError(f"k is {k} with {self.beams} beams", "Give a k from 1 to the number of beams.")
        if exclude is not None and len(exclude) != len(prompts):
            raise ConfigError(
                f"{len(exclude)} lists of excluded items for {len(prompts)} prompts", "Give one for each."
            )
        check_prompts(
            prompts, self.head.size, learned_positions(self.lm), int(self.trie.depth.max(initial=0)) - 1
        )

    def _with_something_left(
        self, rows: Int64, exclude: Sequence[npt.NDArray[np.integer]] | None
    ) -> tuple[Int64, Excluded | None]:
        """The requests that not all items are excluded for, and what is excluded for them."""
        if exclude is None:
            return rows, None
        banned = Excluded(self.trie, [exclude[int(row)] for row in rows])
        open_ = banned.open(np.arange(len(rows)), np.zeros(len(rows), np.int64))
        if open_.all():
            return rows, banned
        rows = rows[open_]
        return rows, Excluded(self.trie, [exclude[int(row)] for row in rows])

    def _template_for(self, prompts: TokenRows) -> tuple[list[KeyValue], int]:
        """Keys of the template that all these prompts begin with, and its length (0 for none)."""
        width = len(self.template)
        if width and int(prompts.lengths.min()) + len(self.forced.lead) > width:
            heads = prompts.tokens[
                np.minimum(prompts.offsets[:-1, None] + np.arange(width), len(prompts.tokens) - 1)
            ]
            if (heads == self.template).all() and int(prompts.lengths.min()) >= width:
                version = tuple(weight._version for weight in self.lm.parameters())
                if self._template_keys is None or self._template_version != version:
                    self._template_keys = self._compute_template(self.template)
                    self._template_version = version
                return self._template_keys, width
        shared = common_prefix(prompts) if len(prompts) > 1 and not width else 0
        if shared < SHORTEST_TEMPLATE:
            return [], 0
        return self._compute_template(prompts[0][:shared]), shared

    def _compute_template(self, tokens: Int32) -> list[KeyValue]:
        step = PromptPass(group_prompts(np.array([len(tokens)]), self.lm.device), [], keys_only=True)
        self._forward(tokens, np.arange(len(tokens)), step)
        return step.as_template()

    def _prompt_pass(self, lengths: Int64, template: list[KeyValue]) -> PromptPass:
        width = template[0].key.shape[1] if template else 0
        leaves = self.beams * self.lm.config.num_attention_heads
        return PromptPass(group_prompts(lengths, self.lm.device, width, leaves), template)

    # ----------------------------------------------------------------------------------- the search

    def _open(
        self, prompts: TokenRows, template: list[KeyValue], skip: int, banned: Excluded | None
    ) -> Searched:
        """The prompts of a batch, with a beam at the root of each."""
        step = self._prompt_pass(prompts.lengths, template)
        start = np.repeat(prompts.offsets[:-1], prompts.lengths)
        position = skip + np.arange(len(prompts.tokens)) - start
        hidden = self._forward(prompts.tokens, position, step)
        count = len(prompts)
        beams = Beams(
            np.arange(count),
            np.full(count, self.forced.root, np.int64),
            np.zeros(count, np.float32),
            np.zeros((count, 0), np.int64),
            hidden,
        )
        return Searched(prompts, skip, banned, step, [], 0, [beams], [], [])

    def _search(
        self, prompts: TokenRows, template: list[KeyValue], skip: int, banned: Excluded | None
    ) -> Searched:
        """Beams down to the ends of the items."""
        state = self._open(prompts, template, skip, banned)
        count, beams = len(prompts), state.trail[0]
        done, depth = state.done, int(self.trie.depth[self.forced.root])
        while True:
            leaf, node, score = self.candidates(beams, depth, banned)
            request = beams.request[leaf]
            state.scored.append((request, node, score))
            ends = self.trie.terminal[node] | self.resolved[node]
            if banned is not None:
                ends &= self.resolved[node] | banned.ends(request, node)
            done.append((request[ends], node[ends], score[ends]))
            lives = ~(self.trie.leaf[node] | self.resolved[node])
            worth = score >= self._worst_kept(done, count)[request] if len(done) > 1 or ends.any() else lives
            chosen = _best(request, score, self.beams, lives & worth)
            if not len(chosen):
                return state
            beams = self.grow(state, beams.path, leaf[chosen], request[chosen], node[chosen], score[chosen])
            state.trail.append(beams)
            depth += 1

    def grow(
        self, state: Searched, paths: Int64, leaf: Int64, request: Int64, node: Int64, score: Float32
    ) -> Beams:
        """Beams with one token more, the one that leads to ``node``; ``paths[leaf]`` are the leaves above it."""
        counts = np.bincount(request, minlength=len(state.prompts))
        seats, order = group_leaves(counts, state.step.groups, self.lm.device)
        place = np.arange(len(node)) if order is None else np.argsort(order)  # of each leaf in the pass
        path = np.concatenate([paths[leaf], state.used + place[:, None]], axis=1)
        state.used += len(node)
        token, at = self.trie.token[node], state.skip + state.prompts.lengths[request] + path.shape[1] - 1
        seen = path
        if order is not None:
            token, at, seen = token[order], at[order], path[order]
        step = LeafPass(state.step, state.leaves, seats, torch.from_numpy(seen).to(self.lm.device))
        hidden = self._forward(token, at, step)
        if order is not None:
            hidden = hidden.index_select(0, torch.from_numpy(place).to(hidden.device))
        return Beams(request, node, score, path, hidden)

    @cached_property
    def goals(self) -> Int64:
        """int64 ``[items]``: the node at which a search is done with each item."""
        return goals(self.trie, self.resolved, self.forced.root)

    def candidates(self, beams: Beams, depth: int, banned: Excluded | None) -> tuple[Int64, Int64, Float32]:
        """All legal continuations: which beam each is of (rising), its node, its score."""
        tokens, nodes, offsets = self.trie.children(beams.node)
        leaf, node = np.repeat(np.arange(len(beams.node)), np.diff(offsets)), nodes.astype(np.int64)
        if banned is not None:
            kept = banned.open(beams.request[leaf], node)
            leaf, node, tokens = leaf[kept], node[kept], tokens[kept]
            offsets = np.searchsorted(leaf, np.arange(len(beams.node) + 1)).astype(np.int64)
        score = beams.score[leaf]
        if len(leaf) and not self.forced.free[depth + 1]:
            score = score + self.head.log_probs(beams.hidden, self.trie.levels[depth], tokens, leaf, offsets)
        return leaf, node, score

    def _worst_kept(self, done: list[tuple[Int64, Int64, Float32]], count: int) -> Float32:
        """What a beam must reach to be among the ``beams`` finished ones, per request."""
        request, score = np.concatenate([d[0] for d in done]), np.concatenate([d[2] for d in done])
        bound = np.full(count, -np.inf, np.float32)
        order = np.lexsort((-score, request))
        first = np.searchsorted(request[order], np.arange(count))
        full = np.bincount(request, minlength=count) >= self.beams
        bound[full] = score[order][first[full] + self.beams - 1]
        return bound

    def _forward(self, tokens: Int32, position: Int64, step: Pass) -> Tensor:
        """One pass of the model below its head: the last hidden states that the pass wants, ``[n, d]``."""
        ids, at = (torch.from_numpy(x.astype(np.int64)).to(self.lm.device) for x in (tokens, position))
        return self.body(ids, at, step)

    # -------------------------------------------------------------------------------- after the search

    def _add_included(
        self,
        searched: Searched,
        include: Include,
        asked: Int64,
        items: Int32,
        scores: Float32,
        included: list[Float32],
    ) -> None:
        """The scores of the included items of a batch, the prompts of which have the numbers ``asked``."""
        rows = [np.asarray(include.items[row], np.int64) for row in asked.tolist()]
        floors = include.below(asked, items[asked], scores[asked])
        for row, found in zip(asked.tolist(), score_included(self, searched, rows, floors), strict=True):
            included[row][:] = found

    def _write(self, searched: Searched, asked: Int64, items: Int32, scores: Float32) -> None:
        """The items at the best ends of a batch into its prompts' rows of the result."""
        request, node, score = searched.ends
        kept = _best(request, score, self.beams, np.ones(len(request), bool), tie=node)
        order = kept[np.lexsort((node[kept], -score[kept], request[kept]))]
        request, node, score = request[order], node[order], score[order]
        while not (ended := self.trie.terminal[node]).all():  # no choice is left below
            node = np.where(ended, node, self.trie.first[node])
        rows, offsets = self.trie.items_at(node)
        each = np.diff(offsets)
        request, score = np.repeat(request, each), np.repeat(score, each)
        if searched.banned is not None:
            open_ = ~searched.banned.excluded(request, rows)
            request, score, rows = request[open_], score[open_], rows[open_]
        place = np.arange(len(request)) - np.searchsorted(request, request)
        first = place < items.shape[1]
        at = asked[request[first]], place[first]
        items[at], scores[at] = rows[first], score[first]


def _best(
    request: Int64, score: Float32, count: int, allowed: npt.NDArray[np.bool_], tie: Int64 | None = None
) -> Int64:
    """The places of the ``count`` highest scores of each request among the allowed ones, ordered by request and place.

    Equal scores go to the earlier place, or the smaller ``tie``.
    """
    at = np.flatnonzero(allowed)
    order = at[np.lexsort((at if tie is None else tie[at], -score[at], request[at]))]
    own = request[order]
    rank = np.arange(len(order)) - np.searchsorted(own, own)
    kept = np.sort(order[rank < count])
    return kept[np.argsort(request[kept], kind="stable")]
