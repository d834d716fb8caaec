"""Profiles of any length within what a model reads: the end of a long one is left out, never in silence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.data.sequences import Requests
from itemic.tasks.asking import Asker
from itemic.tasks.profile import BOTH, Written, WrittenNext
from itemic.tasks.windows import gather_windows

Int64 = npt.NDArray[np.int64]


def fit_profiles(asker: Asker, task: WrittenNext, requests: Requests) -> tuple[WrittenNext, list[str]]:
    """Shorten the profiles of those whose prompts are longer than the model can read.

    Beside a profile the latest item of its history finds room, where the task shows items; of the others as many are
    shown as fit, like in any other prompt. What a profile loses are its last words.

    Args:
        asker: of the model; knows how prompts end, and what room answers need.
        task: whose profiles are shortened.
        requests: of their users; where one asks more than once, the profile fits all of the prompts.

    Returns:
        the task with profiles that fit, and the users whose profile was cut. A profile is empty where there is no room
        for any of it.
    """
    room = asker.room
    if room is None or not len(requests):
        return task, []
    users = [str(user) for user in requests.users]
    whole = task.written.of(pl.Series(users, dtype=pl.String)).to_list()
    stop = requests.offsets[1:]
    shown = (
        np.minimum(np.diff(requests.offsets), 1)
        if task.asked_kind == BOTH
        else np.zeros(len(users), np.int64)
    )
    offsets, items = gather_windows(requests.items, stop - shown, stop)
    numbers = np.array([str(row) for row in range(len(users))], object)
    latest = Requests(numbers, offsets, items, requests.targets, requests.catalogue)

    def fits(rows: Int64, lengths: Int64) -> npt.NDArray[np.bool_]:
        texts = {str(row): cut_text(whole[row], int(n)) for row, n in zip(rows, lengths, strict=True)}
        told = replace(task, written=Written(texts))
        found: npt.NDArray[np.bool_] = asker.prompts(latest.take(rows), told).lengths <= room
        return found

    full = np.array([len(text) for text in whole], np.int64)
    every = np.arange(len(users))
    good = np.where(fits(every, full), full, 0)
    bad = np.where(good == full, full + 1, full)
    while (open_ := np.flatnonzero(bad - good > 1)).size:
        half = (good[open_] + bad[open_]) // 2
        short = fits(open_, half)
        good[open_[short]] = half[short]
        bad[open_[~short]] = half[~short]
    texts = dict(task.written.texts)
    cut = np.flatnonzero(good < full)
    for row in cut:
        texts[users[row]] = min(texts[users[row]], cut_text(whole[row], int(good[row])), key=len)
    told = replace(task, written=Written(texts, task.written.shown)) if len(cut) else task
    return told, list(dict.fromkeys(users[row] for row in cut))


def cut_text(text: str, length: int) -> str:
    """At most ``length`` characters, up to the last whole word where there are blanks."""
    head = text[:length]
    inside = 0 < length < len(text) and not text[length].isspace() and not head[-1].isspace()
    if inside and len(words := head.rsplit(None, 1)) > 1:
        head = words[0]
    return head.rstrip()
