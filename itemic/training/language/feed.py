"""Steps from conversations that are read while training goes on: nothing is whole in memory, nothing is copied.

What a lane gives is a function of data, stage and seed (:mod:`itemic.training.language.lanes`), and a step takes one
packet of every lane. A rank reads the lanes ``rank::size``, so any number of ranks and workers sees the same steps, and
a run goes on from the lanes' places at the very next packet.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from itemic.artifact import digest_of
from itemic.errors import ConfigError, DataError
from itemic.model.shorten import HistoryMarks
from itemic.progress import log
from itemic.tasks.conversation import Conversations
from itemic.training.language.counts import Counts, lost_rows
from itemic.training.language.crew import Crew, Key
from itemic.training.language.lanes import Chunk, LanePlace, Lanes, Packet
from itemic.training.language.rows import Encoder, Source, nothing_to_learn
from itemic.training.language.stage import Stage
from itemic.training.language.stream import check_sources, forest_sizes
from itemic.training.language.units import RowGroups
from itemic.training.steps import Ahead, Step

SAMPLE = 16_384  # rows by which the number of steps is estimated
NEVER = 2**31 - 1  # the epoch of a lane that has no rows


class Feed:
    """A stage's steps from files, as :class:`itemic.training.steps.StepSource` describes it.

    Args:
        conversations: Parquet files, folders, globs, JSON lists of files, local or remote.
        encode: the model's tokenizer and chat template at work; with ``stage.data.workers`` it must be picklable.
        stage: what to do; ``stream``, ``shuffle_buffer`` and ``workers`` above all.
        encoder: names what ``encode`` does (a digest of tokenizer and template).
        seed: decides every order.
        marks: by which tokens histories are known that are too long; None knows none.

    Attributes:
        digest: of the encoder, and of the files' names below what they share, bytes, rows and sources. A file
            whose content changes while all these stay is not noticed.
        names: the sources.

    Raises:
        DataError: a file is broken or lacks columns, or there is nothing in them.
        ConfigError: a table was given, or ``stage.data.sources`` names a source that isn't there.
    """

    def __init__(
        self,
        conversations: Source,
        encode: Encoder,
        stage: Stage,
        *,
        encoder: str,
        seed: int = 0,
        marks: HistoryMarks | None = None,
    ) -> None:
        files = Conversations.open(conversations).parts
        if not files:
            raise ConfigError(
                "a stream reads files, and a table was given",
                "Leave data.stream out (the table is in memory already), or write it to a Parquet file.",
            )
        groups = RowGroups.scan(files)
        self._where = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} other files"
        if not groups.total:
            raise DataError(f"there are no conversations in {self._where}", "Build some first.")
        check_sources(stage.data.sources, groups.sources)
        self.lanes = Lanes(groups, encode, stage, seed, marks)
        self.stage = stage
        self.names = groups.sources
        self.digest = digest_of([groups.digest, encoder])
        self.counts = Counts()  # of what this rank has read

    @property
    def notes(self) -> dict[str, Any]:
        """What is there, and what became of what was read so far."""
        return {
            "stream": True,
            "conversations": self.lanes.groups.total,
            "files": len(self.lanes.groups.files),
            "sources": list(self.names),
            "read": self.counts.read,
            **self.counts.notes(self.stage.data.overlong),
        }

    def total_steps(self) -> int:
        """Steps of the stage: as many as it says, or an estimate from the first chunks of the first epoch."""
        if self.stage.steps is not None:
            return self.stage.steps
        rows = packets = tokens = 0
        for lane in range(len(self.lanes)):
            if self.lanes.chunks(lane) and rows < SAMPLE:
                chunk = self.lanes.chunk(lane, 0, 0)
                rows, packets = rows + chunk.rows, packets + len(chunk.packets)
                tokens += sum(len(forest) for packet in chunk.packets for forest in packet)
        epochs, total = int(self.stage.epochs or 1), self.lanes.groups.total
        count = max(1, round(packets / rows * total / len(self.lanes) * epochs))
        log.info(
            "%s: about %d steps, by %d of %d conversations; blocks are %.0f %% full",
            self.stage.name,
            count,
            rows,
            total,
            100 * tokens / max(packets * self.stage.data.planned_block, 1),
        )
        return count

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        """The steps after the one with ``state``, or all: without end under ``stage.steps``, else all epochs'.

        Args:
            state: ``{"lanes": {"0": place, …}}`` of all lanes, those of all ranks put together.
            rank: this process gets the blocks of the lanes ``rank::size``, in their order.
            size: how many processes there are. Beside others a process goes on with steps without blocks when its
                lanes have given all, as other lanes may hold more; the stage is over when ``step.after.epoch`` is
                ``stage.epochs`` on all of them.

        Raises:
            ItemicError: a file or a row is broken, a process died, or there is nothing to learn from.
        """
        places = (state or {}).get("lanes", {})
        crew = Crew(self.lanes, self.stage.data.workers)
        try:
            readers = [
                _Reader(self.lanes, lane, crew, places.get(str(lane)))
                for lane in range(rank, len(self.lanes), size)
            ]
            for reader in readers:
                reader.open()
            self.counts = sum((reader.counts for reader in readers), Counts())
            any_given = bool(places)
            while size > 1 or not all(reader.finished for reader in readers):
                packets = [reader.take() for reader in readers]
                forests = tuple(forest for packet in packets for forest in packet or ())
                self.counts = sum((reader.counts for reader in readers), Counts())
                if size == 1 and not forests:
                    raise self._nothing()
                lanes = {str(reader.lane): reader.place.to_json() for reader in readers}
                ahead = Ahead(self._epoch(readers), _mean([r.progress for r in readers if r.chunks]))
                any_given = True
                yield Step(forests, forest_sizes(forests), {"lanes": lanes}, ahead)
            if not any_given:
                raise self._nothing()
        finally:
            crew.close()
            self._tell()

    def merged(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The lanes of all ranks."""
        return {"lanes": {lane: place for state in states for lane, place in state["lanes"].items()}}

    def _epoch(self, readers: list[_Reader]) -> int:
        """The epoch of the lane that is furthest behind."""
        return min((r.place.epoch for r in readers if r.chunks), default=self.stage.epochs or NEVER)

    def _nothing(self) -> DataError:
        return nothing_to_learn(self._where, self.counts, self.stage.data.max_length)

    def _tell(self) -> None:
        if lost := lost_rows(self.notes, self.stage.data.max_length):
            log.warning("%s: %s", self._where, lost)


