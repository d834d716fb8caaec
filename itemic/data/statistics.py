"""Statistics of a dataset: a dictionary, a table, a plot."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.provenance import further_columns, history_of, provenance_rows
from itemic.errors import DataError
from itemic.screen import Table
from itemic.text import plot_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = {
    "min": 0.0,
    "p10": 0.1,
    "p25": 0.25,
    "median": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p99": 0.99,
    "max": 1.0,
}
TOP = 10


def describe(dataset: Dataset) -> dict[str, Any]:
    """Counts and shares of a dataset, all plain JSON values.

    ``sparsity`` is the share of (user, item) pairs without an interaction; ``popularity.gini`` is 0 where
    all items of the catalogue are equally popular and near 1 where one item has everything;
    ``head_20_percent`` is the share of interactions on the most popular fifth of the catalogue;
    ``repeats.share`` the share of interactions with an item that the user had before.
    """
    sequences = dataset.sequences
    users, items, events = len(sequences), len(dataset.items), len(sequences.items)
    user_of = np.repeat(np.arange(users, dtype=np.int64), np.diff(sequences.offsets))
    pairs = len(np.unique(user_of * items + sequences.items))
    counts = np.bincount(sequences.items, minlength=items)
    return {
        "name": dataset.name,
        "users": users,
        "items": items,
        "items_with_interactions": int((counts > 0).sum()),
        "interactions": events,
        "sparsity": 1 - pairs / max(users * items, 1),
        "sequence_length": _quantiles(np.diff(sequences.offsets)),
        "popularity": _quantiles(counts) | _concentration(counts),
        "text": _coverage(dataset.items),
        "repeats": {"interactions": events - pairs, "share": (events - pairs) / max(events, 1)},
        "time": _period(sequences.timestamps),
        "split": _split_sizes(dataset),
        "candidates": _candidates(dataset),
        "further_columns": further_columns(dataset),
        "history": history_of(dataset.notes),
    }


def _quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    found = np.quantile(values, list(QUANTILES.values())) if len(values) else np.zeros(len(QUANTILES))
    mean = float(values.mean()) if len(values) else 0.0
    return {"mean": mean} | {name: float(value) for name, value in zip(QUANTILES, found, strict=True)}


def _concentration(counts: npt.NDArray[Any]) -> dict[str, float]:
    total = max(int(counts.sum()), 1)
    falling = np.sort(counts)[::-1]
    fifth = max(round(len(counts) / 5), 1)
    return {
        "gini": gini(counts),
        "head_20_percent": float(falling[:fifth].sum() / total),
        "tail_50_percent": float(falling[len(counts) - len(counts) // 2 :].sum() / total),
    }


def gini(counts: npt.NDArray[Any]) -> float:
    """The Gini coefficient: the mean absolute difference of two items' counts over twice the mean count.

    ``[1, 1, 1, 1]`` → 0, ``[0, 0, 0, 4]`` → 0.75 (with n items at most 1 − 1/n).
    """
    total = counts.sum()
    if total == 0:
        return 0.0
    rank = np.arange(1, len(counts) + 1)
    return float((2 * rank - len(counts) - 1) @ np.sort(counts) / (len(counts) * total))


def _coverage(items: pl.DataFrame) -> dict[str, float]:
    """The share of items that have each text."""
    shares = items.select(
        (pl.col(c.TITLE) != "").mean(),
        (pl.col(c.DESCRIPTION) != "").mean(),
        (pl.col(c.BRAND) != "").mean(),
        (pl.col(c.CATEGORIES).list.len() > 0).mean(),
        *((pl.col(name).list.len() > 0).mean() for name in (c.TAGS,) if name in items.columns),
    )
    return {name: float(share or 0.0) for name, share in shares.row(0, named=True).items()}


def _period(timestamps: npt.NDArray[np.int64] | None) -> dict[str, str] | None:
    if timestamps is None or not len(timestamps):
        return None
    first, last = (datetime.fromtimestamp(int(t) / 1000, UTC) for t in (timestamps.min(), timestamps.max()))
    return {"first": first.isoformat(), "last": last.isoformat()}


def _candidates(dataset: Dataset) -> dict[str, float] | None:
    """How many users have candidates to rank, and how many on average."""
    if dataset.candidates is None:
        return None
    counts = dataset.candidates[c.CANDIDATES].list.len().to_numpy()
    return {"users": len(counts), "mean": float(counts.mean())}


def _split_sizes(dataset: Dataset) -> dict[str, Any]:
    """Interactions to train on and requests of each split; ``error`` where the dataset can't be split so."""
    sizes: dict[str, Any] = {"method": dataset.rule.method, "history": dataset.rule.history}
    try:
        sizes[c.TRAIN] = len(dataset.train.items)
    except DataError as error:
        return sizes | {"error": error.message}
    for name in (c.VALID, c.TEST):
        try:
            sizes[name] = len(dataset.split(name))
        except DataError:
            sizes[name] = 0
    return sizes


