"""Tokenizers: a byte-level BPE trained on the catalogue, and the index's tokens in any tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from itemic.errors import ConfigError, ModelError
from itemic.model.template import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    SPECIAL_TOKENS,
    TURN_END,
)
from itemic.schema import THINK_END, THINK_START

# Qwen2's words: letters with one sign before them, single digits, signs, line ends together, other blanks
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
ROLES = "system user assistant"
SMALLEST = 256 + len(SPECIAL_TOKENS) + 2


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """A byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) with our special tokens and chat template.

    Every text can be written and comes back byte for byte. The same texts give the same tokenizer.

    Args:
        texts: what to learn from: the catalogue's texts and the wording of prompts.
        vocab_size: bytes, merges and special tokens together; the result is smaller if the texts can't fill
            it.

    Raises:
        ConfigError: ``vocab_size`` doesn't even hold the bytes.
    """
    if vocab_size < SMALLEST:
        raise ConfigError(
            f"vocab_size is {vocab_size}", f"Give at least {SMALLEST}: 256 bytes and the special tokens."
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    thoughts = [plain_token(THINK_START), plain_token(THINK_END)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIAL_TOKENS, *thoughts],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([ROLES, ROLES, *texts], trainer)
    # think tokens are text that a reader of answers wants to see, so decoding must not skip them as special
    backend = _unspecial(backend, thoughts)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _unspecial(backend: Tokenizer, tokens: Sequence[AddedToken]) -> Tokenizer:
    """The trainer can only reserve ids for special tokens; afterwards these become ordinary added ones."""
    state = json.loads(backend.to_str())
    plain = {token.content for token in tokens}
    for entry in state["added_tokens"]:
        if entry["content"] in plain:
            entry["special"] = False
    return Tokenizer.from_str(json.dumps(state))


def plain_token(text: str) -> AddedToken:
    """A token that is found verbatim anywhere in a text and takes no blanks with it."""
    return AddedToken(text, normalized=False, lstrip=False, rstrip=False, single_word=False, special=False)


def add_index_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> tuple[int, bool]:
    """Make each of the index's tokens one token, with ids that rise by one in the order given.

    A tokenizer that already has them all, in that order, is left alone.

    Returns:
        the id of the first one, and whether they were added.

    Raises:
        ModelError: the tokenizer has some of the tokens, or has them all in another order or as pieces of
            words.
    """
    known = tokenizer.get_vocab()
    there = [token for token in tokens if token in known]
    if there and len(there) < len(tokens):
        raise ModelError(
            f"the tokenizer already has {len(there)} of the index's {len(tokens)} tokens, first {there[0]!r}",
            "Start from the model before its own item tokens were added, or choose another token format.",
        )
    if not there:
        tokenizer.add_tokens([plain_token(token) for token in tokens])
    ids = cast(list[int], tokenizer.convert_tokens_to_ids(list(tokens)))
    first = ids[0]
    if ids != list(range(first, first + len(tokens))):
        raise ModelError(
            "the index's tokens have ids with gaps or in another order than by level",
            "Start from the model before its own item tokens were added, or choose another token format.",
        )
    if tokenizer.encode("".join(tokens), add_special_tokens=False) != ids:
        raise ModelError(
            "the tokenizer doesn't read each of the index's tokens as one token",
            "Use a fast tokenizer (tokenizer.json), or choose another token format.",
        )
    return first, not there


def tokens_taken(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the highest token id."""
    return max(tokenizer.get_vocab().values()) + 1
