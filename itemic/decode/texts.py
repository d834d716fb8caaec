"""Beam search over whole texts that a grammar allows, such as lists of items.

The places, prompts and keys are the sampler's. A beam that goes on keeps its place and its keys; only where it splits
are the keys copied, into the place of one that was given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from itemic.decode.abreast import Abreast, states_of
from itemic.decode.body import evaluating
from itemic.decode.grammar import Grammar
from itemic.decode.plan import check_prompts
from itemic.decode.refill import Places, Writing, Written
from itemic.decode.sample import ENDS, Sampler
from itemic.decode.scores import Head
from itemic.errors import ConfigError, ModelError
from itemic.forest.rows import TokenRows
from itemic.model.positions import learned_positions
from itemic.progress import progress_bar

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Texts:
    """The ``n`` best texts of each of ``R`` prompts, best first.

    Attributes:
        tokens: ``R · n`` rows, what was written behind the prompt; none where there are fewer than ``n``.
        scores: float32 ``[R, n]``; -inf where there is no text.
        log_probs: float32 ``[T]``, of each token.
        ended: int8 ``[R · n]``, why each ended, as a place in :data:`itemic.decode.sample.ENDS`; -1 for no text.
    """

    tokens: TokenRows
    scores: Float32
    log_probs: Float32
    ended: Int8

    def __repr__(self) -> str:
        return f"<Texts: {len(self.scores):,} prompts, {int(np.isfinite(self.scores).sum()):,} texts>"

    @property
    def why(self) -> list[str]:
        """Why each ended, in words; nothing for no text."""
        return [ENDS[code] if code >= 0 else "" for code in self.ended]


class TextSearch:
    """Finds the texts of a grammar that a model holds most probable after a prompt.

    A text's score is the sum of its tokens' log-probabilities, divided by (number of tokens) ** ``length_power``. At
    each step the ``2 · beams`` continuations with the highest sums are looked at: those that are complete are kept,
    and of the others the best ``beams`` go on, as far as they can still get among the best texts. Where there are no
    more beginnings of texts than ``beams``, the best texts are found, whatever the model.

    Args:
        lm: as for :class:`itemic.decode.sample.Sampler`.
        grammar: one that always says which tokens may follow, such as a list of items.
        beams: of a request.
        normalize: over what a token's probability is normalised: ``vocab`` (the whole vocabulary, as ``generate``
            does; a step is a token) or ``legal`` (what the grammar allows; a step is a choice, and what must come
            next, under a grammar that says so, is written without one).
        length_power: 0 for plain sums, 1 for the mean log-probability of a token.
        max_new_tokens: of a text; one that isn't complete then is cut off.
        max_batch_tokens: whose keys are held at once, of prompts and of beams, each of which counts for
            ``max_new_tokens``; at least one request is written whatever its size.

    Raises:
        ModelError, ConstraintError: as for :class:`itemic.decode.sample.Sampler`.
        ConfigError: likewise, or a number of beams below 1, or a power below 0.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        grammar: Grammar | Abreast,
        *,
        max_new_tokens: int,
        beams: int = 10,
        normalize: str = "vocab",
        length_power: float = 0.0,
        max_batch_tokens: int = 1 << 16,
    ) -> None:
        if beams < 1:
            raise ConfigError(f"{beams} beams", "Give 1 or more.")
        if not 0 <= length_power < np.inf:
            raise ConfigError(f"length_power is {length_power}", "Give 0 or more.")
        self.sampler = Sampler(
            lm,
            max_new_tokens=max_new_tokens,
            grammar=grammar,
            normalize=normalize,
            max_batch_tokens=max_batch_tokens,
        )
        self.grammar, self.beams, self.length_power = grammar, beams, length_power
        self.head = Head(self.sampler.head, normalize)

    @torch.inference_mode()
    def best(self, prompts: TokenRows, n: int = 1, *, progress: bool = False) -> Texts:
        """The ``n`` best texts of each prompt.

        Args:
            prompts: ``R`` prompts.
            n: at most ``beams``.
            progress: show a bar.

        Raises:
            ConstraintError: a prompt is empty, has unknown tokens or goes past learned positions; it is named.
            ConfigError: ``n`` is out of range, the grammar is of another number of requests, or it lets any token
                follow somewhere.
            ModelError: the model gives no finite logits.
        """
        if not 1 <= n <= self.beams:
            raise ConfigError(
                f"{n} texts with {self.beams} beams", "Ask for 1 to as many as there are beams."
            )
        sampler = self.sampler
        check_prompts(
            prompts, len(sampler.head.weight), learned_positions(sampler.lm), sampler.max_new_tokens - 1
        )
        self.grammar.check(len(prompts))
        with (
            evaluating(sampler.lm),
            torch.autocast(sampler.lm.device.type, enabled=False),
            progress_bar("writing", len(prompts) if progress else None) as bar,
        ):
            run = TextRun(self, prompts, n)
            while run.step():
                bar.advance(run.just_done)
            bar.advance(run.just_done)
        return _joined(run.found, n)


