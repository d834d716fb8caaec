"""What a run's folder tells beside its analysis: how large the data are, and how its training went."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from itemic.data.dataset import USERS
from itemic.recipe import Recipe


@dataclass(frozen=True)
class Curve:
    """The validations of a stage: how far each was on its way (0 to 1), and its figure."""

    metric: str
    at: list[float]
    values: list[float]

    @property
    def best(self) -> int:
        return max(range(len(self.values)), key=self.values.__getitem__)

    @property
    def words(self) -> str:
        best = self.best
        return (
            f"of {len(self.values)} validations the best {self.metric} was {self.values[best]:.4f} after "
            f"{self.at[best]:.0%} of the way, and {self.values[-1]:.4f} at the end"
        )


@dataclass(frozen=True)
class Facts:
    """What rules may know beside the report.

    Attributes:
        items: of the catalogue; None where nobody knows.
        train: interactions that are trained on; None where nobody knows.
        text: share of the items with a title or a description; None where nobody knows.
        timed: whether interactions have timestamps.
        users: whether the data say anything of their users.
        curves: validations by stage.
    """

    items: int | None = None
    train: int | None = None
    text: float | None = None
    timed: bool = False
    users: bool = False
    curves: dict[str, Curve] = field(default_factory=dict)


def facts_of(root: str | Path, recipe: Recipe) -> Facts:
    """What a run's folder holds; what isn't there isn't known."""
    folder = Path(root)
    about = _read(folder / "data" / "description.json")
    texts = about.get("text", {})
    known = [texts[name] for name in ("title", "description") if name in texts]
    curves = {stage.name: _curve(folder, stage) for stage in recipe.trainings}
    return Facts(
        items=about.get("items"),
        train=about.get("split", {}).get("train"),
        text=max(known) if known else None,
        timed=bool(about.get("time")),
        users=(folder / "data" / USERS).is_file(),
        curves={name: curve for name, curve in curves.items() if curve is not None},
    )


def _curve(root: Path, stage: Any) -> Curve | None:
    folder, metric = root / f"train.{stage.name}", stage.validation.metric
    place = _read(folder / "training.json").get("place") or {}
    lines = list(_lines(folder / "log.jsonl", f"valid/{metric}"))
    last = place.get("step") or (lines[-1][0] if lines else 0)
    if not lines or not last:
        return None
    return Curve(metric, [step / last for step, _ in lines], [value for _, value in lines])


def _lines(file: Path, key: str) -> Iterator[tuple[int, float]]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return
    for line in text.splitlines():
        found = json.loads(line)
        if key in found:
            yield int(found["step"]), float(found[key])


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
