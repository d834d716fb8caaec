"""Categories and brands of a catalogue: which items have them, and which a text names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.tasks.facts import ItemFacts

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
CATEGORY, BRAND = "category", "brand"
ORDINARY = 0.01  # a brand that so many others' texts have is an ordinary word
LEAST = 5  # in so many texts at least

# scripts that part no words by blanks go letter by letter, all others word by word; a mark stands for itself
_PIECE = re.compile(
    r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
    r"|(?:(?![\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])\w)+|[^\w\s]"
)
_WORD = re.compile(r"\w")


def pieces(text: str) -> tuple[str, ...]:
    """Words and marks of a text, case-folded: ``"Capos & Picks!"`` → ``("capos", "&", "picks", "!")``."""
    return tuple(_PIECE.findall(text.casefold()))


@dataclass(frozen=True, eq=False)
class Attributes:
    """The categories and brands of a catalogue.

    Attributes:
        names: of each attribute, as the catalogue writes it; a category and a brand may have the same.
        kinds: ``category`` or ``brand``, for each.
        items: for each of the ``n`` items the numbers of its attributes: all categories of its path, and its brand.
        finest: the same without the categories that are above others: what there is to say of an item.
        ordinary: names of brands that are ordinary words in this catalogue; they are not looked for.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    items: TokenRows
    finest: TokenRows
    ordinary: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, facts: ItemFacts) -> Attributes:
        """Those of a catalogue.

        Names that differ in case or blanks alone are one attribute. A brand whose name stands in small letters in the
        titles or descriptions of more than 1 % of the items that aren't of it, and of five at least, is an ordinary
        word (``Simple``, ``Grip``) and is not looked for; :attr:`ordinary` has them.
        """
        numbers: dict[tuple[str, tuple[str, ...]], int] = {}
        names: list[str] = []

        def number(kind: str, name: str) -> int:
            key = kind, pieces(name)
            if key not in numbers:
                numbers[key] = len(names)
                names.append(name)
            return numbers[key]

        items, finest = [], []
        for row, brand in enumerate(facts.brands):
            made = [number(BRAND, brand)] if _WORD.search(brand) else []
            path = [number(CATEGORY, name) for name in facts.categories[row] if _WORD.search(name)]
            own = [number(CATEGORY, name) for name in facts.finest(row) if _WORD.search(name)]
            items.append([*dict.fromkeys(path), *made])
            finest.append([*dict.fromkeys(own), *made])
        kinds = tuple(kind for kind, _ in numbers)
        found = cls(tuple(names), kinds, TokenRows.of(items), TokenRows.of(finest))
        return cls(found.names, kinds, found.items, found.finest, _ordinary(found, facts))

    def numbers(self, name: str) -> list[int]:
        """The attributes of a name: one, or a category and a brand that share it.

        Raises:
            ConfigError: there is none.
        """
        found = self._spelled.get(pieces(name), [])
        if not found:
            raise ConfigError(
                f"no category and no brand is called {name!r}", "Name one that an item of the catalogue has."
            )
        return found

    def has(self, attribute: int) -> Bool:
        """Which items have an attribute, bool ``[n]``."""
        marks = np.zeros(len(self.items), bool)
        marks[
            np.searchsorted(self.items.offsets, np.flatnonzero(self.items.tokens == attribute), "right") - 1
        ] = 1
        return marks

    def of_rows(self, rows: Iterable[int], *, finest: bool = False) -> set[int]:
        """The attributes that some items have; of the ``finest`` those that can be found alone."""
        if finest:
            return {int(number) for row in rows for number in self.finest[row]} & self._found
        return {int(number) for row in rows for number in self.items[row]}

    def find(self, text: str) -> list[list[int]]:
        """What a text names, in its order: each time the attributes that the name may mean.

        A name is found where it stands word for word, whatever its case; of names that overlap the longest counts, then
        the first. Other forms of a word (``tent`` for ``Tents``) and parts of words are not found. A name that is both
        a category's and a brand's may mean either, and so both are given.
        """
        return [self._spelled[name] for name in self._walk(pieces(text))]

    def named(self, text: str) -> list[set[int]]:
        """The same, each name once."""
        return [set(found) for found in {tuple(each): None for each in self.find(text)}]

    def _walk(self, text: Sequence[str]) -> Iterable[tuple[str, ...]]:
        at = 0
        while at < len(text):
            for length in self._starts.get(text[at], ()):
                name = tuple(text[at : at + length])
                if name in self._spelled:
                    yield name
                    at += length
                    break
            else:
                at += 1

    @cached_property
    def _spelled(self) -> dict[tuple[str, ...], list[int]]:
        found: dict[tuple[str, ...], list[int]] = {}
        for number, name in enumerate(self.names):
            if not (self.kinds[number] == BRAND and name in self.ordinary):
                found.setdefault(pieces(name), []).append(number)
        return found

    @cached_property
    def _found(self) -> set[int]:
        return {number for numbers in self._spelled.values() for number in numbers}

    @cached_property
    def _starts(self) -> dict[str, list[int]]:
        """For each first word the lengths that names with it have, the longest first."""
        found: dict[str, set[int]] = {}
        for name in self._spelled:
            found.setdefault(name[0], set()).add(len(name))
        return {word: sorted(lengths, reverse=True) for word, lengths in found.items()}


def _ordinary(attributes: Attributes, facts: ItemFacts) -> frozenset[str]:
    counts: Counter[int] = Counter()
    sizes: Counter[int] = Counter(attributes.items.tokens.tolist())
    for row, texts in enumerate(zip(facts.titles, facts.descriptions, strict=True)):
        small = [piece if piece == piece.casefold() else "" for piece in _PIECE.findall("\n".join(texts))]
        found = {number for name in attributes._walk(small) for number in attributes._spelled[name]}
        counts.update(found - set(attributes.items[row].tolist()))
    return frozenset(
        attributes.names[number]
        for number, count in counts.items()
        if attributes.kinds[number] == BRAND
        and count >= LEAST
        and count > ORDINARY * (len(facts) - sizes[number])
    )
