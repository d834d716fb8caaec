"""Samples: text that a model writes, many samples of many prompts at once.

A prompt is computed once for all its samples, and prompts and samples of all lengths stand side by side without
padding outside attention. A sample that is done makes room for one that waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from itemic.decode.attention import Pass, PromptPass
from itemic.decode.beam import _evaluating
from itemic.decode.body import body_of
from itemic.decode.draw import Dice, Filters, draw
from itemic.decode.grammar import Grammar, State
from itemic.decode.grow import Block, GrowPass, Seating, Store
from itemic.decode.layout import group_prompts
from itemic.decode.plan import check_prompts
from itemic.errors import ConfigError, ConstraintError, ModelError
from itemic.forest.head import OutputHead
from itemic.forest.rows import TokenRows
from itemic.forest.support import check_supported
from itemic.progress import progress_bar

Bool = npt.NDArray[np.bool_]
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

NORMALIZE = ("vocab", "legal")
LENGTH, TOKEN, STRING, GRAMMAR = range(4)
ENDS = ("length", "stop token", "stop string", "grammar")
_CELLS = 1 << 24  # logits held at once
_PROMPT_TOKENS = 4096  # computed at once
_REFILL = 8  # new samples come in when one part in so many of the room is free


@dataclass(frozen=True)
class Samples:
    """``n`` samples of each of ``R`` prompts, those of one prompt one after the other.

    Attributes:
        tokens: ``R · n`` rows, what was written behind the prompt: the stop token, and the tokens that complete a stop
            string, included.
        log_probs: float32 ``[T]``, of each token under the distribution that it was drawn from: penalty, grammar,
            temperature and the other filters included. What importance weights of the samples need.
        model_log_probs: float32 ``[T]``, of each token under the model itself at temperature 1 without any filter: over
            the whole vocabulary, or over what the grammar allowed (see ``normalize`` of :class:`Sampler`). What a
            training step computes for the same tokens.
        ended: int8 ``[R · n]``, why each ended, as a place in :data:`ENDS`.
    """

    tokens: TokenRows
    log_probs: Float32
    model_log_probs: Float32
    ended: Int8

    def __repr__(self) -> str:
        return f"<Samples: {len(self.tokens):,} rows, {len(self.tokens.tokens):,} tokens>"

    @property
    def why(self) -> list[str]:
        """Why each ended, in words."""
        return [ENDS[code] for code in self.ended]


@dataclass
class _Places:
    """The samples that are being written; each array has one entry a sample.

    ``number`` int64: request · n + sample. ``block``, ``row`` int64: where the prompt is. ``depth`` int64: tokens so
    far. ``uniform`` float64 ``[P, 64]``: numbers of the current stretch. ``tokens`` int32 and ``logs``, ``model``
    float32 ``[P, max_new_tokens]``. ``hidden`` ``[P, d]``: what the next token is predicted from.
    """

    number: Int64
    block: Int64
    row: Int64
    depth: Int64
    uniform: npt.NDArray[np.float64]
    tokens: Int32
    logs: Float32
    model: Float32
    hidden: Tensor
    dice: list[Dice]
    states: list[State]

    _ARRAYS = ("number", "block", "row", "depth", "uniform", "tokens", "logs", "model")

    def __len__(self) -> int:
        return len(self.number)

    def reorder(self, places: Int64) -> None:
        """Those places alone, in that order; ``hidden`` is computed anew for them."""
        for name in self._ARRAYS:
            setattr(self, name, getattr(self, name)[places])
        self.dice, self.states = ([some[place] for place in places] for some in (self.dice, self.states))

    def extend(self, other: _Places) -> None:
        """Further places behind these."""
        for name in self._ARRAYS:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        self.hidden = torch.cat([self.hidden, other.hidden])
        self.dice += other.dice
        self.states += other.states


class Sampler:
    """Writes samples with a causal language model.

    What a sample is depends on the weights, the prompt, the request's seed and the sample's number alone: not on the other
    requests, their order, or how many are written at once (but for sums of floats in another order, which may tip a
    number that falls on the very edge between two tokens).

    Args:
        lm: a causal language model that :func:`itemic.forest.support.check_supported` lets pass.
        max_new_tokens: of a sample.
        temperature, top_k, top_p, min_p, repetition_penalty: see :class:`itemic.decode.draw.Filters`; they mean what
            they mean to ``generate``. Temperature 0 writes the most probable token each time.
        stop_tokens: a sample ends with any of them.
        stop_strings: a sample ends with the token that completes one of them in its text; the prompt doesn't count.
        tokenizer: for stop strings.
        grammar: what may come next; None for anything (see :mod:`itemic.decode.grammar`). Where it is complete, the
            sample ends.
        normalize: over what ``model_log_probs`` are normalised: ``vocab`` (the whole vocabulary) or ``legal`` (the
            tokens that the grammar allowed).
        max_batch_tokens: whose keys are held at once, of prompts and samples (each counts for ``max_new_tokens``); bounds
            the memory. At least one sample is written whatever its size.

    Raises:
        ModelError: the model has layers that can't be sampled this way.
        ConfigError: an option is out of its range.
        ConstraintError: a stop or the grammar has tokens that the model doesn't.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop_tokens: Sequence[int] = (),
        stop_strings: Sequence[str] = (),
        tokenizer: PreTrainedTokenizerBase | None = None,
        grammar: Grammar | None = None,
        normalize: str = "vocab",
        max_batch_tokens: int = 1 << 16,
    ) -> None:
        if max_new_tokens < 1 or max_batch_tokens < 1:
            raise ConfigError(
                f"{max_new_tokens} new tokens in batches of {max_batch_tokens} tokens",
                "Give 1 or more of both.",
            )
        if normalize not in NORMALIZE:
            raise ConfigError(f"unknown normalize {normalize!r}", f"Use one of {', '.join(NORMALIZE)}.")
        if stop_strings and tokenizer is None:
            raise ConfigError("stop strings without a tokenizer", "Give the model's tokenizer as well.")
        if isinstance(stop_strings, str) or not all(stop_strings):
            raise ConfigError(f"stop strings {stop_strings!r}", "Give a list of strings that aren't empty.")
        self.filters = Filters(temperature, top_k, top_p, min_p, repetition_penalty)
        check_supported(lm)
        self.lm, self.body, self.head = lm, body_of(lm), OutputHead.of(lm)
        self.max_new_tokens, self.max_batch_tokens = max_new_tokens, max_batch_tokens
        self.stop_tokens = np.unique(np.asarray(stop_tokens, np.int64))
        self.stop_strings, self.tokenizer = list(stop_strings), tokenizer
        # of a text's end: a character is at most four tokens of bytes; some more for what begins before it
        self._tail = 4 * max(map(len, stop_strings), default=0) + 8
        self.grammar, self.normalize = grammar, normalize
        for name, tokens in (
            ("stop", self.stop_tokens),
            ("grammar", () if grammar is None else grammar.tokens()),
        ):
            wrong = [token for token in tokens if not 0 <= token < len(self.head.weight)]
            if wrong:
                raise ConstraintError(
                    f"the {name} has token {wrong[0]}, the model's vocabulary ends at {len(self.head.weight) - 1}",
                    "Use tokens of the model's own tokenizer.",
                )

    @torch.inference_mode()
    def sample(
        self, prompts: TokenRows, n: int = 1, *, seeds: int | Sequence[int] = 0, progress: bool = False
    ) -> Samples:
        """Write ``n`` samples of each prompt.

        Args:
            prompts: ``R`` prompts.
            n: samples of each.
            seeds: one for each request, or one for all. Requests of the same prompt and seed get the same samples.
            progress: show a bar.

        Raises:
            ConstraintError: a prompt is empty or has unknown tokens; it is named.
            ConfigError: ``n`` is below 1, or there is another number of seeds, or of the grammar's items, than of
                prompts.
            ModelError: the model gives no finite logits.
        """
        if n < 1:
            raise ConfigError(f"{n} samples", "Ask for 1 or more.")
        own = [seeds] * len(prompts) if isinstance(seeds, int) else list(seeds)
        if len(own) != len(prompts):
            raise ConfigError(
                f"{len(own)} seeds for {len(prompts)} prompts", "Give one for each, or one for all."
            )
        check_prompts(prompts, len(self.head.weight))
        if self.grammar is not None:
            self.grammar.check(len(prompts))
        with (
            _evaluating(self.lm),
            torch.autocast(self.lm.device.type, enabled=False),
            progress_bar("sampling", len(prompts) * n if progress else None) as bar,
        ):
            run = _Run(self, prompts, n, own)
            while run.step():
                bar.advance(run.just_done)
            bar.advance(run.just_done)
        return run.result()


