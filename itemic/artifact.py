"""Folders with a manifest, committed atomically.

A step of a run writes into ``<path>.partial`` and, when all is there, the folder gets its ``manifest.json``
and is renamed to ``<path>``: a reader sees a whole artifact or none. The manifest tells what the folder was
made from, so that a later run knows whether it is still up to date, and why not.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from itemic.errors import ArtifactError
from itemic.integrity import FileFault, FileRecord, file_faults, record_files

MANIFEST = "manifest.json"
FINGERPRINT = "fingerprint.json"
# checkpoints name the digests of their own files; trackers flush theirs when the step is done already
UNRECORDED = (MANIFEST, FINGERPRINT, "checkpoints", "tensorboard", "wandb", "swanlab", "trackio")


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and what it was made from.

    ``config`` is the plain (JSON) configuration of the step, ``inputs`` the digests of the artifacts and
    files read, ``versions`` what computed it, ``notes`` anything worth telling a reader (rules applied, rows
    dropped). ``files`` records the size and SHA-256 of each file when the folder was finished.
    """

    kind: str
    config: dict[str, Any]
    inputs: dict[str, str]
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    created: str = ""
    files: dict[str, FileRecord] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A short name for *how* the artifact was made: equal digests, equal kind, configuration, inputs and
        seed."""
        return digest_of({"kind": self.kind, "config": self.config, "inputs": self.inputs, "seed": self.seed})


def digest_of(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a JSON-able value, keys sorted."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_files(path: str | Path) -> str:
    """The digest of a file's bytes, or of the names and bytes of all files below a folder."""
    root = Path(path)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    total = hashlib.sha256()
    for file in files:
        total.update(b"" if file == root else str(file.relative_to(root)).encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:16]


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python, itemic and the named distributions."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("itemic", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a crash leaves the old file or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text so that a crash leaves the old file or the new one, never half of it."""
    with whole_file(path) as stream:
        stream.write(text)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file to write into; under its name there is the old file or the whole new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read_manifest(path: str | Path) -> Manifest | None:
    """The manifest of an artifact folder, or None where there is no finished artifact.

    Raises:
        ArtifactError: the file is there but is not a manifest.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        return None
    try:
        return Manifest(**json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise ArtifactError(
            f"{file} is not a manifest: {error}", "Remove the folder and run the step again."
        ) from error


def staleness(path: str | Path, expected: Manifest) -> str | None:
    """Why the artifact at ``path`` can't stand for ``expected``; None when it is up to date."""
    found = read_manifest(path)
    if found is None:
        return "not built yet"
    if found.kind != expected.kind:
        return f"holds a {found.kind}, not a {expected.kind}"
    if found.seed != expected.seed:
        return f"seed was {found.seed}, now {expected.seed}"
    for name in sorted(set(found.inputs) | set(expected.inputs)):
        if found.inputs.get(name) != expected.inputs.get(name):
            return f"input {name} changed"
    wanted = json.loads(json.dumps(expected.config, default=str))
    for key in sorted(set(found.config) | set(wanted)):
        was, now = found.config.get(key), wanted.get(key)
        if was != now:
            return f"{key} was {_brief(was)}, now {_brief(now)}"
    return None


def damage(path: str | Path) -> list[FileFault]:
    """The files of a finished artifact that are not as they were when it was finished; none where it holds, and where
    there is no manifest to compare with."""
    found = read_manifest(path)
    return [] if found is None else file_faults(path, found.files, without=UNRECORDED)


def verify(path: str | Path) -> None:
    """Make sure that no recorded file of an artifact changed or went; a folder without a manifest is taken as it is.

    Raises:
        ArtifactError: naming each such file.
    """
    faults = [fault for fault in damage(path) if fault.problem != "added"]
    if faults:
        raise ArtifactError(
            f"{path} is damaged: {', '.join(map(str, faults))}",
            "Restore it from where it was copied, or make it again.",
        )


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"


