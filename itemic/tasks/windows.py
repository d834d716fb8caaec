"""Which part of a user's past a row shows."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.data.sequences import Sequences
from itemic.errors import ConfigError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Number = TypeVar("Number", bound=np.integer)

WINDOWS = ("sliding", "blocks")
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64


def window_starts(lengths: Int64, max_items: int | None, window: str) -> Int64:
    """Where a window over the last ``max_items`` of ``lengths`` items begins.

    ``sliding`` shows exactly the last ``max_items``; neighbouring rows of a long history then begin at
    different items and share nothing. ``blocks`` begins at multiples of half a window only, so that runs of
    rows share their beginning; a row shows between half a window and a whole one.
    """
    if max_items is None:
        return np.zeros_like(lengths)
    over = np.maximum(lengths - max_items, 0)
    if window == "sliding":
        return over
    step = max(1, max_items // 2)
    return -(-over // step) * step


def check_window(task: str, max_items: int | None, window: str = "sliding", least: int = 1) -> None:
    """Refuse what can't be a window.

    Raises:
        ConfigError: which option is wrong.
    """
    if max_items is not None and max_items < least:
        raise ConfigError(f"task {task}: max_items is {max_items}", f"Give {least} or more, or none for all.")
    if window not in WINDOWS:
        raise ConfigError(f"task {task}: unknown window {window!r}", f"Use one of {', '.join(WINDOWS)}.")


def distinct_windows(train: Sequences, user: Int64, start: Int64, stop: Int64) -> npt.NDArray[np.bool_]:
    """Which of the windows ``train.items[start:stop]`` are the first of their content within their user.

    Windows are compared by a polynomial hash of scrambled items modulo 2^64, computed for all windows at once
    from the hashes of the prefixes; two windows of a user collide with odds of about 2^-64.
    """
    scramble = (
        np.random.default_rng(7).integers(0, 2**63, int(train.items.max(initial=0)) + 1).astype(np.uint64)
    )
    count = len(train.items)
    power = _powers(BASE, count)
    unpower = _powers(pow(BASE, -1, 2**64), count)
    sums: UInt64 = np.zeros(count + 1, np.uint64)
    np.cumsum(scramble[train.items] * power[:count], out=sums[1:])
    content = (sums[stop] - sums[start]) * unpower[start] + (stop - start).astype(np.uint64)
    keep = np.zeros(len(user), bool)
    order = np.lexsort((np.arange(len(user)), content, user))
    same = (np.diff(user[order]) == 0) & (np.diff(content[order]) == 0)
    keep[order[np.concatenate([[True], ~same])[: len(order)]]] = True
    return keep


def times_of(train: Sequences, start: Int64, stop: Int64) -> pl.Series | None:
    """When the items ``start … stop`` of the sequences were taken: a List(Int64) each; None where nobody knows."""
    if train.timestamps is None:
        return None
    offsets, values = gather_windows(train.timestamps, start, stop)
    rows = np.repeat(np.arange(len(start)), np.diff(offsets))
    known = pl.DataFrame({"row": rows, "time": values}).group_by("row", maintain_order=True).agg("time")
    every = pl.DataFrame({"row": np.arange(len(start))}).join(
        known, on="row", how="left", maintain_order="left"
    )
    return every["time"].cast(pl.List(pl.Int64)).fill_null([])


def gather_windows(
    items: npt.NDArray[Number], start: Int64, stop: Int64
) -> tuple[Int64, npt.NDArray[Number]]:
    """The windows ``items[start:stop]`` one after the other, as offsets and items."""
    lengths = stop - start
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    index = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - start, lengths)
    return offsets, items[index]


def _powers(base: int, count: int) -> UInt64:
    """``base ** 0 … base ** count`` modulo 2^64."""
    factors = np.full(count + 1, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)
