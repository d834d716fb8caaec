"""Finding tokens in a tokenizer, each as exactly one known token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.errors import IndexMismatchError

EXPAND = "Add the index's tokens with `itemic model expand`, or use the model that was made for this index."


def look_up(
    tokens: list[str], tokenizer: Callable[[list[str]], Sequence[int | None]] | Any
) -> npt.NDArray[np.int64]:
    """The ids of ``tokens``, int64.

    Args:
        tokens: the tokens as text.
        tokenizer: a Hugging Face tokenizer (anything with ``convert_tokens_to_ids``), or a function from
            tokens to ids that answers None for an unknown token.

    Raises:
        IndexMismatchError: a token is unknown, two tokens have one id, or the tokenizer splits a token.
    """
    convert = getattr(tokenizer, "convert_tokens_to_ids", None)
    ids = list((convert or tokenizer)(tokens))
    unknown = getattr(tokenizer, "unk_token_id", None)
    lost = [token for token, i in zip(tokens, ids, strict=True) if i is None or i < 0 or i == unknown]
    if lost:
        raise IndexMismatchError(
            f"the tokenizer lacks {len(lost)} of the index's {len(tokens)} tokens, first {lost[0]!r}", EXPAND
        )
    if len(set(ids)) != len(tokens):
        twice = next(token for k, token in enumerate(tokens) if ids[k] in ids[:k])
        raise IndexMismatchError(
            f"the tokenizer gives {twice!r} the id of another token of the index", EXPAND
        )
    if convert is not None:
        _check_whole(tokens, ids, tokenizer)
    return np.array(ids, np.int64)


def _check_whole(tokens: list[str], ids: list[int], tokenizer: Any) -> None:
    """A token may be in the vocabulary and still never come out of text; encoding all of them shows it."""
    encoded = list(tokenizer.encode("".join(tokens), add_special_tokens=False))
    if encoded != ids:
        at = next((k for k, (a, b) in enumerate(zip(encoded, ids, strict=False)) if a != b), len(ids) - 1)
        raise IndexMismatchError(f"the tokenizer does not read {tokens[at]!r} as one token", EXPAND)
