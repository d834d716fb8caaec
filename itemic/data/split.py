"""Splits. A split is a label on each interaction: the one split whose *target* it is.

Whatever the method, each user's labels run train … valid … test, so training sees a prefix of every sequence
and a request's history is everything that came before its target.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.data.sequences import Requests, Sequences
from itemic.data.settings import SplitRule
from itemic.errors import ConfigError, DataError
from itemic.progress import log

UNKNOWN = -1
CODES = {"train": 0, "valid": 1, "test": 2}
Labels = npt.NDArray[np.int8]


def choose_split(suggested: SplitRule, **given: Any) -> SplitRule:
    """The rule of somebody who gave some of its fields, or none: the source's own split, where it has one, is the
    default, and is told.

    Args:
        suggested: ``Dataset.rule`` as the reader left it.
        given: fields of :class:`SplitRule`; a ``method`` of None is not given. With a method that isn't the suggested
            one the other fields have their own defaults.
    """
    method = given.pop("method", None)
    if method is None and suggested.method == "published":
        log.info("split: published, the source's own; another one has to be asked for")
    base = suggested if method in (None, suggested.method) else SplitRule(method)
    return replace(base, **given)


def label_interactions(
    sequences: Sequences, rule: SplitRule, given: list[str | None] | None = None
) -> Labels:
    """The split whose target each interaction is: int8 ``[N]``, 0 train, 1 valid, 2 test, rising within each
    user.

    Args:
        sequences: everything.
        rule: how to divide it.
        given: the source's own labels, for ``published``.

    Raises:
        DataError: the data can't be split this way (no times, no published labels, labels out of order).
    """
    labels = np.zeros(len(sequences.items), np.int8)
    lengths = np.diff(sequences.offsets)
    last = sequences.offsets[1:] - 1
    if rule.method == "leave-one-out":
        labels[last[lengths >= 3] - 1] = 1
        labels[last[lengths >= 3]] = 2
    elif rule.method == "leave-last-out":
        labels[last[lengths >= 2]] = 1
    elif rule.method == "temporal":
        labels = _temporal(sequences, rule.ratios)
    else:
        labels = _published(given)
    _check_order(labels, sequences)
    return labels


def _temporal(sequences: Sequences, ratios: tuple[float, float, float]) -> Labels:
    if sequences.timestamps is None:
        raise DataError(
            "a temporal split needs a time for every interaction", "Use leave-one-out, or add timestamps."
        )
    labels = np.zeros(len(sequences.items), np.int8)
    first = np.zeros(len(sequences.items), bool)
    first[sequences.offsets[:-1][np.diff(sequences.offsets) > 0]] = True
    targets = np.flatnonzero(~first)  # a user's first item has no history and is never a target
    order = targets[np.argsort(sequences.timestamps[targets], kind="stable")]
    bounds = (np.cumsum(ratios[:2]) * len(order) + 1e-9).astype(np.int64)
    labels[order[bounds[0] :]] = 1
    labels[order[bounds[1] :]] = 2
    return labels


def _published(given: list[str | None] | None) -> Labels:
    unlabelled = next((i for i, label in enumerate(given or [None]) if label not in CODES), None)
    if given is None or unlabelled is not None:
        raise DataError(
            "this source has no published split", "Choose leave-one-out, leave-last-out or temporal."
        )
    return np.array([CODES[str(label)] for label in given], np.int8)


def _check_order(labels: Labels, sequences: Sequences) -> None:
    falling = np.flatnonzero(np.diff(labels.astype(np.int16)) < 0) + 1
    inside = falling[~np.isin(falling, sequences.offsets)]
    if len(inside):
        user = int(np.searchsorted(sequences.offsets, inside[0], "right")) - 1
        raise DataError(
            f"user {sequences.users[user]!r} has a training event after one of validation or test",
            "Sort each user's events by time, or choose another split.",
        )


def requests_of(sequences: Sequences, labels: Labels, rule: SplitRule, name: str) -> Requests:
    """The requests whose target carries the label ``name``; for leave-last-out's test, one per user without
    target.

    Raises:
        DataError: there are none.
    """
    if name not in ("valid", "test"):
        raise ConfigError(
            f"unknown split {name!r}", "Ask for 'valid' or 'test'; training data is `Dataset.train`."
        )
    user_of = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    if rule.method == "leave-last-out" and name == "test":
        user = np.flatnonzero(np.diff(sequences.offsets) > 0)
        stop = sequences.offsets[user + 1]
        targets = np.full(len(user), UNKNOWN, np.int32)
    else:
        stop = np.flatnonzero(labels == CODES[name]).astype(np.int64)
        user = user_of[stop]
        known = stop > sequences.offsets[user]  # without any history there is nothing to ask with
        stop, user = stop[known], user[known]
        targets = sequences.items[stop]
    if not len(stop):
        raise DataError(
            f"the {name} split is empty under {rule.method}",
            "Use a source with longer sequences, weaker filters or another split.",
        )
    start = sequences.offsets[user]
    if rule.history is not None:
        start = np.maximum(start, stop - rule.history)
    return Requests(sequences.users[user], *_gather(sequences.items, start, stop), targets.astype(np.int32))


def _gather(
    items: npt.NDArray[np.int32], start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    lengths = stop - start
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    index = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - start, lengths)
    return offsets, items[index]
