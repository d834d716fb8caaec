"""Dialogues about anything, mixed in so that a model that learns lists doesn't forget how to talk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError, DataError
from itemic.progress import log
from itemic.tasks.catalogue import CONTROL, Catalogue
from itemic.tasks.conversation import SCHEMA, json_strings, make_uuids
from itemic.tasks.task import Task

# who speaks, as ShareGPT's dumps and OpenAI's messages call them
SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "bing", "bard"), "assistant"),
    "system": "system",
}
FORMS = ((("conversations", "from", "value")), (("messages", "role", "content")))
MEND = (
    'Give ShareGPT\'s JSON, [{"id": …, "conversations": [{"from": "human", "value": …}, …]}, …], or JSON Lines of'
    ' {"messages": [{"role": "user", "content": …}, …]}.'
)
Turn = tuple[str, str]  # who, what


@dataclass(frozen=True)
class Dialogues(Task):
    """Windows of dialogues: some turns that follow each other, whole ones, from a user's to an assistant's.

    Each window begins at one of its dialogue's questions, drawn at random, and goes on as far as it may. All answers in
    it are learnt. What looks like an item or a role of a chat template is taken out of the text.

    Attributes:
        path: the dialogues: ShareGPT's JSON, or a line of OpenAI's messages for each.
        samples: how many windows an epoch draws; None for one of each dialogue.
        epochs: how many epochs are drawn, as of the other tasks.
        max_chars: characters of a window at most; an answer that is longer with its question alone is left out.
        system: its own; dialogues have none, unless they bring one.
    """

    system: str | None = None
    path: str | None = None
    samples: int | None = None
    epochs: int = 1
    max_chars: int = 2000

    name: ClassVar[str] = "ShareChatGPT"
    leads: ClassVar[dict[str, tuple[str, ...]]] = {"dialogue": ("",)}
    asks_teacher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "epochs", "max_chars"):
            value = getattr(self, name)
            if not (value is None and name == "samples") and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise ConfigError(f"task {self.name}: {name} is {value!r}", "Give a number from 1 on.")

    @cached_property
    def dialogues(self) -> list[list[Turn]]:
        """Those of the file that have a question with its answer, their turns in order.

        Raises:
            ConfigError: no file is named.
            DataError: it can't be read, or holds something else.
        """
        if not self.path:
            raise ConfigError(f"task {self.name}: path is missing", "Name a file of dialogues.")
        return read_dialogues(self.path)

    # ------------------------------------------------------------------------------------- the face of a task

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        seed = int(rng.integers(2**62))
        starts = [self._starts(turns) for turns in self.dialogues]
        usable = np.flatnonzero([len(own) > 0 for own in starts])
        if len(usable) < len(starts):
            log.info(
                "task %s: of %s dialogues %s have no question and answer within %s characters",
                *(self.name, f"{len(starts):,}", f"{len(starts) - len(usable):,}", f"{self.max_chars:,}"),
            )
        if not len(usable):
            raise DataError(
                f"{self.path} has no question and answer within {self.max_chars:,} characters",
                f"Give task {self.name} a greater max_chars, or other dialogues.",
            )
        rows = []
        for epoch in range(self.epochs):
            own = np.random.default_rng([seed, epoch])
            drawn = usable if self.samples is None else own.choice(usable, self.samples)
            for dialogue, lot in zip(drawn.tolist(), own.random(len(drawn)).tolist(), strict=True):
                start = starts[dialogue][int(lot * len(starts[dialogue]))]
                rows.append((0, epoch, dialogue, start, self._stop(self.dialogues[dialogue], start)))
        plan = pl.DataFrame(
            rows, dict.fromkeys(("kind", "epoch", "dialogue", "start", "stop"), pl.Int64), orient="row"
        )
        return plan.with_columns(pl.col("kind").cast(pl.Int32), group=pl.int_range(pl.len(), dtype=pl.Int64))

    def _starts(self, turns: Sequence[Turn]) -> list[int]:
        """Where a window may begin."""
        return [place for place in range(len(turns) - 1) if self._stop(turns, place) > place]

    def _stop(self, turns: Sequence[Turn], start: int) -> int:
        """Where the window from a place on ends: behind the last answer that there is room for."""
        stop, size = start, 0
        for place in range(start, len(turns) - 1, 2):
            pair = turns[place], turns[place + 1]
            size += sum(len(text) for _, text in pair)
            if [who for who, _ in pair] != ["user", "assistant"] or size > self.max_chars:
                break
            stop = place + 2
        return stop

    def rendered(
        self,
        plan: pl.DataFrame,
        catalogue: Catalogue,
        train: Sequences,
        *,
        source: str,
        seed: int,
        start: int = 0,
        times: bool = False,
    ) -> pl.DataFrame:
        turns, lengths, about = [], [], []
        for row in plan.iter_rows(named=True):
            own = self.dialogues[row["dialogue"]]
            head = own[:1] if own[0][0] == "system" else []
            if not head and self.system is not None:
                head = [("system", self.system)]
            some = [*head, *own[row["start"] : row["stop"]]]
            turns += some
            lengths.append(len(some))
            group = f"dialogue:{row['epoch']}:{row['group']}"
            about.append(
                json.dumps({"task": self.name, "kind": "dialogue", "group": group, "split": c.TRAIN})
            )
        said = json_strings(_plain([text for _, text in turns], catalogue)).to_list()
        parts = [f'{{"role":"{who}","content":{text}}}' for (who, _), text in zip(turns, said, strict=True)]
        ends = np.cumsum([0, *lengths]).tolist()
        return pl.DataFrame(
            {
                c.UUID: make_uuids(source, seed, start, len(plan)),
                c.SOURCE: [source] * len(plan),
                c.MESSAGES: ["[" + ",".join(parts[a:b]) + "]" for a, b in pairwise(ends)],
                c.SEGMENTS: None,
                c.METADATA: about,
            },
            schema=SCHEMA,
        )

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        raise NotImplementedError("dialogues have more than a question and an answer: see rendered()")

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        """Nothing can be asked.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"task {self.name} asks nothing about histories", "Evaluate with another task.")


