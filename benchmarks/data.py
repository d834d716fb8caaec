"""Conversations A-E for all of Amazon Beauty: time, memory, and the speed against a plain Python loop.

    python benchmarks/data.py [--quick] [--json FILE]

The data are OneRec-Think's pair of files in ``$ITEMIC_SHARED/beauty`` (default ``../shared/data``), split
leave-one-out. The build runs in a process of its own, from the dataset in memory to Parquet on disk; its
peak memory counts everything from the interpreter on.

The peer builds the rows of type C with a loop over users and split points, f-strings and ``json.dumps``, as
one would write it by hand; both sides make the same prompts and answers, which is checked.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from common import Row, in_subprocess, main, median_alternating, peak_rss, shared_data

from itemic.data.dataset import Dataset
from itemic.data.readers import read
from itemic.schema import SYSTEM
from itemic.sid.index import ItemIndex
from itemic.sid.published import import_index
from itemic.tasks import TASKS
from itemic.tasks.build import build_conversations

SECONDS, GIGABYTES = 60.0, 2.0
FIVE = ("A", "B", "C", "D", "E")
QUICK_USERS = 3_000


def load(quick: bool) -> tuple[Dataset, ItemIndex]:
    """Beauty and the semantic IDs that stand in its file; in quick mode the first users only."""
    folder = shared_data() / "beauty"
    dataset = read("onerec-think", folder)
    index = import_index(dataset, folder / "Beauty.pretrain.json")
    if quick:
        users = dataset.interactions["user_id"].unique(maintain_order=True).head(QUICK_USERS)
        few = dataset.interactions.filter(pl.col("user_id").is_in(users.implode()))
        dataset = Dataset(dataset.items, few, dataset.name, dataset.rule)
    return dataset, index


def build_all(quick: bool) -> dict[str, Any]:
    """Build A-E into a temporary folder; runs in a process of its own."""
    dataset, index = load(quick)
    with tempfile.TemporaryDirectory() as folder:
        started, used = time.perf_counter(), time.process_time()
        built = build_conversations(dataset, index, [{"task": name} for name in FIVE], output=folder)
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    return {"wall": wall, "cpu": cpu, "rss": peak_rss(), "bytes": size, "counts": built.counts}


def plain_loop(dataset: Dataset, index: ItemIndex) -> Iterator[tuple[str, str, str]]:
    """Type C by hand: (messages, metadata, group) of every user, split point and window."""
    lead = TASKS["C"].wordings[0]
    sids, ids, train = index.texts, index.item_ids, dataset.train
    for user in range(len(train)):
        items = train[user].tolist()
        seen = set()
        for target in range(1, len(items)):
            for window in (None, 5, 3, 2):
                if window is not None and window >= target:
                    continue
                start = max(0, target - (window or 50))
                content = tuple(items[start : target + 1])
                if content in seen:
                    continue
                seen.add(content)
                history = "".join(f"{sids[item]}" for item in items[start:target])
                messages = [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": f"{lead}{history}"},
                    {"role": "assistant", "content": sids[items[target]]},
                ]
                group = f"user:{train.users[user]}"
                metadata = {"task": "C", "kind": "next", "group": group, "target": [ids[items[target]]]}
                yield json.dumps(messages), json.dumps(metadata | {"split": "train"}), group


def check_same(dataset: Dataset, index: ItemIndex) -> None:
    """Both sides make the same rows."""
    theirs = sorted(messages for messages, _, _ in plain_loop(dataset, index))
    ours = [json.dumps(json.loads(row)) for row in TASKS["C"].build(dataset, index)["messages"]]
    if sorted(ours) != theirs:
        raise SystemExit("the plain loop and task C make different rows")


def measure(quick: bool) -> list[Row]:
    """The rows of the table."""
    found = in_subprocess(__file__, ["--child", "quick" if quick else "full"])
    rows = sum(found["counts"].values())
    detail = ", ".join(f"{name} {count:,}" for name, count in found["counts"].items())
    what = f"conversations A-E of Beauty{' (part)' if quick else ''}: {rows:,} rows ({detail})"
    gigabytes = found["rss"] / 1e9
    table = [
        Row(f"{what}, wall", found["wall"], None, "s", None, f"≤ {SECONDS:.0f} s", found["wall"] <= SECONDS),
        Row("the same, CPU", found["cpu"], None, "s", None, None, None),
        Row(
            "the same, peak memory",
            gigabytes,
            None,
            "GB",
            None,
            f"≤ {GIGABYTES:.0f} GB",
            gigabytes <= GIGABYTES,
        ),
        Row("the same, on disk", found["bytes"] / 1e6, None, "MB", None, None, None),
    ]
    dataset, index = load(quick)
    check_same(dataset, index)
    ours, peer = median_alternating(
        lambda: TASKS["C"].build(dataset, index), lambda: list(plain_loop(dataset, index)), 3
    )
    count = len(TASKS["C"].build(dataset, index))
    name = f"type C in memory, {count:,} rows, against a plain loop"
    return [*table, Row(name, count / ours, count / peer, "rows/CPU s", peer / ours, None, None)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(build_all(sys.argv[2] == "quick")))
    else:
        main("data", measure, __doc__)
