"""What a policy is asked for: lists under control, drawn anew for every epoch from the training histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.control.labels import Labels
from itemic.control.tasks.table import CONTROL_TASKS
from itemic.control.tasks.task import LABEL_OF, ControlTask
from itemic.control.tasks.windows import Windows, targets_of
from itemic.control.terms import Terms, TermsOf
from itemic.control.want import Want
from itemic.control.words import say
from itemic.data.dataset import Dataset
from itemic.data.held_out import held_out as is_held_out
from itemic.data.sequences import Requests, Sequences
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.model.positions import most_positions
from itemic.rl.settings import RL_TASKS, Asks
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.table import task_from
from itemic.teacher.teacher import Teacher

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Words = int | np.random.Generator

RANKED = 100  # of the teacher's items those that are worth something
SPARE = 5  # items that a list may have beyond the largest number asked for
TRIES = 20


@dataclass(frozen=True)
class ListAsked:
    """``P`` requests for lists.

    Attributes:
        rows: int64 ``[P]``, which of the places that were given these are, rising.
        prompts: ``P`` rows.
        requests: users, histories and the items that came next, -1 where it is in the history, or nobody knows.
        wants: what each list is to be, as the prompt says it.
        terms: the same in the catalogue.
        ranked: int32 rows, the teacher's best of what may come.
        tasks: which task drew each.
    """

    rows: Int64
    prompts: TokenRows
    requests: Requests
    wants: tuple[Want, ...]
    terms: tuple[Terms, ...]
    ranked: tuple[Int32, ...]
    tasks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class _Asker:
    """A task, the kinds of its requests that are asked, and its share."""

    name: str
    task: ControlTask
    kinds: tuple[str, ...] | None
    share: float

    def asks(self, kind: str) -> bool:
        return kind != LABEL_OF and (self.kinds is None or kind in self.kinds)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A request as it was drawn: of which task, what, after which history, and what came next."""

    number: int
    want: Want
    user: object
    history: Int32
    target: int


