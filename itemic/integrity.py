"""What a finished folder holds, file by file, so that a damaged one is noticed before anything is built on it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

FileRecord = list[int | str]  # size in bytes and SHA-256 in hex, as JSON keeps a pair
WORKERS = 8


@dataclass(frozen=True)
class FileFault:
    """A file that is not as it was recorded: ``changed``, ``missing``, or ``added`` later."""

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file} {'is missing' if self.problem == 'missing' else f'was {self.problem}'}"


def record_files(folder: str | Path, without: Collection[str] = ()) -> dict[str, FileRecord]:
    """Size and SHA-256 of every file below a folder by its relative name, sorted; hidden ones are left out.

    Args:
        folder: which.
        without: files and folders right in the folder that are not recorded.
    """
    root = Path(folder)
    names = _names(root, without)
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:  # hashing lets other threads run
        return dict(zip(names, pool.map(lambda name: _record(root / name), names), strict=True))


def file_faults(
    folder: str | Path, records: Mapping[str, FileRecord], without: Collection[str] = ()
) -> list[FileFault]:
    """Compare a folder with what :func:`record_files` found in it once. A file of another size isn't read."""
    root = Path(folder)
    there = _names(root, without)
    missing = [FileFault(name, "missing") for name in records.keys() - set(there)]
    added = [FileFault(name, "added") for name in there if name not in records]
    common = [name for name in there if name in records]
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        same = pool.map(lambda name: _same(root / name, records[name]), common)
        changed = [FileFault(name, "changed") for name, held in zip(common, same, strict=True) if not held]
    return sorted([*missing, *changed, *added], key=lambda fault: fault.file)


def _names(root: Path, without: Collection[str]) -> list[str]:
    below = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    seen = (path for path in below if not any(part.startswith(".") for part in path.parts))
    return sorted(str(path) for path in seen if path.parts[0] not in without)


def _record(file: Path) -> FileRecord:
    with file.open("rb") as stream:
        return [os.fstat(stream.fileno()).st_size, hashlib.file_digest(stream, "sha256").hexdigest()]


def _same(file: Path, record: FileRecord) -> bool:
    return file.stat().st_size == record[0] and _record(file) == record
