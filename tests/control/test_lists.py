"""Wants as grammars, against all lists that there are."""

from __future__ import annotations

import re
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.control.form import ListForm
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.want import PartOf, Want
from itemic.control.words import WORDINGS, say
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.control.catalogues import tagged, trie_of
from tests.decode.test_lists import written

TAGS = ("Drama", "Comedy", "War")
BRANDS = ("Acme", "Nadir")
BETWEEN = ((), (7,), (7, 8))


def tokens_of(count: int, between: tuple[int, ...], end: tuple[int, ...]) -> ListTokens:
    return ListTokens(TokenRows.of([(), *[between] * (count - 1)]), np.array(end, np.int32))


@st.composite
def wants(draw: st.DrawFn, items: int, least: int = 1) -> Want:
    """Any want that doesn't contradict itself."""
    names = [*TAGS, *BRANDS]
    wanted = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    unwanted = draw(st.lists(st.sampled_from(names), max_size=1))
    parts = st.builds(
        PartOf,
        st.sampled_from(names),
        st.sampled_from(["at most", "at least", "about"]),
        st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.6, 1.0]),
    )
    some = st.lists(st.integers(0, items - 1), min_size=1, max_size=items, unique=True)
    return Want(
        count=draw(st.integers(least, 3)),
        wanted=tuple(wanted),
        unwanted=tuple(name for name in unwanted if name not in wanted),
        shares=tuple(draw(st.lists(parts, max_size=3))),
        candidates=draw(st.none() | some.map(tuple)),
        avoid=tuple(draw(st.lists(st.integers(0, items - 1), max_size=1))),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], list[list[str]], list[str], Want, list[int]]:
    """Items of two tokens, some of which share them, with tags and brands; a want; a history."""
    count = draw(st.integers(2, 6))
    items = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(4, 6)), min_size=count, max_size=count))
    # everyone of the labels is there, so that a want may name it
    tags = [draw(st.lists(st.sampled_from(TAGS), max_size=3, unique=True)) for _ in items]
    tags[0] = list(TAGS)
    brands = [BRANDS[0], BRANDS[1], *(draw(st.sampled_from(BRANDS)) for _ in items[2:])]
    history = draw(st.lists(st.integers(0, count - 1), max_size=2))
    return items, tags, brands, draw(wants(count)), history


def means(
    want: Want, tags: list[list[str]], brands: list[str], numbers: Any, history: list[int]
) -> list[tuple[int, ...]]:
    """All lists that a want means, straight from its definition, as numbers of names."""
    has = [{*own, brand} for own, brand in zip(tags, brands, strict=True)]
    out = {int(numbers[row]) for row in (*want.avoid, *history)}

    def legal(row: int) -> bool:
        kinds = [[name for name in want.wanted if name in kind] for kind in (TAGS, BRANDS)]
        return (
            (want.candidates is None or row in want.candidates)
            and all(not some or any(name in has[row] for name in some) for some in kinds)
            and not any(name in has[row] for name in want.unwanted)
            and int(numbers[row]) not in out
        )

    own: dict[int, int] = {}  # of items that share a name the first that may come
    for row in range(len(has)):
        if legal(row):
            own.setdefault(int(numbers[row]), row)
    found = []
    for some in permutations(sorted(own.values()), want.count):
        fine = True
        for part in want.shares:
            exact = part.portion * want.count
            there = sum(part.label in has[row] for row in some)
            fine &= {
                "at most": there <= exact + 1e-6,
                "at least": there >= exact - 1e-6,
                "about": abs(there - exact) <= 0.5 + 1e-6,
            }[part.how]
        if fine:
            found.append(tuple(int(numbers[row]) for row in some))
    return found


def lists_of(grammar: ListGrammar, trie: Trie, numbers: Any) -> list[tuple[int, ...]]:
    """All that it can write, as numbers of names."""
    texts = TokenRows.of(written(grammar, 0))
    rows = grammar.read(texts, np.zeros(len(texts), np.int64))
    return [tuple(numbers[own].tolist()) for own in rows]


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(BETWEEN), st.sampled_from([(), (9,), (9, 7)]))
def test_a_grammar_writes_what_a_want_means_and_nothing_else(
    case: Any, between: tuple[int, ...], end: tuple[int, ...]
) -> None:
    items, tags, brands, want, history = case
    trie, numbers = trie_of(items)
    labels = tagged(tags, brands)
    meant = means(want, tags, brands, numbers, history)
    try:
        terms = want.check(labels, history, names=numbers)
    except ConstraintError:
        assert meant == []
        return
    grammar = ListGrammar(trie, tokens_of(want.count, between, end), [terms])
    grammar.check(1)
    found = lists_of(grammar, trie, numbers)
    assert len(found) == len(set(found))
    assert set(found) == set(meant)
    first = trie.items[trie.item_first[:-1][trie.leaf]]
    assert len(first) == len(set(numbers.tolist()))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_shorter_list_is_the_longest_that_can_be(case: Any) -> None:
    items, tags, brands, want, history = case
    _, numbers = trie_of(items)
    lengths = [
        count
        for count in range(1, want.count + 1)
        if means(replaced(want, count), tags, brands, numbers, history)
    ]
    try:
        terms = want.check(tagged(tags, brands), history, names=numbers, shorter=True)
    except ConstraintError:
        assert not lengths
        return
    assert terms.count == max(lengths)
    assert terms.short == want.count - max(lengths)


def replaced(want: Want, count: int) -> Want:
    return Want(count, want.wanted, want.unwanted, want.shares, want.candidates, want.avoid)


