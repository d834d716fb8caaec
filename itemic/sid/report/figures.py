"""The plots of a report and of a comparison, each with what a reader needs to understand it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from itemic.page import Figure, Key
from itemic.page.svg import (
    Line,
    count_axis,
    fade,
    level_axis,
    line_chart,
    log_axis,
    nested_bars,
    share_axis,
    stacked_bars,
    thin_out,
)
from itemic.sid.report.records import Purity, SidFindings

DASHED, DOTTED = "6 4", "1.5 4"
PREFIX = "length of the prefix"


def report_figures(report: SidFindings) -> list[Figure]:
    """All plots that the report has the figures for."""
    makers = (_usage, _perplexity, _branching, _crowding, _error, _recall, _purity, _information)
    return [figure for maker in makers if (figure := maker(report)) is not None]


def _usage(report: SidFindings) -> Figure:
    lines, names = [], [f"level {i + 1}" for i in range(len(report.levels))]
    for i, level in enumerate(report.levels):
        used = [(rank / level.size, count) for rank, count in enumerate(level.counts, 1) if count]
        lines.append(Line(names[i], thin_out([(0.0, used[0][1]), *used]), i, dots=False))
    top = max(level.counts[0] for level in report.levels)
    svg = line_chart(
        "Items of each code, by rank",
        lines,
        share_axis("codes of the level, most frequent first"),
        log_axis("items of a code", 0.8, max(top, 2) * 1.2),
    )
    return Figure(
        "Usage of the codes",
        "Codes of each level sorted by how many items have them. Flat is balanced; a line that ends early leaves the "
        "codes to its right unused.",
        svg,
        [Key(name, i + 1) for i, name in enumerate(names)],
    )


def _perplexity(report: SidFindings) -> Figure:
    bars = [
        (str(i + 1), [("codes", level.size), ("used", level.used), ("perplexity", level.perplexity)])
        for i, level in enumerate(report.levels)
    ]
    return Figure(
        "Codes in effect",
        "The perplexity of a level is the number of equally used codes that would be as hard to tell apart.",
        nested_bars("Perplexity of each level", bars, count_axis("codes", max(report.sizes) * 1.08)),
        [Key("codes there are", opacity=0.0), Key("used", opacity=0.22), Key("perplexity", opacity=1.0)],
    )


def _branching(report: SidFindings) -> Figure:
    parts = [level.branching for level in report.levels]
    notes = [f"⌀ {_short(part.mean)}  ≤ {_short(part.largest)}" for part in parts]
    bins = _bins([part.histogram for part in parts], "code", "codes")
    rows = [(str(i + 1), _shares(part.histogram, len(bins), part.nodes)) for i, part in enumerate(parts)]
    return Figure(
        "Branching of the trie",
        "How many codes follow a prefix, by the level of those codes: the share of prefixes, with mean and largest "
        "branching. Where one code alone follows, decoding has nothing to decide.",
        stacked_bars("Branching per level", rows, bins, notes),
        _ramp(bins),
    )


def _crowding(report: SidFindings) -> Figure:
    bins = _bins([prefix.histogram for prefix in report.prefixes], "item", "items")
    rows = [
        (str(prefix.length), _shares(prefix.histogram, len(bins), report.collisions.items))
        for prefix in report.prefixes
    ]
    notes = [f"≤ {prefix.largest:,}" for prefix in report.prefixes]
    return Figure(
        "Sizes of groups",
        "How many items share a prefix, by its length: the share of items, with the largest group. In the last row "
        "all but the first part are collisions.",
        stacked_bars("Group sizes per prefix length", rows, bins, notes),
        _ramp(bins),
    )


def _error(report: SidFindings) -> Figure | None:
    known = [level.error for level in report.levels if level.error is not None]
    if not known:
        return None
    points = [(0.0, 1.0), *((float(i), error) for i, error in enumerate(known, 1))]
    svg = line_chart(
        "Relative reconstruction error",
        [Line("error", points)],
        level_axis("levels of codes", len(known), 0),
        share_axis("share of the variance lost", max(1.0, *known)),
    )
    return Figure(
        "Reconstruction error",
        "What the codes up to a level lose of the vectors: squared error over variance. 1 is the mean vector.",
        svg,
    )


def _purity(report: SidFindings) -> Figure | None:
    return _agreement(
        report,
        "Purity of categories",
        "The share of items that belong to the most frequent category of their group, by depth of the category path. "
        "Dotted: random groups of the same sizes; small groups are pure by chance.",
        "purity",
        lambda part: (part.purity, part.chance),
    )


def _information(report: SidFindings) -> Figure | None:
    return _agreement(
        report,
        "Information about categories",
        "Normalised mutual information of prefixes and categories. Dotted: random groups of the same sizes.",
        "NMI",
        lambda part: (part.information, part.information_chance),
    )


def _agreement(
    report: SidFindings, title: str, text: str, label: str, values: Callable[[Purity], tuple[float, float]]
) -> Figure | None:
    """A line for each depth of the category path, and a dotted one for what chance would give."""
    if not report.depths:
        return None
    lines, keys = [], []
    for i, first in enumerate(report.prefixes[0].purity):
        found = [(float(prefix.length), *values(prefix.purity[i])) for prefix in report.prefixes]
        name = f"depth {first.depth} ({first.categories:,} categories)"
        lines.append(Line(name, [(x, value) for x, value, _ in found], i))
        lines.append(Line("", [(x, chance) for x, _, chance in found], i, DOTTED, dots=False))
        keys.append(Key(name, i + 1))
    svg = line_chart(
        f"{title} by prefix length", lines, level_axis(PREFIX, len(report.prefixes)), share_axis(label)
    )
    return Figure(title, text, svg, [*keys, Key("by chance", 0, DOTTED)])


def _recall(report: SidFindings) -> Figure | None:
    found = [(float(prefix.length), prefix.recall) for prefix in report.prefixes if prefix.recall]
    if not found or report.neighbours is None:
        return None
    lines = [
        Line("ceiling", [(x, recall.ceiling) for x, recall in found], 0, DASHED, dots=False),
        Line("found", [(x, recall.found) for x, recall in found], 0),
        Line("chance", [(x, recall.chance) for x, recall in found], 0, DOTTED, dots=False),
    ]
    svg = line_chart(
        "Recall of nearest neighbours by prefix length",
        lines,
        level_axis(PREFIX, len(found)),
        share_axis("share of neighbours kept", max(recall.ceiling for _, recall in found)),
    )
    k, queries = report.neighbours["k"], report.neighbours["queries"]
    return Figure(
        "True neighbours kept",
        f"The share of an item's {k} nearest items (cosine, {queries:,} items asked) that share its prefix. No groups "
        "of these sizes could keep more than the dashed line; random ones keep the dotted.",
        svg,
        [Key("found", 1), Key("best possible", 1, DASHED), Key("by chance", 1, DOTTED)],
    )


# ----------------------------------------------------------------------- comparison


def comparison_figures(reports: Sequence[SidFindings], names: Sequence[str]) -> list[Figure]:
    """One line an index, for everything that at least one of them has."""
    keys = [Key(name, i % 8 + 1) for i, name in enumerate(names)]
    depth = max((report.depths for report in reports), default=0)
    wanted = [
        _Compared(
            "Codes in effect",
            "Perplexity of each level over its size: 1 where all codes are equally used.",
            "perplexity / codes",
            lambda r: [level.perplexity / level.size for level in r.levels],
            x="level",
        ),
        _Compared(
            "Branching of the trie",
            "Codes that follow a prefix, on average, by the level of those codes.",
            "codes that follow",
            lambda r: [level.branching.mean for level in r.levels],
            x="level",
            log=True,
        ),
        _Compared(
            "Items alone under their prefix",
            "The share of items that have a prefix to themselves; under whole semantic IDs, items without a collision.",
            "share of items",
            lambda r: [prefix.alone for prefix in r.prefixes],
        ),
        _Compared(
            "Reconstruction error",
            "What the codes up to a level lose of the vectors: squared error over variance.",
            "share of the variance lost",
            lambda r: [level.error for level in r.levels],
            x="level",
        ),
        _Compared(
            "True neighbours kept",
            "The share of an item's nearest items (cosine) that share its prefix.",
            "share of neighbours kept",
            lambda r: [prefix.recall.found if prefix.recall else None for prefix in r.prefixes],
        ),
    ]
    wanted += [
        _Compared(
            f"Agreement with categories, depth {_depth_name(reports, i)}",
            "Normalised mutual information of prefixes and categories, less what random groups of the same sizes have: "
            "many small groups don't improve it.",
            "NMI above chance",
            partial(_gains, i),
        )
        for i in range(min(depth, 3))
    ]
    figures = [_compared(reports, names, one) for one in wanted]
    return [Figure(f.title, f.text, f.svg, keys) for f in figures if f is not None]


@dataclass(frozen=True)
class _Compared:
    """One plot of a comparison: ``values`` are a report's, by level or prefix length."""

    title: str
    text: str
    label: str
    values: Callable[[SidFindings], list[float | None]]
    x: str = PREFIX
    log: bool = False