def description_table(description: dict[str, Any]) -> Table:
    """What :func:`describe` found, as a table for the screen."""
    table = Table(title=description["name"], show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in description_rows(description):
        table.add_row(name, value)
    return table


def description_rows(description: dict[str, Any]) -> list[tuple[str, str]]:
    """What :func:`describe` found, as names and figures."""
    rows = [
        (name.replace("_", " "), f"{description[name]:,}")
        for name in ("users", "items", "items_with_interactions", "interactions")
    ]
    rows.append(("sparsity", f"{description['sparsity']:.4%}"))
    for name in ("sequence_length", "popularity"):
        shown = (f"{key} {description[name][key]:,.4g}" for key in ("mean", *QUANTILES))
        rows.append((name.replace("_", " "), ", ".join(shown)))
    popularity, repeats = description["popularity"], description["repeats"]
    concentration = (
        f"Gini {popularity['gini']:.3f}; most popular fifth {popularity['head_20_percent']:.1%}, "
        f"least popular half {popularity['tail_50_percent']:.1%} of interactions"
    )
    texts = ", ".join(f"{name} {share:.1%}" for name, share in description["text"].items())
    rows += [("concentration", concentration), ("items with", texts)]
    rows.append(("repeats", f"{repeats['interactions']:,} ({repeats['share']:.1%})"))
    if description["time"]:
        rows.append(("time", f"{description['time']['first']} to {description['time']['last']}"))
    split = description["split"]
    sizes = split.get("error") or ", ".join(f"{name} {split[name]:,}" for name in c.SPLITS)
    origin = " by the source" if split["method"] == "published" else ""
    length = f"last {split['history']}" if split["history"] else "all"
    rows.append(("split", f"{split['method']}{origin}, {length} items as history: {sizes}"))
    if candidates := description.get("candidates"):
        rows.append(
            ("candidates to rank", f"of {candidates['users']:,} users, {candidates['mean']:.1f} each")
        )
    return [*rows, *provenance_rows(description)]


def plot_description(dataset: Dataset, png_path: str | Path) -> None:
    """Four plots in one PNG: lengths, popularity, interactions over time (or positions), top categories."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    (lengths, popularity), (time, categories) = figure.subplots(2, 2)
    _plot_lengths(lengths, dataset)
    _plot_popularity(popularity, dataset)
    _plot_time(time, dataset)
    _plot_categories(categories, dataset)
    figure.suptitle(
        f"{plot_label(dataset.name)}: {len(dataset.sequences):,} users, {len(dataset.items):,} items, "
        f"{len(dataset.interactions):,} interactions"
    )
    path = Path(png_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=110)


def _plot_lengths(axes: Axes, dataset: Dataset) -> None:
    lengths = np.diff(dataset.sequences.offsets)
    low, top = (int(lengths.min()), int(lengths.max())) if len(lengths) else (1, 1)
    if top <= 100:
        bins = np.arange(low, top + 2) - 0.5
    else:
        bins = np.geomspace(max(low, 1), top + 1, 40)
        axes.set_xscale("log")
    axes.hist(lengths, bins=bins.tolist())
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.8)
    axes.set(title="Sequence lengths", xlabel="interactions of a user", ylabel="users")


def _plot_popularity(axes: Axes, dataset: Dataset) -> None:
    counts = np.sort(np.bincount(dataset.sequences.items, minlength=len(dataset.items)))[::-1]
    counts = counts[counts > 0]
    axes.loglog(np.arange(1, len(counts) + 1), counts)
    axes.set(title="Popularity", xlabel="rank of the item", ylabel="interactions")


def _plot_time(axes: Axes, dataset: Dataset) -> None:
    sequences = dataset.sequences
    if sequences.timestamps is not None:
        moments = sequences.timestamps.astype("datetime64[ms]")
        axes.hist(moments, bins=min(60, max(int(np.sqrt(len(moments))), 1)))
        axes.tick_params(axis="x", labelrotation=30)
        axes.set(title="Interactions over time", xlabel="", ylabel="interactions")
        return
    lengths = np.diff(sequences.offsets)
    positions = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], lengths)
    counts = np.bincount(positions)
    axes.plot(np.arange(1, len(counts) + 1), counts)
    axes.set_yscale("log")
    axes.set(
        title="Interactions by position (no times)", xlabel="position in the sequence", ylabel="interactions"
    )


def _plot_categories(axes: Axes, dataset: Dataset) -> None:
    top = _top_categories(dataset.items).reverse()
    names = top[c.CATEGORIES].to_list()
    labels = [plot_label(name if len(name) <= 34 else f"{name[:33]}…") for name in names]
    axes.barh(labels, top["len"].to_list())
    axes.set(title=f"Items per category (the {TOP} largest)", xlabel="items")
    if not labels:
        axes.text(0.5, 0.5, "no categories", ha="center", va="center", transform=axes.transAxes)


def _top_categories(items: pl.DataFrame) -> pl.DataFrame:
    """How many items carry each name anywhere in their path, or as a tag; the largest ``TOP``.

    A name that all items with categories share (the shop itself, at the root) tells nothing and is left out.
    """
    tags = [pl.col(c.TAGS).fill_null([])] if c.TAGS in items.columns else []
    labels = pl.concat_list(c.CATEGORIES, *tags).list.unique()
    paths = items.select(labels).filter(pl.col(c.CATEGORIES).list.len() > 0)
    counts = paths.explode(c.CATEGORIES).group_by(c.CATEGORIES).len()
    telling = counts.filter(pl.col("len") < len(paths))
    return telling.sort("len", c.CATEGORIES, descending=[True, False]).head(TOP)