class ListBook:
    """All that may be asked for, and the order in which it is.

    What is asked for, and the item that came next, are the task's own, of windows of the training sequences. Requests
    that can't be met are left out, or are for fewer items, as the task says.

    Args:
        model: its tokenizer and index.
        dataset: whose training split is asked about.
        settings: which tasks, and how many requests an epoch draws.
        seed: of what is drawn, and of the order.
        teacher: who ranks.

    Raises:
        ConfigError: no task of control, tasks whose lists are written in different ways, or nothing to ask.
    """

    def __init__(
        self, model: Model, dataset: Dataset, settings: Asks, seed: int, teacher: Teacher | None
    ) -> None:
        if teacher is None:
            raise ConfigError(
                "lists are worth what the sequential teacher says of them, and there is none",
                "Add a section teacher to the recipe, or give Knows(teacher).",
            )
        if not settings.tasks:
            raise ConfigError(
                "which lists are asked for is what asks.tasks says, and it names nothing",
                f"Name tasks of control, such as {', '.join(list(RL_TASKS)[:4])}.",
            )
        self.model, self.seed, self.teacher = model, seed, teacher
        self.train = _of_users(dataset.train, settings.held_out)
        count = settings.requests or int((np.diff(self.train.offsets) > 1).sum())
        if not count or not (np.diff(self.train.offsets) > 1).any():
            raise ConfigError(
                "nothing to ask about: no user has two items in training",
                "Split the data otherwise, filter less, or hold out more users (asks.held_out).",
            )
        self.count = count
        self.catalogue = Catalogue(model.index, dataset.items, dataset.users)
        self.askers = [_asker(given, dataset, teacher, count) for given in settings.tasks]
        shares = np.array([asker.share for asker in self.askers], np.float64)
        if not (shares >= 0).all() or shares.sum() <= 0:
            raise ConfigError("shares of what is asked that add up to nothing", "Give one above 0.")
        self.shares = shares / shares.sum()
        forms = {asker.task.form for asker in self.askers}
        if len(forms) > 1:
            raise ConfigError(
                "the tasks of a rollout write lists in different ways",
                "Give all the same numbered and separator.",
            )
        self.form = forms.pop()
        self.names = model.index.name_numbers if model.index.shared else None
        self._terms = [
            TermsOf(asker.task.knows.labels, names=self.names, shorter=asker.task.shorter)
            for asker in self.askers
        ]
        self.labels = _labels_of(self.askers)
        self.room: int | None = None  # tokens that a prompt may have; whoever writes lists says so
        self._known: dict[int, list[_Drawn]] = {}

    def __len__(self) -> int:
        """How many requests an epoch has."""
        return self.count

    @property
    def most(self) -> int:
        """The most items that a request asks for."""
        return max(int(getattr(asker.task, "most", asker.task.topk)) for asker in self.askers)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides what is asked, beside settings, seed and teacher."""
        return {"items": self.train.items.tolist(), "offsets": self.train.offsets.tolist()}

    def limit(self, tokens: int) -> None:
        """From now on leave out what doesn't fit into the model's positions together with a list of so many tokens."""
        positions = most_positions(self.model.lm)
        self.room = None if positions is None else positions - tokens

    def order(self, epoch: int) -> tuple[Int64, Int64]:
        """The places of an epoch in order, and which task asks at each; a function of the seed."""
        drawn = self._epoch(epoch)
        order = np.random.default_rng([self.seed, 4, epoch]).permutation(self.count)
        task = np.array([drawn[place].number for place in order.tolist()], np.int64)
        return (order + epoch * self.count).astype(np.int64), task

    def ask(self, place: Int64, task: Int64) -> ListAsked:
        """The prompts of some places, in their order but for those whose want can't be met."""
        own, words = [], []
        for number in place.tolist():
            epoch, at = divmod(number, self.count)
            drawn = self._epoch(epoch)[at]
            own.append(drawn)
            plain = self.askers[drawn.number].task.templates == 1
            words.append(0 if plain else np.random.default_rng([self.seed, 8, number]))
        return self._asked(own, words)

    def held(self, requests: Requests, count: int, seed: int) -> ListAsked:
        """Requests for lists after histories of another split, to validate on: the same wants in their first wording.

        Args:
            requests: histories, and the item that comes next in each.
            count: how many are asked at most.
            seed: chooses them, and what is wanted.
        """
        rng = np.random.default_rng([seed, 9])
        known = np.flatnonzero((requests.targets >= 0) & (np.diff(requests.offsets) > 0))
        if len(known) > count:
            known = np.sort(rng.choice(known, count, replace=False))
        later = requests.take(known)
        own = _with_targets(later)
        which = rng.choice(len(self.askers), len(known), p=self.shares)
        found: dict[int, _Drawn] = {}
        for number, asker in enumerate(self.askers):
            left = np.flatnonzero(which == number)
            for _ in range(TRIES):
                if not len(left):
                    break
                windows = _ends(own, left, getattr(asker.task, "max_items", None))
                drawn = zip(left.tolist(), self._draw(number, windows, own, rng), strict=True)
                found |= {place: each for place, each in drawn if each is not None}
                left = np.array([place for place in left.tolist() if place not in found], np.int64)
        some = [found[place] for place in sorted(found)]
        return self._asked(some, [0] * len(some))

    # ------------------------------------------------------------------------------------ drawing

    def _epoch(self, epoch: int) -> list[_Drawn]:
        if epoch not in self._known:
            self._known = {key: value for key, value in self._known.items() if key >= epoch - 1}
            self._known[epoch] = self._drawn(epoch)
        return self._known[epoch]

    def _drawn(self, epoch: int) -> list[_Drawn]:
        found: list[_Drawn] = []
        edges = np.round(np.cumsum([0.0, *self.shares]) * self.count).astype(int)
        for number, wanted in enumerate(np.diff(edges).tolist()):
            rng = np.random.default_rng([self.seed, 7, epoch, number])
            own: list[_Drawn] = []
            for _ in range(TRIES):
                if len(own) >= wanted:
                    break
                windows = self.askers[number].task.windows(self.train, rng)
                drawn = self._draw(number, windows, self.train, rng)
                own += [each for each in drawn if each is not None]
            if len(own) < wanted:
                name = self.askers[number].name
                raise ConfigError(
                    f"task {name} finds {len(own)} requests where {wanted} are to be asked",
                    "Leave it out, or give it labels that some items have and some don't (columns).",
                )
            found += own[:wanted]
        return found

    def _draw(
        self, number: int, windows: Windows, sequences: Sequences, rng: np.random.Generator
    ) -> list[_Drawn | None]:
        """Requests about windows; None where nothing can be asked, or something else than is to be."""
        asker = self.askers[number]
        found: list[_Drawn | None] = []
        nobody = windows.user < 0
        targets = np.where(nobody, -1, targets_of(windows, sequences)) if len(windows) else np.zeros(0, int)
        for place, sample in enumerate(asker.task.draw(windows, self.catalogue, sequences, rng)):
            if sample is None or not asker.asks(sample.kind):
                found.append(None)
                continue
            user = "" if nobody[place] else sequences.users[windows.user[place]]
            history = sequences.items[windows.start[place] : windows.stop[place]]
            found.append(_Drawn(number, sample.want, user, history, int(targets[place])))
        return found

    # ------------------------------------------------------------------------------------- asking

    def _asked(self, drawn: Sequence[_Drawn], words: Sequence[Words]) -> ListAsked:
        rows, wants, terms, own = [], [], [], []
        for place, each in enumerate(drawn):
            try:
                found = self._terms[each.number](each.want, each.history)
            except ConstraintError:
                continue
            if found.short and each.want.shares:
                continue
            rows.append(place)
            own.append(each)
            terms.append(found)
            wants.append(replace(each.want, count=found.count) if found.short else each.want)
        prompts = self._prompts(own, wants, [words[place] for place in rows])
        fits = np.arange(len(own))
        if self.room is not None:
            fits = np.flatnonzero(prompts.lengths <= self.room)
        kept = fits.tolist()
        requests = self._requests([own[place] for place in kept])
        some = [terms[place] for place in kept]
        return ListAsked(
            np.array(rows, np.int64)[fits],
            prompts.take(fits),
            requests,
            tuple(wants[place] for place in kept),
            tuple(some),
            tuple(self._ranked(requests, some)),
            tuple(self.askers[own[place].number].name for place in kept),
        )

    def _prompts(self, drawn: Sequence[_Drawn], wants: Sequence[Want], words: Sequence[Words]) -> TokenRows:
        texts = []
        for each, want, wording in zip(drawn, wants, words, strict=True):
            task = self.askers[each.number].task
            text = say(
                want,
                task.knows.labels,
                wording=wording,
                form=task.form,
                names=self.model.index.texts,
                history=each.history.tolist() if len(each.history) else None,
            )
            system = task.opening(self.model.index)
            head = [] if system is None else [{"role": "system", "content": system}]
            texts.append([*head, {"role": "user", "content": text}])
        return self.model.chat.prompt_batch(texts)

    def _requests(self, drawn: Sequence[_Drawn]) -> Requests:
        offsets = np.concatenate([[0], np.cumsum([len(each.history) for each in drawn])]).astype(np.int64)
        items = np.concatenate([np.zeros(0, np.int32), *(each.history for each in drawn)]).astype(np.int32)
        targets = [-1 if self._is_old(each) else each.target for each in drawn]
        users = np.array([str(each.user) for each in drawn], object)
        return Requests(users, offsets, items, np.array(targets, np.int32), self.teacher.catalogue)

    def _is_old(self, drawn: _Drawn) -> bool:
        """Whether what came next is in the history shown, where it must not come again."""
        if drawn.target < 0 or self.names is None:
            return drawn.target in drawn.history
        return bool((self.names[drawn.history] == self.names[drawn.target]).any())

    def _ranked(self, requests: Requests, terms: Sequence[Terms]) -> list[Int32]:
        found: list[Int32] = []
        for part, scores in self.teacher.score_batches(requests):
            for own, row in zip(terms[part], scores, strict=True):
                best = np.argsort(-row[own.rows], kind="stable")[:RANKED]
                found.append(own.rows[best])
        return found


