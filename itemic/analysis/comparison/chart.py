"""Differences with their intervals, by metric and slice: as a picture, and as SVG for a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from itemic.analysis.comparison.sheets import last_step
from itemic.analysis.comparison.versus import Pair, Verdict, Versus
from itemic.page.svg import escape
from itemic.text import plot_label, shown

COLOURS: dict[Verdict, tuple[str, str]] = {  # of matplotlib and of the page
    "ahead": ("#2e8b68", "var(--c3)"),
    "behind": ("#b83a56", "var(--c5)"),
    "no difference shown": ("#8a8a8a", "var(--c8)"),
}
LONGEST = 44  # letters of a label
WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 440, 22, 196, 24, 8, 42


@dataclass(frozen=True)
class Bar:
    """A difference with its interval."""

    label: str
    value: float
    low: float
    high: float
    verdict: Verdict


def metric_bars(pair: Pair) -> list[Bar]:
    """A bar a metric."""
    return [
        Bar(one.metric.upper(), one.gain.value, one.gain.low, one.gain.high, one.verdict)
        for one in pair.metrics
    ]


def slice_bars(pair: Pair) -> tuple[str, list[Bar]]:
    """The last main metric (NDCG, where it is among them), and a bar a slice."""
    metrics = [part.metric for parts in pair.slices.values() for part in parts]
    main = next((name for name in metrics if name.startswith("ndcg")), metrics[0] if metrics else "")
    bars = [
        Bar(
            f"{name.removeprefix('target ')}: {last_step(part.value)}",
            part.gain.value,
            part.gain.low,
            part.gain.high,
            part.verdict,
        )
        for name, parts in pair.slices.items()
        for part in parts
        if part.metric == main
    ]
    return main.upper(), bars


def interval_chart(title: str, bars: Sequence[Bar], label: str) -> str:
    """Bars below each other as an SVG element, zero marked."""
    low, high, ticks = _axis(bars)
    height = TOP + ROW * len(bars) + BOTTOM
    right, bottom = WIDTH - RIGHT, height - BOTTOM

    def at(value: float) -> float:
        return LEFT + (right - LEFT) * (value - low) / (high - low)

    parts = []
    for tick in ticks:
        x, kind = at(tick), "axis" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(tick)}</text>'
        )
    for row, bar in enumerate(bars):
        y, colour = TOP + ROW * (row + 0.5), COLOURS[bar.verdict][1]
        hint = escape(f"{bar.label}: {bar.value:+.4f} [{bar.low:+.4f}, {bar.high:+.4f}], {bar.verdict}")
        name = escape(_short(bar.label, 25))
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        parts.append(
            f'<g><title>{hint}</title><line x1="{at(bar.low):.1f}" x2="{at(bar.high):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{colour}" stroke-width="2.4" stroke-linecap="round"/>'
            f'<circle cx="{at(bar.value):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/></g>'
        )
    middle = (LEFT + right) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(label)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def plot(versus: Versus, file: str | Path) -> None:
    """Draw the differences of all pairs into a PNG: a column a pair, metrics above slices."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [(pair, metric_bars(pair), *slice_bars(pair)) for pair in versus.pairs]
    rows = [max(len(bars) for _, bars, _, _ in drawn), max(len(bars) for *_, bars in drawn)]
    shares = [rows[0] + 2, rows[1] + 2] if rows[1] else [rows[0] + 2]
    figure = Figure(figsize=(6.6 * len(drawn), 0.27 * sum(shares) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shares), len(drawn), squeeze=False, gridspec_kw={"height_ratios": shares})
    for column, (pair, metrics, main, slices) in enumerate(drawn):
        title = plot_label(f"{_short(pair.first, 30)} minus {_short(pair.second, 30)}")
        _draw(axes[0, column], metrics, title)
        if rows[1]:
            _draw(axes[1, column], slices, plot_label(f"{main} by slice"))
    figure.savefig(file, dpi=120, facecolor="white")


def _draw(axis: object, bars: Sequence[Bar], title: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    places = range(len(bars))
    for place, bar in zip(places, bars, strict=True):
        colour = COLOURS[bar.verdict][0]
        axis.plot([bar.low, bar.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        axis.plot([bar.value], [place], "o", color=colour, markersize=5)
    axis.axvline(0, color="#444444", linewidth=0.9)
    axis.set_yticks(list(places), [plot_label(_short(bar.label, LONGEST)) for bar in bars])
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.grid(axis="x", color="#e3e3e3")
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    axis.set_title(title, fontsize=10, loc="left")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _axis(bars: Sequence[Bar]) -> tuple[float, float, list[float]]:
    low, high = min(0.0, *(bar.low for bar in bars)), max(0.0, *(bar.high for bar in bars))
    if high - low < 1e-9:
        low, high = -0.01, 0.01
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [round(i * step, 10) for i in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:+g}" if value else "0"


def _short(text: str, longest: int) -> str:
    text = shown(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
