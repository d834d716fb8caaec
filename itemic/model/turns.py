"""A chat template taken apart: which stretches of a rendered conversation are the assistant's.

Rendering Jinja for every conversation is slow and doesn't say where a content stands in the text. So a
template is rendered once per pattern of roles, with marks for contents, and the text between the marks is
kept. Contents that a template might treat in its own way (blanks at the ends, think blocks) are rendered by
the template itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from itemic.errors import DataError, ModelError
from itemic.model.template import CHAT_TEMPLATE, EMPTY_THINK
from itemic.model.think import Turn, ask_to_think, check_thinking, think_pattern
from itemic.schema import THINK_START

Message = Mapping[str, Any]
Unit = tuple[str, bool]  # a stretch of text that is encoded on its own, and whether it is the assistant's

ASSISTANT = "assistant"
CHECKED = 8  # conversations of every pattern that are compared with the template's own rendering
THOUGHTS = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Roles and plain texts. A content may be a string or a list of ``{"type": "text", "text": …}``.

    Raises:
        DataError: a message without role or content, or content that is no text.
    """
    turns: list[Turn] = []
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if isinstance(content, list | tuple) and all(isinstance(p, Mapping) and "text" in p for p in content):
            content = "".join(str(part["text"]) for part in content)
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(
                f"message {number} has no role or no text content: {dict(message)!r}",
                'Write messages as {"role": …, "content": text}.',
            )
        turns.append((role, content))
    if not turns:
        raise DataError("a conversation has no messages", "Give it at least one, or use segments.")
    return turns


