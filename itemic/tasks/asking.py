"""From requests to prompts that fit the model: what can't be read whole loses its oldest items, never in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.model.positions import most_positions
from itemic.tasks.table import task_of, task_options
from itemic.tasks.task import Task
from itemic.tasks.windows import gather_windows

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """The prompts of some requests.

    Attributes:
        rows: int64 ``[P]``, the requests that can be asked; the others have too short a history for the task, or one
            whose latest item alone is more than the model can read, or a prompt that is too long without any.
        prompts: ``P`` rows.
        shortened: bool ``[R]``, requests that the oldest items were left out of.
    """

    rows: Int64
    prompts: TokenRows
    shortened: Bool


def task_to_ask(model: Model, task: str | Mapping[str, Any] | Task | None) -> Task:
    """The task whose prompt a model is asked: the given one, else the one it was trained with, else ``C``.

    Raises:
        ConfigError: there is no such task.
    """
    if task is None:
        task = "C" if model.asked is None else model.asked["task"]
    return task_of(task)


def remember_asked(model: Model, task: Task) -> None:
    """Record in a model's folder how it is asked for the next item: the task, and the text around a history."""
    mark = "\ue000history\ue001"  # no template strips or splits it
    lead = task.asked_lead(model.index) + mark
    turns = [("system", task.opening(model.index)), ("user", lead)]
    said = [{"role": role, "content": content} for role, content in turns if content is not None]
    head, _, tail = model.chat.prompt_text(lead if task.plain else said).partition(mark)
    shows = getattr(task, "history_text", "sid")
    model.asked = {
        "task": task_options(task),
        "head": head,
        "tail": tail,
        "shows": shows,
        "between": "\n" if shows in ("title", "sid+title") else "",
        "most_items": getattr(task, "max_items", None),
    }


class Asker:
    """Asks a task's prompts of a model, and keeps them within the positions that it was made for.

    Args:
        model: its chat template, its index, its positions.
        task: whose prompts.
        thinking: how they end, see :meth:`ChatRenderer.prompt`.
        dataset: for prompts that show item texts.
        reserve: tokens that are written between prompt and answer, at most.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        thinking: str | None = None,
        dataset: Dataset | None = None,
        reserve: int = 0,
    ) -> None:
        self.model, self.task, self.thinking, self.dataset = model, task, thinking, dataset
        self.reserve = reserve
        positions = most_positions(model.lm)
        answer = int(model.item_rows.lengths.max(initial=0))
        self.room = None if positions is None else positions - answer - reserve
        self._alike: Sequence[Asker] = ()
        self._read: tuple[Requests, _Read] | None = None

    @property
    def alike(self) -> list[list[Any]]:
        """Of those that see the same histories how each asks, for records; none where this one sees its own."""
        return [[other.thinking, other.reserve] for other in self._alike]

    def ask(self, requests: Requests) -> Asked:
        """The prompts, each with as many of the latest items as fit together with the answer; where
        :func:`ask_alike` said so, as many as fit for all."""
        own = self._reading(requests)
        whole = np.diff(requests.offsets)[own.rows]
        shown = np.min([own.shown, *(other._reading(requests).shown for other in self._alike)], axis=0)
        shortened = np.zeros(len(requests), bool)
        shortened[own.rows] = shown < whole
        fits = self.room is None or bool((own.prompts.lengths <= self.room).all())
        if fits and not shortened.any():
            return Asked(own.rows, own.prompts, shortened)
        fitting = (shown > 0) | (shown == whole)
        rows, shown = own.rows[fitting], shown[fitting]
        return Asked(rows, self.prompts(_latest(requests, rows, shown)), shortened)

    def _reading(self, requests: Requests) -> _Read:
        """What this one could read by itself; that of the last call is kept, for those that see the same ask again."""
        if self._read is None or self._read[0] is not requests:
            rows = np.flatnonzero(np.diff(requests.offsets) >= self.task.least_items)
            prompts = self.prompts(_latest(requests, rows, np.diff(requests.offsets)[rows]))
            self._read = requests, _Read(rows, prompts, self._fitting(requests, rows, prompts))
        return self._read[1]

    def _fitting(self, requests: Requests, rows: Int64, prompts: TokenRows) -> Int64:
        """How many items of each history fit: int64 ``[P]``, by halving what is open, all requests side by side; -1 for
        an empty history whose prompt doesn't fit."""
        most = np.diff(requests.offsets)[rows].astype(np.int64)
        if self.room is None:
            return most
        fits = np.where(prompts.lengths <= self.room, most, 0)
        fails = np.where(prompts.lengths <= self.room, most + 1, most)
        while (open_ := np.flatnonzero(fails - fits > 1)).size:
            half = (fits[open_] + fails[open_]) // 2
            short = self.prompts(_latest(requests, rows[open_], half)).lengths <= self.room
            fits[open_[short]] = half[short]
            fails[open_[~short]] = half[~short]
        return np.where((most == 0) & (prompts.lengths > self.room), -1, fits)

    def prompts(self, requests: Requests, task: Task | None = None) -> TokenRows:
        """The whole prompts of requests, however long they are; ``task`` stands in for the asker's own."""
        asked = (task or self.task).prompts(self.model.index, requests, self.dataset)
        texts = [prompt.messages if prompt.messages is not None else str(prompt.text) for prompt in asked]
        return self.model.chat.prompt_batch(texts, self.thinking)


@dataclass(frozen=True)
class _Read:
    """Requests that can be asked, their whole prompts, and how many of the latest items fit, int64 ``[P]``, -1 where
    not even a prompt without any does."""

    rows: Int64
    prompts: TokenRows
    shown: Int64


def ask_alike(askers: Sequence[Asker]) -> None:
    """From now on all of these see the same histories: what one of them can't read none is shown.

    Args:
        askers: of one task and one index; their prompts end otherwise, or leave more or less room.
    """
    for asker in askers:
        asker._alike = tuple(askers)


def _latest(requests: Requests, rows: Int64, shown: Int64) -> Requests:
    """Some of the requests with the latest ``shown`` items of each history."""
    stop = requests.offsets[1:][rows]
    offsets, items = gather_windows(requests.items, stop - shown, stop)
    return Requests(requests.users[rows], offsets, items, requests.targets[rows], requests.catalogue)
