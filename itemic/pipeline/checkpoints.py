"""The checkpoints that stages of a run keep: which there are, and what it takes to make models of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from itemic.errors import ArtifactError, ConfigError
from itemic.pipeline.run import RECIPE
from itemic.recipe import read_resolved

PREFIX = "train."
BUILDING = ".partial"


@dataclass(frozen=True)
class KeptCheckpoint:
    """One checkpoint.

    Attributes:
        stage: of the run.
        step: optimizer steps done.
        saved: when, local time.
        size: bytes.
        best: whether the stage's validation was best there.
        metrics: of the validation at that step, if there was one.
        folder: where it is.
        base: the model that its stage began from; None where that isn't known.
    """

    stage: str
    step: int
    saved: datetime
    size: int
    best: bool
    metrics: dict[str, float]
    folder: Path
    base: Path | None

    def to_json(self) -> dict[str, Any]:
        about = {"stage": self.stage, "step": self.step, "saved": self.saved.isoformat(timespec="seconds")}
        return about | {
            "size": self.size,
            "best": self.best,
            "metrics": self.metrics,
            "folder": str(self.folder),
        }


def list_checkpoints(folder: str | Path) -> list[KeptCheckpoint]:
    """The checkpoints of a run, of one of its stages, or of what ``itemic.train`` wrote; oldest stage and step first.

    Raises:
        ArtifactError: the folder is none of these.
    """
    root = Path(folder)
    if (root / RECIPE).is_file():
        names = [
            "model",
            *(f"{PREFIX}{stage.name}" for stage in read_resolved(root / RECIPE).trainings),
        ]
        found = []
        for before, name in pairwise(names):
            place = next((p for p in (root / name, root / (name + BUILDING)) if p.is_dir()), None)
            found += _of_stage(place, name.removeprefix(PREFIX), root / before) if place is not None else []
        return found
    if (root / "training.json").is_file():
        siblings = root.parent / RECIPE
        if root.name.startswith(PREFIX) and siblings.is_file():
            return [kept for kept in list_checkpoints(root.parent) if root in kept.folder.parents]
        return _of_stage(root, root.name, None)
    raise ArtifactError(f"{root} is neither a run nor what training wrote", "Give the folder of a run.")


def find_checkpoint(folder: str | Path, step: int, stage: str | None = None) -> KeptCheckpoint:
    """The checkpoint of a step.

    Raises:
        ConfigError: there is none, or several stages have one.
    """
    kept = [each for each in list_checkpoints(folder) if stage in (None, each.stage)]
    found = [each for each in kept if each.step == step]
    if len(found) == 1:
        return found[0]
    if found:
        stages = ", ".join(each.stage for each in found)
        raise ConfigError(
            f"several stages have a checkpoint of step {step}: {stages}", "Choose one with --stage."
        )
    there = (
        ", ".join(f"{each.stage} {each.step}" for each in kept)
        or "none; keep some with checkpoints: {keep: all}"
    )
    raise ConfigError(f"{folder} has no checkpoint of step {step}", f"There are: {there}.")


def _of_stage(folder: Path, stage: str, base: Path | None) -> list[KeptCheckpoint]:
    from itemic.training.checkpoint import STATE, Checkpoints

    checkpoints, validations = Checkpoints(folder / "checkpoints"), _validations(folder / "log.jsonl")
    best = max((checkpoints.state(step)["place"]["best_step"] for step in checkpoints.steps()), default=-1)
    return [
        KeptCheckpoint(
            stage,
            step,
            datetime.fromtimestamp((checkpoints.path(step) / STATE).stat().st_mtime).astimezone(),
            sum(file.stat().st_size for file in checkpoints.path(step).iterdir()),
            step == best,
            validations.get(step, {}),
            checkpoints.path(step),
            base,
        )
        for step in checkpoints.steps()
    ]


def _validations(file: Path) -> dict[int, dict[str, float]]:
    """The metrics of each validation by step, as the log has them."""
    found: dict[int, dict[str, float]] = {}
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut off by a kill
        metrics = {
            key.removeprefix("valid/"): value for key, value in line.items() if key.startswith("valid/")
        }
        found.setdefault(line["step"], {}).update(metrics)
    return found
