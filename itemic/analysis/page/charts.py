"""Charts of an analysis by Bokeh, as the documents that its JavaScript draws; tables beside them say the same."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from itemic.analysis.analysis import Analysis, Cause, Part
from itemic.analysis.page.libraries import need
from itemic.evaluate.report import Measure
from itemic.text import shown

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

# Bokeh wants a colour before the page knows whether it is light or dark: the page's script puts its own in these places
COLOURS = {f"--{name}": f"#{number:02x}a5c3" for number, name in enumerate(
    ("ink", "quiet", "rule", "grid", "c1", "c2", "c3", "c4", "c5", "c8"), start=16
)}  # fmt: skip
VERDICTS = {
    "cause": "--c5",
    "coincidence": "--c2",
    "spared": "--c3",
    "no difference": "--c8",
}
MOST_PARTS = 20  # of a slice
FAR = (1 / 30, 30)  # ends of intervals of lifts beyond these run out of the chart
LINE = 22  # characters of a line of a label
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
SAYS = '<div style="max-width: 20rem; white-space: pre-line; font-size: .85rem; line-height: 1.4">@says</div>'


@dataclass(frozen=True)
class Chart:
    """One chart: its height in pixels, so that its place can be kept free, and Bokeh's JSON of it."""

    height: int
    json: Any


def charts(analysis: Analysis) -> dict[str, Chart]:
    """By its place in the page, each chart.

    Raises:
        ConfigError: Bokeh is missing.
    """
    need("bokeh")
    from bokeh.embed import json_item

    drawn = {}
    if analysis.curve:
        drawn["curve"] = _curve(analysis)
    if analysis.levels:
        drawn["levels"], drawn["wrong"] = _levels(analysis), _wrong(analysis)
    lifts = [
        (one, one.lift)
        for one in analysis.causes
        if one.lift is not None and one.verdict != "too few" and 0 < one.lift.value < math.inf
    ]
    if lifts:
        drawn["lift"] = _lifts(lifts)
    kinds = [one for one in analysis.causes if one.about == "kind" and one.bad]
    if kinds:
        drawn["kinds"] = _kinds(kinds, analysis.bad)
    for number, parts in enumerate(analysis.slices.values()):
        drawn[f"slice-{number}"] = _slice(parts, analysis.k)
    return {name: Chart(chart.height, json_item(chart)) for name, chart in drawn.items()}


def _curve(analysis: Analysis) -> Figure:
    chart = _frame("places that are looked at", share="y")
    places = list(range(1, len(analysis.curve) + 1))
    says = [f"first {place}: {value:.1%}" for place, value in zip(places, analysis.curve, strict=True)]
    _line_at(chart, analysis.k, "height")
    chart.line(places, analysis.curve, color=COLOURS["--c1"], width=2.4)
    points = _points(chart, places, analysis.curve, says, ["--c1"] * len(places))
    points.glyph.size = 4
    for name, one in analysis.metrics.items():
        metric, _, cut = name.partition("@")
        if metric == "hr" and int(cut) <= len(places):
            _bars(chart, [int(cut)], [one], "y")
            text = f"first {cut}: {one.value:.1%}\n{one.low:.1%} to {one.high:.1%}"
            _points(chart, [int(cut)], [one.value], [text], ["--c1"])
    chart.y_range.start = 0
    return chart


def _levels(analysis: Analysis) -> Figure:
    chart = _frame("level", share="y")
    numbers = [one.level for one in analysis.levels]
    right = [one.right / one.reached if one.reached else math.nan for one in analysis.levels]
    says = [
        f"level {one.level}: {share:.1%} right\nof {one.reached:,} requests that were right so far"
        for one, share in zip(analysis.levels, right, strict=True)
    ]
    _columns(chart, numbers, right, says, "--c1")
    chance = [one.chance for one in analysis.levels]
    left, end = [number - 0.36 for number in numbers], [number + 0.36 for number in numbers]
    guess = chart.segment(x0=left, x1=end, y0=chance, y1=chance, color=COLOURS["--c2"], width=2.5)
    guess.data_source.data["says"] = [f"the most frequent code: {share:.1%}" for share in chance]
    _hover(chart, guess)
    return chart


