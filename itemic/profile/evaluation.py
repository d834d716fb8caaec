"""Profiles tested: the sessions of a split are answered by profiles and by all who need none, in one table."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from itemic.artifact import locked, whole_file
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.evaluate.compare import Published
from itemic.metrics import ranks_of
from itemic.profile.answers import VECTORS, Asked, Lists, Seeker, write_told
from itemic.profile.attributes import Attributes
from itemic.profile.baselines import COUNTERS, history_texts, random_lists, training_alone
from itemic.profile.embedder import Embedder
from itemic.profile.evaluation_settings import ProfileTests
from itemic.profile.judging import NOBODY, Told, edits, judged, wishes, worded
from itemic.profile.lines import written
from itemic.profile.results import ProfileResults, compared, judgement
from itemic.profile.sessions import Sessions
from itemic.profile.settings import EmbedderSettings
from itemic.profile.turn_settings import Drawing
from itemic.profile.words import ProfileWords
from itemic.profile.writer import Writer
from itemic.progress import log
from itemic.settings import settings_json
from itemic.teacher.teacher import Teacher

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

ANSWERS = "answers.jsonl"  # who found what, once all is answered
TITLES = {"titles": "titles of the history", "facts": "facts of the history", "paper": "titles and metadata"}
TEACHER = "sequential teacher"
_NAME = re.compile(r"\w+")


@dataclass(eq=False)
class ProfileAsking:
    """A test of profiles.

    Attributes:
        dataset: whose catalogue is searched; for counting only what ``sessions.training`` allows of it is read.
        sessions: of all splits.
        words: say to the writers what a session is, and know the catalogue's facts.
        item_texts: of the whole catalogue, in its order, as the embedders read them.
        writers: folders by name, such as ``trained`` and ``untrained``; the first one's profiles are what is tested.
        embedders: folders, or settings, by name; the first searches with the judged profiles.
        output: a folder for what is answered, from where an interrupted test goes on.
        teacher: a folder of a sequential model, for a row of its own.
        teacher_training: bool, one for each interaction: what the teacher learned from; None for the dataset's own
            training split.
        settings: what is asked.
        split: ``test`` or ``valid``.
        seed: of whom is asked, of the profiles that are drawn, of chance and of intervals.
        published: figures of others, as rows beside, such as :data:`itemic.profile.baselines.LANGPTUNE`.
        title: of the table.
        device: where models compute.
    """

    dataset: Dataset
    sessions: Sessions
    words: ProfileWords
    item_texts: Sequence[str]
    writers: Mapping[str, str | Path]
    embedders: Mapping[str, str | Path | EmbedderSettings]
    output: str | Path
    teacher: str | Path | None = None
    teacher_training: Bool | None = None
    settings: ProfileTests = field(default_factory=ProfileTests)
    split: str = "test"
    seed: int = 0
    published: Sequence[Published] = ()
    title: str = ""
    device: str | torch.device = "cpu"
    _notes: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        size = len(self.dataset.items)
        if len(self.item_texts) != size or len(self.words.facts) != size:
            raise ConfigError(
                f"{len(self.item_texts):,} texts and facts of {len(self.words.facts):,} for {size:,} items",
                "Give one of each for every item of the dataset.",
            )
        if not self.writers or not self.embedders:
            raise ConfigError("no writer or no embedder to test", "Give at least one of each.")
        for name in (*self.writers, *self.embedders):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{name!r} can't be a name of files", "Use letters, digits and _.")
        if self.settings.k[-1] > size or self.settings.places > size:
            raise ConfigError(
                f"lists of {self.width} of {size} items",
                "Ask for fewer places: k and places in the settings.",
            )

    # ----------------------------------------------------------------------- what is asked

    @property
    def width(self) -> int:
        """How many places lists have."""
        return max(*self.settings.k, self.settings.places)

    @cached_property
    def numbers(self) -> Int64:
        """int64 ``[S]``: which of the split's sessions are asked."""
        count, most = len(self.sessions.split(self.split)), self.settings.users
        if most is None or count <= most:
            return np.arange(count)
        return np.sort(np.random.default_rng([self.seed, most]).choice(count, most, replace=False))

    @cached_property
    def asked(self) -> Sessions:
        """Those."""
        return self.sessions.split(self.split).take(self.numbers)

    @cached_property
    def requests(self) -> Requests:
        """The same as questions to rankers."""
        return self.asked.requests()

    @cached_property
    def users(self) -> Int64:
        """int64 ``[S]``: the number of each session's user."""
        return np.unique(self.asked.users.astype(str), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def findable(self) -> Bool:
        """bool ``[n]``: items that have words."""
        return worded(self.item_texts)

    @cached_property
    def attributes(self) -> Attributes:
        """Of the catalogue."""
        return Attributes.of(self.words.facts)

    @cached_property
    def _ground(self) -> Asked:
        return Asked(self.asked, self.numbers, self.seed, Path(self.output))

    # ------------------------------------------------------------------------------ asking

    def evaluate(self) -> ProfileResults:
        """Ask everybody, and judge. One model is held at a time.

        Raises:
            DataError: the split is empty, or sessions and dataset aren't of each other.
            ModelError: a folder holds no model that can be used.
            ArtifactError: ``output`` holds another test, or is in use.
        """
        alone = training_alone(self.dataset, self.sessions)
        root, self._notes[:] = Path(self.output), []
        self._tell_catalogue()
        with locked(root):
            told = {name: self._write(name, Path(folder)) for name, folder in self.writers.items()}
            wanted = {name: self._wishes(own) for name, own in told.items()} if self.settings.judge else {}
            found: dict[str, Lists] = {}
            for name, folder in self.embedders.items():
                found |= self._search(name, folder, told, wanted)
            found |= self._others(alone)
            rows = [row for row in self._rows if row in found]
            results = self._results(rows, found, told, wanted)
            self._keep(root / ANSWERS, rows, found, told)
            shutil.rmtree(root / VECTORS, ignore_errors=True)
        return results

    @property
    def _rows(self) -> list[str]:
        """The rows of the table, in their order."""
        return [
            *(_pair(writer, embedder) for writer in self.writers for embedder in self.embedders),
            *(_raw(told, embedder) for embedder in self.embedders for told in self.settings.histories),
            TEACHER,
            *self.settings.baselines,
        ]

    def _write(self, name: str, folder: Path) -> Told:
        """Profiles of all sessions by one writer."""
        writer = Writer.load(folder, self.device)
        prompts = self.words.prompts(self.asked, writer.chat)
        if int((prompts.cut >= 0).sum()):
            log.info("%s writer: %s", name, prompts.told())
        found = write_told(writer, name, prompts, self._ground, self.settings.drawing or Drawing())
        cut, empty = int((~found.ended[0]).sum()), int(found.empty[0].sum())
        if cut or empty:
            self._notes.append(
                f"{name} writer: of {len(self.asked):,} profiles {cut:,} didn't end and {empty:,} say nothing; "
                "they find nothing, and count as 0."
            )
        return found

    def _wishes(self, told: Told) -> Int64:
        return wishes(
            told.texts[0],
            told.usable[0],
            self.asked,
            self.attributes,
            self.findable,
            self.settings.items,
            self.seed,
        )

    def _search(
        self,
        name: str,
        folder: str | Path | EmbedderSettings,
        told: Mapping[str, Told],
        wanted: Mapping[str, Int64],
    ) -> dict[str, Lists]:
        """What one embedder finds with everything that it reads."""
        settings = folder if isinstance(folder, EmbedderSettings) else EmbedderSettings(model=str(folder))
        embedder = Embedder.load(settings, self.device)
        seeker = Seeker(embedder, name, self._ground, self.item_texts, self.width, self.settings.batch_size)
        found = {}
        for writer, own in told.items():
            found[_pair(writer, name)] = seeker.find(writer, own.texts[0], own.usable[0])
            if writer in wanted and name == next(iter(self.embedders)):
                texts = edits(own.texts[0], wanted[writer], self.attributes, self.settings.wish)
                found[f"{writer} edited"] = seeker.find(f"{writer}-edited", texts, wanted[writer] != NOBODY)
                if len(own.texts) > 1:
                    found[f"{writer} second"] = seeker.find(f"{writer}-second", own.texts[1], own.usable[1])
        for form in self.settings.histories:
            texts, cut = history_texts(self.asked, self.words.facts, form, embedder)
            row = _raw(form, name)
            found[row] = seeker.find(f"history-{form}", texts, np.ones(len(texts), np.bool_))
            if cut:
                self._notes.append(f"{row}: {cut:,} of {len(texts):,} are read in part, without the oldest.")
            if (silent := int(found[row].failed.sum())) > 0:
                self._notes.append(f"{row}: {silent:,} have no words, and count as 0.")
        return found

    def _others(self, alone: Dataset) -> dict[str, Lists]:
        """What is found without any words."""
        found = {}
        if self.teacher is not None:
            teacher = Teacher.load(self.teacher, self.device)
            found[TEACHER] = self._ranked(teacher.rank(self.requests, self.width, exclude_history=True)[0])
            learned = self.dataset.labels == 0 if self.teacher_training is None else self.teacher_training
            if ahead := int((learned & ~self.sessions.training).sum()):
                self._notes.append(
                    f"{TEACHER}: it learned from {ahead:,} interactions that the sessions' training doesn't have, "
                    "some of them of the future."
                )
        for name in self.settings.baselines:
            if name == "random":
                lists = random_lists(self.requests, self.width, len(self.item_texts), self.seed)
            else:
                lists = COUNTERS[name](alone).rank(self.requests, self.width, exclude_history=True)[0]
            found[name] = self._ranked(lists)
        return found

    def _ranked(self, lists: Int32) -> Lists:
        return Lists(lists, ranks_of(lists, self.asked.targets), np.zeros(len(lists), np.bool_))

    # ------------------------------------------------------------------------ what came out

    def _tell_catalogue(self) -> None:
        count, all_of = len(self.asked), len(self.sessions.split(self.split))
        if count < all_of:
            self._notes.append(f"{count:,} of {all_of:,} sessions of {self.split}, drawn by the seed.")
        if silent := int((~self.findable).sum()):
            self._notes.append(f"{silent:,} items have a text without words; no profile finds them.")
        if twice := len(self.item_texts) - len(set(self.item_texts)):
            self._notes.append(
                f"{twice:,} items share their text with an earlier one; profiles find them in the catalogue's order."
            )

    def _results(
        self,
        rows: Sequence[str],
        found: Mapping[str, Lists],
        told: Mapping[str, Told],
        wanted: Mapping[str, Int64],
    ) -> ProfileResults:
        level, first = self.settings.level, next(iter(self.embedders))
        lines = []
        for writer, asked_for in wanted.items():
            lists = {"first": found[_pair(writer, first)].items, "edited": found[f"{writer} edited"].items}
            if f"{writer} second" in found:
                lists["second"] = found[f"{writer} second"].items
            values = judged(
                told[writer],
                self.asked,
                self.words.facts,
                self.attributes,
                lists,
                asked_for,
                self.settings.places,
            )
            lines.append(judgement(writer, values, self.users, seed=self.seed, level=level))
            if told[writer].usable[0].any() and (asked_for == NOBODY).all():
                self._notes.append(
                    f"{writer} writer: no category that a profile doesn't name is of {self.settings.items} items; none "
                    "is steered."
                )
        comparison = compared(
            {row: found[row].ranks for row in rows},
            self.users,
            self.settings.k,
            title=self.title,
            notes=self._notes,
            published=self.published,
            seed=self.seed,
            level=level,
        )
        failures = {row: int(found[row].failed.sum()) for row in rows if found[row].failed.any()}
        about = settings_json(self.settings) | {"split": self.split, "seed": self.seed}
        return ProfileResults(comparison, lines, failures, len(self.asked), about)

    def _keep(
        self, file: Path, rows: Sequence[str], found: Mapping[str, Lists], told: Mapping[str, Told]
    ) -> None:
        """Everybody's answers, a line a session."""
        ids, own = self.dataset.item_ids, self.asked
        with whole_file(file) as stream:
            for at, number in enumerate(self.numbers.tolist()):
                line = {
                    "session": number,
                    "user": own.users[at],
                    "items": [ids[row] for row in own.inputs(at).tolist()],
                    "target": ids[int(own.targets[at])],
                    "profiles": {name: each.texts[0][at] for name, each in told.items()},
                    "ranks": {row: int(found[row].ranks[at]) for row in rows},
                    "found": [ids[row] for row in found[rows[0]].items[at].tolist() if row >= 0],
                }
                stream.write(written(line))


def _pair(writer: str, embedder: str) -> str:
    return f"{writer} writer, {embedder} embedder"


def _raw(told: str, embedder: str) -> str:
    return f"{TITLES[told]}, {embedder} embedder"
