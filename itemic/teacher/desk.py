"""What a teacher is asked over a socket, in the form of RecLM-gen's clients: from item ids to rows, and back."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from itemic.data.sequences import Requests
from itemic.errors import DataError
from itemic.teacher.teacher import Teacher, mask_history

Int32 = npt.NDArray[np.int32]
Id = int | str
Answer = list[str] | list[int]  # items, or ranks
NOTHING = np.zeros(0, np.int32)
CATALOGUE = "Give ids of the dataset that the teacher was trained on."


class Body(BaseModel):
    """What ``/inference`` and ``/ranking`` are sent: one entry a request in each list.

    Attributes:
        users: their ids; the answer doesn't depend on them.
        item_lists: histories, oldest first; a teacher reads the latest items.
        item_lengths: of these, where given.
        k: how many items ``/inference`` is to give.
        immediately: 0 waits for others for up to a second, to compute them together.
        candidate_item_lists: the only items that are given, or those whose ranks are asked for.
        target_category: ``+C`` or ``-C``: nothing but the category C, or nothing of it; one a request, or one for all.
    """

    model_config = ConfigDict(extra="forbid")

    users: Annotated[list[Id], Field(min_length=1)]
    item_lists: list[list[Id]]
    item_lengths: list[int] | None = None
    k: Annotated[int, Field(ge=1)] | None = None
    immediately: bool = False
    candidate_item_lists: list[list[Id]] | None = None
    target_category: list[str] | None = None


@dataclass(frozen=True)
class Question:
    """One request, in rows.

    Attributes:
        user: whose.
        history: int32, oldest first.
        k: how many items are asked for; None where ranks are.
        allowed: the only rows to give; None for all.
        excluded: rows not to give, beside the history.
        ranked: the rows whose ranks are asked for.
    """

    user: str
    history: Int32
    k: int | None
    allowed: Int32 | None = None
    excluded: Int32 | None = None
    ranked: Int32 | None = None


class Desk:
    """Asks a teacher for any number of clients, one computation at a time.

    Args:
        teacher: whose answers these are.
        categories: item rows by name, see :func:`itemic.data.categories.named_rows`; None where nothing is known.
    """

    def __init__(self, teacher: Teacher, categories: Mapping[str, Int32] | None = None) -> None:
        self.teacher, self.categories = teacher, categories
        self._row = {item: row for row, item in enumerate(teacher.item_ids)}
        self._lock = threading.Lock()
        self.computations = self.answered = 0

    def lists(self, body: Body) -> list[Question]:
        """What is asked of ``/inference``.

        Raises:
            DataError: lists don't fit each other, or an item or a category is unknown.
        """
        histories = self._histories(body)
        if body.k is None:
            raise DataError("k is missing", "Say how many items to give.")
        k = min(body.k, len(self._row))
        masks = self._categories(body.target_category, len(histories))
        found = []
        for i, (user, history) in enumerate(zip(body.users, histories, strict=True)):
            allowed, excluded = masks[i]
            if body.candidate_item_lists is not None:
                given = np.unique(self._rows(body.candidate_item_lists[i], f"candidate_item_lists, {i}"))
                allowed = given if allowed is None else np.intersect1d(given, allowed)
            found.append(Question(str(user), history, k, allowed, excluded))
        return found

    def ranks(self, body: Body) -> list[Question]:
        """What is asked of ``/ranking``.

        Raises:
            DataError: as for :meth:`lists`, or the candidates are missing.
        """
        histories = self._histories(body)
        if body.candidate_item_lists is None:
            raise DataError("candidate_item_lists is missing", "Give the items whose ranks are asked for.")
        if body.target_category is not None:
            raise DataError("ranks know no target_category", "Leave it out, or ask /inference.")
        return [
            Question(str(user), history, None, ranked=self._rows(items, f"candidate_item_lists, {i}"))
            for i, (user, history, items) in enumerate(
                zip(body.users, histories, body.candidate_item_lists, strict=True)
            )
        ]

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The best items of each, fewer where too few are allowed; or the ranks of what was named, from 0, among all
        items but those of the history, which come after them."""
        found: list[Answer] = [[] for _ in questions]
        groups: dict[tuple[int, bool], list[int]] = {}
        for i, asked in enumerate(questions):
            # those whose k is about the same are asked for together
            width = 0 if asked.k is None else 1 << (asked.k - 1).bit_length()
            groups.setdefault((width, asked.allowed is not None), []).append(i)
        with self._lock:
            for (width, masked), places in groups.items():
                part = [questions[i] for i in places]
                given = self._best(part, width, masked) if width else self._ranked(part)
                for i, one in zip(places, given, strict=True):
                    found[i] = one
                self.computations += 1
                self.answered += len(part)
        return found

    def _best(self, questions: Sequence[Question], width: int, masked: bool) -> list[Answer]:
        items, _ = self.teacher.rank(
            self._requests(questions),
            width,
            exclude_history=True,
            allowed=[NOTHING if one.allowed is None else one.allowed for one in questions]
            if masked
            else None,
            excluded=[NOTHING if one.excluded is None else one.excluded for one in questions],
        )
        return [
            [self.teacher.item_ids[row] for row in rows[: one.k] if row >= 0]
            for one, rows in zip(questions, items.tolist(), strict=True)
        ]

    def _ranked(self, questions: Sequence[Question]) -> list[Answer]:
        requests = self._requests(questions)
        found: list[Answer] = []
        for part, scores in self.teacher.score_batches(requests):
            mask_history(scores, requests[part])
            for one, row in zip(questions[part], scores, strict=True):
                place = np.empty(len(row), np.int64)
                place[np.argsort(-row, kind="stable")] = np.arange(len(row))
                found.append(place[NOTHING if one.ranked is None else one.ranked].tolist())
        return found

    def _requests(self, questions: Sequence[Question]) -> Requests:
        offsets = np.concatenate([[0], np.cumsum([len(one.history) for one in questions])]).astype(np.int64)
        items = np.concatenate([NOTHING, *(one.history for one in questions)])
        users = np.array([one.user for one in questions], object)
        return Requests(users, offsets, items, np.full(len(questions), -1, np.int32), self.teacher.catalogue)

    def _histories(self, body: Body) -> list[Int32]:
        """Rows of the histories, once all lists have been compared."""
        count = len(body.users)
        lengths = body.item_lengths
        for name, given in (
            ("item_lists", body.item_lists),
            ("item_lengths", lengths),
            ("candidate_item_lists", body.candidate_item_lists),
        ):
            if given is not None and len(given) != count:
                raise DataError(f"{count} users and {len(given)} {name}", "Give one entry for each request.")
        if lengths is not None and lengths != [len(items) for items in body.item_lists]:
            raise DataError(
                "item_lengths are not the lengths of item_lists", "Leave them out, or count the items."
            )
        return [self._rows(items, f"item_lists, {i}") for i, items in enumerate(body.item_lists)]

    def _rows(self, items: Sequence[Id], where: str) -> Int32:
        try:
            return np.array([self._row[str(item)] for item in items], np.int32)
        except KeyError as error:
            raise DataError(f"{where}: there is no item {error.args[0]!r}", CATALOGUE) from None

    def _categories(self, given: Sequence[str] | None, count: int) -> list[tuple[Int32 | None, Int32 | None]]:
        """The allowed and the excluded rows of each request."""
        if given is None:
            return [(None, None)] * count
        if len(given) not in (1, count):
            raise DataError(
                f"{count} users and {len(given)} target categories",
                "Give one for each request, or one for all.",
            )
        masks: list[tuple[Int32 | None, Int32 | None]] = [
            (rows, None) if sign == "+" else (None, rows) for sign, rows in map(self._category, given)
        ]
        return masks * count if len(masks) == 1 else masks

    def _category(self, text: str) -> tuple[str, Int32]:
        sign, name = text[:1], text[1:]
        if sign not in ("+", "-"):
            raise DataError(f"the target category {text!r} has no sign", "Write +C or -C for a category C.")
        if self.categories is None:
            raise DataError(
                "the server knows no categories", "Start it on a run's folder, or with --dataset."
            )
        if name not in self.categories:
            near = get_close_matches(name, self.categories, 3)
            hint = (
                f"Did you mean {' or '.join(map(repr, near))}?" if near else "Name one as the dataset has it."
            )
            raise DataError(f"there is no category {name!r}", hint)
        return sign, self.categories[name]
