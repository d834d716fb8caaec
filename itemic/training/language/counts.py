"""What became of conversations on their way to rows, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any


@dataclass(frozen=True)
class Counts:
    """What became of conversations.

    Attributes:
        read: how many were encoded.
        overlong: of these, longer than may be.
        shortened: of the overlong, those that fit without the oldest items of their histories.
        mute: without anything to learn from.
    """

    read: int = 0
    overlong: int = 0
    shortened: int = 0
    mute: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def notes(self, rule: str) -> dict[str, Any]:
        """For the record of a run."""
        return {
            "overlong": self.overlong,
            "overlong_rule": rule,
            "shortened": self.shortened,
            "without_answer": self.mute,
        }


NONE_READ = Counts()
CUT = {"drop": "dropped", "split": "split", "keep-start": "cut to their first tokens"}


def lost_rows(notes: Mapping[str, Any], max_length: int) -> str:
    """The notes of training rows as a sentence of what was cut or dropped; empty where nothing was."""
    total, done = (
        notes.get("read", notes["conversations"]),
        CUT.get(notes["overlong_rule"], "cut to their last tokens"),
    )
    shortened, others = notes["shortened"], notes["overlong"] - notes["shortened"]
    parts = []
    if shortened:
        parts.append(f"{shortened} of {total} rows over {max_length} tokens without their oldest items")
    if others:
        parts.append(f"{others} of {total} rows over {max_length} tokens {done}")
    if notes["without_answer"]:
        parts.append(f"{notes['without_answer']} without an answer dropped")
    return ", ".join(parts)
