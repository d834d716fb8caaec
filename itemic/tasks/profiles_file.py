"""Profiles that a writer wrote, read from a file of JSON lines, without those that may know what is to be found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itemic.data.dataset import Dataset
from itemic.errors import DataError
from itemic.tasks.profile import Written

FORM = '{"user": "…", "profile": "…", "items": ["…", …]}'


@dataclass(frozen=True)
class ToldProfile:
    """A profile of a user, and the items that its writer had read; None where nobody says."""

    user: str
    text: str
    items: tuple[str, ...] | None = None


def read_profiles(file: str | Path) -> list[ToldProfile]:
    """A file with a line ``{"user": …, "profile": …, "items": […]}`` for each profile; ``items`` are those that the
    writer had read, and may be missing. ``profiles`` with several texts by name, as an evaluation of profiles leaves
    them, stands for the first of these.

    Raises:
        DataError: the file can't be read, is empty, or a line is something else; the line is named.
    """
    found = []
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} can't be read: {error}", f"Give a file with lines {FORM}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_profile_of(json.loads(line)))
        except (ValueError, TypeError, KeyError, StopIteration) as error:
            raise DataError(f"{file}, line {number}, holds no profile", f"Write lines {FORM}.") from error
    if not found:
        raise DataError(f"{file} holds no profiles", f"Write lines {FORM}.")
    return found


def _profile_of(value: Mapping[str, Any]) -> ToldProfile:
    text = value["profile"] if "profile" in value else next(iter(value["profiles"].values()))
    items = value.get("items")
    if not isinstance(text, str) or isinstance(items, str):
        raise TypeError(text)
    return ToldProfile(str(value["user"]), text, None if items is None else tuple(map(str, items)))


def profiles_before(told: Sequence[ToldProfile], dataset: Dataset) -> tuple[Written, list[str]]:
    """Of each user the latest profile that was written of training's interactions alone.

    All of them come before the user's first target of validation or test, so such a profile knows nothing of what is
    to be found, or came later.

    Args:
        told: profiles in their order.
        dataset: whose split it is.

    Returns:
        the profiles, and what a reader has to know of them.

    Raises:
        DataError: none is left.
    """
    train, ids = dataset.train, dataset.item_ids
    known = {str(user): {ids[row] for row in train[at].tolist()} for at, user in enumerate(train.users)}
    texts, late, unsaid = {}, 0, 0
    for one in told:
        if one.items is not None and not set(one.items) <= known.get(one.user, set()):
            late += 1
            continue
        unsaid += one.items is None
        texts[one.user] = one.text
    notes = []
    if late:
        notes.append(f"{late:,} profiles are left out: they were written of more than training's items.")
    if unsaid:
        notes.append(
            f"{unsaid:,} profiles don't say of which items they were written: whoever wrote them has to know "
            "that no target was among these."
        )
    if not texts:
        raise DataError(
            "no profile is left: all were written of more than training's items",
            "Write them of interactions before the first target of validation or test.",
        )
    return Written(texts), notes
