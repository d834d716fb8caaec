"""Tokenizers: a byte-level BPE trained on the catalogue, and the index's tokens in any tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

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
SURROUNDINGS = {
    "in a row": "@",
    "between letters": "ab@cd",
    "between blanks": "ab @ cd",
    "twice": "@@",
    "at the ends of a line": "ab\n@ cd@\n",
}
SAMPLE = "a b"
PROSE = ("Hello World", " of two  blanks,\n\nlines\tand ünïcode: 12,345 ", "a < b </s> <s>")
OWN_TOKENS = "Start from the model before its own item tokens were added, or choose another token format."
WHOLE = "Choose another token format, or a base model whose tokenizer keeps added tokens whole."
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

    A tokenizer that already has them all, in that order, keeps them; where they are words of its vocabulary that text
    may hide, they are marked as tokens that are looked for first.

    Returns:
        the id of the first one (without any, the first free id), and whether they were added.

    Raises:
        ModelError: the tokenizer has some of the tokens, has them all in another order or as pieces of words,
            takes no new ones, or doesn't read each as one token wherever it stands.
    """
    if not tokens:
        return tokens_taken(tokenizer), False
    known = tokenizer.get_vocab()
    there = [token for token in tokens if token in known]
    if there and len(there) < len(tokens):
        raise ModelError(
            f"the tokenizer already has {len(there)} of the index's {len(tokens)} tokens, first {there[0]!r}",
            OWN_TOKENS,
        )
    marked = tokenizer.get_added_vocab()
    tokenizer.add_tokens([plain_token(token) for token in tokens if token not in marked])
    if not there:
        _check_new(tokenizer, tokens, known)
    ids = cast(list[int], tokenizer.convert_tokens_to_ids(list(tokens)))
    first = ids[0]
    if ids != list(range(first, first + len(tokens))):
        raise ModelError(
            "the index's tokens have ids with gaps or in another order than by level",
            OWN_TOKENS,
        )
    check_whole(tokenizer, tokens, ids)
    return first, not there


def _check_new(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], known: dict[str, int]) -> None:
    """Tokenizers number new tokens by counting the old ones, which goes wrong where ids were left out."""
    owners = {number: token for token, number in known.items()}
    ids = cast(list[int], tokenizer.convert_tokens_to_ids(list(tokens)))
    for token, number in zip(tokens, ids, strict=True):
        if number in owners:
            raise ModelError(
                f"the tokenizer's ids have gaps: it gives {token!r} the id {number}, that of {owners[number]!r}",
                "Give the missing ids tokens of their own (such as <unused_0>) in the base's tokenizer files.",
            )


def check_whole(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], ids: Sequence[int]) -> None:
    """Make sure that each token comes out of text as one token: alone, between letters, between blanks, doubled
    and at the ends of lines; and that it comes back as itself.

    Raises:
        ModelError: with the first token that doesn't, and where.
    """
    mine = set(ids)
    for where, pattern in SURROUNDINGS.items():
        text = "".join(pattern.replace("@", token) for token in tokens)
        read = [number for number in tokenizer.encode(text, add_special_tokens=False) if number in mine]
        due = [number for number in ids for _ in range(pattern.count("@"))]
        if read != due:
            at = next((k for k, (a, b) in enumerate(zip(read, due, strict=False)) if a != b), len(read))
            token = tokens[min(at, len(due) - 1) // pattern.count("@")]
            raise ModelError(f"the tokenizer doesn't read {token!r} as one token {where}", WHOLE)
    joined = "".join(tokens)
    if tokenizer.encode(joined, add_special_tokens=False) != list(ids):
        raise ModelError("the tokenizer puts something between the index's tokens", WHOLE)
    text = str(tokenizer.decode(list(ids)))
    if "".join(text.split()) != joined:  # some put blanks between tokens
        raise ModelError(
            f"the tokenizer writes the index's tokens otherwise than they are: {text[:60]!r}", WHOLE
        )


def settled(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, tokens: Sequence[str]
) -> PreTrainedTokenizerBase:
    """A tokenizer as plain transformers finds it again beside the model's configuration.

    Some classes build a tokenizer from settings that they don't save (Llama's ``legacy``): what is trained on would
    not be what is loaded. Such a one becomes a tokenizer of the general class, which is saved whole.

    Args:
        tokenizer: fast, or in Python.
        config: of the model; the class of its tokenizer may depend on it.
        tokens: the index's, for texts to compare on.

    Raises:
        ModelError: it is read back as another one, and can't be helped.
    """
    texts = [*PROSE, *("".join(p.replace("@", t) for t in tokens[:3]) for p in SURROUNDINGS.values())]
    wanted = [tokenizer.encode(text) for text in texts]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for candidate in (tokenizer, None if backend is None else _general(tokenizer, backend)):
        if candidate is None:
            break
        with TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            candidate.save_pretrained(folder)
            found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if [found.encode(text) for text in texts] == wanted:
            # one in Python may need the files that it was read from, which are gone by now
            return candidate if backend is None else found
    raise ModelError(
        f"a {type(tokenizer).__name__} reads texts in another way once it was saved and loaded",
        "Copy the model's tokenizer.json to its folder, or use another base model.",
    )


def _general(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def opening(tokenizer: PreTrainedTokenizerBase) -> str:
    """The special tokens that a tokenizer puts before every text by itself, as text; empty where there are none."""
    plain = tokenizer.encode(SAMPLE, add_special_tokens=False)
    whole = tokenizer.encode(SAMPLE)
    start = next((k for k in range(len(whole)) if whole[k : k + len(plain)] == plain), 0)
    text = "".join(cast(list[str], tokenizer.convert_ids_to_tokens(whole[:start])))
    return text if tokenizer.encode(text, add_special_tokens=False) == whole[:start] else ""


def tokenizer_parts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What names a tokenizer: equal parts, equal tokens for equal texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        if not isinstance(backend.model, models.Unigram):
            return [backend.to_str()]
        state = json.loads(backend.to_str())
        # the last bits of its pieces' scores change whenever they are read from a file
        words, scores = zip(*state["model"].pop("vocab"), strict=True)
        return [json.dumps(state), json.dumps(words), np.array(scores, np.float32).tobytes().hex()]
    with TemporaryDirectory() as folder:  # one in Python is known by its files
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return [f"{path.name} {sha256(path.read_bytes()).hexdigest()}" for path in files]


def tokens_taken(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the highest token id."""
    return max(tokenizer.get_vocab().values()) + 1
