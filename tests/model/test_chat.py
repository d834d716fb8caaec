from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import ConfigError, DataError, ModelError
from itemic.model.chat import ChatRenderer
from itemic.model.template import CHAT_TEMPLATE, EMPTY_THINK
from itemic.model.tokenizer import add_index_tokens
from itemic.model.turns import turns_of
from itemic.training.language.stream import row_weights
from tests.model.helpers import FAMILIES, catalogue, family_tokenizer, metaspace_tokenizer, small_index

INDEX = small_index()
RENDERERS: dict[str, ChatRenderer] = {}


def renderer(kind: str) -> ChatRenderer:
    """Each family's own template, ``qwen2`` with ours, and a tokenizer whose pieces can't be read alone."""
    if kind not in RENDERERS:
        tokenizer = metaspace_tokenizer(catalogue(200)) if kind == "metaspace" else family_tokenizer(kind)
        first, _ = add_index_tokens(tokenizer, INDEX.tokens)
        tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
        RENDERERS[kind] = ChatRenderer(tokenizer, range(first, first + len(INDEX.tokens)))
    return RENDERERS[kind]


def chat(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


KINDS = (*FAMILIES, "metaspace")
ALONE = FAMILIES  # these read pieces alone, so the prefix of a prompt holds by construction
item = st.sampled_from(INDEX.texts + INDEX.tokens)
phrase = st.text(st.characters(codec="utf-8", exclude_characters="\ue000\ue001"), min_size=1, max_size=12)
tricky = st.sampled_from(
    ["<", "<b>", "</think>", "<think>", "\n", " ", "\n\n", "<s_a_", "<s_a_1", "a < b", "<|im_end|"]
)
content = st.lists(item | phrase | tricky, max_size=6).map("".join)
clean = st.lists(item | st.sampled_from(catalogue(30)), min_size=1, max_size=6).map(", ".join)


@st.composite
def conversations(draw: st.DrawFn, text: st.SearchStrategy[str]) -> list[dict[str, Any]]:
    rounds = draw(st.integers(1, 3))
    turns = [("system", draw(text))] if draw(st.booleans()) else []
    for _ in range(rounds):
        turns += [("user", draw(text)), ("assistant", draw(text))]
    return chat(*turns)


def folded(kind: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gemma's template knows no system role; the prompt goes before the first user's content."""
    if kind != "gemma" or messages[0]["role"] != "system":
        return messages
    merged = messages[0]["content"] + "\n\n" + messages[1]["content"]
    return [{"role": "user", "content": merged}, *messages[2:]]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_tokens_equal_the_templates_own(kind: str, data: st.DataObject) -> None:
    messages = data.draw(conversations(clean))
    chatter = renderer(kind)
    ids, mask = chatter.encode(messages)
    assert ids == chatter.tokenizer.apply_chat_template(folded(kind, messages), return_dict=False)
    assert len(mask) == len(ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_text_equals_the_templates_own_whatever_the_content(kind: str, data: st.DataObject) -> None:
    messages = data.draw(conversations(content))
    chatter = renderer(kind)
    text = chatter.tokenizer.apply_chat_template(folded(kind, messages), tokenize=False)
    assert "".join(part for part, _ in chatter._turns.units(turns_of(messages))) == text


@settings(max_examples=60, deadline=None)
@given(messages=conversations(clean))
def test_the_mask_of_our_template_equals_its_generation_markers(messages: list[dict[str, Any]]) -> None:
    chatter = renderer("qwen2")
    ids, mask = chatter.encode(messages)
    theirs = chatter.tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    assert ids == theirs["input_ids"]
    assert [int(flag) for flag in mask] == theirs["assistant_masks"]


@pytest.mark.parametrize("kind", ALONE)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_prompt_is_a_prefix_of_its_training_row(kind: str, data: st.DataObject) -> None:
    messages = data.draw(conversations(content))
    answer = messages[-1]["content"]
    chatter = renderer(kind)
    ids, mask = chatter.encode(messages)
    if "think>" not in answer:
        prompt = chatter.prompt(messages[:-1])
        assert ids[: len(prompt)] == prompt
        assert not mask[len(prompt) - 1]
        assert mask[len(prompt)]
    prompt = chatter.prompt(messages[:-1], thinking="think")
    assert ids[: len(prompt)] == prompt


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_prompt_without_thinking_is_a_prefix_of_a_row_with_an_empty_think_block(
    kind: str, data: st.DataObject
) -> None:
    messages = data.draw(conversations(content))
    messages[-1]["content"] = EMPTY_THINK + data.draw(clean)
    chatter = renderer(kind)
    ids, _ = chatter.encode(messages)
    prompt = chatter.prompt(messages[:-1], thinking="empty")
    assert ids[: len(prompt)] == prompt
    tail = chatter.tokenizer.decode(prompt[-3:])
    assert tail.endswith("</think>\n\n")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_batch_equals_one_at_a_time(kind: str, data: st.DataObject) -> None:
    many = data.draw(st.lists(conversations(content) | content, min_size=1, max_size=12)) * 4
    chatter = renderer(kind)
    rows = chatter.encode_batch(many)
    assert rows.weights is not None
    for number, one in enumerate(many[: len(many) // 4]):
        alone = chatter.encode_batch([one])
        assert rows[number].tolist() == alone.tokens.tolist()
        start, stop = rows.offsets[number : number + 2]
        assert rows.weights[start:stop].tolist() == alone.weights.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_assistant_says_is_supervised_and_nothing_else(kind: str) -> None:
    chatter = renderer(kind)
    closing = {"llama": "<|eot_id|>", "gemma": "<end_of_turn>"}.get(kind, "<|im_end|>")
    messages = chat(
        ("system", "soap"),
        ("user", "rose oil"),
        ("assistant", "red comb"),
        ("user", "gold"),
        ("assistant", INDEX.text(4)),
    )
    ids, mask = chatter.encode(messages)
    heard = [token for token, flag in zip(ids, mask, strict=True) if flag]
    decode = chatter.tokenizer.decode
    assert decode(heard).replace(" ", "") == f"redcomb{closing}{INDEX.text(4)}{closing}"
    rest = decode([token for token, flag in zip(ids, mask, strict=True) if not flag])
    assert "comb" not in rest
    assert INDEX.tokens[0] not in rest


def test_thoughts_of_the_last_answer_are_supervised_under_a_thinking_template() -> None:
    chatter = renderer("qwen3")
    ids, mask = chatter.encode(chat(("user", "soap"), ("assistant", "<think>\nhair\n</think>\n\nrose")))
    heard = chatter.tokenizer.decode([token for token, flag in zip(ids, mask, strict=True) if flag])
    assert heard == "<think>\nhair\n</think>\n\nrose<|im_end|>"
    ids, mask = chatter.encode(chat(("user", "soap"), ("assistant", "rose")))
    heard = chatter.tokenizer.decode([token for token, flag in zip(ids, mask, strict=True) if flag])
    assert heard == "rose<|im_end|>"  # the empty block that the template puts in is a header


def test_only_tokenizers_that_put_a_blank_in_front_are_never_cut() -> None:
    alone = {kind for kind in KINDS if renderer(kind)._pieces.reads_units_alone}
    assert alone == set(ALONE)


def test_content_in_parts_is_the_joined_text() -> None:
    chatter = renderer("qwen2")
    parts = [{"type": "text", "text": "rose "}, {"type": "text", "text": "oil"}]
    assert (
        chatter.encode([{"role": "user", "content": parts}])[0]
        == chatter.encode(chat(("user", "rose oil")))[0]
    )
    assert chatter.prompt([{"role": "user", "content": parts}]) == chatter.prompt(chat(("user", "rose oil")))


@pytest.mark.parametrize("kind", KINDS)
def test_segments_are_supervised_whole(kind: str) -> None:
    chatter = renderer(kind)
    texts = [f"{INDEX.text(1)}{INDEX.text(2)}", "rose oil < 3 <b>"] * 20
    rows = chatter.encode_segments(texts)
    assert rows.weights is not None
    for number in range(2):
        assert rows[number].tolist() == chatter.tokenizer(texts[number])["input_ids"]
        start, stop = rows.offsets[number : number + 2]
        opening = int(kind in ("llama", "gemma"))
        assert rows.weights[start:stop].tolist() == [0.0] * opening + [1.0] * (stop - start - opening)
    assert chatter.prompt(texts[0]) == rows[0].tolist()


def test_itemic_supervision_hears_only_the_indexs_tokens() -> None:
    chatter = renderer("qwen2")
    rows = chatter.encode_segments([f"after {INDEX.text(0)} comes {INDEX.text(1)}"], supervise="itemic")
    assert rows.weights is not None
    heard = chatter.tokenizer.convert_ids_to_tokens(rows.tokens[rows.weights > 0].tolist())
    assert "".join(heard) == INDEX.text(0) + INDEX.text(1)
    with pytest.raises(ConfigError, match="no item tokens"):
        ChatRenderer(chatter.tokenizer).encode_segments(["a"], supervise="itemic")
    with pytest.raises(ConfigError, match="unknown supervision"):
        chatter.encode_segments(["a"], supervise="some")


def test_a_table_of_conversations() -> None:
    chatter = renderer("qwen2")
    messages = chat(("user", "soap"), ("assistant", INDEX.text(3)))
    table = pl.DataFrame(
        {
            "messages": [json.dumps(messages), None, json.dumps(messages)],
            "segments": [
                None,
                json.dumps([{"type": "text", "text": "rose "}, {"type": "text", "text": "oil"}]),
                "[]",
            ],
        }
    )
    rows = chatter.encode_table(table)
    expected = chatter.encode_batch([messages, "rose oil", messages])
    assert np.array_equal(rows.tokens, expected.tokens)
    assert np.array_equal(rows.offsets, expected.offsets)
    assert np.array_equal(rows.weights, expected.weights)


@pytest.mark.parametrize(
    ("messages", "segments", "word"),
    [
        (None, None, "neither"),
        ("[{", None, "conversation 1: column messages"),
        (None, '[{"type": "text"}]', "segments"),
    ],
)
def test_broken_rows_of_a_table_are_named(messages: str | None, segments: str | None, word: str) -> None:
    good = json.dumps(chat(("user", "a"), ("assistant", "b")))
    table = pl.DataFrame(
        {"messages": [good, messages], "segments": pl.Series([None, segments], dtype=pl.String)}
    )
    with pytest.raises(DataError) as caught:
        renderer("qwen2").encode_table(table)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "broken", [[], [{"role": "user"}], [{"content": "x"}], [{"role": "user", "content": [{"type": "image"}]}]]
)
def test_messages_without_role_or_text_are_refused(broken: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError):
        renderer("qwen2").encode(broken)


def test_a_conversation_that_the_template_refuses() -> None:
    with pytest.raises(DataError, match="refuses a conversation of system"):
        renderer("gemma").encode(chat(("system", "soap"), ("assistant", "rose")))


def test_a_prompt_that_ends_with_an_answer_is_refused() -> None:
    with pytest.raises(DataError, match="ends with the assistant"):
        renderer("qwen2").prompt(chat(("user", "soap"), ("assistant", "rose")))


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        ChatRenderer(family_tokenizer("qwen2"))


def test_the_digest_tells_templates_and_tokens_apart() -> None:
    tokenizer = family_tokenizer("qwen3")
    first = ChatRenderer(tokenizer).digest
    assert ChatRenderer(family_tokenizer("qwen3")).digest == first
    add_index_tokens(tokenizer, INDEX.tokens)
    second = ChatRenderer(tokenizer).digest
    tokenizer.chat_template = CHAT_TEMPLATE
    assert len({first, second, ChatRenderer(tokenizer).digest}) == 3


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(parts=st.lists(st.tuples(st.sampled_from(INDEX.texts), st.booleans()), min_size=1, max_size=6))
def test_segments_without_loss_have_no_weight(kind: str, parts: list[tuple[str, bool]]) -> None:
    """The tokens are those of the whole text; a semantic ID's weigh what its segment says."""
    chatter = renderer(kind)
    segments = [{"type": "text", "text": text} | ({} if loss else {"loss": False}) for text, loss in parts]
    found = chatter.encode_table(pl.DataFrame({"segments": [json.dumps(segments)]}))
    whole = chatter.encode_segments(["".join(text for text, _ in parts)])
    assert found.weights is not None
    assert found.tokens.tolist() == whole.tokens.tolist()
    items = chatter.item_tokens
    assert items is not None
    named = (found.tokens >= items.start) & (found.tokens < items.stop)
    size = int(named.sum()) // len(parts)
    assert found.weights[named].tolist() == [float(loss) for _, loss in parts for _ in range(size)]


def test_loss_must_be_true_or_false() -> None:
    segments = json.dumps([{"type": "text", "text": "a", "loss": "no"}])
    with pytest.raises(DataError, match="a segment's loss is 'no'"):
        renderer(KINDS[0]).encode_table(pl.DataFrame({"segments": [segments]}))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_everything_has_loss_but_what_nothing_predicts(kind: str, data: st.DataObject) -> None:
    """OpenOneRec's ``only_assistant_loss: false``: the same tokens, and only the first of a row is not learned."""
    messages = data.draw(conversations(clean))
    chatter = renderer(kind)
    assistants, found = (chatter.encode_batch([messages], supervise=name) for name in ("all", "everything"))
    assert found.tokens.tolist() == assistants.tokens.tolist()
    learned = row_weights(found) > 0
    assert not learned[0]
    assert learned[1:].all()
    table = pl.DataFrame({"messages": [json.dumps(messages)]})
    assert chatter.encode_table(table, supervise="everything").weights.tolist() == found.weights.tolist()


def test_everything_leaves_context_of_plain_texts_without_loss() -> None:
    segments = [{"type": "text", "text": "rose oil", "loss": False}, {"type": "text", "text": INDEX.text(1)}]
    table = pl.DataFrame({"segments": [json.dumps(segments)]})
    chatter = renderer("qwen2")
    both = [chatter.encode_table(table, supervise=name).weights.tolist() for name in ("all", "everything")]
    assert both[0] == both[1]
    assert 0.0 in both[0]
