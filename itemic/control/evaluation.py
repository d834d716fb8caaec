"""Test tasks asked and judged: one table. And what obedience costs, in another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from itemic.control.filtered import post_filter
from itemic.control.judge import judge
from itemic.control.labelling import Labeller
from itemic.control.labels import Labels
from itemic.control.questions import Drawer, Questions
from itemic.control.ranked import Among, ranked_lists
from itemic.control.results import Line, Results, measures, notes_of
from itemic.control.tasks.task import usable
from itemic.control.tests import ControlTest, ListTests, Mode, control_test
from itemic.control.want import Want
from itemic.control.writing import Answerer, Spoken
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError
from itemic.settings import settings_json
from itemic.tasks.catalogue import Catalogue
from itemic.teacher.teacher import Teacher

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Ranked = Callable[[Requests], Int32]  # int32 [R, K]: of each request the best items, -1 is padding

PLAIN = "SFTTestSeqRec"  # whose lists say what a model would recommend by itself
NO_CONTROL, UNTOLD = "no control", "hard, untold"
FILTERED, RANKED = "filtered", "filtered ranking"  # from the list's own prompt, and from the evaluation's
OWN_MODE: Mode = "soft"  # of the lists that say what is unwanted, so that all modes are asked the same


@dataclass(frozen=True, eq=False)
class Lists:
    """The answers to a task: questions, their lists, and the value of each metric for each of them."""

    questions: Questions
    lists: list[Int32]
    values: dict[str, Float64]


@dataclass(eq=False)
class Asking:
    """Who is asked about what.

    Attributes:
        dataset: whose requests.
        answerer: writes the lists.
        spoken: how the requests of a test are worded.
        settings: which tests, and how.
        split: whose requests.
        seed: of what is drawn.
        teacher: for ``unwanted: teacher``.
        ranked: for the price: the model's ranking of requests, as it is evaluated.
        among: the same of the items that may come, for the mode ``ranked``.
        title: of the table.
    """

    dataset: Dataset
    answerer: Answerer
    spoken: Callable[[ControlTest], Spoken]
    settings: ListTests
    split: str = "test"
    seed: int = 0
    teacher: Teacher | None = None
    ranked: Ranked | None = None
    among: Among | None = None
    title: str = "Lists under control"
    _drawers: dict[tuple[str, ...], Drawer] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def numbers(self) -> Int64:
        """int64 ``[R]``: which of the split's requests are tested."""
        requests = self.dataset.split(self.split)
        lengths = np.diff(requests.offsets)
        fine = np.flatnonzero((lengths > 0) & (requests.targets >= 0))
        if not len(fine):
            fine = np.flatnonzero(lengths > 0)
        if not len(fine):
            raise DataError(f"no request of {self.split} has a history", "Choose another split.")
        if len(fine) > self.settings.users:
            rng = np.random.default_rng([self.seed, self.settings.users])
            fine = np.sort(rng.choice(fine, self.settings.users, replace=False))
        return fine

    @cached_property
    def requests(self) -> Requests:
        """Those."""
        return self.dataset.split(self.split).take(self.numbers)

    @cached_property
    def names(self) -> Int64 | None:
        """The numbers of the items' names, where some share one."""
        index = self.answerer.names
        return index.name_numbers if index.shared else None

    def columns(self, test: ControlTest) -> tuple[str, ...]:
        """What the labels of a test are made of."""
        return self.settings.columns or self.spoken(test).columns

    def drawer(self, test: ControlTest) -> Drawer:
        """Draws what a test asks."""
        columns = self.columns(test)
        if columns not in self._drawers:
            labels = Labels.of(self.dataset, columns)
            self._drawers[columns] = Drawer(
                self.settings,
                self.requests,
                self.numbers,
                labels,
                usable(labels, Catalogue(self.answerer.names)),
                names=self.names,
                candidates=self.dataset.candidate_rows,
                seed=self.seed,
            )
        return self._drawers[columns]

    def questions(self, test: ControlTest) -> Questions:
        """What a test asks; of an unwanted label's the lists that say it are written first."""
        spoken = self.spoken(test)
        lists = self._said(spoken) if test.kind == "without" else None
        topk = self.settings.topk or spoken.topk
        return self.drawer(test).draw(test, topk, spoken.max_items, lists)

    def _said(self, spoken: Spoken) -> list[Int32] | None:
        """The lists that say which label is unwanted."""
        if self.settings.unwanted == "history":
            return None
        if self.settings.unwanted == "teacher":
            if self.teacher is None:
                raise ConfigError(
                    "the teacher's list is asked for, and there is no teacher", "Use unwanted: own."
                )
            drawer = self.drawer(control_test("SFT-TestPersonalControlRec"))
            labeller = Labeller(self.teacher, drawer.labels, names=self.names, shorter=True)
            want = Want(count=self.settings.topk or spoken.topk)
            return labeller(self.requests, [want] * len(self.requests)).items
        test = control_test(PLAIN)
        own = self.questions(test)
        found = [np.zeros(0, np.int32)] * len(self.requests)
        written = self.lists(own, OWN_MODE)
        for one, items in zip(own.asked, written, strict=True):
            found[one.request] = items
        return found

    def lists(self, questions: Questions, mode: Mode, *, plain: bool = False) -> list[Int32]:
        """What is answered to questions; ``plain`` asks for as many items and nothing else."""
        if mode == "ranked":
            if self.among is None:
                raise ConfigError(
                    "mode ranked asks a model for its ranking, and there is none at hand",
                    "Evaluate a run or a model's folder.",
                )
            requests = self.requests.take(np.array([one.request for one in questions.asked], np.int64))
            return ranked_lists(self.among, requests, [one.terms for one in questions.asked])
        test = questions.test
        return self.answerer.lists(
            questions.asked, self.spoken(test), self.drawer(test).labels, mode, plain=plain
        )

    def judged(self, questions: Questions, lists: Sequence[Int32]) -> Lists:
        """What lists are worth."""
        targets = self.requests.targets[[one.request for one in questions.asked]]
        labels = self.drawer(questions.test).labels
        cuts = self.settings.k
        values = judge(questions.asked, lists, labels, cuts, targets=targets, names=self.names)
        return Lists(questions, list(lists), values)

    def ask(self, test: ControlTest, mode: Mode | None = None) -> Lists:
        """A test asked and judged."""
        questions = self.questions(test)
        return self.judged(questions, self.lists(questions, mode or self.settings.mode))

    # ------------------------------------------------------------------------------------------- the tables

    def evaluate(self) -> Results:
        """Every test task, one line each.

        Raises:
            ConfigError: labels or settings that can't work.
            DataError: no item has a label, or nobody can be asked.
            EndpointError: a server that gives no answers.
        """
        mode = self.settings.mode
        lines = [self._line(self.ask(test), mode) for test in self.settings.tests]
        return self._results(self.title, lines)

    def price(self) -> Results:
        """What obedience costs: the same requests without control, soft, distinct, hard, and by filtering a
        ranking.

        Lists without control are asked for with the same number of items and nothing else, and judged by what wasn't
        said; so are hard lists ``untold``, which obey by the grammar alone. ``ranked`` lists are the best of the
        ranking among what may come. The filter goes down the model's own ranking, made without knowing what is wanted:
        in answer to the list's prompt without control (``filtered``), and in answer to the prompt of the evaluation
        (``filtered ranking``).

        Raises:
            as :meth:`evaluate`.
        """
        lines = []
        ranked = None if self.ranked is None else self.ranked(self.requests)
        for test in self.settings.tests:
            if test.kind in ("plain", "count", "ranking"):
                continue
            lines += [self._line(own, way) for way, own in self.ways(test, ranked).items()]
        if not lines:
            raise ConfigError(
                "none of these tasks has a control whose price could be told",
                "Name one, such as SFT+TestPersonalControlRec.",
            )
        found = self._results(f"{self.title}: the price of obedience", lines)
        notes = [
            "HR is recall here: each request has one item to be found. Reachable: how many could be found at all."
        ]
        return replace(found, notes=[*notes, *found.notes])

    def ways(self, test: ControlTest, ranked: Int32 | None = None) -> dict[str, Lists]:
        """A test's lists without control, in each mode, and filtered from a ranking where there is one."""
        questions = self.questions(test)
        plain = self.lists(questions, "soft", plain=True)
        found = {NO_CONTROL: self.judged(questions, plain)}
        for mode in self.answerer.modes:
            found[mode] = self.judged(questions, self.lists(questions, mode))
        if "hard" in self.answerer.modes:
            found[UNTOLD] = self.judged(questions, self.lists(questions, "hard", plain=True))
        if self.among is not None:
            found["ranked"] = self.judged(questions, self.lists(questions, "ranked"))
        if (lists := self.filtered(questions)) is not None:
            found[FILTERED] = self.judged(questions, lists)
        if ranked is not None:
            found[RANKED] = self.judged(questions, self.filtered_from(questions, ranked))
        return found

    def filtered(self, questions: Questions) -> list[Int32] | None:
        """What is left of the answerer's own ranking in answer to a list's prompt that says nothing of control."""
        test = questions.test
        own = self.answerer.ranked(questions.asked, self.spoken(test), self.drawer(test).labels)
        return None if own is None else _left(questions, own)

    def filtered_from(self, questions: Questions, ranked: Int32) -> list[Int32]:
        """What is left of the rankings of all requests, int32 ``[R, K]``."""
        return _left(questions, ranked[[one.request for one in questions.asked]])

    def _line(self, own: Lists, way: str) -> Line:
        test = own.questions.test
        if not own.lists:
            reasons = ", ".join(own.questions.skipped)
            raise DataError(f"{test.name} can't ask any request: {reasons}", "Leave the task out.")
        failed = sum(not len(items) for items in own.lists)
        return Line(
            test.name,
            way,
            len(own.lists),
            failed,
            dict(own.questions.skipped),
            measures(own.values, self.seed),
            self.spoken(test).task,
        )

    def _results(self, title: str, lines: list[Line]) -> Results:
        answerer = self.answerer
        config = settings_json(self.settings) | {"split": self.split, "seed": self.seed, **answerer.config}
        notes = notes_of(lines, answerer.shortened, answerer.counts)
        untaught = [line.task for line in lines if line.worded is None]
        if untaught:
            told = ", ".join(dict.fromkeys(untaught))
            notes.append(f"No task taught what is asked by {told}.")
        return Results(title, sorted(self.settings.k), lines, config, notes)


def _left(questions: Questions, ranked: Int32) -> list[Int32]:
    """See :func:`itemic.control.filtered.post_filter`."""
    return [row[row >= 0] for row in post_filter(ranked, [one.terms for one in questions.asked])]
