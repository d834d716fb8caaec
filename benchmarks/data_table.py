"""Somebody's own CSV of 10 million interactions over a million items: read, filtered, split and saved.

    python benchmarks/data_table.py [--quick] [--json FILE]

The two files are made here by a seeded script (300,000 interactions in quick mode): users, items with Zipf's
popularity, times in seconds in no order; titles, categories and prices. Ours is ``itemic.read("table", …)``, a
5-core, leave-one-out (training sequences and requests of both splits) and ``Dataset.save``. The peer is polars' bare
``read_csv`` of the same files, which checks, sorts and filters nothing. Each side runs in a process of its own; wall
seconds, and from the interpreter on processor seconds (which others on the machine change less) and peak memory.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from common import Row, in_subprocess, main, peak_rss

SIZES = {"full": (10_000_000, 1_000_000, 1_000_000), "quick": (300_000, 30_000, 30_000)}
BLOCK = 1_000_000
START = 1_600_000_000


def make_files(folder: Path, interactions: int, users: int, items: int) -> None:
    """``clicks.csv`` and ``products.csv``."""
    rng = np.random.default_rng(0)
    weight = 1 / np.arange(1, items + 1) ** 0.7
    bounds = np.cumsum(weight / weight.sum())
    with (folder / "clicks.csv").open("wb") as file:
        for first in range(0, interactions, BLOCK):
            count = min(BLOCK, interactions - first)
            frame = pl.DataFrame(
                {
                    "user_id": (users * rng.random(count) ** 1.5).astype(np.int64),
                    "item_id": np.searchsorted(bounds, rng.random(count)).clip(max=items - 1),
                    "timestamp": START + rng.integers(0, 100_000_000, count),
                }
            )
            frame = frame.with_columns(
                pl.format("u{}", "user_id").alias("user_id"), pl.format("sku{}", "item_id").alias("item_id")
            )
            frame.write_csv(file, include_header=first == 0)
    number = pl.int_range(items, eager=True)
    pl.select(
        pl.format("sku{}", number).alias("item_id"),
        pl.format("Thing, the {}th of its kind", number).alias("title"),
        pl.format("Home > Room {} > Shelf {}", number % 20, number % 400).alias("category"),
        (number % 1000 / 10).alias("price"),
    ).write_csv(folder / "products.csv")


def ours(folder: Path) -> dict[str, float]:
    """Seconds of each step and peak bytes."""
    from itemic.data import FilterRule, apply_filters, read

    seconds, clock = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] = time.perf_counter() - clock
        clock = time.perf_counter()

    dataset = read("table", folder)
    lap("read")
    dataset = apply_filters(dataset, FilterRule(user_k_core=5, item_k_core=5))
    lap("filter")
    train, requests = dataset.train, [dataset.split(name) for name in ("valid", "test")]
    lap("split")
    dataset.save(folder / "dataset")
    lap("save")
    found = {"left": len(dataset.interactions), "trained": len(train.items), "asked": len(requests[1])}
    return seconds | found | {"seconds": sum(seconds.values())} | _used()


def theirs(folder: Path) -> dict[str, float]:
    """polars' bare read: seconds and peak bytes."""
    started = time.perf_counter()
    tables = [pl.read_csv(folder / name) for name in ("clicks.csv", "products.csv")]
    return {"seconds": time.perf_counter() - started, "rows": len(tables[0])} | _used()


def _used() -> dict[str, float]:
    return {"bytes": peak_rss(), "processor": time.process_time()}


def measure(quick: bool) -> list[Row]:
    interactions, users, items = SIZES["quick" if quick else "full"]
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name), interactions, users, items)
        peer = in_subprocess(__file__, ["--child", "theirs", name])
        found = in_subprocess(__file__, ["--child", "ours", name])
    assert peer["rows"] == interactions
    what = f"{interactions:,} interactions, {items:,} items"
    left = f"5-core leaves {found['left']:,}"
    seconds, memory = found["seconds"], found["bytes"] / 1e9
    targets = (None, None) if quick else ("≤ 60 s", "≤ 4 GB")
    steps = [
        Row(f"of it: {step}", found[step], None, "s", None, None, None)
        for step in ("read", "filter", "split", "save")
    ]
    processor = (found["processor"], peer["processor"])
    return [
        Row(
            f"{what}; {left}",
            seconds,
            peer["seconds"],
            "s",
            peer["seconds"] / seconds,
            targets[0],
            _holds(seconds, 60, quick),
        ),
        *steps,
        Row("processor time of it, all threads", *processor, "s", processor[1] / processor[0], None, None),
        Row(
            "peak memory",
            memory,
            peer["bytes"] / 1e9,
            "GB",
            peer["bytes"] / found["bytes"],
            targets[1],
            _holds(memory, 4, quick),
        ),
    ]


def _holds(value: float, limit: float, quick: bool) -> bool | None:
    return None if quick else value <= limit


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps({"ours": ours, "theirs": theirs}[sys.argv[2]](Path(sys.argv[3]))))
    else:
        main("Own CSV", measure, __doc__)
