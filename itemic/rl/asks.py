"""What a policy is asked: places of the training split, and the prompts that tasks make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.data.dataset import Dataset
from itemic.data.held_out import held_out as is_held_out
from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.rl.settings import Asks
from itemic.tasks.asking import Asker, task_to_ask
from itemic.tasks.task import Task

Int64 = npt.NDArray[np.int64]


def training_requests(
    dataset: Dataset,
    history: int | None = None,
    per_user: int | None = None,
    places: str = "known",
    held_out: float | None = None,
) -> Requests:
    """Places of the training split that have something before them, as requests.

    Args:
        dataset: of which only the training split is looked at.
        history: the latest items before a place; None for as many as the split's rule says.
        per_user: the latest places of each user; None for all.
        places: as :class:`itemic.rl.settings.Asks` says. At the end of a history the target is -1: unknown.
        held_out: only of this share of the users, see :func:`itemic.data.held_out.held_out`; None for all.
    """
    found = _all_places(dataset, history, per_user, places)
    return found if held_out is None else found.take(np.flatnonzero(is_held_out(found.users, held_out)))


def _all_places(dataset: Dataset, history: int | None, per_user: int | None, places: str) -> Requests:
    known = _known_places(dataset, history, per_user)
    if places == "known":
        return known
    ends = _ends(dataset, history)
    if places == "ends":
        return ends
    return Requests(
        np.concatenate([known.users, ends.users]),
        np.concatenate([known.offsets, known.offsets[-1] + ends.offsets[1:]]),
        np.concatenate([known.items, ends.items]),
        np.concatenate([known.targets, ends.targets]),
        known.catalogue,
    )


def _ends(dataset: Dataset, history: int | None) -> Requests:
    train, most = dataset.train, history or dataset.rule.history or len(dataset.train.items)
    user = np.flatnonzero(np.diff(train.offsets) > 0)
    seen = np.minimum(np.diff(train.offsets)[user], most)
    offsets = np.concatenate([[0], np.cumsum(seen)]).astype(np.int64)
    at = np.arange(offsets[-1]) + np.repeat(train.offsets[1:][user] - seen - offsets[:-1], seen)
    nobody = np.full(len(user), -1, np.int32)
    return Requests(train.users[user], offsets, train.items[at], nobody, dataset.catalogue)


def _known_places(dataset: Dataset, history: int | None, per_user: int | None) -> Requests:
    train, most = dataset.train, history or dataset.rule.history or len(dataset.train.items)
    lengths = np.diff(train.offsets)
    user = np.repeat(np.arange(len(train)), lengths)
    place = np.arange(len(train.items))
    seen, left = place - train.offsets[user], train.offsets[user + 1] - place
    kept = seen >= 1
    if per_user is not None:
        kept &= left <= per_user
    user, place, seen = user[kept], place[kept], np.minimum(seen[kept], most)
    offsets = np.concatenate([[0], np.cumsum(seen)]).astype(np.int64)
    at = np.arange(offsets[-1]) + np.repeat(place - seen - offsets[:-1], seen)
    return Requests(train.users[user], offsets, train.items[at], train.items[place], dataset.catalogue)


@dataclass(frozen=True)
class Asked:
    """Some prompts with their requests.

    Attributes:
        rows: int64 ``[P]``, which of the places that were given these are, rising.
        requests: ``P`` of them, with targets; a text's request is its item, which is its target as well.
        prompts: ``P`` rows.
        of_history: bool ``[P]``, whether the prompt is about a history, whose items an answer may be kept from.
    """

    rows: Int64
    requests: Requests
    prompts: TokenRows
    of_history: npt.NDArray[np.bool_]


class Book:
    """All that may be asked, and the order in which it is.

    A prompt is made when it is asked for, and its target comes from the same request: nothing is looked up by text.

    Args:
        model: its tokenizer, index and positions.
        dataset: whose training split is asked about.
        settings: which tasks and places.
        seed: of the choice and of the order.
        thinking: how prompts end, see :meth:`itemic.model.chat.ChatRenderer.prompt`.

    Raises:
        ConfigError: a task that neither recommends nor asks for an item, or nothing to ask.
    """

    def __init__(
        self, model: Model, dataset: Dataset, settings: Asks, seed: int, thinking: str | None = None
    ) -> None:
        self.seed = seed
        self.requests = training_requests(
            dataset, settings.history, settings.per_user, settings.places, settings.held_out
        )
        if not len(self.requests):
            whose = "no user" if settings.held_out is None else f"of a share of {settings.held_out} no user"
            raise ConfigError(
                f"nothing to ask about: {whose} has two items in training",
                "Split the data otherwise, filter less, or hold out more users (asks.held_out).",
            )
        tasks = [_task(model, given) for given in settings.tasks or (None,)]
        if settings.places != "known" and not all(task.recommends for task, _ in tasks):
            raise ConfigError(
                f"places {settings.places!r} have no item to ask about, and a task asks which item a text means",
                "Ask known places, or tasks that recommend alone.",
            )
        self.askers = [Asker(model, task, thinking, dataset) for task, _ in tasks]
        shares = np.array([share for _, share in tasks], np.float64)
        if not (shares >= 0).all() or shares.sum() <= 0:
            raise ConfigError("shares of what is asked that add up to nothing", "Give one above 0.")
        self.shares = shares / shares.sum()
        count = len(self.requests)
        self.limit = count if settings.requests is None else min(settings.requests, count)

    def __len__(self) -> int:
        """How many prompts an epoch has."""
        return self.limit

    @cached_property
    def _chosen(self) -> Int64:
        if self.limit == len(self.requests):
            return np.arange(self.limit)
        rng = np.random.default_rng([self.seed, 3])
        return np.sort(rng.choice(len(self.requests), self.limit, replace=False))

    def order(self, epoch: int) -> tuple[Int64, Int64]:
        """The places of an epoch in order, and which task asks about each; a function of the seed."""
        rng = np.random.default_rng([self.seed, 4, epoch])
        place = rng.permutation(self._chosen).astype(np.int64)
        return place, rng.choice(len(self.askers), len(place), p=self.shares).astype(np.int64)

    def ask(self, place: Int64, task: Int64) -> Asked:
        """The prompts of some places, in their order but for those that have too short a history for their task, or one
        that the model can't read, which are left out."""
        kept, prompts, of_history = [], [], []
        for number, asker in enumerate(self.askers):
            own = np.flatnonzero(task == number)
            if not len(own):
                continue
            asked = self._requests(place[own], asker.task)
            found = asker.ask(asked)
            kept.append(own[found.rows])
            prompts.append(found.prompts)
            of_history.append(np.full(len(found.rows), asker.task.recommends))
        rows = np.concatenate([*kept, np.zeros(0, np.int64)]).astype(np.int64)
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        histories = np.concatenate([*of_history, np.zeros(0, bool)])[order]
        requests = self.requests.take(place[rows])
        if not histories.all():
            requests = _by_themselves(requests, ~histories)
        return Asked(rows, requests, TokenRows.concat(prompts).take(order), histories)

    def _requests(self, place: Int64, task: Task) -> Requests:
        requests = self.requests.take(place)
        return requests if task.recommends else _by_themselves(requests, np.ones(len(place), bool))


def _by_themselves(requests: Requests, rows: npt.NDArray[np.bool_]) -> Requests:
    """The requests, some of which have their own target for a history: they are asked for what an item is."""
    histories = [
        requests.targets[number : number + 1] if rows[number] else requests.history(number)
        for number in range(len(requests))
    ]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in histories])]).astype(np.int64)
    items = np.concatenate([*histories, np.zeros(0, np.int32)]).astype(np.int32)
    return Requests(requests.users, offsets, items, requests.targets, requests.catalogue)


def _task(model: Model, given: str | Mapping[str, Any] | None) -> tuple[Task, float]:
    share = 1.0
    if isinstance(given, Mapping):
        options = dict(given)
        share = float(options.pop("share", 1.0))
        given = options
    task = task_to_ask(model, given)
    if not (task.recommends or task.finds_items):
        raise ConfigError(
            f"task {task.name} asks for no item, so nothing tells a good answer from a bad one",
            "Ask tasks that recommend, or B, which goes from a text to its item.",
        )
    return task, share


def described(tasks: Sequence[str | Mapping[str, Any]]) -> str:
    """Tasks in a word each, for logs."""
    return ", ".join(str(each["task"] if isinstance(each, Mapping) else each) for each in tasks)
