"""Titles as names: an item is called by a text of its own, in words that the tokenizer has already.

In a conversation a title stands between marks, ``{Toy Story (1995)}``. The marks say where a name begins and ends, so
that it is found in any text, has the same tokens everywhere, and is complete only at its end: no name is the beginning
of another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from unicodedata import normalize

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.artifact import write_json
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, IndexMismatchError
from itemic.forest.rows import TokenRows
from itemic.sid.going_on import cut_tokens, read_on, read_words
from itemic.sid.names import CONTROL, HEAD, KIND, REBUILD, Int32, Int64, ItemNames, NamePatterns, read_head
from itemic.sid.text import clean

BEGIN, END = "{", "}"
ITEMS = "items.parquet"
_MARKS = str.maketrans({BEGIN: "(", END: ")"})
_CONTROL = re.compile(CONTROL)
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_NAME = re.compile(re.escape(BEGIN) + r"([^{}\n]*)" + re.escape(END))
_FIT = re.compile(r"[^{}\x00-\x1f\x7f-\x9f]+")
_PATTERNS = NamePatterns(name=r"\{[^{}\n]*\}", prefix=None, token=r"[{}]")


@dataclass(frozen=True, eq=False)
class TitleNames(ItemNames):
    """One title per item.

    Attributes:
        item_ids: ids of the ``n`` items; their order is the dataset's (an item's *row*).
        titles: their names without the marks, by row, all different.
        origin: where they come from: ``column``, ``max_tokens``, and how many items had ``no_text`` (they go by their
            id), were ``cut`` or ``numbered`` (their text was taken).

    Raises:
        IndexMismatchError: the parts contradict each other.
    """

    kind: ClassVar[str] = "title"
    word: ClassVar[str] = "title"

    item_ids: list[str]
    titles: list[str]
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "item_ids", list(self.item_ids))
        object.__setattr__(self, "titles", list(self.titles))
        for fault in self._faults():
            raise IndexMismatchError(f"the titles are broken: {fault}", REBUILD)

    def _faults(self) -> Iterator[str]:
        n = len(self.item_ids)
        if len(self.titles) != n:
            yield f"{n} items have {len(self.titles)} titles"
        elif len(set(self.item_ids)) != n:
            yield "an item id comes twice"
        elif len(self._row_of) != n:
            twice = next(title for row, title in enumerate(self.titles) if self._row_of[title] != row)
            yield f"two items have the title {twice!r}"
        for item, title in zip(self.item_ids, self.titles, strict=False):
            if not _FIT.fullmatch(title) or _CONTROL.search(title) or title != title.strip():
                yield f"item {item!r} has the title {title!r}, which can't stand between {BEGIN} and {END}"

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        *,
        column: str = c.TITLE,
        max_tokens: int | None = None,
        tokenizer: Any = None,
    ) -> TitleNames:
        """Name items by a column of text.

        Entities, tags, chat markers and blanks are cleaned away and braces become parentheses. Then a text is cut to
        its first tokens. An item without any text goes by its id. Where an earlier item in the order of the catalogue
        has the same name, or one that the tokenizer reads alike, " (2)" is added, or the next number that is free. So
        the names of the first items are the same however many follow.

        Args:
            dataset: whose items are named.
            column: whose texts are the names.
            max_tokens: the most tokens of a name, marks and numbers aside; None for all of it.
            tokenizer: the model's, which counts the tokens and tells names apart; None where whole texts will do.

        Raises:
            ConfigError: there is no such column of texts, or ``max_tokens`` without a tokenizer, or one that can't
                tell numbers apart.
        """
        items = dataset.items
        if items.schema.get(column) != pl.String:
            texts = [name for name, dtype in items.schema.items() if dtype == pl.String]
            raise ConfigError(
                f"items have no column {column!r} of texts to be named by",
                f"Choose among {', '.join(texts)}.",
            )
        found = [plain(text or "") for text in items[column].to_list()]
        ids = items[c.ITEM_ID].to_list()
        cut = found
        if max_tokens is not None:
            if max_tokens < 1 or tokenizer is None:
                raise ConfigError(
                    f"titles are to be cut to {max_tokens} tokens"
                    + ("" if tokenizer is not None else ", and no tokenizer is there to count them"),
                    "Give max_tokens of 1 or more together with the model's tokenizer, or neither.",
                )
            cut = cut_tokens(tokenizer, found, max_tokens)
        stems = [
            text or plain(item) or f"item {row + 1}"
            for row, (text, item) in enumerate(zip(cut, ids, strict=True))
        ]
        names = unique_names(stems, _reader(tokenizer))
        counts = {
            "no_text": sum(not text for text in cut),
            "cut": sum(a != b for a, b in zip(found, cut, strict=True)),
            "numbered": sum(a != b for a, b in zip(stems, names, strict=True)),
        }
        return cls(ids, names, {"column": column, "max_tokens": max_tokens, **counts})

    def __repr__(self) -> str:
        return f"<TitleNames: {len(self):,} items, by their {self.origin.get('column', 'title')}>"

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {title: row for row, title in enumerate(self.titles)}

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the SHA-256 of marks, ids and titles."""
        whole = json.dumps([self.kind, BEGIN, END, self.item_ids, self.titles], ensure_ascii=False)
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def tokens(self) -> list[str]:
        """None: titles are words."""
        return []

    @cached_property
    def texts(self) -> list[str]:
        return [f"{BEGIN}{title}{END}" for title in self.titles]

    def known_titles(self) -> list[str]:
        return self.titles

    def examples(self, count: int) -> list[str]:
        return self.texts[:count]

    def named(self, text: str) -> Int32:
        match = _NAME.fullmatch(text)
        row = None if match is None else self._row_of.get(match[1])
        return np.array([] if row is None else [row], np.int32)

    def mentions(self, text: str) -> list[tuple[int, int, Int32]]:
        return [(start, stop, np.array([row], np.int32)) for start, stop, row in self.find(text)]

    def parse(self, text: str) -> int | None:
        """The row of the item that a text names, marks and all; None for any other text."""
        rows = self.named(text)
        return int(rows[0]) if len(rows) else None

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """Every item's name inside a text, as (start, stop, row)."""
        found = ((match, self._row_of.get(match[1])) for match in _NAME.finditer(text))
        return [(match.start(), match.end(), row) for match, row in found if row is not None]

    @property
    def name_numbers(self) -> Int64:
        return np.arange(len(self), dtype=np.int64)

    @property
    def patterns(self) -> NamePatterns:
        return _PATTERNS

    # ----------------------------------------------------------------- tokens

    def token_rows(self, tokenizer: Callable[[list[str]], Sequence[int | None]] | Any) -> TokenRows:
        """The token ids of each name: those of the mark, of the title and of the other mark, each read apart.

        Args:
            tokenizer: a Hugging Face tokenizer.

        Raises:
            IndexMismatchError: it reads two names as the same tokens, because it lacks their letters or their case.
        """
        begin, end = read_on(tokenizer, [BEGIN, END])
        rows = [[*begin, *words, *end] for words in read_words(tokenizer, self.titles)]
        seen: dict[tuple[int, ...], int] = {}
        alike = [
            (first, row)
            for row, tokens in enumerate(rows)
            if (first := seen.setdefault(tuple(tokens), row)) != row
        ]
        if alike:
            one, other = (f"{self.item_ids[row]!r} ({self.titles[row]})" for row in alike[0])
            raise IndexMismatchError(
                f"the tokenizer can't tell the names of {len(alike)} items from those of others: it reads item "
                f"{other} as it reads item {one}",
                "Use a base model whose tokenizer can spell these titles, or name items by semantic IDs.",
            )
        return TokenRows.of(rows)

    def start_tokens(self, tokenizer: Any) -> Int32:
        """The last token of the mark that opens a name."""
        return np.array(read_on(tokenizer, [BEGIN])[0][-1:], np.int32)

    # ------------------------------------------------------------------ files

    def save(self, folder: str | Path) -> None:
        """Write ``index.json`` and ``items.parquet``; the head last, so that half a save is never taken for one."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        (root / HEAD).unlink(missing_ok=True)
        names = {c.ITEM_ID: self.item_ids, c.TITLE: self.titles, "name": self.texts}
        pl.DataFrame(names, schema=dict.fromkeys(names, pl.String)).write_parquet(root / ITEMS)
        head = {KIND: self.kind, "items": len(self), "digest": self.digest, "origin": self.origin}
        write_json(root / HEAD, head)

    @classmethod
    def load(cls, folder: str | Path) -> TitleNames:
        """Read a folder that :meth:`save` wrote.

        Raises:
            IndexMismatchError: it holds no titles, or a file is missing or broken, or the titles are not those that
                the digest names.
            ArtifactError: a file is not as it was when a command or a run wrote the folder.
        """
        root, head = Path(folder), read_head(folder)
        if (kind := head.get(KIND, "sid")) != cls.kind:
            raise IndexMismatchError(
                f"{root} names items by {kind!r}, not by their titles",
                "Name them by titles, or load what it is.",
            )
        try:
            table = pl.read_parquet(root / ITEMS)
            names = cls(table[c.ITEM_ID].to_list(), table[c.TITLE].to_list(), head["origin"])
            digest = head["digest"]
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise IndexMismatchError(
                f"{root} is not an item index: {error}", "Make one with `itemic sid`."
            ) from error
        if names.digest != digest:
            raise IndexMismatchError(
                f"{root / ITEMS} holds other titles ({names.digest}) than {HEAD} names ({digest})",
                "Restore the folder from where it was copied, or build the index and the model again.",
            )
        return names


def plain(text: str) -> str:
    """A text as it may stand between the marks: one line, without chat markers, control codes and braces."""
    while True:  # taking something out may make another of what stood around it
        less = _CONTROL.sub(" ", clean(text).translate(_MARKS))
        less = normalize("NFC", _UNSEEN.sub(" ", less).strip())  # as most tokenizers do
        if less == text:
            return text
        text = less


def _reader(tokenizer: Any) -> Callable[[Sequence[str]], list[Hashable]] | None:
    """What tells names apart: their tokens, where there is a tokenizer."""
    if tokenizer is None:
        return None
    return lambda texts: [tuple(ids) for ids in read_words(tokenizer, texts)]


def unique_names(
    stems: Sequence[str], read: Callable[[Sequence[str]], Sequence[Hashable]] | None = None
) -> list[str]:
    """Each stem, or where it is taken the stem with the first free number from 2 on: ``Alien``, ``Alien (2)``.

    What is taken is what stands before, so more stems at the end change nothing.

    Args:
        stems: in the order of the catalogue.
        read: what names are compared by; None for their very text.

    Raises:
        ConfigError: numbers make no difference to ``read``.
    """
    taken: set[Hashable] = set()
    last: dict[Hashable, int] = {}
    names = []
    for stem, own in zip(stems, stems if read is None else read(stems), strict=True):
        name, key, number = stem, own, last.get(own, 1)
        while key in taken:
            number += 1
            if number > len(stems) + 1:
                raise ConfigError(
                    f"the tokenizer can't tell {name!r} from {stem!r}, so equal titles can't be numbered",
                    "Name items by another column, by semantic IDs, or use another base model.",
                )
            name = f"{stem} ({number})"
            key = name if read is None else read([name])[0]
        last[own] = number
        taken.add(key)
        names.append(name)
    return names
