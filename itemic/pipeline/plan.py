"""What a run has to do: which steps are up to date, which aren't, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from itemic.artifact import (
    Manifest,
    begun,
    damage,
    digest_files,
    digest_of,
    read_manifest,
    staleness,
    versions,
    write_json,
)
from itemic.errors import ArtifactError, ConfigError
from itemic.integrity import FileFault
from itemic.pipeline.step import Step
from itemic.progress import log
from itemic.settings import meant

DIGESTS = ".digests.json"
KEPT = "up to date"
LARGE = 2e9  # bytes that take long enough to be told of


@dataclass(frozen=True)
class Planned:
    """A step and what becomes of it: ``run`` it or not, and the reason in words.

    ``grows`` is the step's own, but None where all of it is to be made again.
    """

    step: Step
    manifest: Manifest
    run: bool
    reason: str
    grows: str | None = None


def make_plan(
    steps: list[Step],
    root: Path,
    *,
    seed: int,
    start: str | None = None,
    until: str | None = None,
    force: bool = False,
    rebuild: bool = True,
) -> list[Planned]:
    """Decide for every step. A finished one is read and compared with what its manifest recorded: where it is damaged,
    it is made again, and so is all that was made from it.

    Args:
        steps: in order.
        root: the run's folder.
        seed: of the run.
        start: do this step and all after it again; those before are taken as they are.
        until: do nothing after this step.
        force: do everything again.
        rebuild: whether a damaged step is made again, or an error.

    Raises:
        ConfigError: there is no step of that name, or one before ``start`` was never made.
        ArtifactError: a step is damaged that is not to be made again.
    """
    names = [step.name for step in steps]
    first, last = _place(start, names, 0), _place(until, names, len(names) - 1)
    if last < first:
        raise ConfigError(
            f"--until {until} comes before --from {start}", "Name them in the order of the run."
        )
    _tell_size([root / step.name for step in steps[: last + 1]])
    digests = FileDigests(root)
    known: dict[str, str] = {}
    renewed: set[str] = set()  # steps that are made again because of damage
    plan = []
    for place, step in enumerate(steps[: last + 1]):
        manifest = _expected(step, known, digests, seed)
        stale = staleness(root / step.name, manifest)
        known[step.name] = manifest.digest
        if place < first:
            found = read_manifest(root / step.name)
            if found is None:
                raise ConfigError(
                    f"--from {start} needs the step {step.name}, which was never made", "Run without --from."
                )
            known[step.name] = found.digest
            _refuse(root / step.name, damage(root / step.name), "Run without --from: that makes it again.")
            reason = KEPT if stale is None else f"kept as it is (--from {start}) although {stale}"
            plan.append(Planned(step, found, False, reason))
            continue
        again = "--force" if force else f"--from {start}" if start else None
        faults = damage(root / step.name) if (stale or again) is None else []
        if not rebuild:
            _refuse(root / step.name, faults, "Run without --no-rebuild: that makes it again.")
        harm = _harm(step, faults, renewed)
        if harm:
            renewed.add(step.name)
        reason = stale or again or harm or KEPT
        grows = None if again or harm else step.grows  # what is to be made again isn't gone on with
        if reason != KEPT and step.resumes and begun(root / step.name, manifest, grows):
            reason += "; goes on where it stopped"
        added = f" ({', '.join(map(str, faults))})" if faults and reason == KEPT else ""
        plan.append(Planned(step, manifest, reason != KEPT, reason + added, grows))
    digests.save()
    return plan


def _tell_size(folders: list[Path]) -> None:
    found = [manifest for folder in folders if (manifest := read_manifest(folder)) is not None]
    size = sum(int(record[0]) for manifest in found for record in manifest.files.values())
    if size > LARGE:
        log.info("%.1f GB of finished steps are read and compared first", size / 1e9)


def _broken(faults: list[FileFault]) -> str:
    """Changed and missing files in words; what was added is no damage."""
    return ", ".join(str(fault) for fault in faults if fault.problem != "added")


def _refuse(folder: Path, faults: list[FileFault], remedy: str) -> None:
    if _broken(faults):
        raise ArtifactError(f"{folder} is damaged: {_broken(faults)}", remedy)


def _harm(step: Step, faults: list[FileFault], renewed: set[str]) -> str | None:
    """Why damage makes a step run again."""
    if _broken(faults):
        return f"damaged: {_broken(faults)}"
    need = next((need for need in step.needs if need in renewed), None)
    return f"made from {need}, which was damaged" if need else None


def _place(name: str | None, names: list[str], default: int) -> int:
    if name is None:
        return default
    if name not in names:
        raise ConfigError(f"there is no step {name!r}{meant(name, names)}", f"Use one of {', '.join(names)}.")
    return names.index(name)


def _expected(step: Step, known: dict[str, str], digests: FileDigests, seed: int) -> Manifest:
    inputs = {need: known[need] for need in step.needs} | {
        name: digests.of(path) if isinstance(path, str) else digests.of_all(path)
        for name, path in step.files.items()
    }
    kind = step.name.partition(".")[0]
    return Manifest(kind, step.config, inputs, seed, versions=versions(*step.packages))


class FileDigests:
    """Digests of input files, remembered in the run's folder by size and time of change."""

    def __init__(self, root: Path) -> None:
        self.file = root / DIGESTS
        try:
            self.known: dict[str, list[str]] = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}
        self.changed = False

    def of(self, path: str) -> str:
        """The digest of a file or folder; of a remote one, of its address."""
        if "://" in path:
            return digest_of(path)
        root = Path(path).expanduser()
        stamp = digest_of([_stamp(file) for file in _files(root)])
        found = self.known.get(str(root.resolve()))
        if found is not None and found[0] == stamp:
            return found[1]
        digest = digest_files(root)
        self.known[str(root.resolve())] = [stamp, digest]
        self.changed = True
        return digest

    def of_all(self, paths: Iterable[str]) -> str:
        """One digest of several files, in their order."""
        return digest_of([self.of(path) for path in paths])

    def save(self) -> None:
        """Remember, where the run's folder is there already."""
        if self.changed and self.file.parent.is_dir():
            write_json(self.file, self.known)


def _files(root: Path) -> Iterable[Path]:
    return [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())


def _stamp(file: Path) -> list[str | int]:
    found = file.stat()
    return [str(file), found.st_size, found.st_mtime_ns]
