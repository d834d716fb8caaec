"""The judge's worked examples, slow references, and what holds for any profile."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic import metrics
from itemic.errors import ConfigError, DataError
from itemic.profile.attributes import Attributes, pieces
from itemic.profile.judge import (
    consistency,
    count_syllables,
    faithfulness,
    leakage,
    reading,
    steerability,
)
from itemic.tasks.facts import ItemFacts
from tests.profile.people import people, walk


def facts_of(**columns):
    return ItemFacts.of(people({"a": walk([0, 1, 2], 0)}, **columns))


ATTRIBUTES = Attributes.of(facts_of())


def names(found):
    return [[ATTRIBUTES.names[number] for number in each] for each in found]


def test_attributes_of_items():
    own = {ATTRIBUTES.names[n] for n in ATTRIBUTES.of_rows([2])}
    assert own == {"Outdoors", "Camping", "Boro"}
    assert {ATTRIBUTES.names[n] for n in ATTRIBUTES.of_rows([2], finest=True)} == {"Camping", "Boro"}
    assert ATTRIBUTES.has(ATTRIBUTES.numbers("alba")[0]).nonzero()[0].tolist() == [0, 1, 7]
    with pytest.raises(ConfigError, match="no brand is called 'Zeta'"):
        ATTRIBUTES.numbers("Zeta")


def test_names_are_found_word_for_word_and_the_longest_first():
    paths = [["Home"], ["Home Office"], ["Office Chairs"], ["C++"], ["本"], ["Arm & Hammer"], ["Home"], []]
    found = Attributes.of(facts_of(categories=paths, brand=["", "HOME", "", "", "", "", "", ""]))

    def told(text):
        return [sorted({found.names[n] for n in each}) for each in found.find(text)]

    assert told("a home OFFICE chair") == [["Home Office"]]
    assert told("home\noffice chairs") == [["Home Office"]]  # of two that overlap the first, of one length
    assert told("homes, c++ and c") == [["C++"]]
    assert told("安い本だ") == [["本"]]
    assert told("arm&hammer, not arm and hammer") == [["Arm & Hammer"]]
    assert told("Home") == [["HOME", "Home"]]  # a category and a brand: either may be meant
    assert found.kinds[found.names.index("HOME")] == "brand"


def by_regex(text, attributes):
    """All names by one regular expression, the longest first."""
    every = sorted(set(attributes.names), key=len, reverse=True)
    pattern = r"(?<!\w)(" + "|".join(re.escape(name.casefold()) for name in every) + r")(?!\w)"
    return [found[0] for found in re.finditer(pattern, text.casefold())]


@given(
    st.lists(st.sampled_from(["alba", "Boro", "kitchen", "camp", "camping", ",", "x", "Music"]), max_size=12)
)
def test_finding_is_as_one_regular_expression(words):
    text = " ".join(words)
    assert [each[0].casefold() for each in names(ATTRIBUTES.find(text))] == by_regex(text, ATTRIBUTES)


def test_brands_that_are_ordinary_words_are_not_looked_for():
    texts = ["the best of all"] * 8
    found = Attributes.of(facts_of(brand=["Best", *["Alba"] * 7], description=texts))
    assert found.ordinary == {"Best"}
    assert found.find("best alba") == [found.numbers("Alba")]
    with pytest.raises(ConfigError):
        found.numbers("Best")
    one = faithfulness(["best cookware"], [[0]], found)  # neither supported nor asked for
    assert (one.precision[0], one.recall[0], one.named[0], one.known[0]) == (1, 1, 1, 1)
    shouted = facts_of(brand=["Best", *["Alba"] * 7], description=["by Best"] * 8)
    assert not Attributes.of(shouted).ordinary  # others name the brand
    assert not Attributes.of(facts_of(brand=["Best", *["Alba"] * 7])).ordinary


def test_faithfulness_example():
    found = faithfulness(
        ["Camping gear by Boro, and music. Camping!", "", "Kitchen, cookware, alba, office"],
        [[2], [2], [0, 1]],
        ATTRIBUTES,
    )
    np.testing.assert_allclose(found.precision, [2 / 3, np.nan, 3 / 4])
    np.testing.assert_allclose(found.recall, [1, 0, 1])
    assert found.named.tolist() == [3, 0, 4]
    assert found.known.tolist() == [2, 2, 2]
    nothing = faithfulness(["Alba"], [[]], ATTRIBUTES)
    assert nothing.precision[0] == 0
    assert np.isnan(nothing.recall[0])
    with pytest.raises(DataError, match="1 histories beside 2"):
        faithfulness(["", ""], [[1]], ATTRIBUTES)


@given(
    st.lists(st.integers(0, 7), max_size=5),
    st.lists(st.sampled_from([*ATTRIBUTES.names, "and", "likes", "."]), max_size=10),
)
def test_faithfulness_holds(history, words):
    found = faithfulness([" ".join(words)], [history], ATTRIBUTES)
    own = {ATTRIBUTES.names[n] for n in ATTRIBUTES.of_rows(history)}
    said = {word for word in words if word in ATTRIBUTES.names}
    if said:
        assert found.precision[0] == pytest.approx(len(said & own) / len(said))
    else:
        assert np.isnan(found.precision[0])
    told = [ATTRIBUTES.names[n] for n in ATTRIBUTES.of_rows(history, finest=True)]
    full = faithfulness([", ".join(told)], [history], ATTRIBUTES)
    assert not told or (full.precision[0], full.recall[0]) == (1, 1)


def test_leakage_example():
    found = leakage(
        ["likes the Alien films", "alien resurrection", "x", "Brazil"],
        ["Alien Resurrection", "Alien Resurrection", "The A of I", "Brazil"],
        ["Title: Brazil", "nothing", "", "Title: brazil"],
    )
    np.testing.assert_allclose(found, [1 / 2, 1, np.nan, np.nan])


@given(st.text(), st.text(), st.text())
def test_leakage_holds(profile, title, known):
    found = leakage([profile], [title], [known])[0]
    assert np.isnan(found) or 0 <= found <= 1
    assert np.isnan(leakage([profile], [title], [known + " " + title])[0])
    everything = leakage([title], [title], [""])[0]
    assert np.isnan(everything) or everything == 1


def test_steerability_example():
    camping = ATTRIBUTES.numbers("Camping")[0]
    found = steerability(
        np.array([[0, 2], [2, 3], [0, -1]]),
        np.array([[2, 3], [2, 3], [-1, -1]]),
        np.array([camping] * 3),
        ATTRIBUTES,
        np.array([0, 2, -1]),
        k=2,
    )
    np.testing.assert_allclose(found.before, [0.5, 1, 0])
    np.testing.assert_allclose(found.after, [1, 1, 0])
    np.testing.assert_allclose(found.moved, [0.5, 0, 0])
    np.testing.assert_allclose(found.closed, [1, np.nan, 0])
    np.testing.assert_allclose(found.lost, [1, 0, np.nan])
    with pytest.raises(DataError, match="2 targets beside 1"):
        steerability(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1), ATTRIBUTES, np.zeros(2))


@given(
    st.integers(0, len(ATTRIBUTES) - 1),
    st.permutations(range(8)),
    st.permutations(range(8)),
    st.integers(1, 9),
)
def test_steerability_is_a_loop(attribute, first, second, k):
    before, after = np.array([first], np.int32), np.array([second], np.int32)
    found = steerability(before, after, np.array([attribute]), ATTRIBUTES, np.array([3]), k)
    for lists, share in ((first, found.before), (second, found.after)):
        assert share[0] == np.mean([attribute in ATTRIBUTES.of_rows([row]) for row in lists[:k]])
    assert found.lost[0] == (3 in first[:k]) - (3 in second[:k])
    same = steerability(before, before, np.array([attribute]), ATTRIBUTES, np.array([3]), k)
    assert same.moved[0] == same.lost[0] == 0


def test_consistency():
    both = consistency(np.array([[1, 2]]), np.array([[2, 1]]), k=2)
    assert both[0].tolist() == [1.0]
    assert both[1][0] == pytest.approx(0.9)
    lists = np.random.default_rng(0).permuted(np.tile(np.arange(20, dtype=np.int32), (4, 1)), axis=1)
    np.testing.assert_array_equal(
        consistency(lists[:2], lists[2:])[0], metrics.overlap(lists[:2], lists[2:], 10)
    )


def test_reading_ease():
    found = reading("The cat sat on the mat.")
    assert (found.words, found.sentences) == (6, 1)
    assert found.ease == pytest.approx(116.145)
    two = reading("The cat sat. The dog ran away.")  # 7 words, 8 syllables, 2 sentences
    assert two.ease == pytest.approx(206.835 - 1.015 * 7 / 2 - 84.6 * 8 / 7)
    other = reading("Любит книги. И музыку.")
    assert (other.words, other.sentences) == (4, 2)
    assert np.isnan(other.ease)
    empty = reading("  ")
    assert (empty.words, empty.sentences) == (0, 0)
    assert np.isnan(empty.ease)


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("cat", 1),
        ("make", 1),
        ("table", 2),
        ("the", 1),
        ("profile", 2),
        ("recommendation", 5),
        ("people", 2),
        ("Smile", 1),
    ],
)
def test_syllables(word, count):
    assert count_syllables(word) == count


def test_pieces():
    assert pieces("Capos & Picks!") == ("capos", "&", "picks", "!")
    assert pieces("日本 2nd") == ("日", "本", "2nd")