def _joined(found: list[list[Found]], n: int) -> Texts:
    scores, ended = np.full((len(found), n), -np.inf, np.float32), np.full((len(found), n), -1, np.int8)
    rows: list[list[int]] = [[] for _ in range(len(found) * n)]
    logs = [np.zeros(0, np.float32)]
    for request, own in enumerate(found):
        for place, one in enumerate(own):
            rows[request * n + place] = one.text.tokens.tolist()
            scores[request, place], ended[request, place] = one.score, one.text.why
            logs.append(one.text.logs)
    return Texts(TokenRows.of(rows), scores, np.concatenate(logs), ended.ravel())


@dataclass(frozen=True)
class Found:
    """A text that is complete, and its score."""

    score: float
    text: Written


@dataclass
class Branches(Places):
    """Beams; ``score`` float64 ``[P]``, the sum of their tokens' log-probabilities."""

    score: Float64

    _ARRAYS: ClassVar[tuple[str, ...]] = (*Places._ARRAYS, "score")

    def fork(self, places: Int64) -> Branches:
        """Copies of those places."""
        assert self.states is not None
        arrays = {name: getattr(self, name)[places] for name in self._ARRAYS}
        return Branches(**arrays, hidden=self.hidden, states=self.states.take(places))


class TextRun(Writing[Branches]):
    """One call: the beams of all requests that are being written."""

    def __init__(self, search: TextSearch, prompts: TokenRows, n: int) -> None:
        super().__init__(search.sampler, prompts, 1, search.beams * search.sampler.max_new_tokens)
        self.search, self.most = search, n
        self.found: list[list[Found]] = [[] for _ in range(len(prompts))]

    def step(self) -> bool:
        """One more choice for every beam; whether there is anything left to do."""
        self._admit()
        if self.places is None:
            return False
        before = self.places
        parent, after = self._continued(before)
        ended = self._ended(after, after.tokens[np.arange(len(after)), after.depth - 1].astype(np.int64))
        if self.sampler.runs_ahead:
            self._run_ahead(after, ended)
        self._keep(after, ended)
        alive = self._alive(after, ended)
        self.just_done = len(np.unique(before.number)) - len(np.unique(after.number[alive]))
        self._settle(before, after, alive, parent)
        if self.just_done:
            self._let_go()
            self.seating = None
        if self.places is not None:
            self._grow(self.places)
        return self.unfinished

    def _begin(self, number: Int64, block: Int64, row: Int64, hidden: Tensor) -> Branches:
        count, width = len(number), self.sampler.max_new_tokens
        return Branches(
            number,
            block,
            row,
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.zeros((count, width), np.int32),
            np.zeros((count, width), np.float32),
            hidden,
            states_of(self.search.grammar, number),
            np.zeros(count),
        )

    def _living(self) -> int:
        """How many requests are being written."""
        return 0 if self.places is None else len(np.unique(self.places.number))

    # ----------------------------------------------------------------------------------------- one choice

    def _continued(self, places: Branches) -> tuple[Int64, Branches]:
        """The best continuations of each request, one token longer, and the place that each is of."""
        assert places.states is not None
        allowed = places.states.allowed(slice(0, len(places)))
        if allowed.free.any():
            raise ConfigError(
                "beams over a text in which any token may follow", "Sample it, or use a grammar without."
            )
        order = np.lexsort((allowed.token, allowed.row))
        row, token = allowed.row[order], allowed.token[order]
        offsets = np.searchsorted(row, np.arange(len(places) + 1)).astype(np.int64)
        tokens = token.astype(np.int32)
        logs = self.search.head.log_probs(places.hidden, tokens, tokens, row, offsets)
        if not np.isfinite(logs).all():
            raise ModelError("the model's logits are not finite", "Check its weights, or use a wider dtype.")
        score = places.score[row] + logs
        best = _best(places.number[row], score, 2 * self.search.beams)
        parent = row[best]
        after = places.fork(parent)
        own = np.arange(len(after))
        after.tokens[own, after.depth] = token[best]
        after.logs[own, after.depth] = logs[best]
        after.score = score[best]
        after.depth += 1
        return parent, after

    def _keep(self, after: Branches, ended: Int8) -> None:
        """Those that are complete, as far as they are among the best."""
        power = self.search.length_power
        for place in np.flatnonzero(ended >= 0).tolist():
            length, request = int(after.depth[place]), int(after.number[place])
            logs = after.logs[place, :length].copy()
            text = Written(after.tokens[place, :length].copy(), logs, logs, int(ended[place]))
            own = [*self.found[request], Found(float(after.score[place]) / length**power, text)]
            self.found[request] = sorted(own, key=lambda one: -one.score)[: self.most]

    def _alive(self, after: Branches, ended: Int8) -> Int64:
        """The best of the others, as far as they can get among the best texts: a sum never rises."""
        going = np.flatnonzero(ended < 0)
        hope = after.score[going] / float(self.sampler.max_new_tokens) ** self.search.length_power
        worst = np.array(
            [
                self.found[request][-1].score if len(self.found[request]) == self.most else -np.inf
                for request in after.number[going].tolist()
            ]
        )
        going = going[hope > worst]
        found: Int64 = going[_best(after.number[going], after.score[going], self.search.beams)]
        return found

    def _settle(self, before: Branches, after: Branches, alive: Int64, parent: Int64) -> None:
        """Give each of those that live a place, and what its beginning has computed."""
        if not len(alive):
            self.places = None
            return
        order = _seated(parent[alive], after.number[alive], before.number)
        self.store.reserve(len(order))
        source = parent[alive[order]]
        moved = np.flatnonzero(source != np.arange(len(order)))
        self.store.move(source[moved], moved)
        after.reorder(alive[order])
        same = len(after) == len(before) and (after.number == before.number).all()
        self.seating = self.seating if same else None
        self.places = after