class _Run:
    """One call: who waits, who is being written, who is done."""

    def __init__(self, sampler: Sampler, prompts: TokenRows, n: int, seeds: list[int]) -> None:
        self.sampler, self.prompts, self.n, self.seeds = sampler, prompts, n, seeds
        self.device = sampler.lm.device
        # like lengths are neighbours; the longest come first, so that the last to finish are short
        self.queue = np.argsort(-prompts.lengths, kind="stable")
        self.waiting = 0  # the next of the queue's samples
        self.blocks: list[Block] = []
        self.store = Store(sampler.max_new_tokens)
        self.places: _Places | None = None
        self.seating: Seating | None = None
        self.done: dict[int, tuple[Int32, Float32, Float32, int]] = {}
        self.just_done = 0

    def step(self) -> bool:
        """One more token for every sample that is being written; whether there is anything left to do."""
        self._admit()
        if self.places is None:
            return False
        token = self._draw(self.places)
        ended = self._ended(self.places, token)
        self.just_done = int((ended >= 0).sum())
        if self.just_done:
            self._finish(self.places, ended)
        if self.places is not None:
            self._grow(self.places)
        return self.places is not None or self.waiting < len(self.queue) * self.n

    # ------------------------------------------------------------------------------- who comes in

    def _admit(self) -> None:
        """Let as many samples in as there is room for, once there is room for some."""
        limit, each = self.sampler.max_batch_tokens, self.sampler.max_new_tokens
        living = 0 if self.places is None else len(self.places)
        room = limit - living * each - sum(block.tokens for block in self.blocks)
        total = len(self.queue) * self.n
        if self.waiting == total or (living and room < limit // _REFILL):
            return
        first, fresh = self.waiting, []
        held = {int(request) for block in self.blocks for request in block.requests}
        while self.waiting < total:
            request = int(self.queue[self.waiting // self.n])
            cost = each + (0 if request in held else int(self.prompts.lengths[request]))
            if cost > room and (living or self.waiting > first):
                break
            if request not in held:
                held.add(request)
                fresh.append(request)
            room -= cost
            self.waiting += 1
        if self.waiting > first:
            self._compute(np.array(fresh, np.int64))
            self._seat(np.arange(first, self.waiting))

    def _compute(self, requests: Int64) -> None:
        """The prompts of requests, some at a time."""
        begin = 0
        while begin < len(requests):
            stop, total = begin, 0
            while stop < len(requests):
                total += int(self.prompts.lengths[requests[stop]])
                if total > _PROMPT_TOKENS and stop > begin:
                    break
                stop += 1
            own = self.prompts.take(requests[begin:stop])
            step = PromptPass(group_prompts(own.lengths, self.device), [])
            at = np.arange(len(own.tokens)) - np.repeat(own.offsets[:-1], own.lengths)
            hidden = self._forward(own.tokens, at, step)
            self.blocks += Block.of(requests[begin:stop], step, hidden)
            begin = stop

    def _seat(self, entries: Int64) -> None:
        """Places for entries of the queue."""
        request, sample = self.queue[entries // self.n], entries % self.n
        where = {
            int(own): (number, row)
            for number, block in enumerate(self.blocks)
            for row, own in enumerate(block.requests)
        }
        block, row = np.array([where[int(own)] for own in request]).T
        count, width = len(entries), self.sampler.max_new_tokens
        hidden = torch.stack([self.blocks[b].hidden[r] for b, r in zip(block, row, strict=True)])
        grammar = self.sampler.grammar
        new = _Places(
            request * self.n + sample,
            block,
            row,
            np.zeros(count, np.int64),
            np.zeros((count, Dice.AHEAD)),
            np.zeros((count, width), np.int32),
            np.zeros((count, width), np.float32),
            np.zeros((count, width), np.float32),
            hidden,
            [Dice(self.prompts[r], self.seeds[r], int(s)) for r, s in zip(request, sample, strict=True)],
            [None if grammar is None else grammar.start(int(r)) for r in request],
        )
        if self.places is None:
            self.places = new
        else:
            self.places.extend(new)
        self.store.reserve(len(self.places))
        self.seating = None

    # ---------------------------------------------------------------------------------- one token

    def _draw(self, places: _Places) -> Int64:
        """The next token of each, which is written down."""
        for place in np.flatnonzero(places.depth % Dice.AHEAD == 0):
            places.uniform[place] = places.dice[place].next()
        everyone = np.arange(len(places))
        uniform = torch.from_numpy(places.uniform[everyone, places.depth % Dice.AHEAD]).to(self.device)
        step = max(1, _CELLS // len(self.sampler.head.weight))
        parts = [
            self._draw_some(places, slice(first, first + step), uniform[first : first + step])
            for first in range(0, len(places), step)
        ]
        token, log, model = (torch.cat(x).cpu().numpy() for x in zip(*parts, strict=True))
        places.tokens[everyone, places.depth] = token
        places.logs[everyone, places.depth] = log
        places.model[everyone, places.depth] = model
        places.depth += 1
        return token

    def _draw_some(self, places: _Places, rows: slice, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, their log-probabilities as drawn, and those of the model."""
        sampler = self.sampler
        raw = sampler.head.logits(places.hidden[rows])
        if not bool(raw.isfinite().all()):
            raise ModelError("the model's logits are not finite", "Check its weights, or use a wider dtype.")
        legal = self._legal(raw, places.states[rows])
        own = raw if legal is None or sampler.normalize == "vocab" else raw.masked_fill(~legal, -torch.inf)
        logits = sampler.filters.penalized(raw, self._seen(places, rows))
        logits = logits if legal is None else logits.masked_fill(~legal, -torch.inf)
        narrowed = sampler.filters.narrowed(logits)
        token, log = draw(narrowed, uniform)
        if narrowed is own:
            return token, log, log
        return token, log, own.gather(1, token[:, None])[:, 0] - own.logsumexp(-1)

    def _legal(self, logits: Tensor, states: list[State]) -> Tensor | None:
        """bool ``[n, V]``, what the grammar allows; None for everything."""
        if self.sampler.grammar is None:
            return None
        allowed = [self.sampler.grammar.allowed(state) for state in states]
        bound = [row for row, tokens in enumerate(allowed) if tokens is not None]
        if not bound:
            return None
        found = [tokens for tokens in allowed if tokens is not None]
        free = np.array([tokens is None for tokens in allowed])
        legal = torch.from_numpy(free).to(logits.device)[:, None].repeat(1, logits.shape[1])
        rows = np.repeat(bound, [len(tokens) for tokens in found])
        at = (torch.from_numpy(x.astype(np.int64)).to(logits.device) for x in (rows, np.concatenate(found)))
        legal[tuple(at)] = True
        return legal

    def _seen(self, places: _Places, rows: slice) -> Tensor | None:
        """int64 ``[n, L]``, each place's tokens, its prompt's included; the first of them fills the rest."""
        if self.sampler.filters.repetition_penalty == 1:
            return None
        number, depth, tokens = places.number[rows], places.depth[rows], places.tokens[rows]
        texts = [
            np.concatenate([self.prompts[at // self.n], own[:length]])
            for at, own, length in zip(number.tolist(), tokens, depth, strict=True)
        ]
        seen = np.empty((len(texts), max(map(len, texts))), np.int64)
        for row, text in zip(seen, texts, strict=True):
            row[: len(text)] = text
            row[len(text) :] = text[0]
        return torch.from_numpy(seen).to(self.device)

    def _ended(self, places: _Places, token: Int64) -> Int8:
        """Why each place ended, int8 ``[P]``; -1 for those that go on."""
        sampler = self.sampler
        ended = np.where(places.depth == sampler.max_new_tokens, LENGTH, -1).astype(np.int8)
        if sampler.grammar is not None:
            for place, one in enumerate(token.tolist()):
                places.states[place] = sampler.grammar.step(places.states[place], one)
                if places.states[place] is None:
                    ended[place] = GRAMMAR
        if sampler.stop_strings and sampler.tokenizer is not None:
            first = np.maximum(places.depth - sampler._tail, 0)
            spans = [
                own[begin:end].tolist()
                for own, begin, end in zip(places.tokens, first, places.depth, strict=True)
            ]
            for place, text in enumerate(
                sampler.tokenizer.batch_decode(spans, clean_up_tokenization_spaces=False)
            ):
                if any(stop in text for stop in sampler.stop_strings):
                    ended[place] = STRING
        ended[np.isin(token, sampler.stop_tokens)] = TOKEN
        return ended

    def _grow(self, places: _Places) -> None:
        """What the token after the last one is predicted from."""
        if self.seating is None:
            self.seating = Seating(self.blocks, places.block, places.row, self.device)
        everyone = np.arange(len(places))
        token, at = places.tokens[everyone, places.depth - 1], places.depth - 1
        position = self.prompts.lengths[places.number // self.n] + at
        places.hidden = self._forward(token, position, GrowPass(self.seating, self.store, at))

    def _forward(self, tokens: Int32, position: Int64, step: Pass) -> Tensor:
        ids, at = (torch.from_numpy(x.astype(np.int64)).to(self.device) for x in (tokens, position))
        return self.sampler.body(ids, at, step)

    # ------------------------------------------------------------------------------- who goes out

    def _finish(self, places: _Places, ended: Int8) -> None:
        """Write down who is done; the last places move into the gaps, and prompts that nobody needs go."""
        for place in np.flatnonzero(ended >= 0):
            length = places.depth[place]
            parts = (x[place, :length].copy() for x in (places.tokens, places.logs, places.model))
            self.done[int(places.number[place])] = (*parts, int(ended[place]))
        alive = ended < 0
        left = int(alive.sum())
        self.seating = None
        if not left:
            self.places = None
        else:
            gaps, movers = np.flatnonzero(~alive[:left]), left + np.flatnonzero(alive[left:])
            order = np.arange(left)
            order[gaps] = movers
            self.store.move(movers, gaps)
            places.reorder(order)
        self._let_go()

    def _let_go(self) -> None:
        """Drop the keys of prompts whose samples are done, once they are half of a block."""
        places, kept, moved = self.places, [], {}
        asked = (
            int(self.queue[self.waiting // self.n]) if self.waiting % self.n else -1
        )  # has samples that wait
        for number, block in enumerate(self.blocks):
            needed = block.requests == asked
            if places is not None:
                needed[places.row[places.block == number]] = True
            if 2 * int(needed.sum()) > len(needed):
                needed[:] = True
            elif not needed.any():
                continue
            moved[number] = (len(kept), np.cumsum(needed) - 1)
            kept.append(block if needed.all() else block.only(needed))
        self.blocks = kept
        if places is not None:
            pairs = [
                (moved[number][0], moved[number][1][row])
                for number, row in zip(places.block.tolist(), places.row.tolist(), strict=True)
            ]
            places.block, places.row = np.array(pairs, np.int64).T

    def result(self) -> Samples:
        """All samples, in the order of the prompts."""
        found = [self.done[number] for number in range(len(self.prompts) * self.n)]
        logs = [np.concatenate([np.zeros(0, np.float32), *(one[i] for one in found)]) for i in (1, 2)]
        ended = np.array([one[3] for one in found], np.int8)
        return Samples(TokenRows.of([one[0] for one in found]), logs[0], logs[1], ended)