def _labels_of(askers: Sequence[_Asker]) -> Labels:
    """The labels that all tasks know: rewards look at those."""
    columns = {asker.task.columns for asker in askers}
    if len(columns) > 1:
        raise ConfigError(
            "the tasks of a rollout have labels of different columns", "Give all of them the same columns."
        )
    return askers[0].task.knows.labels


def _asker(given: str | Mapping[str, Any], dataset: Dataset, teacher: Teacher, count: int) -> _Asker:
    options = {"task": given} if isinstance(given, str) else dict(given)
    name, share = str(options.pop("task")), float(options.pop("share", 1.0))
    base, kinds = RL_TASKS.get(name, (name, None))
    lists = [own for own, kind in CONTROL_TASKS.items() if isinstance(kind, ControlTask)]
    if base not in lists:
        raise ConfigError(f"task {name} asks for no list", f"Use one of {', '.join([*RL_TASKS, *lists])}.")
    for key in ("samples", "epochs"):  # of conversations; here asks.requests says how many
        options.pop(key, None)
    task = task_from(CONTROL_TASKS, base, options)
    assert isinstance(task, ControlTask)
    return _Asker(name, replace(task, samples=count).knowing(dataset, teacher), kinds, share)


def _of_users(train: Sequences, share: float | None) -> Sequences:
    """The sequences of the users who are held out; all where none are."""
    if share is None:
        return train
    return _taken(train, np.flatnonzero(is_held_out(train.users, share)))


def _taken(train: Sequences, users: Int64) -> Sequences:
    rows = [train[user] for user in users.tolist()]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    items = np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32)
    return Sequences(train.users[users], offsets, items)


def _with_targets(requests: Requests) -> Sequences:
    """Each history with what comes next behind it."""
    rows = [np.append(requests.history(number), requests.targets[number]) for number in range(len(requests))]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    items = np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32)
    return Sequences(requests.users, offsets, items)


def _ends(sequences: Sequences, users: Int64, shown: int | None) -> Windows:
    """Of some users all but the last item, the latest ``shown`` of it; no history where a task shows none."""
    if shown is None:
        none = np.zeros(len(users), np.int64)
        return Windows(none - 1, none, none.copy())
    stop = sequences.offsets[1:][users] - 1
    return Windows(users, np.maximum(sequences.offsets[:-1][users], stop - shown), stop)
