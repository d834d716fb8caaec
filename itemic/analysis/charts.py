"""Plots of an analysis, as PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from itemic.analysis.analysis import Analysis, Cause, Part
from itemic.text import plot_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 15  # bars
BAD, GOOD, MARK = "#b3261e", "#2e7d5b", "#333333"


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Write ``causes.png``, ``kinds.png``, ``curve.png``, ``levels.png`` and ``slices.png``, as far as there is
    anything to see."""
    folder.mkdir(parents=True, exist_ok=True)
    plots: list[tuple[str, bool, Callable[[Axes, Analysis], None]]] = [
        ("causes", bool(_patterns(analysis)), _draw_causes),
        ("kinds", bool(_kinds(analysis)), _draw_kinds),
        ("curve", True, _draw_curve),
        ("levels", bool(analysis.levels), _draw_levels),
    ]
    written = [_figure(folder / f"{name}.png", one, analysis) for name, there, one in plots if there]
    if any(len(parts) > 1 for parts in analysis.slices.values()):
        written.append(_draw_slices(folder / "slices.png", analysis))
    return written


def _figure(file: Path, draw_one: Callable[[Axes, Analysis], None], analysis: Analysis) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    draw_one(figure.subplots(), analysis)
    figure.savefig(file, format="png", dpi=110)
    return file


def _patterns(analysis: Analysis) -> list[Cause]:
    return [one for one in analysis.causes if one.lift is not None and one.verdict != "too few"]


def _kinds(analysis: Analysis) -> list[Cause]:
    return [one for one in analysis.causes if one.about == "kind" and one.bad]


def _draw_causes(axes: Axes, analysis: Analysis) -> None:
    """The share of each pattern among bad and good cases."""
    rows = _patterns(analysis)[:MOST][::-1]
    place = np.arange(len(rows))
    axes.barh(place + 0.2, [one.share_bad for one in rows], 0.38, color=BAD, label="bad cases")
    axes.barh(place - 0.2, [one.share_good for one in rows], 0.38, color=GOOD, label="good cases")
    axes.set_yticks(place, [f"{plot_label(one.title)}\n{one.verdict}" for one in rows], fontsize=8)
    axes.set(title=f"Patterns of {plot_label(analysis.name)}", xlabel="share of the cases that could show it")
    axes.legend(loc="lower right")


def _draw_kinds(axes: Axes, analysis: Analysis) -> None:
    rows = _kinds(analysis)[:MOST][::-1]
    axes.barh(np.arange(len(rows)), [one.share_bad for one in rows], 0.6, color=BAD)
    axes.set_yticks(np.arange(len(rows)), [plot_label(one.title) for one in rows], fontsize=8)
    axes.set(title=f"Kinds of bad cases of {plot_label(analysis.name)}", xlabel="share of the bad cases")


def _draw_curve(axes: Axes, analysis: Analysis) -> None:
    places = np.arange(1, len(analysis.curve) + 1)
    axes.plot(places, analysis.curve, marker="o", markersize=3, color=GOOD)
    axes.axvline(analysis.k, color=MARK, linestyle=":", linewidth=1)
    axes.set(
        title=f"Hit rate of {plot_label(analysis.name)} by length of the list", xlabel="k", ylabel="hit rate"
    )
    axes.set_ylim(bottom=0)


def _draw_levels(axes: Axes, analysis: Analysis) -> None:
    """How often a level is right after right ones, at the first place of the lists."""
    shown = [one for one in analysis.levels if one.reached]
    place = np.arange(len(shown))
    axes.bar(place - 0.2, [one.right / one.reached for one in shown], 0.38, color=GOOD, label="first place")
    axes.bar(
        place + 0.2, [one.chance for one in shown], 0.38, color="#9e9e9e", label="most frequent code there"
    )
    axes.set_xticks(place, [f"level {one.level}\n{one.reached:,} reached it" for one in shown])
    axes.set(title="Accuracy of a level, given that those before are right", ylabel="share right")
    axes.set_ylim(0, 1)
    axes.legend()


def _draw_slices(file: Path, analysis: Analysis) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    slices = [(name, parts[:MOST]) for name, parts in analysis.slices.items() if len(parts) > 1]
    figure = Figure(figsize=(8, 3.2 * len(slices)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, parts) in zip(figure.subplots(len(slices), squeeze=False)[:, 0], slices, strict=True):
        _draw_parts(axes, name, parts, analysis.k)
    figure.savefig(file, format="png", dpi=110)
    return file


def _draw_parts(axes: Axes, name: str, parts: list[Part], k: int) -> None:
    place = np.arange(len(parts))
    values = np.array([one.hr.value for one in parts])
    wide = np.array([[one.hr.value - one.hr.low, one.hr.high - one.hr.value] for one in parts]).T
    axes.barh(place[::-1], values, 0.6, xerr=np.maximum(wide, 0), color=GOOD, ecolor=MARK, capsize=2)
    labels = [f"{plot_label(_last(one.value))} ({one.requests:,})" for one in parts]
    axes.set_yticks(place[::-1], labels, fontsize=7)
    axes.set(title=plot_label(name), xlabel=f"hit rate at {k}")


def _last(path: str) -> str:
    """The last step of a category path."""
    return path.rsplit(" > ", 1)[-1]
