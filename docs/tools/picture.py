"""Draws docs/images/results.svg, README's picture, from the tables of docs/benchmarks.md.

python docs/tools/picture.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

DOCS = Path(__file__).resolve().parents[1]
PICTURE = DOCS / "images" / "results.svg"
NUMBER = r"\d[\d,]*(?:\.\d+)?|\.\d+"
OURS, OTHERS, TEXT, GRID = "#1f6fb4", "#b5bcc4", "#333333", "#e3e3e3"
RESULTS = {  # section → what stands above its bars
    "Quickstart": "a simulated shop",
    "Amazon Industrial & Scientific": "Amazon Scientific",
    "Amazon Beauty": "Amazon Beauty",
}
SHORT = {
    "item-to-item transitions of the last item": "transitions, last item",
    "item-to-item transitions of the last ten, weighted": "transitions, last ten",
    "itemic, blend, seed 0": "itemic",
    "blend of the model (.3) and SASRec (.7)": "without memory",
    "best reachable": "the best there is",
}


@dataclass(frozen=True)
class Bar:
    """One bar: its label, length, whether it is ours, and the interval around its end, if there is one."""

    label: str
    value: float
    ours: bool = True
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Speed:
    """A row of a table of speeds.

    Attributes:
        label: what the picture calls it.
        section: its heading.
        row: how the row begins.
        after: how a row before it begins, where the first would be another one.
        less: whether less is better.
    """

    label: str
    section: str
    row: str
    after: str = ""
    less: bool = False


LOGITS = "cross-entropy, 2,048 tokens, vocabulary 176,384, against full logits"
BEAMS, TRAINING, BEAUTY = "Constrained beam search", "Training", "Beauty, histories ≤ 50"
SPEEDS = (
    Speed("50 exact beams, against generate", BEAMS, "template cached, against the prefix function"),
    Speed("the same, its prompts computed once", BEAMS, "template cached, against the helped peer"),
    Speed("training, against TRL with padding", TRAINING, "against padding (batches of", BEAUTY),
    Speed("training, against TRL with packing", TRAINING, "against packing (packs of", BEAUTY),
    Speed("loss over a vocabulary of 176,384, time", TRAINING, f"{LOGITS}: time", less=True),
    Speed("loss over a vocabulary of 176,384, memory", TRAINING, f"{LOGITS}: peak memory", less=True),
    Speed("balanced codes, against k-means-constrained", "Semantic IDs", "`balanced`, 3 × 256", less=True),
)


def rows(section: str) -> list[list[str]]:
    """The cells of all table rows below a heading, up to the next one of its kind."""
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(section)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.M | re.S)
    if found is None:
        raise SystemExit(f"benchmarks.md has no section {section!r}")
    if found[1] == "##":  # its subsections belong to it
        found = re.search(rf"^(##) {re.escape(section)}\n(.*?)(?=^##? |\Z)", text, re.M | re.S) or found
    lines = [line for line in found[2].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def number(cell: str) -> float:
    """The first number of a cell."""
    return float(re.findall(NUMBER, cell)[0].replace(",", ""))


def accuracy(section: str) -> list[Bar]:
    """HR@10 of each row that has it, with its interval."""
    bars = []
    for name, cell, *_ in rows(section):
        if cell != "HR@10" and re.search(NUMBER, cell):
            inner = re.search(rf"\[({NUMBER}), ({NUMBER})\]", cell)
            label = re.sub(r"[*]|, published.*|, one million.*", "", name)
            interval = (float(inner[1]), float(inner[2])) if inner else None
            bars.append(Bar(SHORT.get(label, label), number(cell), "itemic" in label, interval))
    return bars


def speeds() -> list[Bar]:
    """How many times better ours is than the peer."""
    bars = []
    for speed in SPEEDS:
        table = rows(speed.section)
        start = next(i for i, cells in enumerate(table) if cells[0].startswith(speed.after))
        cells = next(cells for cells in table[start:] if cells[0].startswith(speed.row))
        ours, peer = number(cells[1]), number(cells[2])
        bars.append(Bar(speed.label, peer / ours if speed.less else ours / peer))
    return bars


def draw(place: Axes, bars: Sequence[Bar], title: str, form: str) -> None:
    """Bars from top to bottom, ours in colour."""
    for row, bar in enumerate(bars):
        place.barh(row, bar.value, 0.68, color=OURS if bar.ours else OTHERS)
        low, high = bar.interval or (bar.value, bar.value)
        place.plot([low, high], [row, row], color=TEXT, lw=1.1, solid_capstyle="butt")
        text = form.format(bar.value).lstrip("0")
        offset = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        place.annotate(text, (high, row), size=8.5, color=TEXT, **offset)
    place.set_title(title, loc="left", size=9.5, color=TEXT, weight="bold")
    place.set_yticks(range(len(bars)), [bar.label for bar in bars], size=8.5, color=TEXT)
    place.invert_yaxis()
    place.set_xlim(0, 1.18 * max(bar.value for bar in bars))
    place.set_xticks([])
    place.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        place.spines[side].set_visible(False)
    place.spines["left"].set_color(GRID)


def main() -> None:
    """Draw the picture."""
    plt.rcParams |= {"svg.hashsalt": "itemic", "font.family": "DejaVu Sans", "figure.facecolor": "white"}
    tables = [(accuracy(section), f"HR@10: {title}", "{:.3f}") for section, title in RESULTS.items()]
    tables.append((speeds(), "Times faster, or smaller, than the peer", "{:.1f} ×"))
    figure, places = plt.subplots(2, 2, figsize=(11, 5.2), layout="constrained", width_ratios=[1, 1.15])
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
    for place, (bars, title, form) in zip(places.flat, tables, strict=True):
        draw(place, bars, title, form)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})
    print(f"{PICTURE} written")


if __name__ == "__main__":
    main()
