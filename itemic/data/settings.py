"""What filters and simulator can be told: tables of numbers, checked at once, importable in an instant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from itemic.data.marketplace import CATEGORIES, MOST_BRANDS
from itemic.errors import ConfigError
from itemic.text import settings_repr

DUPLICATES = ("keep-all", "keep-first", "keep-last", "drop-consecutive")
TIES = ("file-order", "item-id")


@dataclass(frozen=True)
class FilterRule:
    """What to keep.

    Attributes:
        user_k_core: every user keeps at least so many interactions; with ``item_k_core`` to a fixed point
            (0: off).
        item_k_core: every item keeps at least so many interactions (0: off).
        min_rating: the least rating that counts as an interaction; unrated ones are dropped too.
        start: the first moment kept: a year, a month, a date, ISO 8601 with or without a zone (UTC if there is none),
            seconds or milliseconds since 1970, or a date of Python's. Kept as text.
        end: the first moment no longer kept.
        duplicates: of a user's interactions with one item ``keep-all``, ``keep-first`` or ``keep-last``;
            ``drop-consecutive`` keeps one of each run.
        ties: the order of a user's events of one time: ``file-order``, as the files have them, or by ``item-id``.
        max_history: keep a user's last so many interactions (after the k-core, which is not repeated).
        drop_cold_items: take items without interactions out of the catalogue.
    """

    user_k_core: int = 0
    item_k_core: int = 0
    min_rating: float | None = None
    start: str | datetime | date | int | None = None
    end: str | datetime | date | int | None = None
    duplicates: str = "keep-all"
    ties: str = "file-order"
    max_history: int | None = None
    drop_cold_items: bool = True

    __repr__ = settings_repr

    def __post_init__(self) -> None:
        if self.user_k_core < 0 or self.item_k_core < 0:
            raise ConfigError("a k-core is negative", "Give 0 for none, or e.g. 5.")
        if self.duplicates not in DUPLICATES:
            raise ConfigError(
                f"unknown duplicate rule {self.duplicates!r}", f"Use one of {', '.join(DUPLICATES)}."
            )
        if self.ties not in TIES:
            raise ConfigError(f"unknown tie rule {self.ties!r}", f"Use one of {', '.join(TIES)}.")
        if self.max_history is not None and self.max_history < 1:
            raise ConfigError(
                f"max_history is {self.max_history}", "Give a positive number, or none for all."
            )
        for name in ("start", "end"):
            object.__setattr__(self, name, _text(getattr(self, name)))
        start, end = self.window
        if start is not None and end is not None and start >= end:
            raise ConfigError(
                f"the window from {self.start} to {self.end} is empty", "Give a start before the end."
            )

    @property
    def window(self) -> tuple[int | None, int | None]:
        """Start and end in milliseconds since 1970."""
        return _moment(self.start, "start"), _moment(self.end, "end")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_DATE = re.compile(r"(\d{4})(?:[-/.](\d{1,2})(?:[-/.](\d{1,2})([T ].*)?)?)?")
_SINCE_1970 = re.compile(r"\d{9,10}|\d{12,13}")  # seconds, or milliseconds


def _text(moment: str | datetime | date | int | None) -> str | None:
    if isinstance(moment, date):  # a datetime is one
        return moment.isoformat()
    return None if moment is None else str(moment).strip()


def _moment(value: str | datetime | date | int | None, name: str) -> int | None:
    text = _text(value)
    if text is None:
        return None
    if _SINCE_1970.fullmatch(text):
        return int(text) * (1000 if len(text) <= 10 else 1)
    if parts := _DATE.fullmatch(text):
        year, month, day, clock = (part or "" for part in parts.groups())
        text = f"{year}-{month or '1':>02}-{day or '1':>02}{clock}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{name} {value!r} is no moment: {error}", "Write it like 2016-10-01.") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@dataclass(frozen=True)
class SimulatorConfig:
    """What the marketplace is like. The defaults make a small one that a small model can learn in minutes.

    Attributes:
        users: how many there are.
        items: how many there are.
        categories: leaves of the category tree, at most :data:`itemic.data.marketplace.CATEGORIES` has.
        brands: how many there are; each belongs to one department.
        shortest: the fewest interactions of a user.
        longest: the most interactions of a user.
        popularity: the Zipf exponent of an item's weight by popularity.
        focus: the share of taste that goes to the current category; the rest goes to the user's lasting
            likes.
        likes: concentration of the lasting likes; the smaller, the fewer categories a user cares for.
        drift: the chance, at each step, that the current category is drawn anew from the lasting likes.
        brand_drift: the chance, at each step, that the favourite brand of the current department changes.
        loyalty: how many times likelier an item of the wanted brand is.
        follow_up: the share of follow-ups.
        repeat: the share of repeats.
        noise: the share of noise; taste has what the four leave.
        memory: how many of the last items can be repeated.
    """

    users: int = 3000
    items: int = 1000
    categories: int = 24
    brands: int = 36
    shortest: int = 6
    longest: int = 20
    popularity: float = 0.9
    focus: float = 0.85
    likes: float = 0.15
    drift: float = 0.12
    brand_drift: float = 0.05
    loyalty: float = 20.0
    follow_up: float = 0.45
    repeat: float = 0.05
    noise: float = 0.03
    memory: int = 8

    __repr__ = settings_repr

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {value}, not {low} to {high}"
            for name, low, high in self._bounds()
            if not low <= (value := getattr(self, name)) <= high
        ]
        if self.follow_up + self.repeat + self.noise > 1:
            faults.append("follow_up, repeat and noise are more than 1 together")
        if faults:
            raise ConfigError(
                f"no such marketplace: {'; '.join(faults)}", "Mend these settings of the simulator."
            )

    def _bounds(self) -> Iterator[tuple[str, float, float]]:
        yield from (("users", 1, 1e9), ("categories", 2, len(CATEGORIES)), ("items", self.categories, 1e8))
        yield from (("brands", 1, MOST_BRANDS), ("shortest", 1, self.longest), ("longest", 1, 32_000))
        yield from (("popularity", 0, 5), ("likes", 1e-3, 1e3), ("loyalty", 1, 1e6), ("memory", 1, 1000))
        yield from (
            (name, 0, 1) for name in ("focus", "drift", "brand_drift", "follow_up", "repeat", "noise")
        )