class TurnRenderer:
    """Conversations as units of text, by a tokenizer's chat template.

    Args:
        tokenizer: one with a chat template.
        pattern: put conversations into the think pattern first (:mod:`itemic.model.think`).

    Raises:
        ModelError: it has none, or the template renders nothing that can be followed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pattern: bool = False) -> None:
        if not tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template", "Expand the model, which gives it ours.")
        self.tokenizer = tokenizer
        self.pattern = pattern
        self._verbatim = str(tokenizer.chat_template).endswith(CHAT_TEMPLATE)
        special = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self._closing = re.compile(r"\s*(?:" + "|".join(map(re.escape, special)) + ")") if special else None
        self._forms: dict[tuple[str, ...], list[str] | None] = {}
        self._left: dict[tuple[str, ...], int] = {}
        self._fold_system = self._refuses_system()

    # ------------------------------------------------------------- rendering

    def render(self, turns: Sequence[Turn], **options: Any) -> str:
        """The template's own rendering.

        Raises:
            DataError: the template refuses the conversation.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{"role": role, "content": content} for role, content in turns], tokenize=False, **options
                )
            )
        except TemplateError as error:
            roles = ", ".join(role for role, _ in turns)
            raise DataError(
                f"the model's chat template refuses a conversation of {roles}: {error.message}",
                "Change the conversation's roles, or use a model whose template takes them.",
            ) from error

    def fold(self, turns: list[Turn]) -> list[Turn]:
        """Put the system prompt before the first user's content where the template knows no system role."""
        if self._fold_system and len(turns) > 1 and turns[0][0] == "system" and turns[1][0] == "user":
            return [("user", f"{turns[0][1]}\n\n{turns[1][1]}"), *turns[2:]]
        return turns

    def units(self, turns: list[Turn]) -> list[Unit]:
        """A conversation as units; those of the assistant hold content and the token that closes the turn."""
        turns = self.fold(think_pattern(turns) if self.pattern else turns)
        form = self._form(turns)
        if form is None:
            return self._follow(turns)
        found = self._assemble(form, turns)
        roles = tuple(role for role, _ in turns)
        if self._left.setdefault(roles, CHECKED) > 0:
            self._left[roles] -= 1
            if "".join(text for text, _ in found) != self.render(turns):
                self._forms[roles] = None
                return self._follow(turns)
        return found

    def prompt_units(self, turns: list[Turn], thinking: str | None) -> list[Unit]:
        """The same up to where the assistant's next turn begins.

        Args:
            turns: up to the user's last.
            thinking: ``think`` ends where an answer with thoughts begins in training, ``no_think`` where one
                without them does, ``empty`` after an empty think block; None is ``empty`` in the think pattern,
                else ``no_think``.

        Raises:
            ConfigError: another way to think.
        """
        check_thinking(thinking)
        if self.pattern:
            thinking = thinking or "empty"
            turns = ask_to_think(turns, thinking)
        turns = self.fold(turns)
        mark = _mark(len(turns))
        if self.pattern and thinking != "think":
            units = self._until([*turns, (ASSISTANT, EMPTY_THINK + mark)], mark)
            return units if thinking == "empty" else units[:-1]  # the block is a unit of its own
        units = self._until([*turns, (ASSISTANT, mark)], mark)
        if thinking in (None, "no_think"):
            return units
        before = "".join(text for text, _ in units)
        text = self.render(turns, add_generation_prompt=True, enable_thinking=thinking == "think")
        if before.startswith(text):
            return _cut(units, len(text))
        return [*units, (text[len(before) :], False)] if text.startswith(before) else [(text, False)]

    # ------------------------------------------------------------ fast: forms

    def _form(self, turns: Sequence[Turn]) -> list[str] | None:
        if not self._verbatim and not all(_plain(content) for _, content in turns):
            return None
        roles = tuple(role for role, _ in turns)
        if roles not in self._forms:
            text = self.render([(role, _mark(k)) for k, role in enumerate(roles)])
            self._forms[roles] = _split(text, len(roles))
        return self._forms[roles]

    def _assemble(self, form: list[str], turns: Sequence[Turn]) -> list[Unit]:
        units: list[Unit] = []
        pending = form[0]
        for (role, content), after in zip(turns, form[1:], strict=True):
            if role != ASSISTANT:
                pending += content + after
                continue
            closing = self._close(after)
            units.append((pending, False))
            units += _answer(content + after[:closing])
            pending = after[closing:]
        if pending:
            units.append((pending, False))
        return units

    def _close(self, after: str) -> int:
        """How much of the text after an assistant's content is the token that closes the turn."""
        match = self._closing.match(after) if self._closing else None
        return match.end() if match else 0

    # ---------------------------------------------- exact: the template itself

    def _follow(self, turns: Sequence[Turn]) -> list[Unit]:
        """Find the assistant's contents by rendering once more with a mark in the place of each."""
        text = self.render(turns)
        units: list[Unit] = []
        at = 0
        for number, (role, content) in enumerate(turns):
            if role != ASSISTANT:
                continue
            start, stop = self._span(text, turns, number, content)
            if at <= start < stop:
                units += [(text[at:start], False), *_answer(text[start:stop])]
                at = stop
        return [*units, (text[at:], False)] if at < len(text) else units

    def _span(self, text: str, turns: Sequence[Turn], number: int, content: str) -> tuple[int, int]:
        mark = _mark(number)
        marked = [*turns[:number], (ASSISTANT, mark), *turns[number + 1 :]]
        parts = self.render(marked).split(mark)
        if len(parts) != 2:
            raise ModelError(
                "the chat template doesn't show an assistant's content exactly once",
                "Replace chat_template.jinja by a template that writes each content as it is.",
            )
        before, after = parts
        start = _common(text, before)
        if THINK_START in content:
            header = self.render(turns[:number], add_generation_prompt=True, enable_thinking=True)
            start = len(header) if text.startswith(header) else start
        stop = len(text) - _common(text[::-1], after[::-1])
        return start, max(stop, start) + (self._close(after) if text.endswith(after) else 0)

    def _until(self, whole: list[Turn], mark: str) -> list[Unit]:
        """The units before the mark in the last turn."""
        form = self._form(whole)
        units = self._follow(whole) if form is None else self._assemble(form, whole)
        place = next(k for k in range(len(units) - 1, -1, -1) if mark in units[k][0])
        head = units[place][0].split(mark)[0]
        return [*units[:place], (head, False)] if head else units[:place]

    def _refuses_system(self) -> bool:
        plain: list[Turn] = [("user", "a"), (ASSISTANT, "b")]
        try:
            self.render(plain)
        except DataError as error:
            raise ModelError(
                f"the model's chat template can't render a question and an answer: {error.message}",
                "Replace chat_template.jinja, or remove it to get ours on expansion.",
            ) from error
        try:
            self.render([("system", "s"), *plain])
        except DataError:
            return True
        return False


def _mark(number: int) -> str:
    """A word that no conversation has, and that no template strips or splits."""
    return f"\ue000{number}\ue001"


def _plain(content: str) -> bool:
    """Whether templates can be trusted to write a content as it is."""
    return content == content.strip() != "" and "think>" not in content and "<tool" not in content


def _split(text: str, count: int) -> list[str] | None:
    """What stands between the marks 0 … count - 1; None where the template loses, repeats or moves one."""
    parts = re.split("\ue000([0-9]+)\ue001", text)
    return parts[::2] if parts[1::2] == [str(k) for k in range(count)] else None


def _answer(text: str) -> list[Unit]:
    """Thoughts are cut off, so that a prompt that ends after an empty think block is a prefix in tokens
    too."""
    match = THOUGHTS.match(text)
    if match and match.end() < len(text):
        return [(text[: match.end()], True), (text[match.end() :], True)]
    return [(text, True)]


def _common(a: str, b: str) -> int:
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    return next(k for k in range(limit) if a[k] != b[k])


def _cut(units: Sequence[Unit], length: int) -> list[Unit]:
    """The first ``length`` characters of units."""
    kept: list[Unit] = []
    for text, ours in units:
        if length <= 0:
            break
        kept.append((text[:length], ours))
        length -= len(text)
    return kept
