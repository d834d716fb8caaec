from __future__ import annotations

import math

import pytest

from itemic.training.schedule import learning_rate
from tests.stages import stage_of


def rates(total: int, **keys: object) -> list[float]:
    stage = stage_of({"learning_rate": 1.0, "schedule.min_lr": 0.2, "steps": total, **keys})  # type: ignore[arg-type]
    return [learning_rate(stage, step, total) for step in range(total)]


def test_linear_by_hand() -> None:
    # two steps up to 1, then 1, .8, .6, .4, .2
    assert rates(7, **{"schedule.name": "linear", "schedule.warmup": 2}) == pytest.approx(
        [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    )


def test_cosine_by_hand() -> None:
    half = math.sqrt(0.5)
    expected = [1.0, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2]
    assert rates(5, **{"schedule.name": "cosine", "schedule.warmup": 0}) == pytest.approx(expected)


def test_constant_and_a_share_of_warmup() -> None:
    assert rates(8, **{"schedule.name": "constant", "schedule.warmup": 0.5}) == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    )


def test_steps_past_the_plan_stay_at_the_floor() -> None:
    stage = stage_of({"learning_rate": 1.0, "schedule.min_lr": 0.2, "epochs": 3, "schedule.warmup": 0})
    assert learning_rate(stage, 12, 10) == pytest.approx(0.2)


def test_a_single_step() -> None:
    assert rates(1, **{"schedule.name": "cosine", "schedule.warmup": 0}) == [1.0]


def test_wsd_by_hand() -> None:
    # one step up, five at 1, then four down: 1 - √(1/4), 1 - √(2/4), 1 - √(3/4), 0 of the way above .2
    falls = [0.2 + 0.8 * (1 - math.sqrt(quarter / 4)) for quarter in (1, 2, 3, 4)]
    assert rates(
        10, **{"schedule.name": "wsd", "schedule.warmup": 1, "schedule.decay": 0.4}
    ) == pytest.approx([1.0] * 6 + falls)
    assert rates(10, **{"schedule.name": "wsd", "schedule.warmup": 1, "schedule.decay": 4}) == pytest.approx(
        [1.0] * 6 + falls
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_a_schedule_may_end_before_the_training(schedule: str) -> None:
    short = rates(6, **{"schedule.name": schedule, "schedule.warmup": 0.4})
    assert rates(
        9, **{"schedule.name": schedule, "schedule.warmup": 0.4, "schedule.steps": 6}
    ) == pytest.approx([*short, 0.2, 0.2, 0.2])
