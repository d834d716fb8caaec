"""OpenOneRec's think pattern: the same tokens in training and when a model is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.model.chat import ChatRenderer
from itemic.model.template import EMPTY_THINK
from itemic.model.think import ThoughtTokens, think_pattern
from tests.model.test_chat import KINDS, chat, clean, content, conversations, renderer

THOUGHTS = "<think>\nthey like oils\n</think>\n\n"


def pattern_renderer(kind: str) -> ChatRenderer:
    plain = renderer(kind)
    return ChatRenderer(plain.tokenizer, plain.item_tokens, pattern=True)


def test_the_rules_by_hand() -> None:
    turns = [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "no thoughts"),
        ("user", "b"),
        ("assistant", THOUGHTS + "some"),
        ("user", "c"),
        ("assistant", "<think>\n \n</think>\nan empty block"),
        ("assistant", "behind no user"),
    ]
    expected = [
        ("system", "s"),
        ("user", "a/no_think"),
        ("assistant", EMPTY_THINK + "no thoughts"),
        ("user", "b/think"),
        ("assistant", THOUGHTS + "some"),
        ("user", "c/no_think"),
        ("assistant", "<think>\n \n</think>\nan empty block"),
        ("assistant", "behind no user"),
    ]
    assert think_pattern(turns) == expected
    assert think_pattern(expected) == expected


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_training_and_asking_give_the_same_tokens(kind: str, data: st.DataObject) -> None:
    """Prompts with thinking on, off and empty are the beginnings of the rows with and without thoughts."""
    messages = data.draw(conversations(content))
    chatter = pattern_renderer(kind)
    answer = data.draw(clean)
    for before, ways in (
        (THOUGHTS, ("think",)),
        ("", ("no_think", "empty")),
        (EMPTY_THINK, ("no_think", "empty")),
    ):
        messages[-1] = {"role": "assistant", "content": before + answer}
        row, supervised = chatter.encode(messages)
        for thinking in ways:
            prompt = chatter.prompt(messages[:-1], thinking=thinking)
            assert row[: len(prompt)] == prompt, thinking
            assert supervised[len(prompt)] or kind == "metaspace", thinking
    assert chatter.prompt(messages[:-1]) == chatter.prompt(messages[:-1], thinking="empty")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "metaspace"])
def test_what_the_prompts_end_with(kind: str) -> None:
    chatter = pattern_renderer(kind)
    ask: list[dict[str, Any]] = chat(("user", "rose oil"))
    said = {
        way: chatter.tokenizer.decode(chatter.prompt(ask, thinking=way))
        for way in ("think", "no_think", "empty")
    }
    assert "rose oil/think" in said["think"]
    assert "rose oil/no_think" in said["no_think"]
    assert said["empty"] == said["no_think"] + EMPTY_THINK
    assert "think>" not in said["no_think"]


def test_a_thought_is_opened_once() -> None:
    """A template that opens the thought by itself has done it already."""
    marks = ThoughtTokens(np.array([7, 8], np.int32), 9, np.array([3], np.int32))
    opened = marks.opened(TokenRows.of([[1, 2], [1, 7, 8], [7, 8, 1], [8]]))
    assert [opened[row].tolist() for row in range(4)] == [[1, 2, 7, 8], [1, 7, 8], [7, 8, 1, 7, 8], [8, 7, 8]]
    assert marks.count == 4


def test_another_way_to_think_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown thinking 'deeply'"):
        renderer("qwen3").prompt(chat(("user", "rose oil")), thinking="deeply")


def test_the_pattern_changes_the_digest() -> None:
    assert pattern_renderer("qwen3").digest != renderer("qwen3").digest
