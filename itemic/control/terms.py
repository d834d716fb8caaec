"""What a want comes to in a catalogue: which items may come after a history, and how many of which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.control.labels import Labels
from itemic.control.quotas import Quotas
from itemic.control.want import Want
from itemic.errors import ConfigError, ConstraintError

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Rows = npt.NDArray[np.integer] | Sequence[int]


@dataclass(frozen=True, eq=False)
class Terms:
    """What a list must be: ``count`` of ``rows``, all different, under ``quotas``.

    Attributes:
        want: what it came of.
        rows: int32 ``[m]``, rising: the items that may come; of those that share a name the one in the lowest row.
        classes: int32 ``[m]``, the class of each, a row of ``quotas.member``.
        quotas: how many of which class.
    """

    want: Want
    rows: Int32
    classes: Int32
    quotas: Quotas

    @property
    def count(self) -> int:
        """How many items the list has."""
        return self.quotas.count

    @property
    def short(self) -> int:
        """How many fewer than were wanted."""
        return self.want.count - self.count

    def kept_by(self, items: Rows) -> bool:
        """Whether a list keeps to them all."""
        own = np.asarray(items, np.int64)
        if len(own) != self.count or len(np.unique(own)) != len(own):
            return False
        place = np.minimum(np.searchsorted(self.rows, own), len(self.rows) - 1)
        if (self.rows[place] != own).any():
            return False
        there = self.quotas.member[self.classes[place]].sum(0)
        return bool(((self.quotas.bounds[:, 0] <= there) & (there <= self.quotas.bounds[:, 1])).all())


@dataclass(frozen=True, eq=False)
class _Whole:
    """Of a want before any history: which rows may come, and what a row counts for, as bits of a number."""

    allowed: Bool
    member: Bool  # [K, S], which shares the items of each class count for
    classes: Int32  # [n], rows of ``member``


class TermsOf:
    """Makes terms of wants in a catalogue; what a want says of the catalogue is worked out once.

    Args:
        labels, names, shorter: as for :meth:`itemic.control.want.Want.check`.
    """

    def __init__(self, labels: Labels, *, names: Int64 | None = None, shorter: bool = False) -> None:
        self.labels, self.names, self.shorter = labels, names, shorter
        self._whole: dict[Want, _Whole] = {}
        self._known: dict[tuple[int, bytes, bytes, bytes], Quotas] = {}

    def __call__(self, want: Want, history: Rows = ()) -> Terms:
        """Terms of one request, errors as those of :meth:`itemic.control.want.Want.check`."""
        if want not in self._whole:
            self._whole[want] = self._of(want)
        whole = self._whole[want]
        left = whole.allowed
        out = np.asarray([*want.avoid, *history], np.int64)
        if len(out):
            left = left.copy()
            left[_inside(out, self.labels.items, "avoided or in the history")] = False
            if self.names is not None:
                left &= ~np.isin(self.names, self.names[out])
        rows = np.flatnonzero(left).astype(np.int32)
        if self.names is not None:
            rows = np.sort(rows[np.unique(self.names[rows], return_index=True)[1]])
        if not len(rows):
            raise ConstraintError(
                f"all {int(whole.allowed.sum())} items that {_named(want)} leaves are in the history or to be avoided",
                "Want something else as well.",
            )
        classes, member = whole.classes[rows], whole.member
        sizes = np.bincount(classes, minlength=len(member)).astype(np.int64)
        if not sizes.all():
            there = sizes > 0
            classes = (np.cumsum(there) - 1)[classes].astype(np.int32)
            member, sizes = member[there], sizes[there]
        quotas = self._quotas(want, member, sizes)
        return Terms(want, rows, classes, quotas)

    def many(self, wants: Sequence[Want], histories: Sequence[Rows]) -> list[Terms]:
        """Terms of many requests; the one at fault is named.

        Raises:
            ConfigError, ConstraintError: as for one.
        """
        found = []
        for number, (want, history) in enumerate(zip(wants, histories, strict=True)):
            try:
                found.append(self(want, history))
            except (ConfigError, ConstraintError) as error:
                raise type(error)(f"request {number}: {error.message}", error.remedy) from None
        return found

    # ------------------------------------------------------------------------------------- the catalogue

    def _of(self, want: Want) -> _Whole:
        labels = self.labels
        wanted = [labels.number(name) for name in want.wanted]
        unwanted = [labels.number(name) for name in want.unwanted]
        shares = [labels.number(part.label) for part in want.shares]
        for number in wanted:
            if number in unwanted:
                raise ConfigError(
                    f"{labels.names[number]!r} is wanted and unwanted", "Choose one of the two."
                )
        for number in (*wanted, *unwanted, *shares):
            if not labels.sizes[number]:
                raise ConstraintError(f"no item is of {labels.names[number]!r}", "Leave the label out.")
        allowed = np.ones(labels.items, np.bool_)
        if want.candidates is not None:
            allowed[:] = False
            allowed[_inside(np.array(want.candidates), labels.items, "a candidate")] = True
        for column in dict.fromkeys(labels.columns[number] for number in wanted):
            some = [number for number in wanted if labels.columns[number] == column]
            allowed &= np.any([labels.mask(number) for number in some], axis=0)
            if not allowed.any():
                told = " or ".join(repr(labels.names[number]) for number in some)
                raise ConstraintError(
                    f"of what else is wanted no item is of {told}",
                    "Want one of them alone, or other candidates.",
                )
        for number in unwanted:
            allowed &= ~labels.mask(number)
            if not allowed.any():
                raise ConstraintError(
                    f"without {labels.names[number]!r} nothing is left of what {_named(want)} leaves",
                    "Want something that isn't unwanted as well.",
                )
        bits = np.zeros(labels.items, np.int64)
        for place, number in enumerate(shares):
            bits |= labels.mask(number).astype(np.int64) << place
        kinds, classes = np.unique(bits, return_inverse=True)
        member = (kinds[:, None] >> np.arange(len(shares)) & 1).astype(np.bool_)
        return _Whole(allowed, member, classes.astype(np.int32))

    # ------------------------------------------------------------------------------------- the numbers

    def _quotas(self, want: Want, member: Bool, sizes: Int64) -> Quotas:
        """Of so many items as are wanted, or of the most that can be had."""
        there = int(sizes.sum())
        if there < want.count and not self.shorter:
            raise ConstraintError(
                f"{want.count} items are wanted, and {there} may come", "Want fewer, or allow a shorter list."
            )
        for count in range(min(there, want.count), 0, -1):
            bounds = np.array([part.bounds(count) for part in want.shares], np.int64).reshape(-1, 2)
            quotas = self._shared(count, bounds, member, np.minimum(sizes, count))
            if quotas.possible:
                return quotas
            if not self.shorter:
                break
        raise ConstraintError(self._unmet(want, member, sizes), "Change the shares, or what else is wanted.")

    def _shared(self, count: int, bounds: Int64, member: Bool, sizes: Int64) -> Quotas:
        """Requests that differ in nothing that matters share what was worked out."""
        key = count, bounds.tobytes(), member.tobytes(), sizes.tobytes()
        if key not in self._known:
            self._known[key] = Quotas(count, bounds, member, sizes)
        return self._known[key]

    def _unmet(self, want: Want, member: Bool, sizes: Int64) -> str:
        """Which shares stand in the way."""
        total, have = int(sizes.sum()), sizes @ member
        for part, own in zip(want.shares, have.tolist(), strict=True):
            low, high = part.bounds(want.count)
            told = f"{part.how} {part.portion:.6g} of {want.count} items are to be of {part.label!r}"
            if low > high:
                return f"{told}, which no whole number is"
            if own < low:
                return f"{told}, and {own} may come"
            if total - own < want.count - high:
                return f"{told}, and only {total - own} others may come"
        told = ", ".join(f"{part.how} {part.portion:.6g} of {part.label!r}" for part in want.shares)
        return f"these shares of {want.count} items can't be met together: {told}"


def _inside(rows: Int64, items: int, what: str) -> Int64:
    wrong = rows[(rows < 0) | (rows >= items)]
    if len(wrong):
        raise ConstraintError(
            f"item row {wrong[0]} is {what}, and the catalogue has {items} items",
            "Name rows of this catalogue.",
        )
    return rows


def _named(want: Want) -> str:
    return repr(want) if not want.plain else "the catalogue"
