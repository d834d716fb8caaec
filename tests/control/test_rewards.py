"""Rewards against numbers worked out by hand."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import pytest

from itemic.control.answers import Answers, control_of
from itemic.control.filtered import post_filter
from itemic.control.rewards import item_rewards, list_rewards, placed, rank_values, task_values, task_worth
from itemic.control.want import Want
from itemic.errors import ConfigError
from tests.control.catalogues import tagged

# items 0 to 4 are dramas, 5 to 9 are none
LABELS = tagged([["Drama"]] * 5 + [["War"]] * 5)
FIRST, SECOND = 1 / log2(3), 1 / log2(4)  # of the teacher's list


def answer(rows: list[int], want: Want, **more: Any) -> Answers:
    return Answers.of([rows], [want], LABELS, **{key: [value] for key, value in more.items()})


def share(how: str, portion: float, count: int) -> Want:
    return Want(count, shares=(("Drama", how, portion),))  # type: ignore[arg-type]


def test_entries_that_are_nothing_cost_one() -> None:
    """Unknown, again, of the history, and beyond the count; each entry by its own."""
    own = answer([0, -1, 0, 9, 1, 2, 3], Want(5), targets=0, ranked=[1, 2], histories=[9])
    assert rank_values(own).tolist() == [[1, 0, 0, 0, FIRST, 0, 0]]
    assert item_rewards(own).tolist() == [[1, -1, -1, -1, FIRST, -1, -1]]
    two = Answers.of([[0], [0, 1, 2]], [Want(2)] * 2, LABELS)
    assert item_rewards(two).tolist() == [[0, 0, 0], [0, 0, -1]]


def test_places_of_the_teacher() -> None:
    own = answer([3, 4, 5, 6], Want(4), targets=3, ranked=[4, 3, 6])
    assert rank_values(own).tolist() == [[1, FIRST, 0, 1 / log2(5)]]


@pytest.mark.parametrize(
    ("want", "rows", "tasks", "worth"),
    [
        (Want(4, wanted=("Drama",)), [0, 5, 1, 6], [1, 0, 1, 0], 1 / 3),
        (Want(4, unwanted=("Drama",)), [0, 5, 1, 6], [0, 1, 0, 1], 1 / 3),
        (Want(3, unwanted=("Drama",)), [7, 5, 6], [1, 1, 1], 1),
        (share("at most", 0.25, 4), [0, 1, 5, 6], [0.5, 0, 1, 1], 1 / 2),
        (share("at most", 0.25, 4), [5, 6, 7, 0], [1, 1, 1, 0.5], 1),
        (share("at most", 0.25, 4), [5, 6, 7, 8], [1, 1, 1, 1], 1),
        (share("at most", 0.35, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0.5] * 3 + [0] * 2 + [1] * 5, 1 / 3),
        (share("at least", 0.75, 4), [0, 1, 5, 6], [1, 1, 0.5, 0], 1 / 2),
        (share("at least", 0.75, 4), [0, 5, 1, 2], [1, 0.5, 1, 1], 1),
        (share("at least", 0.75, 4), [0, 1, 2, 3], [1, 1, 1, 1], 1),
        (share("about", 0.25, 4), [0, 1, 5, 6], [1, 0, 1, 1], 1 / 2),
        (share("about", 0.75, 4), [0, 1, 5, 6], [1, 1, 0.5, 0.5], 1 / 2),
        (share("about", 0.5, 4), [5, 0, 1, 6], [0.5, 1, 1, 1], 1),
        (share("about", 0.5, 4), [5, 6, 7, 8], [0.5] * 4, 1 / 3),
    ],
)
def test_controls(want: Want, rows: list[int], tasks: list[float], worth: float) -> None:
    own = answer(rows, want)
    assert task_values(own).tolist() == [tasks]
    assert task_worth(own).tolist() == pytest.approx([worth])
    assert item_rewards(own).tolist() == [[task / 2 for task in tasks]]
    assert list_rewards(own).tolist() == pytest.approx([5 * worth])


def test_entries_that_are_nothing_have_no_label() -> None:
    """They fill neither quotas nor lists."""
    own = answer([0, 0, -1, 5, 1], share("about", 0.5, 4), histories=[5])
    assert task_values(own).tolist() == [[1, 0, 0, 0, 0]]
    assert task_worth(own).tolist() == [1 / 2]
    none = answer([], share("at most", 0.0, 4))
    assert task_worth(none).tolist() == [0]
    assert list_rewards(none).tolist() == [0]


def test_lists() -> None:
    # two asked for, target and the teacher's first: the best there is
    best = answer([3, 4], Want(2), targets=3, ranked=[4, 5])
    assert list_rewards(best).tolist() == pytest.approx([10])
    # the other way round: (.631 + 1 · .631) / (1 + .631²) and 1 / log2(3)
    turned = answer([4, 3], Want(2), targets=3, ranked=[4, 5])
    ranks = (FIRST + FIRST) / (1 + FIRST**2)
    assert list_rewards(turned).tolist() == pytest.approx([10 * (0.5 * ranks + 0.5 * FIRST)])
    # nobody knows the target: the teacher's list is the best, and without control nothing was hit
    blind = answer([4, 5], Want(2), ranked=[4, 5])
    assert list_rewards(blind).tolist() == pytest.approx([5])
    # one of ten, of the label, the target: 10 · (.5 · 1 / best(10) + .5 / 10)
    ideal = sum((1 if i == 0 else 1 / log2(i + 2)) / log2(i + 2) for i in range(10))
    short = answer([0], Want(10, wanted=("Drama",)), targets=0)
    assert list_rewards(short).tolist() == pytest.approx([10 * (0.5 / ideal + 0.05)])


def test_several_answers_at_once_are_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    wants = [
        Want(5),
        Want(3, wanted=("Drama",)),
        Want(4, unwanted=("Drama",)),
        share("at most", 0.3, 6),
        share("at least", 0.3, 5),
        share("about", 0.5, 4),
    ]
    lists = [rng.integers(-1, 10, rng.integers(0, 8)).tolist() for _ in wants]
    more = {"targets": [1, 2, -1, 0, 5, 6], "ranked": [[1, 2, 3]] * 6, "histories": [[4]] * 6}
    together = Answers.of(lists, wants, LABELS, **more)  # type: ignore[arg-type]
    for number, want in enumerate(wants):
        alone = answer(lists[number], want, **{key: value[number] for key, value in more.items()})
        width = alone.items.shape[1]
        np.testing.assert_allclose(item_rewards(together)[number, :width], item_rewards(alone)[0])
        np.testing.assert_allclose(list_rewards(together)[number], list_rewards(alone)[0])


def test_rewards_stand_on_the_tokens_that_end_things() -> None:
    found = placed(
        np.array([[0.5, 1.0], [-1.0, 0.0]]),
        np.array([8.0, 2.0]),
        np.array([[1, 3], [2, 0]]),
        np.array([2, 1]),
        np.array([5, 3]),
    )
    assert found.tolist() == [[0, 0.5, 0, 1, 8], [0, 0, 1, 0, 0]]


def test_quotas_are_exact_and_one_control_is_rewarded() -> None:
    assert control_of(share("at most", 0.35, 10)) == ("at most", 3)
    assert control_of(share("at least", 0.35, 10)) == ("at least", 4)
    assert control_of(share("about", 0.36, 10)) == ("about", 4)
    assert control_of(share("about", 0.25, 10)) == ("about", 2)
    with pytest.raises(ConfigError, match="several controls"):
        control_of(Want(4, wanted=("Drama",), unwanted=("War",)))


def test_the_baseline_ranks_first_and_filters_then() -> None:
    wants = [
        Want(2, wanted=("Drama",)),
        share("about", 0.5, 4),
        share("at least", 0.75, 4),
        share("at most", 0.0, 3),
        Want(3),
        share("at least", 1.0, 3),
    ]
    ranked = np.array([[9, 3, 8, 7, 1, 0, 6, 5]] * 6, np.int32)
    terms = [want.check(LABELS, [3] if number == 4 else []) for number, want in enumerate(wants)]
    found = post_filter(ranked, terms)
    assert [row[row >= 0].tolist() for row in found] == [
        [3, 1],
        [9, 3, 8, 1],
        [9, 3, 1, 0],
        [9, 8, 7],
        [9, 8, 7],
        [3, 1, 0],
    ]
    assert all(own.kept_by(row[row >= 0]) for own, row in zip(terms, found, strict=True))
    short = post_filter(np.array([[9, 3, -1, -1]], np.int32), [wants[0].check(LABELS)])
    assert short.tolist() == [[3, -1]]
    unmet = post_filter(np.array([[9, 8, 7, 3]], np.int32), [wants[2].check(LABELS)])
    assert unmet.tolist() == [[9, 8, 7, 3]]