def _compared(reports: Sequence[SidFindings], names: Sequence[str], what: _Compared) -> Figure | None:
    lines = []
    for i, report in enumerate(reports):
        points = [(float(x), y) for x, y in enumerate(what.values(report), 1) if y is not None]
        if points:
            wider = (len(reports) - 1 - i) * min(0.9, 3 / len(reports))  # so that equal lines stay visible
            lines.append(Line(names[i], points, i, width=2 + wider))
    if not lines:
        return None
    top = max(y for line in lines for _, y in line.points)
    y = log_axis(what.label, 0.9, max(top, 2) * 1.2) if what.log else share_axis(what.label, top)
    x = level_axis(what.x, max(len(report.levels) for report in reports))
    return Figure(what.title, what.text, line_chart(what.title, lines, x, y))


def _gains(depth: int, report: SidFindings) -> list[float | None]:
    if depth >= report.depths:
        return [None] * len(report.prefixes)
    found = [prefix.purity[depth] for prefix in report.prefixes]
    return [max(part.information - part.information_chance, 0.0) for part in found]


def _depth_name(reports: Sequence[SidFindings], i: int) -> str:
    return next(str(r.prefixes[0].purity[i].depth) for r in reports if r.depths > i)


# -------------------------------------------------------------------------- helpers

Histogram = list[tuple[int, int, int]]


def _bins(histograms: Sequence[Histogram], one: str, many: str) -> list[str]:
    """Names of the bins of the longest histogram."""
    longest = max(histograms, key=len)
    return [
        f"1 {one}" if high == 1 else f"{high} {many}" if low == high else f"{low:,}–{high:,}"
        for low, high, _ in longest
    ]


def _shares(histogram: Histogram, bins: int, total: int) -> list[float]:
    shares = [count / total for _, _, count in histogram]
    return shares + [0.0] * (bins - len(shares))


def _ramp(bins: Sequence[str]) -> list[Key]:
    return [Key(name, opacity=fade(i, len(bins))) for i, name in enumerate(bins)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