def _wrong(analysis: Analysis) -> Figure:
    chart = _frame("level", share="y")
    bad = max(analysis.bad, 1)
    shares = [one.first_wrong / bad for one in analysis.levels]
    says = [
        f"{one.first_wrong:,} bad cases go wrong at level {one.level}: {share:.1%}"
        for one, share in zip(analysis.levels, shares, strict=True)
    ]
    _columns(chart, [one.level for one in analysis.levels], shares, says, "--c5")
    return chart


def _lifts(causes: Sequence[tuple[Cause, Measure]]) -> Figure:
    from bokeh.models import FixedTicker

    chart = _rows([cause.title for cause, _ in causes], "times as often", log=True)
    rows = list(range(len(causes)))[::-1]
    ends = [end for _, one in causes for end in (one.low, one.high) if FAR[0] < end < FAR[1]]
    middles = [one.value for _, one in causes]
    low, high = min([*ends, *middles, 0.8]) / 1.1, max([*ends, *middles, 1.25]) * 1.1
    chart.x_range.start, chart.x_range.end = low, high
    near = (1, 1.25, 1.5, 2, 3, 5) if high / low < 6 else (1, 2, 5) if high / low < 60 else (1, 3)
    ticks = [step * 10.0**power for power in range(-4, 5) for step in near]
    chart.xaxis[0].ticker = chart.xgrid[0].ticker = FixedTicker(ticks=ticks)
    chart.xaxis[0].major_label_overrides = {tick: f"{tick:g}" for tick in ticks}
    _line_at(chart, 1, "height")
    _bars(chart, rows, [one for _, one in causes], "x")
    says = [
        f"{shown(cause.title)}: {one.value:.2f} ×\n{one.low:.2f} to {one.high:.2f}\n{cause.verdict}"
        for cause, one in causes
    ]
    colours = [VERDICTS[cause.verdict] for cause, _ in causes]
    _points(chart, [one.value for _, one in causes], rows, says, colours)
    return chart


def _kinds(causes: Sequence[Cause], bad: int) -> Figure:
    chart = _rows([cause.title for cause in causes], "share of the bad cases")
    rows = list(range(len(causes)))[::-1]
    shares = [cause.bad / max(bad, 1) for cause in causes]
    drawn = chart.hbar(y=rows, right=shares, height=0.55, color=COLOURS["--c4"])
    drawn.data_source.data["says"] = [
        f"{shown(cause.title)}: {share:.1%}\n{cause.bad:,} bad cases"
        for cause, share in zip(causes, shares, strict=True)
    ]
    _hover(chart, drawn)
    chart.x_range.start = 0
    return chart


def _slice(parts: Sequence[Part], k: int) -> Figure:
    first = parts[:MOST_PARTS]
    chart = _rows([part.value or "(none)" for part in first], f"hit rate at {k}")
    rows = list(range(len(first)))[::-1]
    _bars(chart, rows, [part.hr for part in first], "x")
    says = [
        f"{shown(part.value)}\n{part.hr.value:.1%}, {part.hr.low:.1%} to {part.hr.high:.1%}\n"
        f"{part.requests:,} requests, {part.bad:,} bad"
        for part in first
    ]
    _points(chart, [part.hr.value for part in first], rows, says, ["--c1"] * len(first))
    chart.x_range.start = 0
    return chart


