"""Who waits, who is being written, who is done: the places of a run, and, of samples, the token that each gets next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.decode.abreast import Allowed, States, states_of
from itemic.decode.attention import KeyValue, Pass, PromptPass
from itemic.decode.draw import Dice, draw
from itemic.decode.grow import Block, GrowPass, RunPass, Seating, Store
from itemic.decode.layout import group_prompts
from itemic.decode.plan import SHORTEST_TEMPLATE, common_prefix, without
from itemic.errors import ModelError
from itemic.forest.rows import TokenRows

if TYPE_CHECKING:
    from itemic.decode.sample import Sampler

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

LENGTH, TOKEN, STRING, GRAMMAR = range(4)  # why a sample ended
_CELLS = 1 << 24  # logits held at once
_FEW = 2  # the vocabulary has so many times the tokens that are asked for alone, or more
_PROMPT_TOKENS = 4096  # computed at once
_REFILL = 8  # new samples come in when one part in so many of the room is free


class Written(NamedTuple):
    """A sample that is done: its tokens, their log-probabilities as drawn and by the model, and why it ended."""

    tokens: Int32
    logs: Float32
    model: Float32
    why: int


@dataclass
class Places:
    """The texts that are being written; each array has one entry a text.

    ``number`` int64: request · n + sample. ``block``, ``row`` int64: where the prompt is. ``depth`` int64: tokens so
    far, ``keyed`` int64: of how many the keys are kept. ``tokens`` int32 and ``logs`` float32 ``[P,
    max_new_tokens]``. ``hidden`` ``[P, d]``: what the next token is predicted from.
    """

    number: Int64
    block: Int64
    row: Int64
    depth: Int64
    keyed: Int64
    tokens: Int32
    logs: Float32
    hidden: Tensor
    states: States | None

    _ARRAYS: ClassVar[tuple[str, ...]] = ("number", "block", "row", "depth", "keyed", "tokens", "logs")

    def __len__(self) -> int:
        return len(self.number)

    def reorder(self, places: Int64) -> None:
        """Those places alone, in that order; ``hidden`` is computed anew for them."""
        for name in self._ARRAYS:
            setattr(self, name, getattr(self, name)[places])
        self.states = None if self.states is None else self.states.take(places)

    def extend(self, other: Self) -> None:
        """Further places behind these."""
        for name in self._ARRAYS:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        self.hidden = torch.cat([self.hidden, other.hidden])
        if self.states is not None and other.states is not None:
            self.states = self.states.joined(other.states)


@dataclass
class Drawn(Places):
    """Samples.

    ``stretch`` int64, ``uniform`` float64 ``[P, 64]``: numbers of the current stretch, the ``stretch``-th. ``model``
    float32 ``[P, max_new_tokens]``.
    """

    stretch: Int64
    uniform: npt.NDArray[np.float64]
    model: Float32
    dice: list[Dice]

    _ARRAYS: ClassVar[tuple[str, ...]] = (*Places._ARRAYS, "stretch", "uniform", "model")

    def reorder(self, places: Int64) -> None:
        """As all places, with their numbers."""
        super().reorder(places)
        self.dice = [self.dice[place] for place in places]

    def extend(self, other: Self) -> None:
        """As all places, with their numbers."""
        super().extend(other)
        self.dice += other.dice


AnyPlaces = TypeVar("AnyPlaces", bound=Places)


class Writing(Generic[AnyPlaces]):
    """One call: who waits, who is being written, and what each has computed.

    Args:
        sampler: the model, the grammar and the limits.
        prompts: of the requests.
        n: how many entries of the queue each request has.
        each: how many tokens an entry may come to hold.
    """

    def __init__(self, sampler: Sampler, prompts: TokenRows, n: int, each: int) -> None:
        self.sampler, self.prompts, self.n, self.each = sampler, prompts, n, each
        self.device = sampler.lm.device
        # like lengths are neighbours; the longest come first, so that the last to finish are short
        self.queue = np.argsort(-prompts.lengths, kind="stable")
        self.waiting = 0  # the next of the queue's samples
        shared = common_prefix(prompts) if len(prompts) > 1 else 0
        self.shared = shared if shared >= SHORTEST_TEMPLATE else 0  # tokens that all begin with
        self.template: list[KeyValue] | None = None  # their keys
        self.blocks: list[Block] = []
        self.store = Store(sampler.max_new_tokens)
        self.places: AnyPlaces | None = None
        self.seating: Seating | None = None
        self.just_done = 0

    @property
    def unfinished(self) -> bool:
        """Whether anyone is being written or waits."""
        return self.places is not None or self.waiting < len(self.queue) * self.n

    def _living(self) -> int:
        """How many entries of the queue are being written."""
        return 0 if self.places is None else len(self.places)

    def _begin(self, number: Int64, block: Int64, row: Int64, hidden: Tensor) -> AnyPlaces:
        """Places before their first token."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------- who comes in

    def _admit(self) -> None:
        """Let as many samples in as there is room for, once there is room for some."""
        limit, each = self.sampler.max_batch_tokens, self.each
        living = self._living()
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
        """The prompts of requests, some at a time; what all prompts begin with is computed once."""
        shared, begin = self.shared, 0
        if self.template is None:
            self.template = []
            if shared:
                step = PromptPass(group_prompts(np.array([shared]), self.device), [], keys_only=True)
                self._forward(self.prompts[0][:shared], np.arange(shared), step)
                self.template = step.as_template()
        while begin < len(requests):
            stop, total = begin, 0
            while stop < len(requests):
                total += int(self.prompts.lengths[requests[stop]])
                if total > _PROMPT_TOKENS and stop > begin:
                    break
                stop += 1
            own = without(self.prompts.take(requests[begin:stop]), shared, ())
            step = PromptPass(group_prompts(own.lengths, self.device, shared), self.template)
            at = shared + np.arange(len(own.tokens)) - np.repeat(own.offsets[:-1], own.lengths)
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
        hidden = torch.stack([self.blocks[b].hidden[r] for b, r in zip(block, row, strict=True)])
        new = self._begin(request * self.n + sample, block, row, hidden)
        if self.places is None:
            self.places = new
        else:
            self.places.extend(new)
        self.store.reserve(len(self.places))
        self.seating = None

    # ---------------------------------------------------------------------------------- one token

    def _ended(self, places: Places, token: Int64) -> Int8:
        """Why each place ended, int8 ``[P]``; -1 for those that go on."""
        sampler = self.sampler
        ended = np.where(places.depth == sampler.max_new_tokens, LENGTH, -1).astype(np.int8)
        if places.states is not None:
            ended[places.states.step(token)] = GRAMMAR
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

    def _run_ahead(self, places: Places, ended: Int8) -> None:
        """Write down what must come next, without asking the model; ``ended`` is what :meth:`_ended` gave."""
        going = np.flatnonzero(ended < 0)
        if places.states is None or not len(going):
            return
        rows, done = places.states.ahead(going)
        lengths = np.minimum(rows.lengths, self.sampler.max_new_tokens - places.depth[going])
        stops = np.flatnonzero(np.isin(rows.tokens, self.sampler.stop_tokens))
        first = np.full(len(rows), np.iinfo(np.int64).max)
        np.minimum.at(first, np.searchsorted(rows.offsets, stops, "right") - 1, stops)
        stopped = first - rows.offsets[:-1] < lengths
        lengths = np.where(stopped, first - rows.offsets[:-1] + 1, lengths)
        step = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        whose = np.repeat(going, lengths)
        places.tokens[whose, places.depth[whose] + step] = rows.tokens[
            np.repeat(rows.offsets[:-1], lengths) + step
        ]
        places.depth[going] += lengths
        ended[going[places.depth[going] == self.sampler.max_new_tokens]] = LENGTH
        ended[going[done & (lengths == rows.lengths)]] = GRAMMAR
        ended[going[stopped]] = TOKEN

    def _grow(self, places: Places) -> None:
        """What the token after the last one is predicted from."""
        if self.seating is None:
            self.seating = Seating(self.blocks, places.block, places.row, self.device)
        lengths = places.depth - places.keyed
        whose = np.repeat(np.arange(len(places)), lengths)
        at = places.keyed[whose] + np.arange(len(whose)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        step: Pass
        if len(whose) == len(places):
            step = GrowPass(self.seating, self.store, at)
        else:
            step = RunPass(self.seating, self.store, at, lengths, (places.block, places.row))
        position = self.prompts.lengths[places.number[whose] // self.n] + at
        places.hidden = self._forward(places.tokens[whose, at], position, step)
        places.keyed = places.depth.copy()

    def _forward(self, tokens: Int32, position: Int64, step: Pass) -> Tensor:
        ids, at = (torch.from_numpy(x.astype(np.int64)).to(self.device) for x in (tokens, position))
        return self.sampler.body(ids, at, step)

    # ------------------------------------------------------------------------------- who goes out

    def _let_go(self) -> None:
        """Drop the keys of prompts whose samples are done, once they are half of a block."""
        places = self.places
        kept: list[Block] = []
        moved: dict[int, tuple[int, Int64]] = {}
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


class Run(Writing[Drawn]):
    """Samples: each token is drawn."""

    def __init__(self, sampler: Sampler, prompts: TokenRows, n: int, seeds: list[int]) -> None:
        super().__init__(sampler, prompts, n, sampler.max_new_tokens)
        self.seeds = seeds
        self.done: dict[int, Written] = {}

    def step(self) -> bool:
        """One more token for every sample that is being written; whether there is anything left to do."""
        self._admit()
        if self.places is None:
            return False
        token = self._draw(self.places)
        ended = self._ended(self.places, token)
        if self.sampler.runs_ahead:
            self._run_ahead(self.places, ended)
        self.just_done = int((ended >= 0).sum())
        if self.just_done:
            self._finish(self.places, ended)
        if self.places is not None:
            self._grow(self.places)
        return self.unfinished

    def _begin(self, number: Int64, block: Int64, row: Int64, hidden: Tensor) -> Drawn:
        """Places before their first token."""
        count, width = len(number), self.sampler.max_new_tokens
        request, sample = number // self.n, number % self.n
        grammar = self.sampler.grammar
        return Drawn(
            number,
            block,
            row,
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.zeros((count, width), np.int32),
            np.zeros((count, width), np.float32),
            hidden,
            None if grammar is None else states_of(grammar, request),
            np.zeros(count, np.int64),
            np.zeros((count, Dice.AHEAD)),
            np.zeros((count, width), np.float32),
            [Dice(self.prompts[r], self.seeds[r], int(s)) for r, s in zip(request, sample, strict=True)],
        )

    def _draw(self, places: Drawn) -> Int64:
        """The next token of each, which is written down."""
        while len(behind := np.flatnonzero(places.stretch <= places.depth // Dice.AHEAD)):
            for place in behind:
                places.uniform[place] = places.dice[place].next()
            places.stretch[behind] += 1
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

    def _draw_some(self, places: Drawn, rows: slice, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, their log-probabilities as drawn, and those of the model."""
        sampler = self.sampler
        allowed = None if places.states is None else places.states.allowed(rows)
        if allowed is not None and allowed.free.all():
            allowed = None
        columns = self._columns(allowed)
        asked = None if columns is None else torch.from_numpy(columns).to(self.device)
        raw = sampler.head.logits(places.hidden[rows], asked)
        top = raw.amax(-1, keepdim=True)
        if not bool(top.isfinite().all()):  # of a row with one that is no number it is none either
            raise ModelError("the model's logits are not finite", "Check its weights, or use a wider dtype.")
        legal = self._legal(raw, allowed, columns)
        own = raw if legal is None or sampler.normalize == "vocab" else raw.masked_fill(~legal, -torch.inf)
        logits = sampler.filters.penalized(raw, self._seen(places, rows))
        logits = logits if legal is None else logits.masked_fill(~legal, -torch.inf)
        narrowed = sampler.filters.narrowed(logits)
        place, log = draw(narrowed, uniform, top if narrowed is raw else None)
        token = place if asked is None else asked[place]
        if narrowed is own:
            return token, log, log
        return token, log, own.gather(1, place[:, None])[:, 0] - own.logsumexp(-1)

    def _columns(self, allowed: Allowed | None) -> Int64 | None:
        """The tokens whose logits are asked for, rising; None for the whole vocabulary.

        Where only what is legal counts, what isn't legal for anybody needn't be known.
        """
        sampler = self.sampler
        if allowed is None or sampler.normalize == "vocab" or allowed.free.any():
            return None
        if sampler.filters.repetition_penalty != 1:
            return None
        columns = np.unique(allowed.token)
        return columns if _FEW * len(columns) < len(sampler.head.weight) else None

    def _legal(self, logits: Tensor, allowed: Allowed | None, columns: Int64 | None) -> Tensor | None:
        """bool as the logits ``[n, V]``, or ``[n, m]`` of those columns: what is allowed; None for everything."""
        if allowed is None:
            return None
        token = allowed.token if columns is None else np.searchsorted(columns, allowed.token)
        legal = torch.from_numpy(allowed.free).to(logits.device)[:, None].repeat(1, logits.shape[1])
        legal[tuple(torch.from_numpy(x).to(logits.device) for x in (allowed.row, token))] = True
        return legal

    def _seen(self, places: Drawn, rows: slice) -> Tensor | None:
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

    def _finish(self, places: Drawn, ended: Int8) -> None:
        """Write down who is done; the last places move into the gaps, and prompts that nobody needs go."""
        for place in np.flatnonzero(ended >= 0):
            length = places.depth[place]
            tokens, logs = places.tokens[place, :length].copy(), places.logs[place, :length].copy()
            model = places.model[place, :length].copy()
            self.done[int(places.number[place])] = Written(tokens, logs, model, int(ended[place]))
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
