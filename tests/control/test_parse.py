"""Answers are read exactly, and nothing is guessed."""

from __future__ import annotations

import pytest

from itemic.control.form import ListForm
from itemic.control.parse import parse
from itemic.errors import ConfigError
from tests.control.models import TITLES, names_of

LINES, COMMAS = ListForm(numbered=False), ListForm(numbered=False, separator="; ")


def row(title: str) -> int:
    return TITLES.index(title)


@pytest.mark.parametrize(
    ("text", "form", "items", "other"),
    [
        ("1. {Alien}\n2. {Brazil}", None, ["Alien", "Brazil"], 0),
        ("Here you are:\n\n1. {Alien}\n2) {Brazil}\nEnjoy!", None, ["Alien", "Brazil"], 2),
        ('1. Alien\n2. "Brazil"\n3. “Up”', None, ["Alien", "Brazil", "Up"], 0),
        ("1. 2. Fast 2 Furious\n2. 7 Samurai", None, ["2. Fast 2 Furious", "7 Samurai"], 0),
        ('1. The "Burbs"', None, ['The "Burbs"'], 0),
        ("1. {alien}\n2. {Alien }\n3. Jaw\n4. Jaws 2\n5.", None, [None] * 5, 0),
        ("1. {Alien}, a classic\n2. {Cars} or {Jaws} or {Nobody}", None, ["Alien", "Cars", "Jaws", None], 0),
        ("1. Alien, a classic", None, [None], 0),
        ("1. {Alien}\n1. {Alien}", None, ["Alien", "Alien"], 0),
        ("", None, [], 0),
        ("I'm sorry, I can't help with that.", None, [], 1),
        ("{Alien}\nBrazil\n\nhello", LINES, ["Alien", "Brazil", None], 0),
        ("1. {Alien}\n1. Alien", LINES, ["Alien", None], 0),
        ("{Alien}; Dune: Part Two; Up", COMMAS, ["Alien", "Dune: Part Two", "Up"], 0),
        ("2. Fast 2 Furious", LINES, ["2. Fast 2 Furious"], 0),
    ],
)
def test_titles(text: str, form: ListForm | None, items: list[str | None], other: int) -> None:
    found = parse(text, names_of("title"), form)
    assert found.items.tolist() == [-1 if title is None else row(title) for title in items]
    assert (len(found), found.other) == (len(items), other)
    assert len(found.entries) == len(items)


def test_semantic_ids() -> None:
    names = names_of("sid")
    text = f"1. {names.text(3)}\n2. {names.text(4)[:-3]}\n3. <|sid_begin|><s_a_9><s_b_0><s_c_0><|sid_end|>\n4. Alien"
    assert parse(text, names).items.tolist() == [3, -1, -1, -1]
    shared = f"1. {names.text(12)}"
    assert parse(shared, names).items.tolist() == [7]
    assert parse(shared, names, meant=[12, 3]).items.tolist() == [12]


def test_forms() -> None:
    assert ListForm().text(["a", "b"]) == "1. a\n2. b"
    assert COMMAS.text(["a", "b"]) == "a; b"
    assert ListForm(separator=" ").before(9) == " 10. "
    with pytest.raises(ConfigError, match="nothing else stands between"):
        ListForm(numbered=False, separator="")
