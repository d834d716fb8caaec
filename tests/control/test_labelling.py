"""Lists of the teacher against every list that keeps to the terms."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.control.labelling import Labeller, label, pick
from itemic.control.labels import Labels
from itemic.control.terms import TermsOf
from itemic.control.want import PartOf, Want
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, ConstraintError
from tests.control.catalogues import dataset, tagged
from tests.teacher.helpers import tiny

HOW = st.sampled_from(["at most", "at least", "about"])


def of_rows(histories: list[list[int]]) -> Requests:
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in histories])]).astype(np.int64)
    items = np.array([row for own in histories for row in own], np.int32)
    users = np.array([str(number) for number in range(len(histories))], object)
    return Requests(users, offsets, items, np.full(len(histories), -1, np.int32))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Labels, Want, list[int], list[float], int]:
    tags = draw(st.lists(st.sets(st.sampled_from("AB")), min_size=4, max_size=6))
    tags[0] = {"A", "B"}  # so that both are there
    labels = tagged([sorted(own) for own in tags])
    rows = st.integers(0, len(tags) - 1)
    shares = draw(
        st.lists(
            st.builds(PartOf, st.sampled_from("AB"), HOW, st.sampled_from([0.0, 0.4, 0.5, 1.0])), max_size=2
        )
    )
    want = Want(
        count=draw(st.integers(1, 4)),
        wanted=draw(st.sampled_from([(), ("A",), ("A", "B")])),
        shares=tuple(shares),
        avoid=tuple(draw(st.sets(rows, max_size=1))),
    )
    history = sorted(draw(st.sets(rows, max_size=2)))
    scores = draw(st.lists(st.integers(0, 3).map(float), min_size=len(tags), max_size=len(tags)))
    return labels, want, history, scores, draw(st.integers(-1, len(tags) - 1))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_each_place_has_the_best_item_with_which_the_list_can_be_completed(
    problem: tuple[Labels, Want, list[int], list[float], int],
) -> None:
    labels, want, history, scores, first = problem
    try:
        terms = TermsOf(labels, shorter=True)(want, history)
    except (ConstraintError, ConfigError):
        return
    legal = [own for own in permutations(range(labels.items), terms.count) if terms.kept_by(own)]
    assert legal
    found: tuple[int, ...] = ()
    while len(found) < terms.count:
        after = {own[len(found)] for own in legal if own[: len(found)] == found}
        best = min(after, key=lambda row: (-scores[row], row))
        found += (first if not found and first in after else best,)
    assert pick(terms, np.array(scores), first).tolist() == list(found)


def test_the_teacher_s_own_ranking_where_nothing_but_a_number_is_wanted() -> None:
    teacher, labels = tiny(), tagged([["A"] if row % 3 else ["B"] for row in range(30)])
    requests = of_rows([[1, 2, 3], [4], [], [7, 7, 9, 1, 2, 3, 4, 5, 6, 0]])
    asked = [Want(count=5)] * 4
    found = Labeller(teacher, labels)(requests, asked)
    best, _ = teacher.rank(requests, 5, exclude_history=True)
    assert [own.tolist() for own in found.items] == best.tolist()
    assert not found.skipped
    allowed = [labels.rows("A")] * 4
    best, _ = teacher.rank(requests, 5, exclude_history=True, allowed=allowed)
    found = Labeller(teacher, labels)(requests, [Want(count=5, wanted=("A",))] * 4, first=[8, -1, 0, 7])
    assert found.items[1].tolist() == best[1].tolist()
    assert found.items[2].tolist() == best[2].tolist()  # row 0 is no A
    assert found.items[0][0] == 8
    assert found.items[3].tolist() == best[3].tolist()  # 7 is in the history
    with pytest.raises(ConfigError, match="4 requests"):
        Labeller(teacher, labels)(requests, asked[:2])
    with pytest.raises(ConfigError, match="labels of 2 items"):
        Labeller(teacher, tagged([["A"], ["B"]]))


def test_too_few_items_make_a_shorter_list_or_none_and_are_counted() -> None:
    labels = Labels.of(dataset([["A"], ["A"], ["A"], ["B"], ["B"]]))
    wants = [Want(count=3, wanted=("A",)), Want(count=2, wanted=("B",)), Want(count=1, wanted=("B",))]
    histories = [np.array([0], np.int32), np.array([3, 4], np.int32), np.array([], np.int32)]
    scores = [np.arange(5.0)] * 3
    found = label(TermsOf(labels, shorter=True), wants, histories, scores)
    assert [own.tolist() for own in found.items] == [[2, 1], [], [4]]
    assert (found.short, found.skipped.total()) == (1, 1)
    strict = label(TermsOf(labels), wants, histories, scores)
    assert [own.tolist() for own in strict.items] == [[], [], [4]]
    assert (strict.short, strict.skipped.total()) == (0, 2)
    assert "3 items are wanted, and 2 may come" in strict.skipped


def test_an_item_stands_for_those_of_its_name() -> None:
    labels = Labels.of(dataset([["A"], ["A"], ["A"]]))
    names = np.array([0, 1, 0])
    terms = TermsOf(labels, names=names)(Want(count=2))
    assert pick(terms, np.array([0.0, 1.0, 5.0]), 2, names).tolist() == [0, 1]
