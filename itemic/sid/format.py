"""Token formats: how the codes of a semantic ID are written as tokens, and read back.

| format | one semantic ID | used by |
|---|---|---|
| ``onerec`` | ``<|sid_begin|><s_a_99><s_b_19><s_c_220><|sid_end|>`` | OneRec-Think, OpenOneRec |
| ``minionerec`` | ``<a_236><b_231><c_226>`` | MiniOneRec, LETTER, TIGER's re-implementations |
| ``offset`` | ``<|sid_start|><|sid_99|><|sid_275|><|sid_732|><|sid_end|>`` | semantic-ids-llm |

A new format is a class and one row in :data:`TOKEN_FORMATS`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import ClassVar

from itemic.errors import ConfigError

NUMBER = "(0|[1-9][0-9]*)"  # strict: no sign, no leading zeros, ASCII digits only


def level_name(level: int) -> str:
    """The letters of a level: a, b, …, z, aa, ab, … (level 0 is ``a``)."""
    letters = ""
    level += 1
    while level:
        level, digit = divmod(level - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


class TokenFormat(ABC):
    """One way to write codes as tokens. ``sizes`` is the number of codes of every level, first level first.

    Attributes:
        name: the key in :data:`TOKEN_FORMATS`.
        begin: the token before the codes, or None.
        end: the token after the codes, or None.
        extra: tokens that belong to the format but not to a semantic ID.
    """

    name: ClassVar[str]
    begin: ClassVar[str | None] = None
    end: ClassVar[str | None] = None
    extra: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def code(self, level: int, code: int, sizes: Sequence[int]) -> str:
        """The token of one code."""

    @abstractmethod
    def pattern(self, levels: int) -> re.Pattern[str]:
        """Matches one whole semantic ID; group ``level + 1`` is the number in that level's token."""

    def number_to_code(self, level: int, number: int, sizes: Sequence[int]) -> int:
        """The code behind the number that a token shows; it may lie outside ``0 <= code < sizes[level]``."""
        return number

    def level_tokens(self, sizes: Sequence[int]) -> list[list[str]]:
        """The tokens of every level, by code."""
        return [[self.code(level, code, sizes) for code in range(size)] for level, size in enumerate(sizes)]

    def tokens(self, sizes: Sequence[int]) -> list[str]:
        """All tokens: level by level, then begin and end, then the extra ones (OpenOneRec's order)."""
        codes = [token for level in self.level_tokens(sizes) for token in level]
        return codes + [token for token in (self.begin, self.end, *self.extra) if token is not None]

    def text(self, codes: Sequence[int], sizes: Sequence[int]) -> str:
        """A semantic ID as text."""
        inner = "".join(self.code(level, int(code), sizes) for level, code in enumerate(codes))
        return f"{self.begin or ''}{inner}{self.end or ''}"

    def parse(self, text: str, sizes: Sequence[int]) -> tuple[int, ...] | None:
        """The codes of a text that is one semantic ID and nothing else; None where it is anything else."""
        match = self.pattern(len(sizes)).fullmatch(text)
        return None if match is None else self._codes(match, sizes)

    def find(self, text: str, sizes: Sequence[int]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """Every well-formed semantic ID inside a text, as (start, stop, codes), from left to right."""
        for match in self.pattern(len(sizes)).finditer(text):
            codes = self._codes(match, sizes)
            if codes is not None:
                yield match.start(), match.end(), codes

    def _codes(self, match: re.Match[str], sizes: Sequence[int]) -> tuple[int, ...] | None:
        codes = tuple(self.number_to_code(level, int(n), sizes) for level, n in enumerate(match.groups()))
        legal = all(0 <= code < size for code, size in zip(codes, sizes, strict=True))
        return codes if legal else None


class OneRecFormat(TokenFormat):
    """``<|sid_begin|><s_a_99><s_b_19>…<|sid_end|>``."""

    name = "onerec"
    begin = "<|sid_begin|>"
    end = "<|sid_end|>"

    def code(self, level: int, code: int, sizes: Sequence[int]) -> str:
        return f"<s_{level_name(level)}_{code}>"

    def pattern(self, levels: int) -> re.Pattern[str]:
        return _pattern(
            self.begin, tuple(f"<s_{level_name(level)}_{NUMBER}>" for level in range(levels)), self.end
        )


class MiniOneRecFormat(TokenFormat):
    """``<a_236><b_231>…``: nothing marks the beginning or the end."""

    name = "minionerec"

    def code(self, level: int, code: int, sizes: Sequence[int]) -> str:
        return f"<{level_name(level)}_{code}>"

    def pattern(self, levels: int) -> re.Pattern[str]:
        return _pattern(None, tuple(f"<{level_name(level)}_{NUMBER}>" for level in range(levels)), None)


class OffsetFormat(TokenFormat):
    """``<|sid_start|><|sid_99|><|sid_275|>…<|sid_end|>``: a code plus the sizes of all earlier levels."""

    name = "offset"
    begin = "<|sid_start|>"
    end = "<|sid_end|>"
    extra = ("<|rec|>",)

    def code(self, level: int, code: int, sizes: Sequence[int]) -> str:
        return f"<|sid_{code + _starts(tuple(sizes))[level]}|>"

    def pattern(self, levels: int) -> re.Pattern[str]:
        return _pattern(self.begin, (rf"<\|sid_{NUMBER}\|>",) * levels, self.end)

    def number_to_code(self, level: int, number: int, sizes: Sequence[int]) -> int:
        return number - _starts(tuple(sizes))[level]


@lru_cache(maxsize=64)
def _pattern(begin: str | None, codes: tuple[str, ...], end: str | None) -> re.Pattern[str]:
    return re.compile(re.escape(begin or "") + "".join(codes) + re.escape(end or ""))


@lru_cache(maxsize=64)
def _starts(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(accumulate(sizes, initial=0))


TOKEN_FORMATS: dict[str, TokenFormat] = {
    "onerec": OneRecFormat(),
    "minionerec": MiniOneRecFormat(),
    "offset": OffsetFormat(),
}


def token_format(name: str) -> TokenFormat:
    """The token format of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TOKEN_FORMATS:
        raise ConfigError(f"unknown token format {name!r}", f"Use one of {', '.join(TOKEN_FORMATS)}.")
    return TOKEN_FORMATS[name]