# ------------------------------------------------------------------------------------------- words and grammar


def heard(text: str, names: list[str]) -> Want:
    """The want that a text says, by the wordings read backwards."""
    found: dict[str, Any] = {"wanted": (), "unwanted": (), "shares": [], "candidates": None, "avoid": ()}
    for kind, wordings in WORDINGS.items():
        for wording in wordings:
            pattern = re.escape(wording)
            for field, one in (
                ("count", r"(?P<count>\d+) items?"),
                ("labels", r'(?P<labels>(?:(?:, and | or |of |the brand )*"[^"]+")+)'),
                ("label", r'(?:the brand )?"(?P<label>[^"]+)"'),
                ("portion", r"(?P<portion>[\d.]+) %"),
                ("items", r"(?P<items><\d+>(?:, <\d+>)*)"),
            ):
                pattern = pattern.replace(re.escape("{" + field + "}"), one)
            for match in re.finditer(r"(?:^|(?<=[.:?>] ))" + pattern + r"(?=$| |\n)", text):
                own = match.groupdict()
                if kind in ("any", "next"):
                    found["count"] = int(own["count"])
                elif kind in ("wanted", "unwanted"):
                    found[kind] = tuple(re.findall(r'"([^"]+)"', own["labels"]))
                elif kind in ("at most", "at least", "about"):
                    found["shares"].append((own["label"], kind, float(own["portion"]) / 100))
                elif kind in ("candidates", "avoid"):
                    found[kind] = tuple(names.index(name) for name in own["items"].split(", "))
    return Want(**found)


@settings(max_examples=150, deadline=None)
@given(wants(6), st.integers(0, 3), st.booleans())
def test_words_say_the_very_want_that_the_grammar_is_made_of(
    want: Want, wording: int, numbered: bool
) -> None:
    labels = tagged([list(TAGS)] * 6, [*BRANDS] * 3)
    names = [f"<{row}>" for row in range(6)]
    text = say(want, labels, wording=wording, names=names, form=ListForm(numbered=numbered))
    again = heard(text, names)
    # the order of shares and of the filters' columns means nothing, as doesn't the last digit of a portion
    order = sorted(want.wanted, key=lambda name: (name in BRANDS) != (want.wanted[0] in BRANDS))
    assert again.wanted == tuple(order)
    for key in ("count", "unwanted", "avoid"):
        assert getattr(again, key) == getattr(want, key)
    assert (again.candidates or None) == want.candidates
    bounds = [
        sorted((part.label, part.how, part.bounds(count)) for part in each.shares)
        for each in (want, again)
        for count in range(1, 30)
    ]
    assert bounds[:29] == bounds[29:]


def test_every_wording_is_drawn_and_says_what_its_kind_has_to() -> None:
    fields = {
        kind: {frozenset(re.findall(r"{(\w+)}", wording)) for wording in some}
        for kind, some in WORDINGS.items()
    }
    assert all(len(some) == 1 for some in fields.values())
    assert len({len(some) for some in WORDINGS.values()}) == 1
    assert len({wording for some in WORDINGS.values() for wording in some}) == sum(
        map(len, WORDINGS.values())
    )
    labels = tagged([["Drama"], ["War"]])
    rng = np.random.default_rng(0)
    want = Want(2, unwanted=("War",))
    texts = {say(want, labels, wording=rng, history=[0], names=["<0>", "<1>"]) for _ in range(900)}
    assert len(texts) == 4**3
    assert say(Want(1), labels, history=[], names=[]).endswith("oldest first: none")
    with pytest.raises(ConfigError, match="without their names"):
        say(Want(1, avoid=(0,)), labels)
    assert say(Want(1, wanted=("Drama",)), labels) == 'Recommend 1 item. Each of them must be of "Drama".'


def test_soft_lists_of_what_was_not_seen_have_nothing_twice() -> None:
    """At every step the legal tokens are those that a loop over all items that are left finds."""
    rows = [(1, 2, 3), (1, 2, 4), (1, 5), (2, 5), (2, 6), (3,), (1, 5), (4, 1, 1)]  # two share a name
    trie, between, end = Trie.build(TokenRows.of(rows)), (90,), (99,)
    grammar = ListGrammar(trie, tokens_of(3, between, end), most=3, seen=[[0, 6], [], [2, 3, 4]])
    rng = np.random.default_rng(0)
    for request, seen in enumerate(([0, 6], [], [2, 3, 4])):
        for _ in range(30):
            state, gone = grammar.start(request), {rows[row] for row in seen}
            written: list[int] = []
            item: tuple[int, ...] = ()
            while True:
                legal = set(grammar.allowed(state).tolist())
                place = len(gone) - len({rows[row] for row in seen})
                if not item and written and written[-1] not in between:  # behind an item
                    assert legal == {*(between if place < 3 else ()), *end}
                else:
                    left = {own for own in rows if own not in gone and own[: len(item)] == item}
                    assert legal == {own[len(item)] for own in left}
                token = int(rng.choice(sorted(legal)))
                written.append(token)
                if token not in (*between, *end):
                    item = (*item, token)
                    if item in rows:
                        gone, item = gone | {item}, ()
                after = grammar.step(state, token)
                if after is None:
                    break
                state = after
            assert 1 <= place <= 3
    with pytest.raises(ConfigError, match="request 1 has seen too many"):
        ListGrammar(trie, tokens_of(3, between, end), most=3, seen=[[], [0, 1, 2, 3, 4]])
    with pytest.raises(ConfigError, match="what was seen of 3 requests for 2"):
        grammar.check(2)