class _Reader:
    """One lane: the chunk it gives out, and the next one in the making."""

    def __init__(self, lanes: Lanes, lane: int, crew: Crew, place: list[int] | None) -> None:
        self.lane, self.chunks = lane, lanes.chunks(lane)
        self.place = LanePlace() if place is None else LanePlace.of(place)
        self._fresh = place is None
        self._crew, self._epochs = crew, lanes.stage.epochs
        self._chunk: Chunk | None = None
        if not self.finished:
            crew.ask(self._key(self.place))

    @property
    def finished(self) -> bool:
        """Whether the lane has given all it has in all epochs."""
        return not self.chunks or (self._epochs is not None and self.place.epoch >= self._epochs)

    @property
    def counts(self) -> Counts:
        return self.place.counts + (self._chunk.counts if self._chunk else Counts())

    @property
    def progress(self) -> float:
        """Epochs gone through."""
        inside = self.place.packet / max(len(self._chunk.packets), 1) if self._chunk else 0.0
        return self.place.epoch + (self.place.chunk + inside) / max(self.chunks, 1)

    def open(self) -> None:
        """Go to the place; a lane that begins goes on to its first packet."""
        if not self.finished:
            self._load()
            if self._fresh:
                self._settle()

    def take(self) -> Packet | None:
        """The next packet; none where the lane is finished, or has met nothing for a whole epoch's length."""
        if self._chunk is None:
            return None
        packet = None
        if self.place.packet < len(self._chunk.packets):
            packet = self._chunk.packets[self.place.packet]
            self.place = LanePlace(
                self.place.epoch, self.place.chunk, self.place.packet + 1, self.place.counts
            )
        self._settle()
        return packet

    def _settle(self) -> None:
        """Go on to the next packet there is, so that the end is known when the last one was taken."""
        for _ in range(self.chunks):
            if self._chunk is None or self.place.packet < len(self._chunk.packets):
                return
            self.place = self.place.next_chunk(self.chunks, self._chunk.counts)
            self._chunk = None
            if not self.finished:
                self._load()

    def _load(self) -> None:
        self._chunk = self._crew.get(self._key(self.place))
        coming = self.place.next_chunk(self.chunks)
        if self._epochs is None or coming.epoch < self._epochs:
            self._crew.ask(self._key(coming))

    def _key(self, place: LanePlace) -> Key:
        return self.lane, place.epoch, place.chunk


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)