def _best(request: Int64, score: Float64, count: int) -> Int64:
    """The places of the ``count`` highest scores of each request, best first; equal ones in their order."""
    own = np.argsort(request, kind="stable")
    starts = np.flatnonzero(np.diff(request[own], prepend=-1))
    found = []
    for places in np.split(own, starts[1:]):
        if len(places) > count:
            least = np.partition(score[places], len(places) - count)[len(places) - count]
            places = places[score[places] >= least]
        found.append(places[np.argsort(-score[places], kind="stable")][:count])
    return np.concatenate(found)


def _seated(parent: Int64, request: Int64, owner: Int64) -> Int64:
    """Which beam gets each place: the first of a parent's stays where that is, and others get the places of beams of
    their request that were given up; where there are more or fewer than before, all are sorted by request.

    Args:
        parent: int64 ``[n]``, the place that each comes from.
        request: int64 ``[n]``, whose each is.
        owner: int64 ``[p]``, whose each place was.
    """
    if len(parent) != len(owner):
        return np.lexsort((parent, request))
    order = np.full(len(parent), -1, np.int64)
    place, first = np.unique(parent, return_index=True)
    order[place] = first
    others = np.setdiff1d(np.arange(len(parent)), first)
    free = np.flatnonzero(order < 0)
    order[free[np.argsort(owner[free], kind="stable")]] = others[np.argsort(request[others], kind="stable")]
    return order
