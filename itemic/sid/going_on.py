"""Texts as tokens that are the same wherever a text stands: each is read apart, as one that goes on after other text.

What a tokenizer does at the beginning of a text (a blank in front, a token of its own) is not done, and nothing merges
with the neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from itemic.errors import IndexMismatchError

ANCHORS = (
    "\n",
    ":",
    ",",
)  # texts that hardly anything merges with; the first that keeps its own tokens is taken
PLAIN = re.compile(
    r"\s*|<0x[0-9A-F]{2}>"
)  # added tokens of some families that are but text: blanks, line ends, bytes


def read_on(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text where it goes on after other text.

    Args:
        tokenizer: a Hugging Face tokenizer.
        texts: any; an empty one has no tokens.
    """
    found: list[list[int] | None] = [None if text else [] for text in texts]
    for anchor in ANCHORS:
        open_ = [k for k, ids in enumerate(found) if ids is None]
        before, *read = _ids(tokenizer, [anchor, *(anchor + texts[k] for k in open_)])
        for k, ids in zip(open_, read, strict=True):
            if ids[: len(before)] == before:
                found[k] = ids[len(before) :]
    rest = [k for k, ids in enumerate(found) if ids is None]
    for k, ids in zip(rest, _ids(tokenizer, [texts[k] for k in rest]), strict=True):
        found[k] = ids
    return [ids or [] for ids in found]


def read_words(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The same, where no text may speak in special tokens: one that spells such a token is read as mere letters.

    Raises:
        IndexMismatchError: a text has a special token that can't be taken apart.
    """
    spelled = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if not PLAIN.fullmatch(token.content) and (token.special or len(token.content.strip()) > 1)
    }  # single letters that were added to a vocabulary are letters
    spelled.pop(getattr(tokenizer, "unk_token_id", None), None)  # comes from letters that the tokenizer lacks
    found = read_on(tokenizer, texts)
    loud = [k for k, ids in enumerate(found) if not spelled.keys().isdisjoint(ids)]
    if not loud:
        return found
    words = sorted({word.strip() for word in spelled.values()}, key=len, reverse=True)
    inside = re.compile("|".join(re.escape(word[0]) + f"(?={re.escape(word[1:])})" for word in words if word))
    for k in loud:  # a cut behind the first letter of every such word
        cuts = [0, *(match.end() for match in inside.finditer(texts[k])), len(texts[k])]
        pieces = [texts[k][a:b] for a, b in pairwise(cuts)]
        found[k] = [number for ids in read_on(tokenizer, pieces) for number in ids]
        if still := [spelled[number] for number in found[k] if number in spelled]:
            raise IndexMismatchError(
                f"the name {texts[k]!r} holds the tokenizer's special token {still[0]!r}",
                "Change the text, or name items by another column.",
            )
    return found


def cut_tokens(tokenizer: Any, texts: Sequence[str], most: int) -> list[str]:
    """The beginning of each text that has at most ``most`` tokens, without blanks at its end.

    Cut between characters: a character that only a part of would fit goes as a whole.
    """
    kept = list(texts)
    open_ = [k for k, ids in enumerate(read_words(tokenizer, texts)) if len(ids) > most]
    fits, fails = dict.fromkeys(open_, 0), {k: len(texts[k]) for k in open_}
    while open_ := [k for k in open_ if fails[k] - fits[k] > 1]:
        half = {k: (fits[k] + fails[k]) // 2 for k in open_}
        read = read_words(tokenizer, [texts[k][: half[k]].rstrip() for k in open_])
        for k, ids in zip(open_, read, strict=True):
            (fits if len(ids) <= most else fails)[k] = half[k]
    for k, length in fits.items():
        kept[k] = texts[k][:length].rstrip()
    return kept


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    found = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [list(ids) for ids in found["input_ids"]]