def _frame(label: str, *, share: str = "", height: int = 250, log: bool = False) -> Figure:
    """Axes without any tool but what is said under a pointer, so that a finger on it scrolls the page."""
    from bokeh.models import NumeralTickFormatter
    from bokeh.plotting import figure

    chart = figure(
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        output_backend="svg",
        x_axis_type="log" if log else "linear",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_alpha=0,
        min_border_right=12,
        x_axis_label=label,
    )
    for axis in chart.axis:
        axis.update(
            axis_line_color=COLOURS["--rule"],
            major_tick_line_color=None,
            minor_tick_line_color=None,
            major_label_text_color=COLOURS["--quiet"],
            major_label_text_font=FONT,
            major_label_text_font_size="12px",
            axis_label_text_color=COLOURS["--quiet"],
            axis_label_text_font=FONT,
            axis_label_text_font_size="12px",
            axis_label_text_font_style="normal",
        )
    for grid in chart.grid:
        grid.grid_line_color = COLOURS["--grid"]
    for axis in {"x": chart.xaxis, "y": chart.yaxis}.get(share, []):
        axis.formatter = NumeralTickFormatter(format="0.[0]%")
    return chart


def _rows(labels: Sequence[str], label: str, *, log: bool = False) -> Figure:
    """A row for each label, the first on top."""
    from bokeh.models import FixedTicker, PlainText

    wrapped = [_wrapped(text) for text in labels]
    chart = _frame(
        label,
        share="" if log else "x",
        height=64 + (32 if any("\n" in text for text in wrapped) else 26) * len(labels),
        log=log,
    )
    last = len(labels) - 1
    chart.y_range.start, chart.y_range.end = -0.7, last + 0.7
    axis = chart.yaxis[0]
    axis.ticker = FixedTicker(ticks=list(range(len(labels))))
    # plain, since Bokeh would read what stands between dollars as a formula
    axis.major_label_overrides = {last - i: PlainText(text=text) for i, text in enumerate(wrapped)}
    axis.axis_line_alpha = 0
    chart.ygrid.grid_line_alpha = 0
    return chart


def _columns(
    chart: Figure, at: Sequence[int], heights: Sequence[float], says: Sequence[str], colour: str
) -> None:
    from bokeh.models import FixedTicker

    drawn = chart.vbar(x=list(at), top=list(heights), width=0.55, color=COLOURS[colour])
    drawn.data_source.data["says"] = list(says)
    _hover(chart, drawn)
    chart.xaxis[0].ticker = FixedTicker(ticks=list(at))
    chart.xgrid.grid_line_alpha = 0
    chart.x_range.start, chart.x_range.end = min(at) - 0.7, max(at) + 0.7
    chart.y_range.start = 0


def _points(
    chart: Figure, x: Sequence[float], y: Sequence[float], says: Sequence[str], colours: Sequence[str]
) -> Any:
    drawn = chart.scatter(list(x), list(y), size=9, color=[COLOURS[colour] for colour in colours])
    drawn.data_source.data["says"] = list(says)
    _hover(chart, drawn)
    return drawn


def _bars(chart: Figure, at: Sequence[float], measures: Sequence[Measure], along: str) -> None:
    """Intervals, for those that have ends."""
    held = [
        (place, one.low, one.high)
        for place, one in zip(at, measures, strict=True)
        if math.isfinite(one.low) and math.isfinite(one.high)
    ]
    places, low, high = ([one[i] for one in held] for i in range(3))
    ends = {"x0": low, "x1": high, "y0": places, "y1": places} if along == "x" else {
        "x0": places, "x1": places, "y0": low, "y1": high
    }  # fmt: skip
    chart.segment(**ends, color=COLOURS["--quiet"], width=1.5)


def _line_at(chart: Figure, at: float, along: str) -> None:
    from bokeh.models import Span

    chart.add_layout(
        Span(location=at, dimension=along, line_color=COLOURS["--quiet"], line_dash="dotted", line_width=1.3)
    )


def _hover(chart: Figure, drawn: Any) -> None:
    from bokeh.models import HoverTool

    chart.add_tools(HoverTool(renderers=[drawn], tooltips=SAYS, attachment="vertical"))


def _wrapped(text: str) -> str:
    """A label of two lines at most."""
    lines = textwrap.wrap(shown(text), LINE, max_lines=2, placeholder="…", break_on_hyphens=False)
    return "\n".join(lines)
