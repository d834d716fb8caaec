"""What the rows of an exported OpenOneRec folder say in their metadata: keys, and how they are checked.

| key | in | what |
|---|---|---|
| ``group`` | all | ``user:`` and the user's id |
| ``order`` | all | the user's place among all users |
| ``split`` | all | ``train``, ``valid`` or ``test``, as the file is called |
| ``items`` | all | ids: the training sequence, or the history that a request shows |
| ``target`` | requests | a list of one id, where the target is known |
| ``opening`` | requests | the split of the history's only item, where that is none of training |
| ``timestamps``, ``ratings`` | all, where known | a value or null for each item that no earlier row tells |

The items that no earlier row tells are all of a training sequence; of a request they are the target and, before it, the
history's only item if there is ``opening``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from itemic import schema as c

GROUP: Final = "group"
ORDER: Final = "order"
SPLIT: Final = "split"
ITEMS: Final = "items"
TARGET: Final = "target"
OPENING: Final = "opening"
TIMESTAMPS: Final = "timestamps"
RATINGS: Final = "ratings"
USER: Final = "user:"
_LIMIT: Final = 1 << 63


@dataclass(frozen=True)
class Row:
    """One row's metadata.

    Attributes:
        user: the user's id.
        order: the user's place among all.
        opens: whether a request tells its user's first item as well.
        history: the items that the row shows.
        told: the items that it is the first to tell, oldest first.
        splits: the split of each of these.
        times: their times in milliseconds, None where unknown.
        ratings: likewise.
    """

    user: str
    order: int
    opens: bool
    history: list[str]
    told: list[str]
    splits: list[str]
    times: list[int | None]
    ratings: list[float | None]


def parse(text: str | None, split: str, *, answered: bool) -> Row:
    """Read and check the metadata of a row.

    Args:
        text: a JSON object.
        split: that of the file.
        answered: a request must have a target.

    Raises:
        ValueError: it is not as it should be; the message names the key.
    """
    value = _object(text)
    wanted = (GROUP, ORDER, SPLIT, ITEMS, *((TARGET,) if answered and split != c.TRAIN else ()))
    if missing := [key for key in wanted if key not in value]:
        raise ValueError(f"{c.METADATA} lacks the key {', '.join(map(repr, missing))}")
    _check(value, GROUP, f"{USER!r} and an id", lambda it: isinstance(it, str) and it.startswith(USER))
    _check(value, ORDER, "a whole number from 0", lambda it: _is_whole(it) and it >= 0)
    _check(value, SPLIT, f"{split!r}, as the file is called", lambda it: it == split)
    _check(value, ITEMS, "a list of item ids", _are_ids)
    history = told = value[ITEMS]
    splits = [split] * len(told)
    if split != c.TRAIN:
        told, splits = [], []
        if OPENING in value:
            _check(value, OPENING, f"{c.VALID!r} or {c.TEST!r}", lambda it: it in (c.VALID, c.TEST))
            _check(value, ITEMS, f"one item, as there is {OPENING!r}", lambda it: len(it) == 1)
            told, splits = list(history), [value[OPENING]]
        if answered:
            _check(value, TARGET, "a list of one item id", lambda it: _are_ids(it) and len(it) == 1)
            told, splits = [*told, *value[TARGET]], [*splits, split]
    times = _each(value, TIMESTAMPS, len(told), "whole number", _is_whole)
    ratings = _each(value, RATINGS, len(told), "number", lambda it: type(it) is float or _is_whole(it))
    user, opens = value[GROUP].removeprefix(USER), len(splits) > answered and split != c.TRAIN
    return Row(user, value[ORDER], opens, history, told, splits, times, ratings)


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "")
        if "\\u" in (text or ""):
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and no text
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{c.METADATA} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{c.METADATA} holds no JSON object")
    return value


def _check(value: dict[str, Any], key: str, what: str, fits: Callable[[Any], bool]) -> None:
    if not fits(value[key]):
        raise ValueError(f"{c.METADATA}: {key} is {_shown(value[key])}, not {what}")


def _each(value: dict[str, Any], key: str, count: int, what: str, fits: Callable[[Any], bool]) -> list[Any]:
    """A value or None for each item that is told; nothing but None where the key isn't there."""
    found = value.get(key, [None] * count)
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(
            f"{c.METADATA}: {key} is {_shown(found)}, not a list of {count}, one for each new item"
        )
    if odd := [entry for entry in found if entry is not None and not fits(entry)]:
        raise ValueError(f"{c.METADATA}: {key} has {_shown(odd[0])}, which is no {what}")
    return found


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _is_whole(value: Any) -> bool:
    return type(value) is int and -_LIMIT <= value < _LIMIT


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
