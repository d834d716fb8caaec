"""Conversations whose tokens are letters, for tests that need no model: quick to import in a process of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from itemic.forest.build import TokenForest
from itemic.forest.rows import TokenRows
from itemic.training.steps import Step

DIGITS = "0123456789"


def table(
    texts: Sequence[str], groups: Sequence[str | None] | None = None, sources: Sequence[str] | None = None
) -> pl.DataFrame:
    groups = groups or [None] * len(texts)
    return pl.DataFrame(
        {
            "uuid": [f"u{i}" for i in range(len(texts))],
            "source": list(sources or ["all"] * len(texts)),
            "messages": list(texts),
            "segments": pl.Series([None] * len(texts), dtype=pl.String),
            "metadata": [json.dumps({"group": group} if group else {}) for group in groups],
        }
    )


def numbered(count: int, start: int = 0) -> list[str]:
    """Texts ``q000017A`` that tell their row's number; the last token is learned."""
    return [f"q{number:06d}A" for number in range(start, start + count)]


def by_letters(batch: pl.DataFrame) -> TokenRows:
    """Letters are tokens, capitals are learned; ``!`` can't be encoded."""
    texts = batch["messages"].to_list()
    if any("!" in text for text in texts):
        raise ValueError("an exclamation")
    return TokenRows.of(
        [[ord(ch) for ch in t] for t in texts], [[float(ch.isupper()) for ch in t] for t in texts]
    )


def deadly(batch: pl.DataFrame) -> TokenRows:
    """``#`` kills the process."""
    if any("#" in text for text in batch["messages"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return by_letters(batch)


def write(
    folder: Path, counts: Sequence[int], row_group: int = 10**6, sources: Sequence[str] = ("all",)
) -> Path:
    """Files of numbered rows, in row groups of ``row_group`` rows; sources take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for number, count in enumerate(counts):
        names = [sources[(start + k) % len(sources)] for k in range(count)]
        frame = table(numbered(count, start), None, names) if count else table([])
        file = folder / f"part-{number:03d}.parquet"
        frame.write_parquet(file, row_group_size=max(row_group, 1))
        start += count
    return folder


def rows_of(forests: Iterable[TokenForest]) -> list[int]:
    """The numbers of the rows of a step's blocks."""
    found = []
    for forest in forests:
        for leaf in forest.row_leaf.tolist():
            text, at = "", leaf
            while at >= 0:
                text, at = chr(forest.tokens[at]) + text, int(forest.parent[at])
            found.append(int("".join(ch for ch in text if ch in DIGITS)))
    return found


def fingerprint(forests: Iterable[TokenForest]) -> list[bytes]:
    """Blocks, byte by byte."""
    return [
        b"".join(
            np.ascontiguousarray(a).tobytes()
            for a in (f.tokens, f.parent, f.end, f.weight, f.position, f.row_leaf)
        )
        for f in forests
    ]


def all_rows(steps: Iterator[Step]) -> list[int]:
    return [row for step in steps for row in rows_of(step.blocks)]
