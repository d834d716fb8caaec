"""The conversation table: OpenOneRec's columns, in memory or as Parquet parts.

One row is one conversation (``messages``) or one plain text (``segments``); where a row has both, messages
win. The three last columns hold JSON text. Everything that tasks make and that training reads has this form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.errors import DataError

SCHEMA = dict.fromkeys(c.CONVERSATION_COLUMNS, pl.String)
ROWS_PER_PART = 50_000
ROLES = ("system", "user", "assistant")
Message = dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """One row, decoded.

    Attributes:
        uuid: its name.
        source: where it comes from.
        messages: ``{"role", "content"}`` in order, contents as plain strings; None for a plain text.
        text: the plain text (all segments, one after another); None where there are messages.
        metadata: anything; ours holds ``task``, ``kind``, ``group``, ``target`` (item ids) and ``split``.
    """

    uuid: str
    source: str
    messages: list[Message] | None
    text: str | None
    metadata: dict[str, Any]


class Conversations:
    """Conversation rows, wherever they are: a table in memory, or Parquet files read part by part."""

    def __init__(self, parts: Sequence[str] | pl.DataFrame) -> None:
        self._parts = parts

    @classmethod
    def open(
        cls, source: Conversations | pl.DataFrame | pl.LazyFrame | str | Path | Iterable[str | Path]
    ) -> Conversations:
        """Anything that holds conversations.

        Args:
            source: a table; or one or more of: a Parquet file, a folder of them (also nested), a glob, a JSON
                file with a list of files. Paths may be remote (``s3://…``, whatever fsspec knows).

        Raises:
            DataError: nothing is there, or a table lacks columns.
        """
        if isinstance(source, Conversations):
            return source
        if isinstance(source, pl.LazyFrame):
            source = source.collect()
        if isinstance(source, pl.DataFrame):
            return cls(check_columns(source, "the table"))
        paths = [source] if isinstance(source, str | Path) else list(source)
        return cls([part for path in paths for part in list_parts(str(path))])

    @property
    def parts(self) -> list[str]:
        """The files; empty for a table in memory."""
        return [] if isinstance(self._parts, pl.DataFrame) else list(self._parts)

    def frames(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Part after part, with the part's name; never more than one part in memory.

        Raises:
            DataError: a file is broken or lacks columns.
        """
        if isinstance(self._parts, pl.DataFrame):
            yield "table", self._parts
            return
        for part in self._parts:
            yield part, read_part(part)

    def read(self) -> pl.DataFrame:
        """All rows at once."""
        frames = [frame for _, frame in self.frames()]
        return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)

    def __len__(self) -> int:
        if isinstance(self._parts, pl.DataFrame):
            return len(self._parts)
        return sum(count_rows(part) for part in self._parts)

    def __repr__(self) -> str:
        where = f"{len(self.parts):,} files" if self.parts else f"{len(self):,} rows in memory"
        return f"<Conversations: {where}>"

    def __iter__(self) -> Iterator[Conversation]:
        for _, frame in self.frames():
            for row in frame.iter_rows(named=True):
                yield decode(row)


def list_parts(path: str, above: tuple[str, ...] = ()) -> list[str]:
    """The Parquet files behind a path, in order of their names; ``above`` are the lists that name it.

    Raises:
        DataError: there are none, or a list names itself.
    """
    if path in above:
        raise DataError(f"{path} lists itself", "A list names Parquet files, folders, or other lists.")
    if path.endswith(".json"):
        found = [part for name in _json_list(path) for part in list_parts(name, (*above, path))]
        if not found:
            raise DataError(f"{path} lists no files", 'Give a JSON list of paths, ["a.parquet", …].')
        return found
    files, root = fsspec.core.url_to_fs(path)
    if any(mark in path for mark in "*?["):
        found = sorted(files.glob(root))
    elif files.isdir(root):
        found = sorted(
            name for name in files.find(root) if name.endswith(".parquet") and "/." not in name[len(root) :]
        )
    else:
        found = [root] if files.exists(root) else []
    if not found:
        raise DataError(
            f"no conversations at {path}", "Give a Parquet file, a folder of them, or a JSON list of files."
        )
    return [str(files.unstrip_protocol(name)) if "://" in path else str(name) for name in found]


def _json_list(path: str) -> list[str]:
    try:
        with fsspec.open(path, "rt", encoding="utf-8") as stream:
            names = json.load(stream)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} can't be read: {error}", 'Give a JSON list of paths, ["a.parquet", …].'
        ) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} is no list of paths", 'Give a JSON list of paths, ["a.parquet", …].')
    return names


def read_part(part: str) -> pl.DataFrame:
    """One Parquet file with exactly the five columns; those that may be missing come as null.

    Raises:
        DataError: the file is broken or lacks ``uuid``, ``source`` or both ``messages`` and ``segments``.
    """
    try:
        with fsspec.open(part, "rb") as stream:
            frame = pl.read_parquet(stream)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{part} can't be read: {error}", "Build or download the file again.") from error
    return check_columns(frame, part)


