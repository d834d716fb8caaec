"""What a stream of conversations holds: lanes, cut into chunks, cut into packets of forests. Pure functions.

A step has B blocks, and each is read from a lane of its own. An epoch's row groups are cut into units, the units are
shuffled and laid end to end, and the line is cut into B lanes and each lane into chunks, to the row: every row is in
exactly one chunk of one lane. A chunk is what is in memory: its rows are shuffled and packed as those of a whole
epoch are where all rows are kept (:mod:`itemic.training.language.stream`). So a chunk is a function of data, stage and
seed, whoever makes it and whenever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.errors import DataError, ItemicError
from itemic.forest.build import TokenForest
from itemic.forest.pack import plan_blocks, plan_rows
from itemic.forest.rows import Int64, TokenRows
from itemic.model.shorten import HistoryMarks
from itemic.training.language.counts import NONE_READ, Counts
from itemic.training.language.rows import BATCH, Encoder, labels_of, learnable, numbers_of
from itemic.training.language.stage import Stage
from itemic.training.language.stream import TrainingRows, block_forest, draw_copies, repeat_rows
from itemic.training.language.units import RowGroups, Span

UNITS_PER_LANE = 32  # at least, so that a lane is a mixture of the data even where there is one file
Packet = tuple[
    TokenForest, ...
]  # what a lane gives to a step: a block, or under ``packing: none`` its rows one by one


@dataclass(frozen=True)
class Chunk:
    """A chunk, ready to be trained on: packets in order, and how many rows they were made from."""

    packets: tuple[Packet, ...]
    rows: int
    counts: Counts


@dataclass(frozen=True)
class Lanes:
    """All lanes of a stage's stream.

    Attributes:
        groups: the data.
        encode: the model's tokenizer and chat template at work.
        stage: ``blocks_per_step`` lanes; ``shuffle_buffer`` conversations in memory.
        seed: decides every order.
        marks: by which tokens histories are known that are too long.
    """

    groups: RowGroups
    encode: Encoder
    stage: Stage
    seed: int
    marks: HistoryMarks | None = None

    def __len__(self) -> int:
        return self.stage.data.blocks_per_step

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk, at most. A lane holds the chunk that it gives out and the one after it, so that all lanes
        together hold no more than the buffer."""
        return max(1, self.stage.data.shuffle_buffer // (2 * len(self)))

    def line(self, lane: int) -> tuple[int, int]:
        """Where a lane begins and stops in the line of an epoch's rows."""
        total = self.groups.total
        return total * lane // len(self), total * (lane + 1) // len(self)

    def chunks(self, lane: int) -> int:
        """How many chunks a lane has in each epoch; none where there are fewer rows than lanes."""
        begin, stop = self.line(lane)
        return -(-(stop - begin) // self.chunk_rows)

    def spans(self, lane: int, epoch: int, chunk: int) -> list[Span]:
        """The rows of a chunk, in rising order."""
        begin, stop = self.line(lane)
        count = self.chunks(lane)
        low, high = (begin + (stop - begin) * k // count for k in (chunk, chunk + 1))
        order = _permutation(len(self._units), self.seed, epoch)
        ends = np.cumsum(self._units[order, 2] - self._units[order, 1])
        found = []
        for at in range(int(np.searchsorted(ends, low, "right")), len(ends)):
            group, first, last = self._units[order[at]].tolist()
            start = int(ends[at]) - (last - first)  # of the unit, in the line
            if start >= high:
                break
            found.append(Span(group, first + max(low - start, 0), first + min(high - start, last - first)))
        return sorted(found)

    @cached_property
    def _units(self) -> Int64:
        """Pieces of row groups, int64 ``[U, 3]``: row group, begin, stop. They are what is shuffled over lanes."""
        most = max(1, min(self.chunk_rows, self.groups.total // (UNITS_PER_LANE * len(self))))
        pieces = -(-self.groups.rows // most)
        group = np.repeat(np.arange(len(pieces)), pieces)
        piece = np.arange(len(group)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        rows, of = self.groups.rows[group], pieces[group]
        return np.stack([group, rows * piece // of, rows * (piece + 1) // of], axis=1)

    def chunk(self, lane: int, epoch: int, chunk: int) -> Chunk:
        """Read, tokenise, weight, shuffle and pack a chunk.

        Raises:
            DataError: a file or a row is broken; the message names them.
        """
        spans = self.spans(lane, epoch, chunk)
        table = self.groups.read(spans)
        rng = np.random.default_rng(
            [self.seed, epoch, lane + 1, chunk + 1]
        )  # the epoch's own has no last two
        labels = labels_of(table)
        if not set(labels["source"]) <= set(self.groups.sources):
            raise DataError(
                f"{self.groups.describe(spans)}: there are sources that weren't there when the run began",
                "Put the old files back, or start a new run on the new data.",
            )
        groups, sources = numbers_of(labels, self.groups.sources)
        copies = draw_copies(groups, sources, self.groups.sources, self.stage.data.sources, rng)
        used = np.flatnonzero(copies)  # the others needn't be tokenised
        rows, kept, counts = self._encoded(table, used, spans)
        origin = used[kept]
        chosen, own = repeat_rows(copies[origin], groups[origin])
        data = TrainingRows(rows.take(chosen), own, sources[origin][chosen], self.groups.sources)
        return Chunk(tuple(self._packets(data, rng)), len(table), counts)

    def _encoded(
        self, table: pl.DataFrame, used: Int64, spans: Sequence[Span]
    ) -> tuple[TokenRows, Int64, Counts]:
        parts, origins, counts = [TokenRows(*_NOTHING)], [np.zeros(0, np.int64)], Counts()
        for at in range(0, len(used), BATCH):
            batch = table[used[at : at + BATCH]]
            try:
                rows = self.encode(batch)
            except Exception as error:
                self._blame(batch, used[at : at + BATCH], spans)
                raise DataError(
                    f"the conversations {self.groups.describe(spans)} can't be tokenised: {error}",
                    "Run `itemic tasks validate` on the file.",
                ) from error
            rows, kept, found = learnable(
                rows, self.stage.data.max_length, self.stage.data.overlong, self.marks
            )
            parts.append(rows)
            origins.append(kept + at)
            counts += found
        return TokenRows.concat(parts), np.concatenate(origins), counts

    def _blame(self, batch: pl.DataFrame, rows: Int64, spans: Sequence[Span]) -> None:
        """Find the first conversation that can't be encoded, and name it."""
        for k in range(len(batch)):
            try:
                self.encode(batch[k : k + 1])
            except Exception as error:
                what = error.message if isinstance(error, ItemicError) else f"{type(error).__name__}: {error}"
                what = re.sub(r"^conversation 0:? ?", "", what)  # its number in a batch of one
                remedy = error.remedy if isinstance(error, ItemicError) else ""
                where = self.groups.place(spans, int(rows[k]))
                raise DataError(
                    f"{where} (uuid {batch[c.UUID][k]!r}): {what}",
                    remedy or "Run `itemic tasks validate` on the file.",
                ) from error

    def _packets(self, data: TrainingRows, rng: np.random.Generator) -> list[Packet]:
        stage = self.stage
        if stage.data.packing == "forest":
            plan = plan_blocks(data.rows, data.groups, stage.data.planned_block, rng)
        else:
            plan = plan_rows(data.rows, stage.data.planned_block, rng)
        packets = []
        for block in plan:
            alone = np.split(block, len(block)) if stage.data.packing == "none" else [block]
            normalizer, packing = stage.objective.normalizer, stage.data.packing
            packets.append(tuple(block_forest(data, part, normalizer, packing) for part in alone))
        return packets


_NOTHING = (np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.float32))


def _permutation(count: int, seed: int, epoch: int) -> Int64:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class LanePlace:
    """Where a lane stands: the next packet it gives, and what became of the conversations of earlier chunks."""

    epoch: int = 0
    chunk: int = 0
    packet: int = 0
    counts: Counts = NONE_READ

    def to_json(self) -> list[int]:
        return [self.epoch, self.chunk, self.packet, *astuple(self.counts)]

    @classmethod
    def of(cls, value: Sequence[int]) -> LanePlace:
        epoch, chunk, packet, *counts = value
        return cls(epoch, chunk, packet, Counts(*counts))

    def next_chunk(self, chunks: int, counts: Counts = NONE_READ) -> LanePlace:
        """The beginning of the next chunk; ``chunks`` are in an epoch, ``counts`` are of this one."""
        last = self.chunk + 1 >= chunks
        return LanePlace(self.epoch + last, 0 if last else self.chunk + 1, 0, self.counts + counts)
