from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from itemic.errors import ConfigError, ModelError
from itemic.model.template import CHAT_TOKENS, SPECIAL_TOKENS
from itemic.model.tokenizer import add_index_tokens, plain_token, train_tokenizer
from tests.model.helpers import catalogue, small_index

TOKENS = small_index().tokens


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = train_tokenizer(catalogue(200), vocab_size=400)
    add_index_tokens(made, TOKENS)
    return made


def test_ids_run_from_text_to_items_without_a_gap(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.convert_tokens_to_ids(TOKENS)
    assert ids == list(range(len(tokenizer) - len(TOKENS), len(tokenizer)))
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert ids[0] <= 400


def test_every_named_token_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in (*SPECIAL_TOKENS, *CHAT_TOKENS, *TOKENS):
        assert len(tokenizer.encode(token)) == 1
        assert (
            len(tokenizer.encode(f"a{token} b{token}"))
            == len(tokenizer.encode("a")) + len(tokenizer.encode(" b")) + 2
        )


def test_items_and_thoughts_survive_decoding_without_special_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = f"<think>hm</think>{TOKENS[0]}{TOKENS[-1]}"
    assert tokenizer.decode(tokenizer.encode(text + "<|im_end|>"), skip_special_tokens=True) == text


@given(text=st.text())
def test_every_text_comes_back_byte_for_byte(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text.encode(errors="surrogatepass").decode(
        errors="replace"
    )


def test_the_same_texts_give_the_same_tokenizer() -> None:
    made = {train_tokenizer(catalogue(200), vocab_size=400).backend_tokenizer.to_str() for _ in range(4)}
    assert len(made) == 1


def test_a_vocabulary_that_the_text_cannot_fill_is_smaller() -> None:
    assert len(train_tokenizer(["ab ab"], vocab_size=4000)) < 300


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size is 100"):
        train_tokenizer(["a"], vocab_size=100)


def test_it_loads_with_plain_transformers(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = f"rose oil\n\n <|im_start|>user\n{TOKENS[3]}{TOKENS[10]}, {TOKENS[5]}<|im_end|>\n"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.eos_token == "<|im_end|>"


class TestAddingIndexTokens:
    def test_all_there_already_is_left_alone(self, tokenizer: PreTrainedTokenizerFast) -> None:
        before = len(tokenizer)
        first, added = add_index_tokens(tokenizer, TOKENS)
        assert (first, added) == (before - len(TOKENS), False)
        assert len(tokenizer) == before

    def test_some_there_already_is_refused(self) -> None:
        made = train_tokenizer(["a"], vocab_size=300)
        made.add_tokens([plain_token(TOKENS[2])])
        with pytest.raises(
            ModelError, match=f"has 1 of the index's {len(TOKENS)} tokens, first '{TOKENS[2]}'"
        ):
            add_index_tokens(made, TOKENS)

    def test_all_there_in_another_order_is_refused(self) -> None:
        made = train_tokenizer(["a"], vocab_size=300)
        made.add_tokens([plain_token(token) for token in reversed(TOKENS)])
        with pytest.raises(ModelError, match="another order"):
            add_index_tokens(made, TOKENS)