def begun(path: str | Path, manifest: Manifest, grows: str | None = None) -> Path | None:
    """The folder of a build that can be gone on with; None where there is none.

    That is an interrupted build of the very same manifest. With ``grows`` it is also one of a smaller number under this
    key of the configuration, interrupted, or finished and undamaged.
    """
    partial, mark = _partial(Path(path)), _read_mark(_partial(Path(path)))
    less = [] if grows is None else _smaller(manifest, grows)
    if any(mark == {"digest": each.digest} for each in (manifest, *less)):
        return partial
    if any(staleness(path, each) is None for each in less):
        return None if any(fault.problem != "added" for fault in damage(path)) else Path(path)
    return None


def _smaller(manifest: Manifest, key: str) -> list[Manifest]:
    counts = range(1, int(manifest.config[key]))
    return [replace(manifest, config=manifest.config | {key: count}) for count in counts]


@contextmanager
def building(
    path: str | Path, manifest: Manifest, *, resume: bool = True, grows: str | None = None
) -> Iterator[Path]:
    """Build an artifact: yields the folder to write into; commits it when the block ends without an error.

    ``manifest.notes`` may be filled inside the block.

    Args:
        path: where the finished folder stands; an older one is replaced.
        manifest: what it is made from.
        resume: hand back the folder of an interrupted build of the very same manifest as it is. A folder of
            another manifest is removed in any case.
        grows: a number of the configuration that says how far the work goes and nothing else. What was made of a
            smaller one is handed back as well; where it is finished, as a copy.
    """
    final = Path(path)
    partial = _partial(final)
    if final.exists() and read_manifest(final) is None and (final.is_file() or any(final.iterdir())):
        raise ArtifactError(
            f"{final} is there and was not made by itemic", "Choose another folder for the output."
        )
    before = begun(final, manifest, grows) if resume else None
    if partial.exists() and before != partial:
        shutil.rmtree(partial)
    if before == final:
        # never with its manifest, not even for a moment: a folder that has one counts as finished
        shutil.copytree(final, partial, copy_function=_link, ignore=_but_manifest(final))
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / FINGERPRINT, {"digest": manifest.digest})
    started = time.time()
    yield partial
    _commit(partial, final, manifest, time.time() - started)


def _but_manifest(folder: Path) -> Callable[[str, list[str]], list[str]]:
    return lambda inside, _: [MANIFEST] if Path(inside) == folder else []


def _link(source: str, target: str) -> None:
    """The same file under a second name where the disk can do that. Files of artifacts are replaced, never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _partial(final: Path) -> Path:
    return final.with_name(final.name + ".partial")


def _read_mark(partial: Path) -> Any:
    try:
        return json.loads((partial / FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def _commit(partial: Path, final: Path, manifest: Manifest, seconds: float) -> None:
    record = asdict(manifest) | {
        "seconds": round(seconds, 3),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": record_files(partial, without=UNRECORDED),
    }
    write_json(partial / MANIFEST, record)
    (partial / FINGERPRINT).unlink(missing_ok=True)  # from here on the folder is finished, wherever it stands
    _swap(partial, final)


def _swap(partial: Path, final: Path) -> None:
    old = _old(final)
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.replace(old)
    partial.replace(final)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: str | Path) -> None:
    """Finish a commit that was killed between its steps; for the holder of the run's lock alone."""
    final = Path(path)
    partial = _partial(final)
    if (partial / MANIFEST).is_file() and not (partial / FINGERPRINT).exists():
        _swap(partial, final)
    elif not final.exists() and _old(final).exists():
        _old(final).replace(final)


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this process alone; a second holder is refused at once.

    Raises:
        ArtifactError: another process works on the folder.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ArtifactError(
            f"another run is working on {root}",
            "Wait for it to end, or give this run another folder with --output.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def merge_notes(manifest: Manifest, notes: Mapping[str, Any]) -> None:
    """Add to the notes of a manifest that is being built."""
    manifest.notes.update(notes)
