"""Rankings: for each request its items in order, as a folder of Parquet parts that is written as a stream.

A folder holds ``ranking.json`` (what was asked, and of whom), ``catalogue.parquet`` (the item ids by row,
with their SID texts) and ``part-00000.parquet`` and so on, each with a fixed run of requests. A part appears
whole or not at all, so what is there is done, and a killed run goes on with the first part that is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.artifact import digest_of, write_json
from itemic.data.sequences import Requests, catalogue_digest
from itemic.errors import ArtifactError, DataError

HEAD = "ranking.json"
CATALOGUE = "catalogue.parquet"
PARTS_WANTED = 100  # a run that dies loses about a hundredth of its work
PART_SIZES = (64, 20_000)
NAMED = 5  # users who are named where something was odd

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RankingHead:
    """What a ranking answers.

    Attributes:
        name: of the ranker, for tables.
        requests: how many there are.
        k: the longest list.
        part_size: requests in each part but the last.
        digest: of the requests (catalogue, users, histories, targets).
        catalogue: digest of the item ids and their SIDs.
        config: how the ranker was asked; plain JSON.
    """

    name: str
    requests: int
    k: int
    part_size: int
    digest: str
    catalogue: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        return -(-self.requests // self.part_size)

    def bounds(self, part: int) -> tuple[int, int]:
        """The first request of a part, and one past its last."""
        return part * self.part_size, min((part + 1) * self.part_size, self.requests)


@dataclass(frozen=True)
class RankingArrays:
    """A run of ranked requests as arrays of item rows.

    Attributes:
        requests: int64 ``[R]``, numbers within the split.
        targets: int32 ``[R]``, -1 where unknown.
        history_lengths: int32 ``[R]``.
        shortened: bool ``[R]``, the ranker couldn't read the whole history and left out its oldest items.
        items: int32 ``[R, k]``, best first, -1 pads.
        scores: float32 ``[R, k]``, -inf pads.
    """

    requests: Int64
    targets: Int32
    history_lengths: Int32
    shortened: npt.NDArray[np.bool_]
    items: Int32
    scores: Float32

    def __repr__(self) -> str:
        return f"<RankingArrays: {self.items.shape[0]:,} requests, {self.items.shape[1]} items each>"


class Ranking:
    """A ranking on disk. Made by :class:`RankingWriter`; read part by part, never as a whole."""

    def __init__(self, folder: Path, head: RankingHead, keep: TemporaryDirectory[str] | None = None) -> None:
        self.folder = folder
        self.head = head
        self.catalogue = pl.read_parquet(folder / CATALOGUE)
        self._rows = self.catalogue.select(c.ITEM_ID).with_row_index("row")
        self._keep = keep  # a folder that lives as long as this object

    @classmethod
    def load(cls, folder: str | Path) -> Ranking:
        """Open a folder, finished or not.

        Raises:
            DataError: it holds no ranking.
        """
        root = Path(folder)
        try:
            return cls(root, read_head(root))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{root} is not a ranking: {error}", "Run the evaluation again.") from error

    def __len__(self) -> int:
        return self.head.requests

    def __repr__(self) -> str:
        state = f", {len(self.missing)} of {self.head.parts} parts missing" if self.missing else ""
        where = "a folder of its own" if self._keep else str(self.folder)
        return f"<Ranking {self.head.name!r}: {len(self):,} requests, {self.head.k} items each, in {where}{state}>"

    @property
    def missing(self) -> list[int]:
        """The numbers of the parts that are still to be written."""
        return [part for part in range(self.head.parts) if not part_path(self.folder, part).is_file()]

    def table(self, part: int) -> pl.DataFrame:
        """One part with the columns ``schema.RANKING_COLUMNS``.

        Raises:
            ArtifactError: it is missing or unreadable.
        """
        file = part_path(self.folder, part)
        try:
            return pl.read_parquet(file)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(
                f"can't read {file}: {error}",
                "Remove that file and run the evaluation again; the rest is kept.",
            ) from error

    def tables(self) -> Iterator[pl.DataFrame]:
        """All parts in order; an unfinished ranking is refused.

        Raises:
            ArtifactError: parts are missing.
        """
        if missing := self.missing:
            raise ArtifactError(
                f"{self.folder} lacks {len(missing)} of {self.head.parts} parts",
                "Run the evaluation again; it goes on where it stopped.",
            )
        return (self.table(part) for part in range(self.head.parts))

    def arrays(self) -> Iterator[RankingArrays]:
        """All parts in order as arrays; item rows are those of ``catalogue``.

        Raises:
            ArtifactError: parts are missing.
        """
        return (_to_arrays(table, self._rows, self.head.k) for table in self.tables())

    def part(self, part: int) -> RankingArrays:
        """One part as arrays.

        Raises:
            ArtifactError: it is missing or unreadable.
        """
        return _to_arrays(self.table(part), self._rows, self.head.k)

    def users(self) -> Int64:
        """A number for the user of each request, int64 ``[R]``; equal numbers, equal users."""
        names = pl.concat([table[c.USER_ID] for table in self.tables()])
        return names.rank("dense").to_numpy().astype(np.int64)


def unanswered(items: Int32) -> npt.NDArray[np.bool_]:
    """bool ``[R]``: for which rows of ranked items nothing could be recommended."""
    return np.asarray((items < 0).all(axis=1))


class OddRequests:
    """Requests that a reader has to know of: nothing was left to recommend, or the history was too long."""

    def __init__(self) -> None:
        self.unanswered = self.shortened = 0
        self.users: list[str] = []  # the first who got nothing

    def add(self, items: Int32, shortened: npt.NDArray[np.bool_], users: Any) -> None:
        """Count a part: its ranked items ``[R, k]``, whose histories were shortened, and who asked, in order."""
        nothing = np.flatnonzero(unanswered(items))
        self.unanswered += len(nothing)
        self.shortened += int(shortened.sum())
        self.users += [str(users[int(row)]) for row in nothing[: NAMED - len(self.users)]]

    @property
    def notes(self) -> list[str]:
        """A sentence for each kind that there is."""
        found = []
        if self.unanswered:
            more = ", …" if self.unanswered > len(self.users) else ""
            found.append(
                f"Nothing was left to recommend for {self.unanswered:,} requests, which count as misses "
                f"(users {', '.join(self.users)}{more})."
            )
        if self.shortened:
            found.append(
                f"{self.shortened:,} histories are longer than the model can read; their oldest items were left out."
            )
        return found


class RankingWriter:
    """Writes the parts of a ranking, and knows which are there already.

    Args:
        folder: where to; None for a folder that vanishes with the ranking.
        name: of the ranker.
        requests: all that will be answered.
        item_ids: of the catalogue, by row.
        k: the longest list.
        sids: the SID text of each item, where there is an index.
        config: how the ranker is asked; a folder that was begun with another is refused.
        part_size: requests a part; None for a hundredth of them all, within sensible bounds.

    Raises:
        ArtifactError: the folder holds a ranking of other requests, or one that was asked otherwise.
    """

    def __init__(
        self,
        folder: str | Path | None,
        name: str,
        requests: Requests,
        item_ids: list[str],
        k: int,
        *,
        sids: list[str] | None = None,
        config: dict[str, Any] | None = None,
        part_size: int | None = None,
    ) -> None:
        keep = TemporaryDirectory(prefix="itemic-ranking-") if folder is None else None
        self.folder = Path(keep.name if keep else str(folder))
        self.requests = requests
        size = part_size or int(np.clip(-(-len(requests) // PARTS_WANTED), *PART_SIZES))
        asked = digest_requests(requests, catalogue_digest(item_ids))
        head = RankingHead(name, len(requests), k, size, asked, digest_of([item_ids, sids]), config or {})
        self.head = _begin(self.folder, head, item_ids, sids)
        self.ranking = Ranking(self.folder, self.head, keep)

    def write(
        self, part: int, items: Int32, scores: Float32, shortened: npt.NDArray[np.bool_] | None = None
    ) -> pl.DataFrame:
        """Write one part.

        Args:
            part: its number.
            items: int32 ``[R, ≤ k]`` of its requests, best first, -1 pads.
            scores: float32 of the same shape.
            shortened: bool ``[R]``, see :class:`RankingArrays`; None for none of them.
        """
        start, stop = self.head.bounds(part)
        table = _to_table(self.requests[start:stop], start, items, scores, self.ranking.catalogue)
        cut = np.zeros(stop - start, bool) if shortened is None else shortened
        table = table.with_columns(pl.Series(c.SHORTENED, cut)).select(c.RANKING_COLUMNS)
        file = part_path(self.folder, part)
        scratch = file.with_name(f".{file.name}.{os.getpid()}")
        table.write_parquet(scratch)
        scratch.replace(file)
        return table


def part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05d}.parquet"


def read_head(folder: Path) -> RankingHead:
    """What the ranking in a folder answers.

    Raises:
        DataError: there is none.
    """
    try:
        return RankingHead(**json.loads((folder / HEAD).read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise DataError(f"{folder} is not a ranking: {error}", "Run the evaluation again.") from error


def digest_requests(requests: Requests, catalogue: str) -> str:
    """16 hex digits that tell requests apart by the catalogue (its digest), users, histories and targets."""
    total = hashlib.sha256(catalogue.encode())
    for array in (requests.offsets, requests.items, requests.targets):
        total.update(np.ascontiguousarray(array).tobytes())
    total.update("\n".join(map(str, requests.users)).encode())
    return total.hexdigest()[:16]


def _begin(folder: Path, head: RankingHead, item_ids: list[str], sids: list[str] | None) -> RankingHead:
    """Start a folder, or take up one that was begun for the very same question; then its part size stands."""
    folder.mkdir(parents=True, exist_ok=True)
    for stray in folder.glob(".part-*"):
        stray.unlink()
    if (folder / HEAD).is_file():
        found = read_head(folder)
        asked, stored = (json.loads(json.dumps(asdict(x), default=str)) for x in (head, found))
        changed = sorted(key for key in asked if key != "part_size" and asked[key] != stored[key])
        if changed:
            raise ArtifactError(
                f"{folder} holds a ranking with another {', '.join(changed)}",
                "Remove the folder, or write to another one.",
            )
        return found
    sid_column = (
        pl.Series(c.RANKED_SIDS, sids, pl.String) if sids else pl.lit(None, pl.String).alias(c.RANKED_SIDS)
    )
    pl.DataFrame({c.ITEM_ID: item_ids}).with_columns(sid_column).write_parquet(folder / CATALOGUE)
    write_json(folder / HEAD, asdict(head))
    return head


def _to_table(
    requests: Requests, first: int, items: Int32, scores: Float32, catalogue: pl.DataFrame
) -> pl.DataFrame:
    height, width = items.shape
    real = items >= 0
    # padding in the middle of a list stays, as null
    used = np.where(real.any(axis=1), width - real[:, ::-1].argmax(axis=1), 0)
    row = pl.Series(items.reshape(-1), dtype=pl.Int64)
    row = row.set(row < 0, None)
    target = pl.Series(requests.targets, dtype=pl.Int64)
    ids = catalogue[c.ITEM_ID]

    def lists(flat: pl.Series) -> pl.Series:
        return flat.reshape((height, width)).arr.to_list()

    columns = {
        c.REQUEST: pl.Series(np.arange(first, first + height), dtype=pl.Int64),
        c.USER_ID: pl.Series(requests.users.tolist(), dtype=pl.String),
        c.TARGET_ID: ids.gather(target.set(target < 0, None)),
        c.HISTORY_LENGTH: pl.Series(np.diff(requests.offsets), dtype=pl.Int32),
        c.RANKED_ITEMS: lists(ids.gather(row)),
        c.RANKED_SCORES: lists(pl.Series(scores.reshape(-1), dtype=pl.Float32)),
        c.RANKED_SIDS: lists(catalogue[c.RANKED_SIDS].gather(row)),
        "used": pl.Series(used, dtype=pl.UInt32),
    }
    cut = [
        pl.col(name).list.head(pl.col("used")) for name in (c.RANKED_ITEMS, c.RANKED_SCORES, c.RANKED_SIDS)
    ]
    sids = pl.when(catalogue[c.RANKED_SIDS].null_count() < len(catalogue)).then(pl.col(c.RANKED_SIDS))
    return pl.DataFrame(columns).with_columns(cut).with_columns(sids.alias(c.RANKED_SIDS)).drop("used")


def _to_arrays(table: pl.DataFrame, rows: pl.DataFrame, k: int) -> RankingArrays:
    lengths = table[c.RANKED_ITEMS].list.len().to_numpy().astype(np.int64)
    inside = np.arange(k) < lengths[:, None]
    items = np.full((len(table), k), -1, np.int32)
    scores = np.full((len(table), k), -np.inf, np.float32)
    items[inside] = _rows_of(table[c.RANKED_ITEMS].explode(empty_as_null=False), rows)
    scores[inside] = table[c.RANKED_SCORES].explode(empty_as_null=False).to_numpy()
    return RankingArrays(
        table[c.REQUEST].to_numpy(),
        _rows_of(table[c.TARGET_ID], rows),
        table[c.HISTORY_LENGTH].to_numpy(),
        table[c.SHORTENED].to_numpy(),
        items,
        scores,
    )


def _rows_of(ids: pl.Series, rows: pl.DataFrame) -> Int32:
    """The row of each item id, -1 for null."""
    found = pl.DataFrame({c.ITEM_ID: ids}).join(rows, on=c.ITEM_ID, how="left", maintain_order="left")["row"]
    return found.cast(pl.Int32).fill_null(-1).to_numpy()
