"""What the page's script reads: the cases as one compact block of JSON."""

from __future__ import annotations

import json
import math
from string import Formatter
from typing import Any

from itemic.analysis.analysis import Analysis
from itemic.analysis.cases import Case, Cases
from itemic.text import shown

# within a script element, and within JavaScript, nothing but letters, figures and quotes
_UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def block(value: Any) -> str:
    """JSON that can stand in a ``<script>`` element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE)


class Words:
    """Strings that are told once and named by number after that."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.all)
            self.all.append(shown(text))
        return self._numbers[text]


class Sentence:
    """What a detector says of a case, as pieces of text with gaps, and the texts that fill the gaps.

    All formatting happens here, so that the page's script only puts pieces together.
    """

    def __init__(self, text: str) -> None:
        self.pieces: list[str] = [""]
        self.gaps: list[tuple[str, str]] = []
        for piece, name, form, _ in Formatter().parse(text):
            self.pieces[-1] += shown(piece)
            if name is not None:
                self.gaps.append((name, form or ""))
                self.pieces.append("")

    def fill(self, values: dict[str, Any]) -> list[str]:
        return [_filled(values.get(name), form) for name, form in self.gaps]


def packed(analysis: Analysis, cases: Cases) -> dict[str, Any]:
    """All that the list of cases and a case show. Items stand there once; a case is one place in each of the arrays."""
    words, categories = Words(), Words()
    names = list(dict.fromkeys([one.name for one in analysis.causes] + list(cases.sentences)))
    titles = {one.name: one.title for one in analysis.causes}
    sentences = {name: Sentence(cases.sentences.get(name, "")) for name in names}
    places = {name: place for place, name in enumerate(names)}

    def told(case: Case) -> list[list[int]]:
        return [
            [places[name], *map(words.number, sentences[name].fill(values))]
            for name, values in case.causes.items()
            if name in places
        ]

    found = cases.cases
    return {
        "k": analysis.k,
        "levels": len(analysis.levels),
        "shown": cases.shown,
        "causes": [
            {
                "name": shown(name),
                "title": shown(titles.get(name, name)),
                "says": sentences[name].pieces,
            }
            for name in names
        ],
        "items": {
            "id": [shown(item.id) for item in cases.items],
            "title": [shown(item.title) for item in cases.items],
            "category": [categories.number(item.category) for item in cases.items],
            "sid": [shown(item.sid) for item in cases.items],
            "codes": [list(map(int, item.codes)) for item in cases.items],
            "count": [int(item.count) for item in cases.items],
        },
        "categories": categories.all,
        "cases": {
            "request": [int(case.request) for case in found],
            "user": [shown(case.user) for case in found],
            "length": [int(case.length) for case in found],
            "target": [int(case.target) for case in found],
            "rank": [int(case.rank) for case in found],
            "bad": [int(case.bad) for case in found],
            "level": [int(case.level) for case in found],
            "history": [case.history for case in found],
            "listed": [case.listed for case in found],
            "scores": [[number(score, 4) for score in case.scores] for case in found],
            "causes": [told(case) for case in found],
        },
        "words": words.all,
    }


def number(value: float, digits: int = 6) -> float | None:
    """A number of so many significant digits; None for what JSON has no number for."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _filled(value: Any, form: str) -> str:
    """A value as its sentence has it; long fractions are cut where the sentence doesn't say how."""
    if value is None:
        return "?"
    if isinstance(value, float) and not form:
        form = ".4g"
    try:
        return format(value, form)
    except (ValueError, TypeError):
        return str(value)
