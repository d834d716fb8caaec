"""Cleaning of texts."""

from __future__ import annotations

import pytest

from itemic.data.readers.text import brand_of, category_path, clean, unlisted


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        ("  a\n\tb ", "a b"),
        ("L&#39;Or&eacute;al &amp; co", "L'Oréal & co"),
        (["a ", "", "b"], "a b"),
        ("a <3 b > c", "a <3 b > c"),
        (12.5, "12.5"),
    ],
)
def test_clean(value: object, expected: str) -> None:
    assert clean(value) == expected


def test_markup_is_taken_out_only_on_request() -> None:
    assert clean("<p>a<br/>b</p> &lt;b&gt;c&lt;/b&gt; <3", markup=True) == "a b c <3"
    assert clean("<p>a</p>") == "<p>a</p>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("['a', \"b\"]", ["a", "b"]),
        ("[not a list]", "[not a list]"),
        ("[__import__('os')]", "[__import__('os')]"),
        ("plain", "plain"),
        (["x"], ["x"]),
    ],
)
def test_unlisted(value: object, expected: object) -> None:
    assert unlisted(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (None, []),
        (3, []),
        ("A > B > C", ["A", "B", "C"]),
        ("A,B, C & D,E", ["A", "B, C & D", "E"]),
        (["A", " ", "B &amp; C"], ["A", "B & C"]),
        ([["A"], ["A", "B"], ["C", "D"]], ["A", "B"]),
        (["A", "</span></span>"], ["A"]),
        ([], []),
    ],
)
def test_category_path(value: object, expected: list[str]) -> None:
    assert category_path(value) == expected


def test_brand() -> None:
    assert [brand_of(value) for value in ("OPI", "Unknown", " unknown ", None, "")] == ["OPI", "", "", "", ""]
