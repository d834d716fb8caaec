"""Conversations to token rows: encoded once, kept beside the conversations, mapped into memory ever after."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.artifact import digest_files, digest_of, write_json
from itemic.errors import DataError
from itemic.forest.rows import Int32, Int64, TokenRows
from itemic.model.shorten import HistoryMarks, shorten_histories
from itemic.progress import log, progress_bar
from itemic.tasks.conversation import Conversations
from itemic.training.language.counts import Counts, lost_rows
from itemic.training.language.stream import RowTimes, TrainingRows, row_weights

Source = Conversations | str | Path | Iterable[str | Path] | pl.DataFrame | pl.LazyFrame
Encoder = Callable[[pl.DataFrame], TokenRows]  # conversations → rows with weights, one per conversation

CACHE = ".tokens"  # beside "conversations" stands "conversations.tokens"
BATCH = 20_000
Learnable = Callable[[pl.DataFrame], tuple[TokenRows, Int64, Counts]]
_ARRAYS = ("tokens", "offsets", "weights", "groups", "sources")
_TIMES = ("time_offsets", "times")


def training_rows(
    conversations: Source,
    encode: Encoder,
    *,
    encoder: str,
    max_length: int,
    overlong: str = "keep-latest",
    marks: HistoryMarks | None = None,
    times: bool = False,
) -> TrainingRows:
    """Encode conversations for training.

    Rows of a local file or folder are kept in ``<path>.tokens/<digest>/`` and mapped from there the next
    time; the digest covers the conversations' bytes, the encoder and how long rows are treated. Others are
    encoded each time.

    Args:
        conversations: whatever ``Conversations.open`` takes: a table, Parquet files, folders of them, local
            or remote.
        encode: the model's tokenizer and chat template at work.
        encoder: names what ``encode`` does (a digest of tokenizer and template).
        max_length: the longest row, in tokens.
        overlong: what becomes of longer ones, see :class:`itemic.training.language.stage.Stage`.
        marks: by which tokens ``keep-latest`` knows histories; None knows none.
        times: read when items were taken as well.

    Raises:
        DataError: no conversations, a missing column, nothing that can be learned from, or no times.
    """
    source = Conversations.open(conversations)
    folder = None
    if isinstance(conversations, str | Path) and Path(conversations).exists():
        path = Path(conversations)
        folder = path.with_name(path.name + CACHE) / digest_of(
            [digest_files(path), encoder, max_length, overlong, marks and marks.digest]
            + (["times"] if times else [])
        )
        if (found := _load(folder)) is not None:
            return found
    where = str(conversations) if source.parts else "the table of conversations"

    def learn(batch: pl.DataFrame) -> tuple[TokenRows, Int64, Counts]:
        return learnable(encode(batch), max_length, overlong, marks)

    rows = _encode(source, learn, where, max_length, overlong, times)
    return (_load(folder) or rows) if folder is not None and _store(rows, folder) else rows


def _encode(
    source: Conversations, learn: Learnable, where: str, max_length: int, overlong: str, times: bool
) -> TrainingRows:
    parts: list[TokenRows] = []
    labels: list[pl.DataFrame] = []
    taken: list[pl.Series] = []
    counts = Counts()
    with progress_bar("tokens", None) as bar:
        for _, table in source.frames():
            for batch in table.iter_slices(BATCH):
                rows, kept, found = learn(batch)
                parts.append(rows)
                labels.append(labels_of(batch)[kept])
                if times:
                    taken.append(times_of(batch, where)[kept])
                counts += found
                bar.advance(len(batch))
    rows = TokenRows.concat(parts) if parts else TokenRows.of([], [])
    if not len(rows):
        raise nothing_to_learn(where, counts, max_length)
    notes = {"conversations": counts.read, "rows": len(rows), **counts.notes(overlong)}
    if lost := lost_rows(notes, max_length):
        log.warning("%s: %s", where, lost)
    return _finish(rows, pl.concat(labels), notes, _row_times(pl.concat(taken), where) if times else None)


def nothing_to_learn(where: str, counts: Counts, max_length: int) -> DataError:
    """What is said where no row is left."""
    return DataError(
        f"nothing to learn from in {where}: of {counts.read} conversations {counts.overlong} are longer than"
        f" {max_length} tokens and {counts.mute} have no answer",
        "Raise data.max_length or the weights in data.sources; `itemic tasks preview` shows the conversations.",
    )


def learnable(
    rows: TokenRows, max_length: int, overlong: str, marks: HistoryMarks | None = None
) -> tuple[TokenRows, Int64, Counts]:
    """Rows of at most ``max_length`` tokens with something to learn from.

    Returns:
        the rows, the numbers int64 of those they come from, and what became of the others. Long ones go the way of
        ``overlong``, see :func:`shorten`; under ``keep-latest`` the oldest items of histories go first.
    """
    read, removed = len(rows), np.zeros(0, np.int64)
    if overlong == "keep-latest" and marks is not None:
        rows, removed = shorten_histories(rows, max_length, marks)
    shortened = int(np.count_nonzero(removed))
    rows, kept, long = shorten(rows, max_length, overlong)
    loud = np.flatnonzero(_any(row_weights(rows).astype(bool), rows))
    mute = len(np.unique(kept)) - len(np.unique(kept[loud]))
    return rows.take(loud), kept[loud], Counts(read, long + shortened, shortened, mute)


def _any(flags: np.ndarray[Any, np.dtype[np.bool_]], rows: TokenRows) -> np.ndarray[Any, np.dtype[np.bool_]]:
    running = np.concatenate([[0], np.cumsum(flags)])
    return running[rows.offsets[1:]] > running[rows.offsets[:-1]]


def shorten(rows: TokenRows, max_length: int, overlong: str) -> tuple[TokenRows, Int64, int]:
    """Bring rows to ``max_length`` tokens by rule: ``drop``, ``keep-latest`` and ``keep-end`` (the last tokens),
    ``keep-start`` or ``split``.

    Under ``split`` a row becomes as many as it takes, one after the other, all but the last of ``max_length`` tokens.

    Returns:
        the rows, the numbers int64 of those they come from, and how many were too long.
    """
    lengths = rows.lengths
    fits = lengths <= max_length
    count = int((~fits).sum())
    if not count:
        return rows, np.arange(len(rows)), 0
    if overlong == "drop":
        kept = np.flatnonzero(fits)
        return rows.take(kept), kept, count
    pieces = np.maximum(-(-lengths // max_length), 1) if overlong == "split" else np.ones_like(lengths)
    source = np.repeat(np.arange(len(rows)), pieces)
    number = np.arange(len(source)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = rows.offsets[source] + number * max_length
    if overlong in ("keep-latest", "keep-end"):
        start += np.maximum(lengths - max_length, 0)
    size = np.minimum(rows.offsets[source + 1] - start, max_length)
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], size)
    weights = None if rows.weights is None else rows.weights[at]
    return TokenRows(rows.tokens[at], offsets, weights), source, count


def labels_of(batch: pl.DataFrame) -> pl.DataFrame:
    """The columns ``source`` and ``group`` of conversations; a row without a group has null."""
    group = pl.lit(None, pl.String)
    if c.METADATA in batch.columns:
        group = pl.col(c.METADATA).cast(pl.String).str.json_path_match("$.group")
    return batch.select(
        pl.col(c.SOURCE).cast(pl.String).fill_null("unnamed").alias("source"), group.alias("group")
    )


def times_of(batch: pl.DataFrame, where: str) -> pl.Series:
    """When the items that conversations teach were taken, as their metadata say: List(Int64), empty where they don't.

    Raises:
        DataError: a conversation says something else there; the message names ``where``.
    """
    said = pl.Series([None], dtype=pl.String).new_from_index(0, len(batch))
    if c.METADATA in batch.columns:
        said = batch.select(pl.col(c.METADATA).cast(pl.String).str.json_path_match("$.time")).to_series()
    try:
        return said.fill_null("[]").str.json_decode(pl.List(pl.Int64)).fill_null([])
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{where}: the metadata of a conversation say of time what is no list of numbers",
            "Write milliseconds since 1970, one for each item that is taught, or leave time out.",
        ) from error


def _row_times(taken: pl.Series, where: str) -> RowTimes:
    counts = taken.list.len().to_numpy().astype(np.int64)
    if not counts.any():
        raise DataError(
            f"no conversation in {where} says when its items were taken",
            "Build them with times (build_conversations(…, times=True), `itemic tasks build --times`) from the tasks"
            " C, profile, rationale or sequence, or leave objective.weights.half_life out.",
        )
    values = taken.explode(empty_as_null=False).to_numpy().astype(np.int64)
    return RowTimes(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), values)


def _finish(
    rows: TokenRows, labels: pl.DataFrame, notes: dict[str, Any], times: RowTimes | None
) -> TrainingRows:
    names = sorted(labels["source"].unique().to_list())
    groups, sources = numbers_of(labels, names)
    counts = np.bincount(sources, minlength=len(names)).tolist()
    notes = notes | {"tokens": len(rows.tokens), "sources": dict(zip(names, counts, strict=True))}
    digest = _digest(rows, groups, sources, names, times)
    return TrainingRows(rows, groups, sources, tuple(names), digest, notes, times)


def numbers_of(labels: pl.DataFrame, names: Sequence[str]) -> tuple[Int64, Int32]:
    """Groups, int64 ``[R]``, each with a number of its own, and sources, int32 ``[R]``, as numbers into
    ``names``."""
    alone = pl.when(pl.col("group").is_null()).then(pl.int_range(pl.len()))  # a row without a group is one
    numbers = labels.select(
        pl.col("source").replace_strict(list(names), range(len(names)), return_dtype=pl.Int32),
        pl.struct("source", "group", alone.alias("alone")).rank("dense").sub(1).cast(pl.Int64).alias("group"),
    )
    return numbers["group"].to_numpy().copy(), numbers["source"].to_numpy().copy()


def _digest(rows: TokenRows, groups: Int64, sources: Int32, names: list[str], times: RowTimes | None) -> str:
    total = hashlib.sha256("\n".join(names).encode())
    beside = () if times is None else (times.offsets, times.values)
    for array in (rows.tokens, rows.offsets, rows.weights, groups, sources, *beside):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def _store(data: TrainingRows, folder: Path) -> bool:
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        arrays = (data.rows.tokens, data.rows.offsets, data.rows.weights, data.groups, data.sources)
        for name, array in zip(_ARRAYS, arrays, strict=True):
            np.save(partial / f"{name}.npy", np.asarray(array))
        if data.times is not None:
            for name, array in zip(_TIMES, (data.times.offsets, data.times.values), strict=True):
                np.save(partial / f"{name}.npy", array)
        write_json(partial / "rows.json", {"names": data.names, "digest": data.digest, "notes": data.notes})
        partial.replace(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        log.warning("the token rows are not kept beside the conversations: %s", error)
        return False
    return True


def _load(folder: Path) -> TrainingRows | None:
    if not folder.is_dir():
        return None
    try:
        head = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        tokens, offsets, weights, groups, sources = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS
        )
        times = None
        if (folder / f"{_TIMES[0]}.npy").is_file():
            times = RowTimes(*(np.load(folder / f"{name}.npy") for name in _TIMES))
        if len(groups) != len(offsets) - 1 or len(weights) != len(tokens):
            raise ValueError("the arrays don't fit each other")
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s is damaged and is made again: %s", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    rows = TokenRows(tokens, offsets, weights)
    return TrainingRows(rows, groups, sources, tuple(head["names"]), head["digest"], head["notes"], times)
