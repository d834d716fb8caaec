"""The one way from conversations to token ids: for training, evaluation and serving."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from itemic import schema as c
from itemic.artifact import digest_of
from itemic.errors import ConfigError, DataError
from itemic.forest.rows import TokenRows
from itemic.model.pieces import PieceEncoder
from itemic.model.spelled import CutAtNames, Spelled
from itemic.model.tokenizer import opening, tokenizer_parts
from itemic.model.turns import ASSISTANT, Message, TurnRenderer, Unit, turns_of
from itemic.sid.going_on import read_on

Conversation = Sequence[Message] | str
SUPERVISED = ("all", "itemic", "everything")


class ChatRenderer:
    """Turns conversations into tokens by the model's own chat template.

    What the assistant says is supervised: the content of its turns and the token that closes each, never the
    header before them nor the line end after them. Each assistant turn is encoded apart from what stands
    before it, so that the tokens of :meth:`prompt` are those with which the training row of the same
    conversation begins. A template without a system role gets the system prompt in front of the first user's
    content.

    Args:
        tokenizer: with a chat template.
        item_tokens: ids of the index's tokens, for rows in which only they are supervised.
        pattern: put conversations into OpenOneRec's think pattern (:mod:`itemic.model.think`).
        names: those that are spelled in words. Each gets its own tokens wherever it stands, and what stands before and
            after it is encoded apart.

    Raises:
        ModelError: the tokenizer has no chat template, or one that can't be followed.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        item_tokens: range | None = None,
        *,
        pattern: bool = False,
        names: Spelled | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.item_tokens = item_tokens
        self.names = names
        self._pieces = PieceEncoder(tokenizer)
        self._turns = TurnRenderer(tokenizer, pattern)
        before = opening(tokenizer)
        self._opening: list[Unit] = [(before, False)] if before else []

    @property
    def digest(self) -> str:
        """Names tokenizer, template, pattern and spelled names: equal digests, equal tokens for equal conversations."""
        pattern = ["think pattern"] if self._turns.pattern else []
        names = [] if self.names is None else [self.names.names.digest]
        return digest_of([*tokenizer_parts(self.tokenizer), self.tokenizer.chat_template, *pattern, *names])

    # ----------------------------------------------------------- one at a time

    def encode(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """A conversation's token ids, and which of them are the assistant's.

        Raises:
            DataError: a message without role or text, or a conversation that the template refuses.
        """
        rows = self._rows([self._turns.units(turns_of(messages))])
        assert rows.weights is not None
        return rows.tokens.tolist(), rows.weights.astype(bool).tolist()

    def prompt(self, messages: Conversation, thinking: str | None = None) -> list[int]:
        """What the model reads before it answers.

        Args:
            messages: up to the user's last turn; or a plain text, for models that continue segments.
            thinking: ``think`` ends where an answer with thoughts begins in training, ``no_think`` where one
                without them does, ``empty`` after an empty think block (where the template has one, or in the
                pattern); None is ``empty`` in the pattern, else ``no_think``.

        Raises:
            DataError: as :meth:`encode`, or the last turn is the assistant's.
        """
        return [int(token) for token in self.prompt_batch([messages], thinking).tokens]

    def prompt_text(self, messages: Conversation, thinking: str | None = None) -> str:
        """The text of :meth:`prompt`; the tokenizer reads it as the same tokens, without special tokens of its own.

        One that puts blanks before first words may read a plain text's first word, or one after an answer, without.
        Names that are spelled in words it may read together with their neighbours.
        """
        return "".join(text for text, _ in self._prompt_units(messages, thinking))

    # ---------------------------------------------------------------- batches

    def encode_batch(self, conversations: Iterable[Conversation], *, supervise: str = "all") -> TokenRows:
        """Training rows with weights 1 on what is supervised and 0 elsewhere.

        Args:
            conversations: messages, or a plain text, of which every token is supervised.
            supervise: ``"all"``; ``"itemic"`` for the index's tokens only; ``"everything"`` for all that is said,
                by the user and the system as well, with the headers of the turns.

        Raises:
            DataError: as :meth:`encode`.
            ConfigError: another way to supervise, or a renderer that knows no item tokens.
        """
        _check_supervision(supervise)
        units = [
            self._segment(item) if isinstance(item, str) else self._said(item, supervise)
            for item in conversations
        ]
        return self._supervise(self._rows(units, supervise), supervise)

    def encode_segments(self, texts: Iterable[str], *, supervise: str = "all") -> TokenRows:
        """Plain texts as training rows."""
        return self.encode_batch(texts, supervise=supervise)

    def encode_table(self, conversations: pl.DataFrame, *, supervise: str = "all") -> TokenRows:
        """Training rows of a table with the columns of ``schema.CONVERSATION_COLUMNS``; messages win over
        segments.

        Segments are one text, every token of which is supervised but for those of segments with
        ``"loss": false``; the text is cut for the tokenizer only where that changes.

        Raises:
            DataError: a row with neither, or with broken JSON.
            ConfigError: as :meth:`encode_batch`.
        """
        _check_supervision(supervise)
        columns = [
            conversations[name].to_list() if name in conversations.columns else [None] * len(conversations)
            for name in (c.MESSAGES, c.SEGMENTS)
        ]
        units = []
        for row, (messages, segments) in enumerate(zip(*columns, strict=True)):
            said, text = _conversation(row, messages, segments)
            units.append(self._said(said, supervise) if said else [*self._opening, *text])
        return self._supervise(self._rows(units, supervise), supervise)

    def prompt_batch(self, prompts: Iterable[Conversation], thinking: str | None = None) -> TokenRows:
        """As :meth:`prompt` for many; without weights."""
        units = [self._prompt_units(prompt, thinking) for prompt in prompts]
        rows = self._rows(units)
        return TokenRows(rows.tokens, rows.offsets)

    # ----------------------------------------------------------------- inside

    def _segment(self, text: str) -> list[Unit]:
        return [*self._opening, (text, True)]

    def _said(self, messages: Sequence[Message], supervise: str) -> list[Unit]:
        units = self._turns.units(turns_of(messages))
        return [(text, True) for text, _ in units] if supervise == "everything" else units

    def _prompt_units(self, prompt: Conversation, thinking: str | None) -> list[Unit]:
        if isinstance(prompt, str):
            return self._segment(prompt)
        turns = turns_of(prompt)
        if turns[-1][0] == ASSISTANT:
            raise DataError(
                "a prompt ends with the assistant's turn", "Leave out the answer that the model is asked for."
            )
        return self._turns.prompt_units(turns, thinking)

    def _rows(self, conversations: Sequence[list[Unit]], supervise: str = "all") -> TokenRows:
        """One row per list of units."""
        if self.names is not None:
            return self._with_names(conversations, self.names, supervise == "itemic")
        return self._of_units(conversations)

    def _of_units(self, conversations: Sequence[list[Unit]]) -> TokenRows:
        if not self._pieces.reads_units_alone:
            return self._whole(conversations)
        parts = self._pieces.rows([text for units in conversations for text, _ in units])
        flags = np.array([ours for units in conversations for _, ours in units], np.float32)
        ends = np.concatenate([[0], np.cumsum([len(units) for units in conversations])]).astype(np.int64)
        return TokenRows(parts.tokens, parts.offsets[ends], np.repeat(flags, parts.lengths))

    def _with_names(
        self, conversations: Sequence[list[Unit]], spelled: Spelled, names_only: bool
    ) -> TokenRows:
        """The same with each name in its own tokens.

        What stands before a conversation's first name is encoded as if there were none, and every stretch after it as
        text that goes on; so a part of a conversation has the same tokens whatever follows.

        Args:
            conversations: lists of units.
            spelled: the names.
            names_only: whether nothing but names has weight.
        """
        cut = CutAtNames.of(conversations, spelled.names)
        words = [text for text, _ in cut.stretches]
        read = self._pieces.rows(words) if self._pieces.reads_units_alone else self._going_on(words)
        return cut.together(self._of_units(cut.heads), read, spelled.rows, names_only)

    def _going_on(self, texts: list[str]) -> TokenRows:
        """Texts that go on, each distinct one read once."""
        distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        return TokenRows.of(read_on(self.tokenizer, list(distinct))).take([distinct[text] for text in texts])

    def _whole(self, conversations: Sequence[list[Unit]]) -> TokenRows:
        """For tokenizers that read a text's beginning in another way than its middle.

        A unit has the tokens that it adds to those of all text before it. Where they aren't added at the end because
        letters merge across the cut, it is read as text that goes on. Either way a unit's tokens depend on nothing
        after it, so what a prompt ends with is the same in training. After what the tokenizer puts before every text
        by itself a text begins.
        """
        opened = [bool(self._opening) and units[:1] == self._opening for units in conversations]
        begun = [units[start:] for units, start in zip(conversations, opened, strict=True)]
        texts = [list(accumulate(text for text, _ in units)) for units in begun]
        read = iter(self._pieces.rows([text for grown in texts for text in grown]))
        first = self._pieces.ids([text for text, _ in self._opening])
        rows: list[list[int]] = []
        weights: list[list[float]] = []
        for units, start in zip(begun, opened, strict=True):
            tokens = list(first[0]) if start else []
            flags = [0.0] * len(tokens)
            before: list[int] = []
            for text, ours in units:
                whole = next(read).tolist()
                same = whole[: len(before)] == before
                added = whole[len(before) :] if same else self._pieces.going_on(text)
                tokens += added
                flags += [float(ours)] * len(added)
                before = whole
            rows.append(tokens)
            weights.append(flags)
        return TokenRows.of(rows, weights)

    def _supervise(self, rows: TokenRows, supervise: str) -> TokenRows:
        if supervise != "itemic" or self.names is not None:
            return rows
        if self.item_tokens is None or rows.weights is None:
            raise ConfigError(
                "this renderer knows no item tokens", "Take the renderer of a model (model.chat)."
            )
        itemic = (rows.tokens >= self.item_tokens.start) & (rows.tokens < self.item_tokens.stop)
        return TokenRows(rows.tokens, rows.offsets, rows.weights * itemic.astype(np.float32))


def _check_supervision(supervise: str) -> None:
    if supervise not in SUPERVISED:
        raise ConfigError(f"unknown supervision {supervise!r}", f"Use one of {', '.join(SUPERVISED)}.")


def _conversation(row: int, messages: Any, segments: Any) -> tuple[list[Message], list[Unit]]:
    """A row's messages, or the text of its segments, from JSON text or lists."""
    for name, value in ((c.MESSAGES, messages), (c.SEGMENTS, segments)):
        if value is None:
            continue
        try:
            found = json.loads(value) if isinstance(value, str) else value
            if name == c.MESSAGES and found:
                return list(found), []
            if name == c.SEGMENTS and found:
                return [], _joined(found)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise DataError(
                f"conversation {row}: column {name} can't be read: {error}",
                "Check it with `itemic tasks validate`.",
            ) from error
    raise DataError(f"conversation {row} has neither messages nor segments", "Give each row one of the two.")


def _joined(segments: Sequence[Any]) -> list[Unit]:
    """The text of segments, cut only between those with loss and those without."""
    parts = [(part, True) if isinstance(part, str) else (part["text"], _loss(part)) for part in segments]
    return [("".join(text for text, _ in run), loss) for loss, run in groupby(parts, itemgetter(1))]


def _loss(segment: Mapping[str, Any]) -> bool:
    loss = segment.get("loss")  # a column of structs has the field, and null, where others set it
    if loss is not None and not isinstance(loss, bool):
        raise TypeError(f"a segment's loss is {loss!r}, it must be true or false")
    return loss is not False
