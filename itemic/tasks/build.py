"""From a dataset and a list of tasks to conversations: limits, mixture, parts on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from itemic.artifact import write_json
from itemic.data.dataset import Dataset
from itemic.data.held_out import without_held_out
from itemic.data.sequences import Sequences
from itemic.errors import ArtifactError, ConfigError, DataError, ItemicError
from itemic.progress import log, progress_bar
from itemic.sid.names import ItemNames
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.conversation import ROWS_PER_PART, SCHEMA, Conversations, ConversationWriter
from itemic.tasks.table import make_task, task_options
from itemic.tasks.task import Task

SUMMARY = "conversations.json"
RENDERED = 20_000  # rows in memory at a time


@dataclass(frozen=True)
class Entry:
    """One line of a mixture.

    Attributes:
        task: with its options.
        source: the name its rows carry; the task's own unless given.
        limit: the most rows; None for all.
        weight: its share of the rows of all entries with a weight; None keeps all rows.
        seed: of its random choices.
    """

    task: Task
    source: str
    limit: int | None
    weight: float | None
    seed: int


@dataclass(frozen=True)
class Taught:
    """What conversations teach, so that a model can be asked the same, and nothing in another index's words.

    Attributes:
        tasks: name and all options of each task, as :func:`itemic.tasks.table.task_options` gives them.
        index: digest of the index that names the items.
    """

    tasks: list[dict[str, Any]]
    index: str


def taught_by(conversations: Any) -> Taught | None:
    """What conversations teach; None where others made them and nobody says.

    Args:
        conversations: whatever :func:`itemic.train` takes.
    """
    if isinstance(conversations, Built):
        return conversations.taught
    if isinstance(conversations, str | Path):
        return _read_summary(Path(conversations)).get("taught")
    if isinstance(conversations, list | tuple):
        found = (taught_by(part) for part in conversations)
        return next((taught for taught in found if taught is not None), None)
    return None


class Built(Conversations):
    """Conversations just built.

    Attributes:
        counts: rows by source.
        taught: what they teach.
        folder: where they are; None for a table in memory.
    """

    def __init__(
        self,
        rows: Sequence[str] | pl.DataFrame,
        counts: dict[str, int],
        taught: Taught,
        folder: Path | None,
    ) -> None:
        super().__init__(rows)
        self.counts = counts
        self.taught = taught
        self.folder = folder

    def __repr__(self) -> str:
        counts = ", ".join(f"{source} {count:,}" for source, count in self.counts.items())
        where = "memory" if self.folder is None else str(self.folder)
        return f"<Conversations: {counts} rows in {where}>"


def build_conversations(
    dataset: Dataset,
    index: ItemNames,
    tasks: Sequence[str | Mapping[str, Any]] | str | Mapping[str, Any],
    *,
    seed: int = 0,
    held_out: float = 0.0,
    output: str | Path | None = None,
    rows_per_part: int = ROWS_PER_PART,
    times: bool = False,
) -> Built:
    """Build the conversations of several tasks.

    Args:
        dataset: its catalogue and its training sequences are used, nothing else.
        index: names the items.
        tasks: for each its name, or ``{"task": "C"}`` (or a task itself) and, where wanted, ``source`` (the name of its
            rows), ``limit`` (the most rows), ``weight`` (rows of the entries with weights stand in these proportions;
            the largest such mixture without a repeated row is made), ``seed``, and the task's own options.
        seed: the same seed, the same rows.
        held_out: share of the users whose histories nothing is made of, see :func:`itemic.data.held_out.held_out`;
            a stage of reinforcement learning with the same ``asks.held_out`` asks about them.
        output: a folder; every source gets a folder of parts in it, and ``conversations.json`` the counts.
            What another build left there is replaced when all is done. None keeps the rows in memory.
        rows_per_part: rows of a Parquet part.
        times: say in the metadata of tasks that recommend when the items that they teach were taken (``time``, in
            milliseconds since 1970), which weights by age need.

    Raises:
        ConfigError: entries that can't work, all of them named.
        DataError: ``times`` are asked for and the dataset has none.
        IndexMismatchError: the index belongs to another dataset.
    """
    entries = read_entries(tasks, seed)
    _check_names(entries, index)
    index.check_dataset(dataset)
    catalogue, train = Catalogue(index, dataset.items, dataset.users), dataset.train
    if times and train.timestamps is None:
        raise DataError(
            f"{dataset.name} doesn't say when interactions were",
            "Leave out what asks for times (objective.weights.half_life, --times), or read data with timestamps.",
        )
    train = without_held_out(train, held_out) if held_out else train
    plans = [entry.task.planned(catalogue, train, entry.seed, entry.limit) for entry in entries]
    counts = mixture([len(plan) for plan in plans], [entry.weight for entry in entries])
    for i, (entry, count) in enumerate(zip(entries, counts, strict=True)):
        if count < len(plans[i]):
            plans[i] = entry.task.planned(catalogue, train, entry.seed, count)
        if not count:
            log.warning("task %s makes no conversation of this dataset", entry.source)
    summary = {entry.source: len(plan) for entry, plan in zip(entries, plans, strict=True)}
    taught = Taught([task_options(entry.task) for entry in entries], index.digest)
    with progress_bar("conversations", sum(summary.values())) as bar:
        frames = [
            (entry.source, _rendered(entry, plan, catalogue, train, bar.advance, times))
            for entry, plan in zip(entries, plans, strict=True)
        ]
        if output is None:
            rows = [frame for _, source in frames for frame in source]
            table = pl.concat(rows) if rows else pl.DataFrame(schema=SCHEMA)
            return Built(table, summary, taught, None)
        return write_built(frames, summary, taught, Path(output), rows_per_part)


def read_entries(
    tasks: Sequence[str | Mapping[str, Any]] | str | Mapping[str, Any], seed: int
) -> list[Entry]:
    """The mixture as entries.

    Raises:
        ConfigError: entries that can't work; the message has a line for each fault.
    """
    entries: list[Entry] = []
    faults: list[str] = []
    if isinstance(tasks, str | Mapping):
        tasks = [tasks]
    for number, task in enumerate(tasks):
        try:
            entry = _read_entry(_as_mapping(task), seed)
            if any(entry.source == other.source for other in entries):
                raise ConfigError(
                    f"source {entry.source!r} comes twice", "Give one of them another `source`."
                )
            entries.append(entry)
        except ItemicError as error:
            faults.append(f"tasks[{number}]: {error.message}. {error.remedy}")
    if not tasks:
        faults.append("tasks is empty")
    if faults:
        raise ConfigError("these tasks can't be built:\n" + "\n".join(faults), "Correct the entries.")
    return entries


def _check_names(entries: list[Entry], index: ItemNames) -> None:
    """Refuse tasks that these names make no sense for, all at once."""
    faults = []
    for number, entry in enumerate(entries):
        try:
            entry.task.check_names(index)
        except ConfigError as error:
            faults.append(f"tasks[{number}]: {error.message}. {error.remedy}")
    if faults:
        raise ConfigError("these tasks can't be built:\n" + "\n".join(faults), "Correct the entries.")


def _as_mapping(task: Any) -> dict[str, Any]:
    if isinstance(task, str):
        return {"task": task}
    if not isinstance(task, Mapping):
        raise ConfigError(f"the entry is {task!r}", 'Write the name of a task, or e.g. {"task": "C"}.')
    return dict(task)


def _read_entry(value: dict[str, Any], seed: int) -> Entry:
    task = value.pop("task", None)
    name = task.name if isinstance(task, Task) else task
    if not isinstance(name, str):
        raise ConfigError("the entry names no task", 'Write e.g. {"task": "C"}.')
    source, limit, weight = value.pop("source", name), value.pop("limit", None), value.pop("weight", None)
    own_seed = value.pop("seed", seed)
    if not isinstance(source, str) or not source or "/" in source or source.startswith("."):
        raise ConfigError(f"source {source!r} can't name a folder", "Use letters, digits, - and _.")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ConfigError(f"limit is {limit!r}", "Give a number of rows from 1 on, or none for all.")
    if weight is not None and (
        not isinstance(weight, int | float) or isinstance(weight, bool) or weight <= 0
    ):
        raise ConfigError(f"weight is {weight!r}", "Give a number above 0, or none to keep all rows.")
    if not isinstance(own_seed, int) or own_seed < 0:
        raise ConfigError(f"seed is {own_seed!r}", "Give a whole number from 0 on.")
    if not isinstance(task, Task):
        task = make_task(name, **value)
    elif value:
        raise ConfigError(
            f"task {name} is given beside its options {', '.join(value)}", "Give them to the task."
        )
    return Entry(task, source, limit, weight, own_seed)


def mixture(counts: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """How many rows of each source are kept.

    Sources with a weight are thinned to these proportions, and no more than that: the scarcest one, by its
    weight, keeps all it has. Sources without a weight, or without rows, are left as they are.
    """
    weighed = [(n, w) for n, w in zip(counts, weights, strict=True) if w is not None and n]
    unit = min((n / w for n, w in weighed), default=0.0)
    return [n if w is None else min(n, round(unit * w)) for n, w in zip(counts, weights, strict=True)]


def _rendered(
    entry: Entry, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences, done: Any, times: bool
) -> Iterator[pl.DataFrame]:
    for start in range(0, len(plan), RENDERED):
        part = plan.slice(start, RENDERED)
        yield entry.task.rendered(
            part, catalogue, train, source=entry.source, seed=entry.seed, start=start, times=times
        )
        done(len(part))


def write_built(
    frames: list[tuple[str, Iterator[pl.DataFrame]]],
    counts: dict[str, int],
    taught: Taught,
    folder: Path,
    rows_per_part: int,
) -> Built:
    """Write into a hidden folder first and swap at the end; the summary is there when all parts are."""
    old = _old_sources(folder)
    for source in counts:
        if (folder / source).exists() and source not in old:
            raise ArtifactError(
                f"{folder / source} is not of an earlier build", "Choose another output folder."
            )
    scratch = folder / ".partial"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        for source, rows in frames:
            with ConversationWriter(scratch / source, rows_per_part) as writer:
                for frame in rows:
                    writer.write(frame)
        (folder / SUMMARY).unlink(missing_ok=True)
        for source in old:
            shutil.rmtree(folder / source, ignore_errors=True)
        for source in counts:
            (scratch / source).replace(folder / source)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_json(folder / SUMMARY, {"rows": sum(counts.values()), "counts": counts} | asdict(taught))
    parts = [str(file) for source in counts for file in sorted((folder / source).glob("part-*.parquet"))]
    return Built(parts, counts, taught, folder)


def _old_sources(folder: Path) -> list[str]:
    """The sources that an earlier build left in a folder."""
    return list(_read_summary(folder).get("counts", {}))


def _read_summary(folder: Path) -> dict[str, Any]:
    """``counts`` and ``taught`` of what was built into a folder; empty where nothing was."""
    file = folder / SUMMARY
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {"counts": dict(found["counts"]), "taught": Taught(found["tasks"], found["index"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is broken: {error}", "Remove the folder.") from error
