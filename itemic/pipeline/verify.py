"""Whether what a run made is still as it was made, file by file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from itemic.artifact import MANIFEST, damage, read_manifest
from itemic.errors import ArtifactError
from itemic.integrity import FileFault
from itemic.pipeline.run import RECIPE
from itemic.pipeline.steps import steps_of
from itemic.recipe import read_resolved


@dataclass(frozen=True)
class Held:
    """A finished folder, or one that isn't finished yet.

    Attributes:
        name: of the step, or of the folder.
        finished: whether it was made.
        files: how many files it was made of.
        size: their bytes.
        faults: what is not as it was.
    """

    name: str
    finished: bool
    files: int
    size: int
    faults: list[FileFault]

    @property
    def ok(self) -> bool:
        """Whether every recorded file is there and unchanged; an added one is told, and no fault."""
        return all(fault.problem == "added" for fault in self.faults)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}

    def __str__(self) -> str:
        if not self.finished:
            return f"      -  {self.name}: not made yet"
        what = ", ".join(map(str, self.faults)) or f"{self.files} files, {self.size / 1e6:,.1f} MB"
        return f"{'ok' if self.ok else 'DAMAGED':>7}  {self.name}: {what}"


def verify_folder(folder: str | Path) -> list[Held]:
    """Read all files of a run's steps, or of one folder that a command made, and compare them with its manifests.

    Raises:
        ArtifactError: it is neither, or a manifest can't be read.
    """
    root = Path(folder)
    if (root / RECIPE).is_file():
        return [_held(root / step.name, step.name) for step in steps_of(read_resolved(root / RECIPE))]
    if (root / MANIFEST).is_file():
        return [_held(root, root.resolve().name)]
    raise ArtifactError(
        f"{root} has neither a {RECIPE} nor a {MANIFEST}: nothing to compare it with",
        "Give a recipe, the folder of a run, or one that an itemic command wrote.",
    )


def _held(folder: Path, name: str) -> Held:
    found = read_manifest(folder)
    if found is None:
        return Held(name, False, 0, 0, [])
    size = sum(int(record[0]) for record in found.files.values())
    return Held(name, True, len(found.files), size, damage(folder))
