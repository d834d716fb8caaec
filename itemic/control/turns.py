"""What somebody says of a list that they were shown: fewer of those, more, none, only. It makes a new want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from itemic.control.labels import Labels
from itemic.control.want import PartOf, Want
from itemic.control.words import Wording, percent, worded
from itemic.errors import ConfigError

Turn = Literal["fewer", "more", "none", "only"]

TURNS: Final[dict[str, tuple[str, ...]]] = {
    "fewer": (
        "Fewer of {label}, please: at most {portion}.",
        "That is too much of {label}. Let it be {portion} or less.",
        "Once more with less of {label}, no more than {portion}.",
        "Cut down on {label}, to at most {portion}.",
    ),
    "more": (
        "More of {label}, please: at least {portion}.",
        "That is too little of {label}. Let it be {portion} or more.",
        "Once more with more of {label}, no less than {portion}.",
        "Add to {label}, up to at least {portion}.",
    ),
    "none": (
        "No more of {label}, please.",
        "Once more, without anything of {label}.",
        "I have had enough of {label}. Leave it out.",
        "Drop all that is of {label}.",
    ),
    "only": (
        "Only of {label}, please.",
        "Once more, and all of {label}.",
        "I want nothing but {label} now.",
        "Keep to {label} alone.",
    ),
}


def turned(want: Want, turn: Turn, label: str, labels: Labels, shown: Sequence[int]) -> Want:
    """The want behind a turn of a conversation.

    ``fewer`` is at most half of what the list had of the label, ``more`` at least twice as many, and one more at the
    least. What was said of the label before no longer holds, and what was shown isn't avoided.

    Args:
        want: what was wanted.
        turn: what is said now.
        label: of which label.
        labels: of the catalogue.
        shown: rows of the list that is spoken of.

    Raises:
        ConfigError: the label isn't there or is ambiguous; none of it was shown and fewer are asked for, or all of it
            and more are.

    Example:
        Ten were shown, four of them dramas: ``fewer`` is at most .2, ``more`` at least .8.
    """
    number = labels.number(label)
    name, mask = labels.names[number], labels.mask(number)
    have = sum(bool(mask[row]) for row in shown)
    if (turn == "fewer" and not have) or (turn == "more" and have >= want.count):
        raise ConfigError(
            f"{turn} of {name!r} than {have} of {want.count}", "Say something that can still be changed."
        )
    others = tuple(each for each in want.shares if labels.number(each.label) != number)
    wanted, unwanted = (
        tuple(each for each in some if labels.number(each) != number) for some in (want.wanted, want.unwanted)
    )
    if turn == "none":
        return replace(want, wanted=wanted, unwanted=(*unwanted, name), shares=others)
    if turn == "only":
        return replace(want, wanted=(name,), unwanted=unwanted, shares=others)
    if turn == "fewer":
        part = PartOf(name, "at most", have // 2 / want.count)
    else:
        part = PartOf(name, "at least", min(max(2 * have, have + 1), want.count) / want.count)
    return replace(want, wanted=wanted, unwanted=unwanted, shares=(*others, part))


def say_turn(turn: Turn, label: str, want: Want, labels: Labels, wording: Wording = 0) -> str:
    """A turn in words; ``want`` is what :func:`turned` made of it.

    Example:
        ``Fewer of "Drama", please: at most 20 %.``
    """
    number = labels.number(label)
    shares = [part.portion for part in want.shares if labels.number(part.label) == number]
    said = percent(shares[-1]) if shares else ""
    return worded(TURNS[turn], wording).format(label=labels.said(number), portion=said)