def _plain(texts: list[str], catalogue: Catalogue) -> pl.Series:
    """Texts without what looks like a token of the index or a chat marker; their lines stay."""
    column = pl.col("text")
    for _ in range(2):  # taking a marker out may make another one from what stood around it
        column = column.str.replace_all(f"{catalogue.index.patterns.token}|{CONTROL}", " ")
    return pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)}).select(column)["text"]


# ----------------------------------------------------------------------------------------------------- files


def read_dialogues(path: str | Path) -> list[list[Turn]]:
    """The dialogues of a file that have a question with its answer, in order.

    Turns without text are left out with what follows them in their dialogue, and so is whatever somebody else says
    (tools); how many dialogues are cut short so is logged. Several turns of one speaker in a row are one.

    Raises:
        DataError: it can't be read, or holds something else; the place is named.
    """
    file = Path(path).expanduser()
    found, cut = [], 0
    for where, record in _records(file):
        turns, whole = _turns(record, where)
        cut += not whole
        if any(who == "assistant" for who, _ in turns):
            found.append(turns)
    if cut:
        log.info(
            "%s: %s dialogues are cut short, before a turn that has no text or is nobody's", file, f"{cut:,}"
        )
    if not found:
        raise DataError(f"{file} has no dialogue with an answer", MEND)
    return found


def _records(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} can't be read: {error}", MEND) from error
    lines = file.suffix == ".jsonl" or not text.lstrip().startswith("[")
    try:
        if not lines:
            for number, record in enumerate(json.loads(text)):
                yield f"{file}, dialogue {number}", record
            return
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON: {error}", MEND) from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}, line {number} is no JSON: {error}", MEND) from error
            yield f"{file}, line {number}", record


def _turns(record: Any, where: str) -> tuple[list[Turn], bool]:
    """The turns of a dialogue as far as they can be used, and whether that is all of it."""
    form = next((own for own in FORMS if isinstance(record, Mapping) and own[0] in record), None)
    if form is None:
        raise DataError(f"{where} has neither conversations nor messages", MEND)
    key, speaker, said = form
    if not isinstance(record[key], list):
        raise DataError(f"{where}: {key} is no list", MEND)
    turns: list[Turn] = []
    for place, turn in enumerate(record[key]):
        if not isinstance(turn, Mapping) or speaker not in turn or said not in turn:
            raise DataError(f"{where}, turn {place} has no {speaker!r} and {said!r}", MEND)
        who, text = SPEAKERS.get(str(turn[speaker])), turn[said]
        if isinstance(text, list):
            text = "".join(str(part.get("text", "")) for part in text if isinstance(part, Mapping))
        if text is not None and not isinstance(text, str):
            raise DataError(f"{where}, turn {place}: {said} is no text", MEND)
        if who is None or not text or not text.strip() or (who == "system" and turns):
            return turns, False
        if turns and turns[-1][0] == who:
            turns[-1] = who, f"{turns[-1][1]}\n{text}"
        else:
            turns.append((who, text))
    return turns, True
