"""Who answers test tasks: a model here, or one that somebody serves. Answers are kept as they come."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.artifact import digest_of
from itemic.control.client import ask
from itemic.control.form import ListForm
from itemic.control.labels import Labels
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.parse import parse
from itemic.control.questions import Question
from itemic.control.terms import Terms
from itemic.control.tests import Mode
from itemic.control.want import Want
from itemic.control.words import say
from itemic.decode import BeamSearch
from itemic.decode.sample import Sampler
from itemic.endpoint import WHOLE, Answers, Endpoint, opened
from itemic.errors import ConfigError
from itemic.evaluate.recommend import fingerprint
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.model.positions import learned_positions, most_positions
from itemic.progress import progress_bar
from itemic.sid.names import ItemNames
from itemic.sid.trie import Trie

Int32 = npt.NDArray[np.int32]

BATCH = 64  # lists that are written at once, and kept
REACH = 200  # items of a ranking that is filtered, where the catalogue has as many
SLACK = 5  # items that a list may have beyond the longest that is wanted, so that too long ones are seen
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Spoken:
    """How a test's requests are worded: as the task that taught them.

    Attributes:
        form: of the list.
        system: the first line; None for none.
        max_items: of a history that is shown.
        topk: items of a list.
        columns: what labels are made of.
        task: by which it was taught; None where none did.
    """

    form: ListForm
    system: str | None
    max_items: int
    topk: int
    columns: tuple[str, ...]
    task: str | None = None


class Answerer(ABC):
    """Writes the lists of questions, and keeps them in a file: whoever asks again goes on from there.

    Attributes:
        names: of the items.
        modes: in which it can be asked to obey.
        counts: what became of answers that are no lists.
        shortened: how many requests lost the oldest items of their history, to fit the model.
    """

    names: ItemNames
    modes: tuple[Mode, ...] = ("soft", "distinct", "hard")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shortened = 0

    @abstractmethod
    def lists(
        self, asked: Sequence[Question], spoken: Spoken, labels: Labels, mode: Mode, *, plain: bool = False
    ) -> list[Int32]:
        """The rows of each list, -1 for entries that name no item; empty for an answer that failed.

        Args:
            asked: the questions.
            spoken: how they are worded.
            labels: of the catalogue.
            mode: what is legal.
            plain: ask for as many items and nothing else.
        """

    def ranked(self, asked: Sequence[Question], spoken: Spoken, labels: Labels) -> Int32 | None:
        """How probable items are at the first place of the list that is asked for without control: int32 ``[R, K]``,
        best first. None where nobody knows."""
        return None

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Who answers, for the record."""

    def messages(self, one: Question, spoken: Spoken, labels: Labels, plain: bool, shown: int) -> Messages:
        """What is said to ask it; ``shown`` items of the history are."""
        want = Want(count=one.want.count) if plain else one.want
        history = one.shown[len(one.shown) - shown :].tolist()
        text = say(want, labels, form=spoken.form, names=self.names.texts, history=history)
        head = [] if spoken.system is None else [{"role": "system", "content": spoken.system}]
        return [*head, {"role": "user", "content": text}]


