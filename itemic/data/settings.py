"""What filters, splits and the simulator can be told: tables that check themselves, importable in an instant."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from itemic.data.marketplace import CATEGORIES, MOST_BRANDS
from itemic.settings import Amount, Count, Listed, NotNegative, Number, Share, Switch, settings, wrong
from itemic.text import settings_repr

Duplicates = Literal["keep-all", "keep-first", "keep-last", "drop-consecutive"]
Ties = Literal["file-order", "item-id"]
Method = Literal["leave-one-out", "leave-last-out", "temporal", "published"]


def _text(moment: Any) -> Any:
    if isinstance(moment, date):  # a datetime is one
        return moment.isoformat()
    if isinstance(moment, str) or (isinstance(moment, int) and not isinstance(moment, bool)):
        return str(moment).strip()
    return moment


Moment = Annotated[str | datetime | date | int | None, BeforeValidator(_text)]


@settings(frozen=True, repr=False)
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

    user_k_core: Amount = 0
    item_k_core: Amount = 0
    min_rating: Number | None = None
    start: Moment = None
    end: Moment = None
    duplicates: Duplicates = "keep-all"
    ties: Ties = "file-order"
    max_history: Count | None = None
    drop_cold_items: Switch = True

    __repr__ = settings_repr

    @field_validator("start", "end")
    @classmethod
    def _a_moment(cls, moment: Any) -> Any:
        if moment is not None and not isinstance(moment, str):
            raise wrong(f"is {moment!r}, no moment; write it like 2016-10-01", moment)
        _moment(moment)
        return moment

    @field_validator("end")
    @classmethod
    def _later(cls, end: str | None, info: ValidationInfo) -> str | None:
        start, stop = _moment(info.data.get("start")), _moment(end)
        if start is not None and stop is not None and start >= stop:
            raise wrong(f"is {end}, not after the start {info.data['start']}", end)
        return end

    @property
    def window(self) -> tuple[int | None, int | None]:
        """Start and end in milliseconds since 1970."""
        return _moment(self.start), _moment(self.end)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_DATE = re.compile(r"(\d{4})(?:[-/.](\d{1,2})(?:[-/.](\d{1,2})([T ].*)?)?)?")
_SINCE_1970 = re.compile(r"\d{9,10}|\d{12,13}")  # seconds, or milliseconds


def _moment(value: Any) -> int | None:
    """Milliseconds since 1970."""
    if value is None:
        return None
    text = str(value)
    if _SINCE_1970.fullmatch(text):
        return int(text) * (1000 if len(text) <= 10 else 1)
    if parts := _DATE.fullmatch(text):
        year, month, day, clock = (part or "" for part in parts.groups())
        text = f"{year}-{month or '1':>02}-{day or '1':>02}{clock}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise wrong(f"is {value!r}, no moment ({error}); write it like 2016-10-01", value) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@settings(frozen=True)
class SplitRule:
    """How interactions are divided.

    Attributes:
        method: ``leave-one-out`` (test = a user's last item, valid = the one before, train = all earlier
            ones; the protocol of the papers), ``leave-last-out`` (the OneRec-Think pipeline's: valid = the
            last item, train = all before it, test = everything as history with the target unknown),
            ``temporal`` (global ratio by the target's time, as MiniOneRec does) or ``published`` (the
            source's own labels).
        history: the most recent items that a request shows; None for all.
        ratios: train, valid and test shares of ``temporal``.
    """

    method: Method = "leave-one-out"
    history: Count | None = 50
    ratios: Annotated[tuple[Share, Share, Share], Listed] = (0.8, 0.1, 0.1)

    @field_validator("ratios")
    @classmethod
    def _shares_of_one(cls, ratios: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(ratios) - 1) > 1e-6:
            raise wrong(f"add up to {sum(ratios):g}, not to 1; give e.g. [0.8, 0.1, 0.1]", ratios)
        return ratios

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratios": list(self.ratios)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SplitRule:
        return cls(**value)


@settings(frozen=True, repr=False)
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

    users: Annotated[Count, Field(le=10**9)] = 3000
    items: Annotated[Count, Field(le=10**8)] = 1000
    categories: Annotated[int, Field(strict=True, ge=2, le=len(CATEGORIES), validate_default=True)] = 24
    brands: Annotated[Count, Field(le=MOST_BRANDS)] = 36
    shortest: Count = 6
    longest: Annotated[Count, Field(le=32_000, validate_default=True)] = 20
    popularity: Annotated[NotNegative, Field(le=5)] = 0.9
    focus: Share = 0.85
    likes: Annotated[float, Field(strict=True, ge=1e-3, le=1e3)] = 0.15
    drift: Share = 0.12
    brand_drift: Share = 0.05
    loyalty: Annotated[float, Field(strict=True, ge=1, le=1e6)] = 20.0
    follow_up: Share = 0.45
    repeat: Share = 0.05
    noise: Annotated[Share, Field(validate_default=True)] = 0.03
    memory: Annotated[Count, Field(le=1000)] = 8

    __repr__ = settings_repr

    @field_validator("categories")
    @classmethod
    def _an_item_each(cls, categories: int, info: ValidationInfo) -> int:
        if (items := info.data.get("items", categories)) < categories:
            raise wrong(f"is {categories}, more than the {items} items", categories)
        return categories

    @field_validator("longest")
    @classmethod
    def _longer(cls, longest: int, info: ValidationInfo) -> int:
        if (shortest := info.data.get("shortest", longest)) > longest:
            raise wrong(f"is {longest}, less than the shortest, {shortest}", longest)
        return longest

    @field_validator("noise")
    @classmethod
    def _rest_is_taste(cls, noise: float, info: ValidationInfo) -> float:
        if sum(info.data.get(key, 0) for key in ("follow_up", "repeat")) + noise > 1:
            raise wrong(f"is {noise}; follow_up, repeat and noise are more than 1 together", noise)
        return noise