def count_rows(part: str) -> int:
    """How many rows a Parquet file says it has."""
    with fsspec.open(part, "rb") as stream:
        return int(pl.scan_parquet(stream).select(pl.len()).collect().item())


def check_columns(frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """The five columns of a table as text; those that may be missing come as null.

    Raises:
        DataError: it lacks ``uuid``, ``source`` or both ``messages`` and ``segments``; the message names ``where``.
    """
    missing = [name for name in (c.UUID, c.SOURCE) if name not in frame.columns]
    if c.MESSAGES not in frame.columns and c.SEGMENTS not in frame.columns:
        missing.append(f"{c.MESSAGES} or {c.SEGMENTS}")
    if missing:
        raise DataError(
            f"{where} lacks the columns {', '.join(missing)}",
            f"A conversation file has the columns {', '.join(c.CONVERSATION_COLUMNS)}.",
        )
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None).alias(name)).cast(pl.String)
        for name in c.CONVERSATION_COLUMNS
    ]
    return frame.select(columns)


def decode(row: dict[str, Any], where: str = "") -> Conversation:
    """A row of the table as a :class:`Conversation`.

    Raises:
        DataError: the JSON is broken or is not of the form; the message names the row's uuid.
    """
    name = f"conversation {row[c.UUID]!r}{where}"
    try:
        metadata = json.loads(row[c.METADATA]) if row.get(c.METADATA) else {}
        messages = json.loads(row[c.MESSAGES]) if row.get(c.MESSAGES) else None
        segments = json.loads(row[c.SEGMENTS]) if row.get(c.SEGMENTS) and messages is None else None
        turns = (
            None
            if messages is None
            else [{"role": str(turn["role"]), "content": content_text(turn["content"])} for turn in messages]
        )
        text = None if segments is None else content_text(segments)
        if turns is None and text is None:
            raise ValueError("it has neither messages nor segments")
        if not isinstance(metadata, dict):
            raise ValueError("metadata is no object")
    except (ValueError, KeyError, TypeError) as error:
        fault = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{name} is broken: {fault}", "Run `itemic tasks validate` on the file.") from error
    return Conversation(row[c.UUID], row[c.SOURCE], turns, text, metadata)


def content_text(content: Any) -> str:
    """A content or a list of segments as one string: a plain string, or ``[{"type": "text", "text": …}, …]``.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ValueError("a content is neither a string nor a list of text parts")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError('a content part is not {"type": "text", "text": …}')
    return "".join(part["text"] for part in content)


def json_strings(values: pl.Series) -> pl.Series:
    """Each text as a JSON string literal, quotes included."""
    packed = pl.DataFrame({"t": values}).select(pl.struct("t").struct.json_encode())["t"]
    return packed.str.strip_prefix('{"t":').str.strip_suffix("}")


def make_uuids(source: str, seed: int, start: int, count: int) -> pl.Series:
    """Names for the rows ``start … start + count`` of a source: UUIDs of version 8, by the arguments alone.

    Both halves are permutations of the counter (splitmix64 under keys from source and seed), so that no two
    rows of a source ever get the same name.
    """
    key = hashlib.sha256(f"{source}\0{seed}".encode()).digest()
    counter = np.arange(start, start + count, dtype=np.uint64)
    halves = [_splitmix(counter ^ np.uint64(int.from_bytes(key[i : i + 8], "big"))) for i in (0, 8)]
    raw = np.stack(halves, axis=1).astype(">u8").view(np.uint8).reshape(count, 16)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x80  # version 8: "custom"
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80  # RFC 9562's variant
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    letters = np.full((count, 36), ord("-"), np.uint8)
    places = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])
    letters[:, places[0::2]] = digits[raw >> 4]
    letters[:, places[1::2]] = digits[raw & 15]
    return pl.Series(c.UUID, letters.view("S36").ravel()).cast(pl.String)


def _splitmix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection on 64 bits."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class ConversationWriter:
    """Writes frames into ``<folder>/part-00000.parquet``, …, holding back no more than one part's rows.

    Use it as a context manager; what is left over is written on leaving without an error.
    """

    def __init__(self, folder: str | Path, rows_per_part: int = ROWS_PER_PART) -> None:
        self.folder = Path(folder)
        self.rows_per_part = rows_per_part
        self.rows = 0
        self.files: list[Path] = []
        self._held: list[pl.DataFrame] = []
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, frame: pl.DataFrame) -> None:
        """Add rows with the five columns of the form."""
        self._held.append(frame.select(c.CONVERSATION_COLUMNS))
        while sum(map(len, self._held)) >= self.rows_per_part:
            table = pl.concat(self._held)
            self._flush(table.head(self.rows_per_part))
            rest = table.slice(self.rows_per_part)
            self._held = [rest] if len(rest) else []

    def _flush(self, table: pl.DataFrame) -> None:
        file = self.folder / f"part-{len(self.files):05d}.parquet"
        table.write_parquet(file, compression="zstd", compression_level=1)
        self.files.append(file)
        self.rows += len(table)

    def __enter__(self) -> ConversationWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._held:
            self._flush(pl.concat(self._held))
        self._held = []
