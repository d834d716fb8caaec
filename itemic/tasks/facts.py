"""What is known of items, for prompts and profiles: catalogue texts, and ratings of training alone."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.errors import DataError
from itemic.sid.names import CONTROL

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UNTITLED = "(untitled)"
PRICE_LEVELS = ("low", "middle", "high")

_HIDDEN = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_CONTROL = re.compile(CONTROL)
_UNSEEN = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]")


def plain(text: str) -> str:
    """A text of anybody as one line of plain words: ``"Great!<br />It&#39;s <b>me</b> 🎉"`` → ``"Great! It's me 🎉"``.

    HTML's tags, comments and entities are read as HTML, what looks like a chat marker goes, and so do control codes,
    marks of direction and halves of surrogate pairs. Other scripts, emoji and the joiners inside them stay.
    """
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", _HIDDEN.sub(" ", text))
        for _ in range(2):  # taking a marker out may make another one from what stood around it
            text = _CONTROL.sub(" ", text)
    text = _UNSEEN.sub("", text)
    return " ".join("".join(each if each.isspace() or each >= " " else " " for each in text).split())


@dataclass(frozen=True, eq=False)
class ItemFacts:
    """Facts of the ``n`` items of a catalogue.

    Attributes:
        titles: plain texts; the item's id where it has none.
        descriptions, brands: plain texts, empty where there is none.
        categories: of each item its categories from general to specific, or its tags where it has no path.
        leaves: how many of them, from the end, are its finest: 1 of a path, all of tags.
        prices: float64 ``[n]``, NaN where unknown.
        averages: float64 ``[n]``, the mean rating in training, NaN where nobody rated it.
        rated: int64 ``[n]``, how many ratings that is.
    """

    titles: list[str]
    descriptions: list[str]
    brands: list[str]
    categories: list[list[str]]
    leaves: Int64
    prices: Float64
    averages: Float64
    rated: Int64

    def __len__(self) -> int:
        return len(self.titles)

    @classmethod
    def of(cls, dataset: Dataset, training: npt.NDArray[np.bool_] | None = None) -> ItemFacts:
        """The facts of a dataset's items.

        Args:
            dataset: the items, and the interactions that ratings are of.
            training: bool, which interactions count (:attr:`itemic.profile.sessions.Sessions.training`); None for the
                dataset's own training split.

        Raises:
            DataError: ``training`` is of other interactions.
        """
        counts = np.asarray(dataset.labels == 0) if training is None else training
        if len(counts) != len(dataset.interactions):
            raise DataError(
                f"{len(counts)} marks of training for {len(dataset.interactions)} interactions",
                "Take `training` from sessions of the same dataset.",
            )
        items, size = dataset.items, len(dataset.items)
        rating = dataset.interactions[c.RATING].cast(pl.Float64).fill_null(np.nan).to_numpy()
        some = counts & np.isfinite(rating)
        row = dataset.sequences.items[some]
        rated = np.bincount(row, minlength=size).astype(np.int64)
        total = np.bincount(row, weights=rating[some], minlength=size)
        paths = [_words(path) for path in items[c.CATEGORIES].to_list()]
        tags = [_words(own) for own in items[c.TAGS].to_list()] if c.TAGS in items.columns else [[]] * size
        prices = (
            items[c.PRICE].cast(pl.Float64).fill_null(np.nan).to_numpy()
            if c.PRICE in items.columns
            else np.full(size, np.nan)
        )
        return cls(
            titles=[plain(text) or plain(name) or UNTITLED for text, name in _pairs(items)],
            descriptions=[plain(text or "") for text in items[c.DESCRIPTION].to_list()],
            brands=[plain(text or "") for text in items[c.BRAND].to_list()],
            categories=[path or own for path, own in zip(paths, tags, strict=True)],
            leaves=np.array(
                [1 if path else len(own) for path, own in zip(paths, tags, strict=True)], np.int64
            ),
            prices=prices,
            averages=np.where(rated > 0, total / np.maximum(rated, 1), np.nan),
            rated=rated,
        )

    def finest(self, row: int) -> list[str]:
        """The most specific categories of an item, or its tags."""
        own = self.categories[row]
        return own[len(own) - int(self.leaves[row]) :]

    @cached_property
    def _thirds(self) -> Float64:
        known = self.prices[np.isfinite(self.prices)]
        return np.quantile(known, [1 / 3, 2 / 3]) if len(known) else np.full(2, np.nan)

    def price_level(self, rows: npt.NDArray[np.integer]) -> str | None:
        """``low``, ``middle`` or ``high``: the third of the catalogue's prices in which the median price of these items
        lies; None where none of them has a price, or all items cost the same."""
        known = self.prices[rows][np.isfinite(self.prices[rows])]
        if not len(known) or not self._thirds[0] < self._thirds[1]:
            return None
        return PRICE_LEVELS[int(np.searchsorted(self._thirds, np.median(known), "left"))]


def _pairs(items: pl.DataFrame) -> Iterable[tuple[str, str]]:
    return ((title or "", name) for title, name in items.select(c.TITLE, c.ITEM_ID).iter_rows())


def _words(names: Iterable[str | None] | None) -> list[str]:
    return list(dict.fromkeys(word for name in names or () if (word := plain(name or ""))))
