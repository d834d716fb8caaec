"""Fewer of those: what a turn of a conversation makes of a want."""

from __future__ import annotations

import re

import pytest

from itemic.control.turns import TURNS, Turn, say_turn, turned
from itemic.control.want import PartOf, Want
from itemic.errors import ConfigError
from tests.control.catalogues import tagged

LABELS = tagged([["Drama"]] * 5 + [["War"]] * 6)
SHOWN = [0, 5, 1, 6, 2, 7, 3, 8, 9, 10]  # four dramas of ten


@pytest.mark.parametrize(
    ("turn", "low", "high", "text"),
    [
        ("fewer", 0, 2, 'Fewer of "Drama", please: at most 20 %.'),
        ("more", 8, 10, 'More of "Drama", please: at least 80 %.'),
    ],
)
def test_fewer_and_more(turn: Turn, low: int, high: int, text: str) -> None:
    before = Want(10, shares=(PartOf("Drama", "about", 0.4), PartOf("War", "at least", 0.1)))
    after = turned(before, turn, "Drama", LABELS, SHOWN)
    assert [part.label for part in after.shares] == ["War", "Drama"]
    assert after.shares[1].bounds(10) == (low, high)
    assert say_turn(turn, "Drama", after, LABELS) == text


def test_none_and_only() -> None:
    before = Want(3, wanted=("Drama",), unwanted=("War",))
    none = turned(before, "none", "Drama", LABELS, [0])
    assert (none.wanted, none.unwanted) == ((), ("War", "Drama"))
    only = turned(none, "only", "War", LABELS, [0])
    assert (only.wanted, only.unwanted) == (("War",), ("Drama",))
    assert say_turn("only", "War", only, LABELS, 1) == 'Once more, and all of "War".'
    assert turned(Want(3), "more", "War", LABELS, [0, 1, 2]).shares[0].bounds(3) == (1, 3)


def test_turns_that_change_nothing() -> None:
    with pytest.raises(ConfigError, match="fewer of 'War' than 0 of 3"):
        turned(Want(3), "fewer", "War", LABELS, [0, 1, 2])
    with pytest.raises(ConfigError, match="more of 'Drama' than 3 of 3"):
        turned(Want(3), "more", "Drama", LABELS, [0, 1, 2])
    with pytest.raises(ConfigError, match="did you mean 'Drama'"):
        turned(Want(3), "more", "Drame", LABELS, [0])


def test_wordings() -> None:
    fields = {
        turn: {tuple(sorted(re.findall(r"{(\w+)}", one))) for one in some} for turn, some in TURNS.items()
    }
    assert fields == {
        "fewer": {("label", "portion")},
        "more": {("label", "portion")},
        "none": {("label",)},
        "only": {("label",)},
    }
    assert {len(some) for some in TURNS.values()} == {4}
