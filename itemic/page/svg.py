"""Small charts as inline SVG: no scripts, and all colours from the page's variables, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape as escape_markup
from itertools import pairwise

from itemic.text import shown

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 12, 44
COLOURS = 8  # variables --c1 … --c8 of the page


@dataclass(frozen=True)
class Line:
    """A line through points; one without a ``name`` has no entry in the legend.

    ``colour`` counts from 0 and wraps around; ``dash`` is a stroke pattern such as ``"4 3"``; ``dots`` marks points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dash: str = ""
    dots: bool = True
    width: float = 2


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, with labelled ticks."""

    label: str
    low: float
    high: float
    ticks: list[tuple[float, str]] = field(default_factory=list)
    log: bool = False

    def place(self, value: float, start: float, stop: float) -> float:
        low, high, at = (
            (math.log(x) for x in (self.low, self.high, max(value, self.low)))
            if self.log
            else (self.low, self.high, value)
        )
        return start + (stop - start) * (at - low) / ((high - low) or 1)


def share_axis(label: str, high: float = 1.0) -> Axis:
    """From 0 to ``high``, in steps that read well."""
    high = max(high, 0.001)
    step = next(
        s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if high <= 5.5 * s or s == 0.25
    )
    count = math.ceil(high / step - 1e-9)
    digits = 2 if step in (0.05, 0.25, 0.02, 0.01) else 1 if step >= 0.1 else 3
    return Axis(label, 0, count * step, [(i * step, f"{i * step:.{digits}f}") for i in range(count + 1)])


def count_axis(label: str, high: float) -> Axis:
    """From 0 to ``high`` in four or five round steps."""
    rough = max(high, 1) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    top = math.ceil(high / step - 1e-9)
    return Axis(label, 0, top * step, [(i * step, f"{i * step:,g}") for i in range(top + 1)])


def log_axis(label: str, low: float, high: float) -> Axis:
    """Powers of ten; halves and fifths too where there are few of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) - 1e-9)
    marks = (1, 2, 5) if last - first < 3 else (1,)
    ticks = [m * 10.0**p for p in range(first, last + 1) for m in marks if low <= m * 10.0**p <= high]
    return Axis(label, low, high, [(tick, f"{tick:,g}") for tick in ticks], log=True)


def level_axis(label: str, levels: int, first: int = 1) -> Axis:
    """Whole numbers, with some air on both sides."""
    ticks = [(float(i), str(i)) for i in range(first, levels + 1)]
    return Axis(label, first - 0.25, levels + 0.25, ticks)


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """Lines over two axes."""
    parts = [_frame(x, y)]
    for line in lines:
        places = [(_x(x, a), _y(y, b)) for a, b in line.points]
        colour, dash = _colour(line.colour), f' stroke-dasharray="{line.dash}"' if line.dash else ""
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{line.width:.1f}"{dash}/>'
        )
        for (a, b), (_, value) in zip(places, line.points, strict=True):
            if line.dots:
                hint = escape(f"{line.name}: {value:,.4g}".lstrip(": "))
                parts.append(
                    f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.2" fill="{colour}"><title>{hint}</title></circle>'
                )
    return _svg(title, parts)


def nested_bars(title: str, bars: Sequence[tuple[str, Sequence[tuple[str, float]]]], y: Axis) -> str:
    """For each label several values in one place, each bar inside the one before it: falling, the last one solid."""
    x = level_axis("", len(bars))
    parts = [_frame(Axis("level", x.low, x.high, [(i + 1.0, bar[0]) for i, bar in enumerate(bars)]), y)]
    slot = (WIDTH - LEFT - RIGHT) / max(len(bars), 2)
    for i, (label, values) in enumerate(bars):
        middle = _x(x, i + 1.0)
        for depth, (name, value) in enumerate(values):
            width = slot * (0.62 - 0.14 * depth)
            top, bottom = _y(y, value), _y(y, y.low)
            solid = (0.0, 0.22, 1.0)[depth + 3 - len(values)]
            hint = escape(f"{label}, {name}: {value:,.4g}")
            parts.append(
                f'<rect x="{middle - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}" '
                f'fill="{_colour(0)}" fill-opacity="{solid}" stroke="{_colour(0)}" stroke-width="1">'
                f"<title>{hint}</title></rect>"
            )
        value = values[-1][1]
        parts.append(
            f'<text class="value" x="{middle:.1f}" y="{min(_y(y, value) - 5, _y(y, y.low) - 5):.1f}" '
            f'text-anchor="middle">{value:,.{0 if value >= 100 else 1}f}</text>'
        )
    return _svg(title, parts)


def stacked_bars(
    title: str, rows: Sequence[tuple[str, Sequence[float]]], bins: Sequence[str], notes: Sequence[str]
) -> str:
    """Rows of shares that add up to one, dark for the first bin and lighter for each next; a note after each row."""
    row, note = 34, 88
    height = TOP + row * len(rows) + 8
    left, right = LEFT + 14, WIDTH - note - 8
    parts = []
    for i, (label, shares) in enumerate(rows):
        top = TOP + row * i
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{top + 17}" text-anchor="end">{escape(label)}</text>'
        )
        edge = float(left)
        for depth, part in enumerate(shares):
            width = part * (right - left)
            if width > 0:
                hint = escape(f"{bins[depth]}: {part:.1%}")
                parts.append(
                    f'<rect class="part" x="{edge:.1f}" y="{top}" width="{width:.1f}" height="24" fill="{_colour(0)}" '
                    f'fill-opacity="{fade(depth, len(bins)):.3f}"><title>{hint}</title></rect>'
                )
            edge += width
        parts.append(f'<text class="tick" x="{right + 8}" y="{top + 17}">{escape(notes[i])}</text>')
    return _svg(title, parts, height)


def fade(depth: int, bins: int) -> float:
    """Opacity of a bin: 1 for the first, falling to .1."""
    return 1 - 0.9 * depth / max(bins - 1, 1)


def _frame(x: Axis, y: Axis) -> str:
    low, high, left, right = HEIGHT - BOTTOM, TOP, LEFT, WIDTH - RIGHT
    parts = []
    for value, text in y.ticks:
        at = _y(y, value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 7}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    for value, text in x.ticks:
        at = _x(x, value)
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{low + 17}" text-anchor="middle">{escape(text)}</text>'
        )
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{low}" y2="{low}"/>')
    parts.append(
        f'<text class="label" x="{(left + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>'
    )
    middle = (low + high) / 2
    parts.append(
        f'<text class="label" transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return "".join(parts)


def _svg(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        f'preserveAspectRatio="xMidYMid meet">{"".join(parts)}</svg>'
    )


def _x(axis: Axis, value: float) -> float:
    return axis.place(value, LEFT, WIDTH - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return axis.place(value, HEIGHT - BOTTOM, TOP)


def _colour(number: int) -> str:
    return f"var(--c{number % COLOURS + 1})"


def thin_out(points: Sequence[tuple[float, float]], most: int = 200) -> list[tuple[float, float]]:
    """A staircase of many points without those that nobody can see: ends of equal runs, at most about ``most``."""
    corners = [points[0]]
    corners += [
        b
        for (a, b), c in zip(pairwise(points), [*points[2:], None], strict=True)
        if c is None or not a[1] == b[1] == c[1]
    ]
    if len(corners) <= most:
        return corners
    step = len(corners) / most
    return [corners[int(i * step)] for i in range(most)] + [corners[-1]]


def escape(text: str) -> str:
    """The text inside an element or attribute."""
    return escape_markup(shown(text))
