"""A step of a run: what it is made from, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from itemic.artifact import Manifest
from itemic.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """What a step's work is given.

    Attributes:
        recipe: the whole run.
        root: the run's folder; a finished step stands in ``root / name``.
        output: the folder to fill.
        manifest: of the step; the work may add to its ``notes``.
    """

    recipe: Recipe
    root: Path
    output: Path
    manifest: Manifest

    def made(self, step: str) -> Path:
        """The folder of an earlier step."""
        return self.root / step


Work = Callable[[Job], None]


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        name: its folder; stages of training are ``train.<stage>``.
        config: all of the recipe that decides what comes out; plain JSON.
        needs: earlier steps that it reads.
        work: fills the folder. Imports its room only when called.
        files: what it reads from outside the run, by the name it has in the manifest: a path, or several in order.
        resumes: whether its work goes on from what an interrupted one left.
        grows: a number of ``config`` that only says how far its work goes; where it is raised, the work goes on.
        together: whether all ranks of a run do it; the others are rank 0's.
        packages: distributions whose versions the manifest names.
    """

    name: str
    config: dict[str, Any]
    needs: tuple[str, ...]
    work: Work
    files: Mapping[str, str | list[str]] = field(default_factory=dict)
    resumes: bool = False
    grows: str | None = None
    together: bool = False
    packages: tuple[str, ...] = ()
