"""When the steps of a run were made, how long they took, and by which versions."""

from __future__ import annotations

from pathlib import Path

from itemic.artifact import Manifest, read_manifest
from itemic.page import Cell, Grid, Row
from itemic.pipeline.steps import steps_of
from itemic.recipe import Recipe

UNITS = ("B", "kB", "MB", "GB", "TB")
Made = dict[Path, Manifest]  # the folders of finished steps, in the order of the run


def made_steps(root: Path, recipe: Recipe) -> Made:
    """The finished steps."""
    folders = [root / step.name for step in steps_of(recipe)]
    return {folder: found for folder in folders if (found := read_manifest(folder)) is not None}


def steps_grid(made: Made) -> Grid:
    """A row a step."""
    rows = [
        Row(folder.name, [Cell(_moment(found.created)), Cell(duration(found.seconds)), Cell(_size(folder))])
        for folder, found in made.items()
    ]
    total = Row("together", [Cell(""), Cell(duration(seconds(made))), Cell("")], start=True)
    return Grid(["", "finished", "took", "size"], [*rows, total])


def _moment(created: str) -> str:
    """``2026-11-28T01:04:24Z`` → ``2026-11-28 01:04 UTC``."""
    return f"{created[:10]} {created[11:16]} UTC"


def seconds(made: Made) -> float:
    """What all steps took."""
    return sum(found.seconds for found in made.values())


def used_versions(made: Made) -> str:
    """``"itemic 0.1.0, python 3.11.7, …"``: of each package every version that made a step."""
    found: dict[str, list[str]] = {}
    for manifest in made.values():
        for package, version in manifest.versions.items():
            known = found.setdefault(package, [])
            if version not in known:
                known.append(version)
    return ", ".join(f"{package} {' and '.join(known)}" for package, known in sorted(found.items()))


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _size(folder: Path) -> str:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    power = min(max(len(str(size)) - 1, 0) // 3, len(UNITS) - 1)
    return f"{size / 1000**power:.{1 if power else 0}f} {UNITS[power]}"
