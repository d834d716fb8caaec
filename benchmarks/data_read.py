"""Reading a raw Amazon 2018 dump: rows per CPU second and peak memory, against plain json.loads of it all.

    python benchmarks/data_read.py [--quick] [--json FILE]

The dump is made here: 2 million reviews with text (150,000 in quick mode), gzip JSON lines, and the metadata
of their items. Both sides run in a process of their own and end with the same in memory, the catalogue and
every user's items in time order, which is checked. The peer keeps, as scripts usually do, the parsed lines in
a list. Peak memory counts everything from the interpreter on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import MALLOC, Row, in_subprocess, main, peak_rss

from itemic.data.readers import read

REVIEWS, QUICK_REVIEWS = 2_000_000, 150_000
SPEED, MEMORY = 1.0, 4.0
WORDS = "good bad scent smooth cream would buy again never dry skin hair nice price gift small large".split()  # noqa: SIM905


def make_dump(folder: Path, reviews: int, seed: int = 0) -> None:
    """A dump of ``reviews`` lines, sorted by item as the real ones are: 7 reviews a user, 20 an item."""
    rng = np.random.default_rng(seed)
    users, items = max(reviews // 7, 1), max(reviews // 20, 1)
    texts = [" ".join(rng.choice(WORDS, rng.integers(5, 90))) for _ in range(2_000)]
    with gzip.open(folder / "Made_5.json.gz", "wb", compresslevel=1) as stream:
        for part in np.array_split(np.sort(rng.integers(0, items, reviews)), max(reviews // 100_000, 1)):
            count = len(part)
            chosen = pl.Series(texts).gather(rng.integers(0, len(texts), count))
            table = pl.DataFrame(
                {"number": part, "user": rng.integers(0, users, count), "reviewText": chosen}
            )
            table.select(
                pl.lit(5.0).alias("overall"),
                pl.lit(True).alias("verified"),
                pl.lit("06 17, 2018").alias("reviewTime"),
                pl.format("A{}", pl.col("user").cast(pl.String).str.zfill(13)).alias("reviewerID"),
                pl.format("B{}", pl.col("number").cast(pl.String).str.zfill(9)).alias("asin"),
                "reviewText",
                pl.col("reviewText").str.slice(0, 20).alias("summary"),
                pl.Series("unixReviewTime", rng.integers(1_300_000_000, 1_530_000_000, count)),
            ).write_ndjson(stream)
    with gzip.open(folder / "meta_Made.json.gz", "wt", compresslevel=1, encoding="utf-8") as stream:
        for item in range(items):
            meta = {
                "category": ["Made", f"Kind {item % 50}"],
                "description": [texts[item % len(texts)]],
                "title": f"Thing {item}",
                "also_buy": [f"B{(item + i) % items:09d}" for i in range(20)],
                "brand": f"Brand {item % 300}",
                "asin": f"B{item:09d}",
            }
            stream.write(json.dumps(meta) + "\n")


def read_ours(folder: Path) -> dict[str, Any]:
    started = time.process_time()
    dataset = read("amazon-2018", folder)
    seconds, rss = time.process_time() - started, peak_rss()
    table = dataset.interactions
    order = zip(table["user_id"], table["timestamp"], table["item_id"], strict=True)
    return {"seconds": seconds, "rss": rss, "items": len(dataset.items), "digest": _digest(order)}


def read_whole(folder: Path) -> dict[str, Any]:
    started = time.process_time()
    with gzip.open(folder / "Made_5.json.gz", "rt", encoding="utf-8") as stream:
        reviews = [json.loads(line) for line in stream]
    with gzip.open(folder / "meta_Made.json.gz", "rt", encoding="utf-8") as stream:
        metas = {meta["asin"]: meta for meta in map(json.loads, stream)}
    sequences: dict[str, list[tuple[int, str]]] = {}
    for review in reviews:
        if review["asin"] in metas:
            event = (review["unixReviewTime"] * 1000, review["asin"])
            sequences.setdefault(review["reviewerID"], []).append(event)
    for events in sequences.values():
        events.sort(key=lambda event: event[0])
    seconds, rss = time.process_time() - started, peak_rss()
    order = ((user, at, item) for user, events in sequences.items() for at, item in events)
    return {"seconds": seconds, "rss": rss, "items": len(metas), "digest": _digest(order)}


def _digest(events: Iterable[tuple[str, int, str]]) -> str:
    total = hashlib.sha256()
    for event in events:
        total.update(repr(event).encode())
    return total.hexdigest()


def measure(quick: bool) -> list[Row]:
    for name in MALLOC:  # those settings keep freed memory, and memory is what is measured here
        os.environ.pop(name, None)
    reviews = QUICK_REVIEWS if quick else REVIEWS
    with tempfile.TemporaryDirectory() as folder:
        make_dump(Path(folder), reviews)
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20
        ours, peer = (in_subprocess(__file__, [side, folder]) for side in ("ours", "whole"))
    if (ours["digest"], ours["items"]) != (peer["digest"], peer["items"]):
        raise RuntimeError("the two sides read different data")
    what = f"{reviews:,} reviews, {ours['items']:,} items, {size:.0f} MB of gzip"
    speed = peer["seconds"] / ours["seconds"]
    memory = peer["rss"] / ours["rss"]
    rows_a_second = reviews / ours["seconds"], reviews / peer["seconds"]
    megabytes = ours["rss"] / 2**20, peer["rss"] / 2**20
    # a small file leaves little but the interpreter and its libraries to measure
    target = None if quick else f"≥ {MEMORY:g} ×"
    return [
        Row(f"read {what}", *rows_a_second, "rows/CPU s", speed, f"≥ {SPEED:g} ×", speed >= SPEED),
        Row(f"peak memory, {what}", *megabytes, "MB", memory, target, None if quick else memory >= MEMORY),
    ]


if __name__ == "__main__":
    sides = {"ours": read_ours, "whole": read_whole}
    if len(sys.argv) == 3 and sys.argv[1] in sides:
        print(json.dumps(sides[sys.argv[1]](Path(sys.argv[2]))))
    else:
        main("Reading raw dumps", measure, __doc__)
