"""The curves of a training: losses and validations of its stages, one after the other, as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic.errors import ArtifactError
from itemic.text import plot_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG = "log.jsonl"
LOSSES = {"loss/itemic": "itemic tokens", "loss/text": "text", "loss": "all"}
TEXT, GRID = "#444444", "#e3e3e3"
COLORS = {
    "itemic tokens": "#1f6fb4",
    "text": "#d9822b",
    "all": "#8a8a8a",
    "HR@10": "#1f6fb4",
    "NDCG@10": "#d9822b",
}


@dataclass(frozen=True)
class StageLog:
    """The lines of one stage's log, and how many forest tokens it computed."""

    name: str
    lines: list[dict[str, Any]]

    @property
    def tokens(self) -> int:
        return max((int(line["tokens"]) for line in self.lines if "tokens" in line), default=0)


def read_logs(path: str | Path) -> list[StageLog]:
    """The logs of a run's stages in the order of the run, or of a single stage.

    Args:
        path: a run's folder (``train.…`` folders beside ``recipe.yaml``), or one with ``log.jsonl``.

    Raises:
        ArtifactError: there is no log.
    """
    folder = Path(path)
    if (folder / LOG).is_file():
        return [StageLog(folder.name.removeprefix("train."), _lines(folder / LOG))]
    found = [file.parent for file in folder.glob(f"train.*/{LOG}")]
    if not found:
        raise ArtifactError(
            f"{folder} has no {LOG}", "Give the folder of a run, or of one of its train.… steps."
        )
    order = _order(folder, [stage.name for stage in found])
    return [StageLog(name.removeprefix("train."), _lines(folder / name / LOG)) for name in order]


def _order(folder: Path, names: Sequence[str]) -> list[str]:
    """Stages as their recipe has them; by name where there is none."""
    import yaml

    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        stages = [(stage, "train") for stage in recipe["stages"]]
        stages += [(stage, "rl") for stage in recipe.get("rl") or []]
        wanted = [f"train.{stage.get('name', usual)}" for stage, usual in stages]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        wanted = []
    return sorted(names, key=lambda name: (wanted.index(name) if name in wanted else len(wanted), name))


def _lines(file: Path) -> list[dict[str, Any]]:
    found = []
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the last line of a run that is being written
            continue
        if "reward" in line:  # what answers cost isn't what a token does
            line["cost"] = line.pop("loss", None)
        found.append(line)
    return found


def plot_curves(path: str | Path, png: str | Path) -> None:
    """Draw losses by kind of token, and validated HR@10 and NDCG@10 where there are any, over forest tokens.

    Args:
        path: as :func:`read_logs` takes it.
        png: the picture to write.

    Raises:
        ArtifactError: there is no log.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    logs = read_logs(path)
    validated = any("valid/hr@10" in line for log in logs for line in log.lines)
    figure = Figure(figsize=(11 if validated else 6.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    _draw(panels[0], logs, LOSSES, "Training loss", "nats per token")
    if validated:
        shown = {"valid/hr@10": "HR@10", "valid/ndcg@10": "NDCG@10"}
        _draw(panels[1], logs, shown, "Validation", "")
    target = Path(png)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="png", dpi=130)


def _draw(axes: Axes, logs: Sequence[StageLog], keys: dict[str, str], title: str, unit: str) -> None:
    """One panel: a line a key and stage; stages are set apart, and lines labelled at their ends."""
    begin, top = 0, sum(log.tokens for log in logs)
    ends: dict[str, tuple[float, float]] = {}
    for log in logs:
        last = begin
        points: dict[str, list[tuple[float, float]]] = {key: [] for key in keys}
        for line in log.lines:
            last = begin + int(line["tokens"]) if "tokens" in line else last
            for key in keys:
                if key in line:
                    points[key].append((last / 1e6, line[key]))
        for key, drawn in points.items():
            if drawn:
                axes.plot(*zip(*drawn, strict=True), color=COLORS[keys[key]], linewidth=1.6)
                ends[keys[key]] = drawn[-1]
        if begin:
            axes.axvline(begin / 1e6, color="#b0b0b0", linewidth=0.8, zorder=0)
        place = (begin + log.tokens / 2) / 1e6
        axes.text(
            place,
            1.01,
            plot_label(log.name),
            transform=axes.get_xaxis_transform(),
            ha="center",
            color=TEXT,
            fontsize=8,
        )
        begin += log.tokens
    _label(axes, ends)
    axes.set_xlim(0, top / 1e6 * 1.14)
    axes.set_title(title, loc="left", fontsize=11, pad=18)
    axes.set(xlabel="million forest tokens", ylabel=unit)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """Names at the ends of lines, moved apart where they would lie on each other."""
    low, high = axes.get_ylim()
    gap, before = (high - low) * 0.05, -float("inf")
    for name, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        before = max(y, before + gap)
        axes.annotate(
            f" {name}", (x, before), color=COLORS[name], fontsize=9, va="center", annotation_clip=False
        )
