"""What all tasks of control are: requests drawn anew for every epoch, and lists that keep to them.

A sample is a window of a user's training sequence (or no history at all), a want, and a list that keeps to its terms.
What is wanted is drawn from the catalogue, from the history, or from what the teacher says to the history; never from
the item that follows.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.control.form import ListForm
from itemic.control.labelling import Labelled, Labeller, label
from itemic.control.labels import Labels
from itemic.control.tasks.windows import Windows, requests_of
from itemic.control.terms import TermsOf
from itemic.control.want import Want
from itemic.control.words import ask_label, say
from itemic.data.dataset import Dataset
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.progress import log
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.task import Task
from itemic.teacher.teacher import Teacher

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

LABEL_OF = "label of"  # the kind that asks for an item's label


@dataclass(frozen=True, eq=False)
class Knows:
    """What tasks of control see beside the catalogue and the training sequences: ``labels`` of the one, and a
    ``teacher`` of the others; None where no task asks it."""

    labels: Labels
    teacher: Teacher | None


@dataclass(frozen=True)
class Sample:
    """A request as it was drawn.

    Attributes:
        kind: of the task's kinds, by name.
        want: what is said.
        labelled: what the list keeps to, where that is stricter; None for ``want`` itself.
        first: a row that comes first where it fits; -1 for none.
        items: the answer, where it isn't asked of anybody.
    """

    kind: str
    want: Want
    labelled: Want | None = None
    first: int = -1
    items: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Tally:
    """What became of the samples that were drawn: how many there are, how many lists are ``short`` of the number that
    was drawn, and why others were skipped."""

    samples: int
    short: int
    skipped: Mapping[str, int]


@dataclass(frozen=True)
class ControlTask(Task):
    """Requests for lists.

    Attributes:
        templates: 1 for the first wording of each sentence; None for all.
        samples: how many an epoch draws; None for one of each user who has a history, or of each item where none is
            shown. Some may be skipped.
        epochs: how many epochs are drawn; a stage that samples ``1 / epochs`` of the source sees another part of them
            each time. The samples of an epoch don't depend on how many there are.
        topk: the most items of a list.
        draws: the number of items is the largest of so many uniform draws: 1 draws all numbers alike, more make long
            lists frequent and leave short ones some. Requests with shares always ask for ``topk``.
        numbered, separator: how a list is written, see :class:`itemic.control.form.ListForm`.
        columns: what the labels are made of, see :meth:`itemic.control.labels.Labels.of`.
        shorter: whether a request for more items than can be had becomes one for as many as there are; else it is
            skipped. Requests with shares are skipped in any case.
    """

    samples: int | None = None
    epochs: int = 1
    topk: int = 10
    draws: int = 1
    numbered: bool = True
    separator: str = "\n"
    columns: tuple[str, ...] = (c.CATEGORIES,)
    shorter: bool = True

    leads: ClassVar[dict[str, tuple[str, ...]]] = {"list": ("",)}
    asks_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "columns", tuple(self.columns))
        for name in ("samples", "epochs", "topk", "draws"):
            value = getattr(self, name)
            if not (value is None and name == "samples") and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise ConfigError(f"task {self.name}: {name} is {value!r}", "Give a number from 1 on.")
        _ = self.form
        self._bind(None)

    @property
    def form(self) -> ListForm:
        """How a list is written."""
        return ListForm(self.numbered, self.separator)

    def knowing(self, dataset: Dataset, teacher: Teacher | None = None) -> Self:
        """The same task with what it has to know.

        Args:
            dataset: of whose items the labels are.
            teacher: of the same catalogue; tasks that ask none don't need one.

        Raises:
            ConfigError: the task asks a teacher, and there is none.
            DataError: no item has a label.
        """
        if teacher is None and self.asks_teacher:
            raise ConfigError(
                f"task {self.name} asks the sequential teacher, and there is none",
                "Train one: a section teacher, or itemic.teacher.train_teacher.",
            )
        found = replace(self)
        found._bind(Knows(Labels.of(dataset, self.columns), teacher))
        return found

    def _bind(self, knows: Knows | None) -> None:
        object.__setattr__(self, "_knows", knows)

    @property
    def knows(self) -> Knows:
        """What :meth:`knowing` gave it.

        Raises:
            ConfigError: nothing.
        """
        found: Knows | None = self.__dict__["_knows"]
        if found is None:
            raise ConfigError(
                f"task {self.name} needs labels, and most such tasks a teacher",
                "Call task.knowing(dataset, teacher).",
            )
        return found

    def counts(
        self, requests: int, rng: np.random.Generator, *, least: int = 1, most: int | None = None
    ) -> list[int]:
        """How many items each of so many requests asks for: ``least`` to ``most``, which is ``topk`` if None."""
        drawn = rng.integers(least, (self.topk if most is None else most) + 1, (self.draws, requests))
        counts: list[int] = drawn.max(axis=0).tolist()
        return counts

    # ------------------------------------------------------------------------------------- what differs

    @abstractmethod
    def windows(self, train: Sequences, rng: np.random.Generator) -> Windows:
        """The histories of an epoch's samples."""

    @abstractmethod
    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        """What is asked about each; None for one about which nothing can be."""

    def answers(
        self,
        windows: Windows,
        samples: Sequence[Sample],
        catalogue: Catalogue,
        train: Sequences,
        rng: np.random.Generator,
    ) -> Labelled:
        """The list for each, by the teacher; without histories, and so without anybody's opinion, at random."""
        wants = [sample.labelled or sample.want for sample in samples]
        names, knows = names_of(catalogue), self.knows
        if knows.teacher is not None and self.asks_teacher:
            labeller = Labeller(knows.teacher, knows.labels, names=names, shorter=self.shorter)
            first = [sample.first for sample in samples]
            return labeller(requests_of(windows, train, knows.teacher), wants, first=first)
        terms_of = TermsOf(knows.labels, names=names, shorter=self.shorter)
        scores = (rng.random(len(catalogue)) for _ in wants)
        return label(terms_of, wants, [np.zeros(0, np.int32)] * len(wants), scores)

    # ------------------------------------------------------------------------------------- the face of a task

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        seed = int(rng.integers(2**62))
        parts, tallies = [], []
        for epoch in range(self.epochs):
            part, tally = self._epoch(epoch, catalogue, train, np.random.default_rng([seed, epoch]))
            parts.append(part)
            tallies.append(tally)
        self._tell(tallies)
        plan = pl.concat(parts)
        return plan.with_columns(group=pl.int_range(pl.len(), dtype=pl.Int64))

    def _epoch(
        self, epoch: int, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> tuple[pl.DataFrame, Tally]:
        windows = self.windows(train, rng)
        drawn = self.draw(windows, catalogue, train, rng)
        kept = [place for place, sample in enumerate(drawn) if sample is not None]
        samples, windows = [sample for sample in drawn if sample is not None], windows.take(kept)
        skipped: Counter[str] = Counter()
        if len(drawn) > len(kept):
            skipped["nothing can be asked"] = len(drawn) - len(kept)
        asked = [place for place, sample in enumerate(samples) if sample.items is None]
        lists: dict[int, Sequence[int]] = {}
        short = 0
        if asked:
            found = self.answers(windows.take(asked), [samples[p] for p in asked], catalogue, train, rng)
            short = found.short
            skipped.update(found.skipped)
            for place, terms, items in zip(asked, found.terms, found.items, strict=True):
                if terms is None:
                    continue
                if terms.short and samples[place].want.shares:
                    short -= 1
                    skipped["a list with shares would be shorter"] += 1
                    continue
                lists[place] = items.tolist()
        rows = []
        kinds = list(self.leads)
        words = rng.integers(2**62, size=len(samples))
        for place, sample in enumerate(samples):
            answer = sample.items if sample.items is not None else lists.get(place)
            if answer is None:
                continue
            want = sample.want
            if sample.kind != LABEL_OF and want.count != len(answer):
                want = replace(want, count=len(answer))
            rows.append(
                (
                    kinds.index(sample.kind),
                    epoch,
                    *windows.at(place),
                    list(answer),
                    want_json(want),
                    int(words[place]),
                )
            )
        return pl.DataFrame(rows, _PLAN, orient="row"), Tally(len(rows), short, skipped)

    def _tell(self, tallies: Sequence[Tally]) -> None:
        short, skipped = sum(tally.short for tally in tallies), Counter[str]()
        for tally in tallies:
            skipped.update(tally.skipped)
        if short or skipped:
            reason = f", most because {skipped.most_common(1)[0][0]}" if skipped else ""
            log.info(
                "task %s: %s samples; of these %s ask for fewer items than was drawn, as there aren't more; "
                "%s more were skipped%s",
                self.name,
                *(f"{n:,}" for n in (sum(tally.samples for tally in tallies), short, skipped.total())),
                reason,
            )

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        names, form = catalogue.index.texts, self.form
        asked, answers = [], []
        kinds = list(self.leads)
        for row in plan.iter_rows(named=True):
            wording = 0 if self.templates == 1 else np.random.default_rng(row["words"])
            items = row["items"]
            if kinds[row["kind"]] == LABEL_OF:
                asked.append(ask_label(names[items[0]], wording=wording))
                labels = self.knows.labels
                answers.append(labels.values[int(labels.finest_labels[items[0]])])
                continue
            history = None if row["user"] < 0 else train.items[row["start"] : row["stop"]].tolist()
            asked.append(
                say(
                    want_of(row["want"]),
                    self.knows.labels,
                    wording=wording,
                    form=form,
                    names=names,
                    history=history,
                )
            )
            answers.append(form.text([names[item] for item in items]))
        group = plan.select(pl.format("list:{}:{}", "epoch", "group").alias("group"))["group"]
        return pl.DataFrame(
            {
                "value": pl.Series(asked, dtype=pl.String),
                "answer": pl.Series(answers, dtype=pl.String),
                "group": group,
                "target": plan["items"],
                "want": plan["want"],
            }
        )

    def _metadata(
        self, kinds: pl.Series, texts: pl.DataFrame, catalogue: Catalogue, times: pl.Series | None
    ) -> pl.Series:
        usual = super()._metadata(kinds, texts, catalogue, times)
        return usual.str.strip_suffix("}") + ',"want":' + texts["want"] + "}"

    def ask(self, catalogue: Catalogue, offsets: Int64, items: Int32) -> pl.Series:
        """A list of ``topk`` for each history, and nothing else wanted."""
        want, labels = Want(count=self.topk), Labels([], [], [], None, np.zeros(0, np.int32))
        names = catalogue.index.texts
        texts = []
        for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            history = items[low:high].tolist() if isinstance(self, OfHistory) else None
            texts.append(say(want, labels, form=self.form, names=names, history=history))
        return pl.Series(texts, dtype=pl.String)


@dataclass(frozen=True)
class OfHistory(ControlTask):
    """A task whose requests show a history: a random window of a user's training sequence.

    Attributes:
        max_items: the most items of a history.
    """

    max_items: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.max_items, int) or self.max_items < 1:
            raise ConfigError(
                f"task {self.name}: max_items is {self.max_items!r}", "Give a number from 1 on."
            )

    def windows(self, train: Sequences, rng: np.random.Generator) -> Windows:
        lengths = np.diff(train.offsets)
        users = np.flatnonzero(lengths > 1)
        if self.samples is not None and len(users):
            users = rng.choice(users, self.samples)
        seen = rng.integers(1, lengths[users]) if len(users) else users
        shown = rng.integers(1, np.minimum(seen, self.max_items) + 1) if len(users) else users
        stop = train.offsets[users] + seen
        return Windows(users, stop - shown, stop)


