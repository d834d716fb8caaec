"""A folder of raw files, local or remote, read whole or in batches of lines."""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import fsspec

from itemic.errors import DataError

BATCH_BYTES = 8 << 20
HEAD_BYTES = 1 << 16
WILD = "*?["
AGAIN = "Fetch or make the file again."


@dataclass(frozen=True)
class Lines:
    """Some whole lines of a file.

    Attributes:
        first: the number of the first line, counted from 1.
        data: their bytes, line ends included.
    """

    first: int
    data: bytes

    @property
    def count(self) -> int:
        return self.data.count(b"\n") + (not self.data.endswith(b"\n"))

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return enumerate(self.data.splitlines(), self.first)

    def without_first(self) -> Lines:
        """All but the first line (a header)."""
        return Lines(self.first + 1, self.data.partition(b"\n")[2])


class Source:
    """The files below a folder, two levels deep, by their relative names; or one file, or those that a pattern
    (``logs/2024-*.csv``) names. ``path`` may be any URL that fsspec knows.

    Raises:
        DataError: there is nothing there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            self._fs, found = fsspec.core.url_to_fs(self.path)
            place = cast(str, found).rstrip("/")
            wild = any(mark in place for mark in WILD) and not self._fs.exists(place)
            is_folder, is_file = self._fs.isdir(place), not wild and self._fs.isfile(place)
        except ImportError as error:
            remedy = 'Install what it takes: `pip install "itemic[http]"`, or s3, or gcs, in place of http.'
            raise DataError(f"{self.path} can't be opened: {error}", remedy) from error
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} can't be opened: {error}", "Check the path or URL.") from error
        if not (is_folder or is_file or wild):
            raise DataError(f"{self.path} is no folder and no file", "Give what holds the raw files.")
        self.is_folder = is_folder
        self._root = place if is_folder else _above(place)
        self.folder = self.path.rstrip("/") if is_folder else _above(self.path)
        self._named = None if is_folder else place
        if not self.files:
            raise DataError(f"{self.path} holds no files", "Give what holds the raw files.")

    @cached_property
    def files(self) -> list[str]:
        """Names relative to the folder, sorted."""
        if self._named is None:
            found = cast(list[str], self._fs.find(self._root, maxdepth=2))
        elif self._fs.isfile(self._named):
            found = [self._named]
        else:
            found = [file for file in self._fs.glob(self._named) if self._fs.isfile(file)]
        return sorted(file.removeprefix(self._root).lstrip("/") for file in found)

    def beside(self, pattern: str) -> Source:
        """The files that a path or pattern relative to the folder names.

        Raises:
            DataError: there are none.
        """
        alone = "://" in pattern or pattern.startswith(("/", "~"))
        return Source(pattern if alone or not self.folder else f"{self.folder}/{pattern}")

    @property
    def name(self) -> str:
        """Of the folder, or of the file without its endings."""
        if self._named is None or len(self.files) > 1:
            return self.folder_name
        return self.files[0].rsplit("/", 1)[-1].split(".")[0] or "dataset"

    @property
    def folder_name(self) -> str:
        return self._root.rsplit("/", 1)[-1] or "dataset"

    def match(self, *patterns: str) -> list[str]:
        """The files whose name (without folders, or with them where the pattern has one) fits a pattern."""
        return [
            file
            for file in self.files
            if any(
                fnmatch(file if "/" in pattern else file.rsplit("/", 1)[-1], pattern) for pattern in patterns
            )
        ]

    def one(self, *patterns: str, prefix: str | None = None) -> str:
        """The one file that fits; ``prefix`` chooses where several do.

        Raises:
            DataError: there is none, or more than one.
        """
        found = self.match(*patterns)
        if prefix is not None:
            names = {file: file.rsplit("/", 1)[-1] for file in found}
            found = [file for file in found if names[file].startswith(f"{prefix}.")] or [
                file for file in found if names[file].startswith(prefix)
            ]
        wanted = " or ".join(patterns) + (f" that starts with {prefix!r}" if prefix else "")
        if not found:
            raise DataError(f"{self.path} holds no file {wanted}", "Check the folder and the format.")
        if len(found) > 1:
            raise DataError(
                f"{self.path} holds several files {wanted}: {', '.join(found)}",
                "Choose one with the option prefix, the part of the name before the ending.",
            )
        return found[0]

    def where(self, file: str) -> str:
        """The file's name for messages."""
        return f"{self.folder}/{file}" if self.folder else file

    def size(self, file: str) -> int:
        """Bytes of a file, as they are stored."""
        return int(self._fs.size(f"{self._root}/{file}") or 0)

    def open(self, file: str) -> IO[bytes]:
        """A binary stream, decompressed by the file's ending."""
        zstd = file.endswith(".zst")  # fsspec needs a package for it that pyarrow brings along
        try:
            stream = self._fs.open(f"{self._root}/{file}", "rb", compression=None if zstd else "infer")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.where(file)} can't be opened: {error}", "Check the file.") from error
        return cast(IO[bytes], _unzstd(stream) if zstd else stream)

    def batches(self, file: str, size: int = BATCH_BYTES) -> Iterator[Lines]:
        """The file in pieces of about ``size`` bytes that end at line ends; memory stays at a few pieces.

        Raises:
            DataError: the file is damaged or was cut short; the message says how many whole lines were read.
        """
        first, rest = 1, b""
        with self.open(file) as stream:
            for block in self._blocks(stream, file, size):
                if isinstance(block, Exception):
                    read = first - 1 + rest.count(b"\n")
                    raise DataError(
                        f"{self.where(file)} is damaged or cut short ({block}); "
                        f"{read} whole lines could be read",
                        AGAIN,
                    ) from block
                if first == 1 and not rest:
                    block = block.removeprefix(codecs.BOM_UTF8)
                head, newline, tail = (rest + block).rpartition(b"\n")
                if newline:
                    lines = Lines(first, head + newline)
                    yield lines
                    first += lines.count
                rest = tail
        if rest:
            yield Lines(first, rest)

    def _blocks(self, stream: IO[bytes], file: str, size: int) -> Iterator[bytes | Exception]:
        """Blocks of bytes; a read error comes last, after all that could be read before it."""
        # read1 hands over what a damaged stream still holds, read would throw it away with the error
        read = getattr(stream, "read1", stream.read)
        parts: list[bytes] = []
        held, failure = 0, None
        while True:
            try:
                part = read(size)
            except (EOFError, OSError, zlib.error) as error:
                part, failure = b"", error
            parts.append(part)
            held += len(part)
            if held and (held >= size or not part):
                yield b"".join(parts)
                parts, held = [], 0
            if failure is not None:
                yield failure
            if not part:
                return

    def head(self, file: str, count: int = 1) -> list[str]:
        """The first lines, decoded leniently: to look at a file before it is read."""
        lines: list[bytes] = []
        try:
            for batch in self.batches(file, HEAD_BYTES):
                lines += batch.data.splitlines()
                if len(lines) >= count:
                    break
        except DataError:  # told when the file is read
            pass
        return [line.decode("utf-8", "replace") for line in lines[:count]]

    def json(self, file: str) -> Any:
        """A whole JSON file. A key that comes twice in one object is an error that names it.

        Raises:
            DataError: it can't be read or is no JSON; the message gives the line and column.
        """
        try:
            with self.open(file) as stream:
                return json.loads(stream.read().decode("utf-8-sig"), object_pairs_hook=RepeatedKeys.collect)
        except json.JSONDecodeError as error:
            raise DataError(f"{self.where(file)} is no JSON: {error}", AGAIN) from error
        except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(f"{self.where(file)} is damaged or cut short: {error}", AGAIN) from error


def _above(path: str) -> str:
    """The folder of a file, or the part of a pattern that has no wild cards."""
    folder = path.rpartition("/")[0]
    while any(mark in folder for mark in WILD):
        folder = folder.rpartition("/")[0]
    return folder


def _unzstd(stream: Any) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(stream, "zstd")


class RepeatedKeys(dict[str, Any]):
    """A JSON object in which keys came more than once: the first value stands, ``repeated`` names them."""

    repeated: list[str]

    @classmethod
    def collect(cls, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        plain = dict(pairs)
        if len(plain) == len(pairs):
            return plain
        kept = cls()
        kept.repeated = []
        for key, value in pairs:
            if key in kept:
                kept.repeated.append(key)
            else:
                kept[key] = value
        return kept
