"""Profiles against a whole catalogue: exact ranks and lists, against the matrix product alone; memory.

64 vectors of profiles and 100,000 of items, 384 numbers each (MiniLM's), random and of length 1; targets anywhere in
the catalogue, which is the dearest case: around the middle of the scores most items are in doubt. The peer is one
``torch.mm`` into a table that is there already. Ranks are compared with a table of float64, outside of the clock.
Seconds are process CPU seconds on one thread, both sides in turn, medians of nine. Memory is what a process of its own
holds at most while it searches, beyond what it held before (Linux alone counts that).

    python benchmarks/profiles.py [--quick] [--json FILE]
    python benchmarks/profiles.py --steps [--quick]      a step of a writer, see profile_steps.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from common import Row, in_subprocess, main, median_alternating, peak_rss
from profile_steps import measure_steps

from itemic.profile.find import ItemVectors

WIDTH, PROFILES = 384, 64


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    found = rng.normal(size=(count, WIDTH)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def exact(profiles: np.ndarray, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Ranks by all scores in float64."""
    scores = profiles.astype(np.float64) @ items.astype(np.float64).T
    return 1 + (scores > scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)


def memory(count: int, items: int) -> int:
    """Bytes that a search for so many profiles needs at most, what it gives back included."""
    rng = np.random.default_rng(0)
    torch.set_num_threads(1)
    vectors, profiles, targets = (
        ItemVectors.of(unit(rng, items)),
        unit(rng, count),
        rng.integers(0, items, count),
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_rss()
    vectors.find(profiles, targets=targets, k=10)
    return peak_rss() - before


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    items = 20_000 if quick else 100_000
    rng = np.random.default_rng(0)
    profiles, table = unit(rng, PROFILES), unit(rng, items)
    targets = rng.integers(0, items, PROFILES)
    vectors = ItemVectors.of(table)
    found = vectors.find(profiles, targets=targets)
    assert (found.ranks == exact(profiles, table, targets)).all()
    left, right, out = torch.from_numpy(profiles), torch.from_numpy(table), torch.empty(PROFILES, items)

    def product() -> object:
        with torch.inference_mode():
            return torch.mm(left, right.T, out=out)

    rows = []
    for name, k, target in (("ranks", 0, 1.1), ("ranks and the best 20", 20, None)):
        ours, peer = median_alternating(
            lambda k=k: vectors.find(profiles, targets=targets, k=k), product, repeats=3 if quick else 9
        )
        rows.append(
            Row(
                f"{name} of {PROFILES} profiles among {items:,} items, against the product alone",
                ours * 1000,
                peer * 1000,
                "CPU ms",
                ours / peer,
                None if target is None else f"≤ {target} ×",
                None if target is None else ours / peer <= target,
            )
        )
    few, many = PROFILES, PROFILES * (10 if quick else 100)
    small, large = (
        in_subprocess(__file__, ["--memory", str(n), str(items)])["bytes"] / 1e6 for n in (few, many)
    )
    dense = many * items * 4 / 1e6
    rows.append(
        Row(
            f"memory of a search for {many:,} profiles; a table of scores would be {dense:,.0f} MB",
            large,
            small,
            f"MB; peer: for {few}",
            None,
            "flat: ≤ 8 MB more",
            large - small <= 8,
        )
    )
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(json.dumps({"bytes": memory(int(sys.argv[2]), int(sys.argv[3]))}))
    else:
        main("Profiles against a catalogue, CPU", measure, __doc__, {"steps": measure_steps})