@dataclass(frozen=True)
class WithoutHistory(ControlTask):
    """A task whose requests show no history."""

    asks_teacher: ClassVar[bool] = False

    def windows(self, train: Sequences, rng: np.random.Generator) -> Windows:
        count = self.knows.labels.items if self.samples is None else self.samples
        return Windows(np.full(count, -1), np.zeros(count, np.int64), np.zeros(count, np.int64))


_PLAN: dict[str, Any] = {
    "kind": pl.Int32,
    "epoch": pl.Int64,
    "user": pl.Int64,
    "start": pl.Int64,
    "stop": pl.Int64,
    "items": pl.List(pl.Int32),
    "want": pl.String,
    "words": pl.Int64,
}


def names_of(catalogue: Catalogue) -> Int64 | None:
    """The numbers of the items' names, where some share one."""
    return catalogue.index.name_numbers if catalogue.index.shared else None


def usable(labels: Labels, catalogue: Catalogue) -> Int64:
    """Numbers of the labels that requests may name: some items have them and some don't, and their text holds nothing
    that looks like an item or a role."""
    sizes = labels.sizes
    texts = pl.DataFrame({"text": pl.Series(labels.values, dtype=pl.String)})
    clean = texts.select(pl.col("text") == catalogue.clean(pl.col("text")))["text"].to_numpy()
    return np.flatnonzero((sizes > 0) & (sizes < labels.items) & clean)


def want_json(want: Want) -> str:
    """A want as JSON, without what is as usual."""
    usual, own = asdict(Want(count=want.count)), asdict(want)
    return json.dumps({key: value for key, value in own.items() if key == "count" or value != usual[key]})


def want_of(text: str) -> Want:
    """What :func:`want_json` wrote."""
    return Want(**json.loads(text))