class Written(Answerer):
    """A model here; the most probable token is written each time.

    Args:
        model: which one.
        file: of the answers.
        most: items of the longest list that is wanted.
        thinking: how prompts end, see :meth:`itemic.model.chat.ChatRenderer.prompt`.
    """

    def __init__(self, model: Model, file: Path, *, most: int, thinking: str | None = None) -> None:
        super().__init__()
        self.model, self.file, self.most, self.thinking = model, file, most + SLACK, thinking
        self.names = model.index
        self._tokens: dict[ListForm, ListTokens] = {}

    @cached_property
    def trie(self) -> Trie:
        return Trie.build(self.model.item_rows)

    @cached_property
    def weights(self) -> str:
        return fingerprint(self.model)

    @property
    def config(self) -> dict[str, Any]:
        return {"weights": self.weights, "index": self.model.index.digest, "thinking": self.thinking}

    def lists(
        self, asked: Sequence[Question], spoken: Spoken, labels: Labels, mode: Mode, *, plain: bool = False
    ) -> list[Int32]:
        prompts = self.prompts(asked, spoken, labels, plain)
        keys = [self._key(prompts[n], one, spoken.form, mode) for n, one in enumerate(asked)]
        with opened(self.file) as kept, progress_bar(f"{mode} lists", len(asked)) as bar:
            missing = [n for n, key in enumerate(keys) if key not in kept]
            bar.advance(len(asked) - len(missing))
            for first in range(0, len(missing), BATCH):
                some = missing[first : first + BATCH]
                terms = [asked[n].terms for n in some]
                seen = [asked[n].shown for n in some] if mode == "distinct" else None
                texts = self._write(prompts.take(np.array(some)), terms, spoken.form, mode, seen)
                for n, text in zip(some, texts, strict=True):
                    kept.add(keys[n], text, WHOLE)
                bar.advance(len(some))
            return [
                self._read(kept, key, one, spoken.form, mode) for key, one in zip(keys, asked, strict=True)
            ]

    def ranked(self, asked: Sequence[Question], spoken: Spoken, labels: Labels) -> Int32 | None:
        first = self.tokens_of(spoken.form).before[0].tolist()
        prompts = self.prompts(asked, spoken, labels, True)
        own = TokenRows.of([[*prompts[n].tolist(), *first] for n in range(len(prompts))])
        most = min(len(self.names), REACH)
        search = BeamSearch(self.model.lm, self.trie, beams=most, max_batch_tokens=32 * max(128, most))
        return search.rank(own, k=most, progress=True)[0]

    def _read(self, kept: Answers, key: str, one: Question, form: ListForm, mode: Mode) -> Int32:
        text = kept.answer(key).text
        if mode == "free":
            return parse(text, self.names, form, meant=one.terms.rows.tolist()).items
        return np.array(json.loads(text), np.int32)

    def _key(self, prompt: Int32, one: Question, form: ListForm, mode: Mode) -> str:
        legal: list[Any] = [self.most]
        if mode == "hard":
            terms = one.terms
            legal = [terms.count, digest_of([repr(one.want), terms.rows.tolist(), terms.classes.tolist()])]
        if mode == "distinct":
            legal = [self.most, one.shown.tolist()]
        return digest_of([self.weights, self.names.digest, mode, prompt.tolist(), repr(form), legal])

    def _write(
        self,
        prompts: TokenRows,
        terms: Sequence[Terms],
        form: ListForm,
        mode: Mode,
        seen: Sequence[Int32] | None = None,
    ) -> list[str]:
        """Of free lists the text, of others their rows."""
        tokens = self.tokens_of(form)
        kept = terms if mode == "hard" else None
        grammar = ListGrammar(self.trie, tokens, kept, most=self.most, seen=seen)
        if mode == "free":
            sampler = Sampler(
                self.model.lm,
                max_new_tokens=grammar.most_tokens,
                temperature=0.0,
                stop_tokens=[int(tokens.end[0])] if len(tokens.end) else [],
            )
            samples = sampler.sample(prompts)
            read = self.model.tokenizer.decode
            found = []
            for n, why in enumerate(samples.why):
                own = samples.tokens[n]
                own = own[:-1] if why == "stop token" else own
                found.append(str(read(own.tolist(), skip_special_tokens=False)))
                self.counts["cut"] += why == "length"
            return found
        sampler = Sampler(
            self.model.lm,
            max_new_tokens=grammar.most_tokens,
            temperature=0.0,
            grammar=grammar,
            normalize="legal",
        )
        rows = grammar.read(sampler.sample(prompts).tokens)
        return [json.dumps(own.tolist()) for own in rows]

    def tokens_of(self, form: ListForm) -> ListTokens:
        if form not in self._tokens:
            self._tokens[form] = ListTokens.of(self.model, form, self.most)
        return self._tokens[form]

    def room(self, form: ListForm, count: int) -> int | None:
        """Tokens that a prompt may have so that a list of so many items fits behind it; None for any.

        Models with learned positions can't write past them, so the longest names count; others can, and ordinary ones
        do.
        """
        positions = most_positions(self.model.lm)
        if positions is None:
            return None
        tokens, lengths = self.tokens_of(form), self.model.item_rows.lengths
        if learned_positions(self.model.lm) is not None:
            answer = len(tokens.before.tokens) + self.most * int(lengths.max())
        else:
            answer = int(tokens.before.lengths[:count].sum()) + count * math.ceil(lengths.mean())
        return positions - answer - len(tokens.end)

    def prompts(self, asked: Sequence[Question], spoken: Spoken, labels: Labels, plain: bool) -> TokenRows:
        """The prompts; of one that doesn't fit the oldest items are left out."""
        shown = [len(one.shown) for one in asked]
        rooms = [self.room(spoken.form, one.want.count) for one in asked]
        long = list(range(len(asked)))
        texts: list[Messages] = [[] for _ in asked]
        first = True
        while long:
            for n in long:
                texts[n] = self.messages(asked[n], spoken, labels, plain, shown[n])
            lengths = self.model.chat.prompt_batch([texts[n] for n in long], self.thinking).lengths.tolist()
            long = [
                n
                for n, own in zip(long, lengths, strict=True)
                if (room := rooms[n]) is not None and own > room and shown[n] > 1
            ]
            self.shortened += len(long) if first else 0
            first = False
            for n in long:
                shown[n] -= 1
        return self.model.chat.prompt_batch(texts, self.thinking)


class Served(Answerer):
    """A model that somebody serves. Its text is free, whatever the mode.

    Args:
        endpoint: where.
        names: of the items.
        file: of the answers.
        model: whose template prompts are written with, to be sent as plain texts; None sends them as chats.
        more: what else is sent with each request.
    """

    modes: tuple[Mode, ...] = ("free",)

    def __init__(
        self,
        endpoint: Endpoint,
        names: ItemNames,
        file: Path,
        *,
        model: Model | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.endpoint, self.names, self.file, self.model = endpoint, names, file, model
        self.more = dict(more or {})

    @property
    def config(self) -> dict[str, Any]:
        sent = "texts" if self.model is not None else "chats"
        return {"endpoint": self.endpoint.url, "model": self.endpoint.model, "sent": sent, **self.more}

    def lists(
        self, asked: Sequence[Question], spoken: Spoken, labels: Labels, mode: Mode, *, plain: bool = False
    ) -> list[Int32]:
        if mode == "hard":
            raise ConfigError(
                "a server's lists can't be held to anything",
                "Evaluate the run's own folder with --mode hard.",
            )
        said = [self.messages(one, spoken, labels, plain, len(one.shown)) for one in asked]
        prompts: list[Any] = (
            said if self.model is None else [self.model.chat.prompt_text(one) for one in said]
        )
        texts = ask(prompts, self.endpoint, self.file, more=self.more, counts=self.counts)
        return [
            parse(text, self.names, spoken.form, meant=one.terms.rows.tolist()).items
            for text, one in zip(texts, asked, strict=True)
        ]
