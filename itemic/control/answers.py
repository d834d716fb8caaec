"""Lists as they were read, beside what they were to be: arrays, which rewards and metrics are functions of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from itemic.control.labels import Labels
from itemic.control.want import Want
from itemic.errors import ConfigError

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Rows = npt.NDArray[np.integer] | Sequence[int]

Kind = Literal["none", "with", "without", "at most", "at least", "about"]


@dataclass(frozen=True)
class Answers:
    """Lists, and what they were to be.

    Attributes:
        items: int32 ``[B, K]``, rows, -1 for an entry that names no item; what is behind a list means nothing.
        lengths: int64 ``[B]``, entries of each; K or fewer.
        counts: int64 ``[B]``, how many were asked for.
        targets: int32 ``[B]``, the item that came next; -1 where nobody knows.
        places: int64 ``[B, K]``, the 0-based place of each entry in the teacher's list; -1 where it isn't in it.
        history: bool ``[B, K]``, whether an entry is in the history.
        kinds: of control: ``none``, ``with`` and ``without`` a label, ``at most``, ``at least`` and ``about`` a share.
        inside: bool ``[B, K]``, whether an entry has the label of its control.
        quotas: int64 ``[B]``, of a share the items that are to have the label; anything else elsewhere.
    """

    items: Int32
    lengths: Int64
    counts: Int64
    targets: Int32
    places: Int64
    history: Bool
    kinds: tuple[Kind, ...]
    inside: Bool
    quotas: Int64

    def of_kind(self, *kinds: Kind) -> Bool:
        """bool ``[B, 1]``: which are of one of these kinds."""
        return np.array([[kind in kinds] for kind in self.kinds], np.bool_).reshape(-1, 1)

    @classmethod
    def of(
        cls,
        lists: Sequence[Rows],
        wants: Sequence[Want],
        labels: Labels,
        *,
        targets: Rows | None = None,
        ranked: Sequence[Rows] | None = None,
        histories: Sequence[Rows] | None = None,
    ) -> Answers:
        """From lists and wants.

        Args:
            lists: rows, -1 for what names no item.
            wants: of each, with one control at most: some wanted labels, some unwanted ones, or one share.
            labels: of the catalogue.
            targets: of each; None where nobody knows any.
            ranked: the teacher's list for each, best first; None for none.
            histories: of each; None for none.

        Raises:
            ConfigError: a want has several controls, or a label that isn't there.
        """
        items, lengths = padded(lists)
        kinds, quotas, inside = [], np.zeros(len(lists), np.int64), np.zeros(items.shape, np.bool_)
        masks: dict[Want, Bool] = {}
        for number, want in enumerate(wants):
            kind, quotas[number] = control_of(want)
            kinds.append(kind)
            if want not in masks:
                masks[want] = _asked(want, labels)
            inside[number] = masks[want][items[number]] & (items[number] >= 0)
        places, history = np.full(items.shape, -1, np.int64), np.zeros(items.shape, np.bool_)
        for number, own in enumerate(items):
            if ranked is not None:
                at = {int(row): place for place, row in reversed([*enumerate(ranked[number])])}
                places[number] = [at.get(row, -1) if row >= 0 else -1 for row in own.tolist()]
            if histories is not None:
                history[number] = np.isin(own, histories[number]) & (own >= 0)
        known = np.full(len(lists), -1, np.int32) if targets is None else np.asarray(targets, np.int32)
        counts = np.array([want.count for want in wants], np.int64)
        return cls(items, lengths, counts, known, places, history, tuple(kinds), inside, quotas)


def padded(lists: Sequence[Rows]) -> tuple[Int32, Int64]:
    """Lists of any length as int32 ``[B, K]``, -1 behind each, and their lengths int64 ``[B]``."""
    lengths = np.array([len(own) for own in lists], np.int64)
    items = np.full((len(lists), max(int(lengths.max(initial=0)), 1)), -1, np.int32)
    for row, own in zip(items, lists, strict=True):
        row[: len(own)] = own
    return items, lengths


def control_of(want: Want) -> tuple[Kind, int]:
    """What kind of control a want has, and of a share how many items.

    That is the most of ``at most``, the least of ``at least``, and of ``about`` the nearest number, the even one of
    two.

    Raises:
        ConfigError: it has several.
    """
    several = [bool(want.wanted), bool(want.unwanted), *[True] * len(want.shares)]
    if sum(several) > 1:
        raise ConfigError(
            f"{want!r} has several controls, and rewards are of one", "Reward one of them, or each by itself."
        )
    if want.wanted:
        return "with", 0
    if want.unwanted:
        return "without", 0
    if not want.shares:
        return "none", 0
    part = want.shares[0]
    low, high = part.bounds(want.count)
    if part.how == "about":
        return "about", round(part.portion * want.count) if low < high else low
    return part.how, high if part.how == "at most" else low


def _asked(want: Want, labels: Labels) -> Bool:
    """bool ``[n + 1]``: which items have what the control is about; the last place is nobody's."""
    found = np.zeros(labels.items + 1, np.bool_)
    inside = np.ones(labels.items, np.bool_)
    wanted = [labels.number(name) for name in want.wanted]
    for column in dict.fromkeys(labels.columns[number] for number in wanted):
        some = [labels.mask(number) for number in wanted if labels.columns[number] == column]
        inside &= np.any(some, axis=0)
    others = [*want.unwanted, *(part.label for part in want.shares)]
    if others:
        inside &= np.any([labels.mask(labels.number(name)) for name in others], axis=0)
    found[:-1] = inside if wanted or others else False
    return found
