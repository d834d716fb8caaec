"""What is asked for: windows of training histories, the tasks' own wants, and nothing that is hidden."""

from __future__ import annotations

import numpy as np
import pytest

from itemic.control.labelling import Labeller
from itemic.data.held_out import held_out
from itemic.errors import ConfigError
from itemic.rl.lists.asks import RANKED, ListBook
from itemic.rl.settings import RL_TASKS, Asks
from tests.rl.lists.helpers import TASKS, teacher
from tests.rl.test_run import fresh, shop

DATASET = shop()
MODEL = fresh(DATASET)


def book(*tasks: object, **keys: object) -> ListBook:
    asks = Asks(tasks=tasks or tuple(TASKS), **{"requests": 30, **keys})  # type: ignore[arg-type]
    return ListBook(MODEL, DATASET, asks, 5, teacher())


def test_histories_and_targets_are_places_of_the_training_split() -> None:
    told = book()
    place, task = told.order(0)
    asked = told.ask(place, task)
    assert len(asked) > 20
    assert sorted(place.tolist()) == list(range(30))
    for number in range(len(asked)):
        user = DATASET.train.users.tolist().index(asked.requests.users[number])
        items, history = DATASET.train[user].tolist(), asked.requests.history(number).tolist()
        ends = [stop for stop in range(1, len(items)) if items[stop - len(history) : stop] == history]
        assert ends
        target = int(asked.requests.targets[number])
        assert target in {-1 if items[stop] in history else items[stop] for stop in ends}
        prompt = MODEL.tokenizer.decode(asked.prompts[number].tolist())
        assert all(MODEL.index.text(row) in prompt for row in history)
        assert str(asked.wants[number].count) in prompt
        for label in (*asked.wants[number].wanted, *asked.wants[number].unwanted):
            assert label.split(" > ")[-1] in prompt
    assert {asked.tasks[number] for number in range(len(asked))} == set(TASKS)
    counts = [
        want.count for want, name in zip(asked.wants, asked.tasks, strict=True) if name == "RLItemCount"
    ]
    assert all(11 <= count <= 15 for count in counts)


def test_epochs_draw_anew_and_the_same_again() -> None:
    one, two = book(), book()
    first = one.ask(*one.order(0))
    second = one.ask(*one.order(1))
    assert [repr(want) for want in first.wants] != [repr(want) for want in second.wants]
    two.order(7)  # what was asked before changes nothing
    again = two.ask(*two.order(1))
    np.testing.assert_array_equal(again.prompts.tokens, second.prompts.tokens)
    np.testing.assert_array_equal(again.requests.targets, second.requests.targets)


def test_the_teacher_ranks_what_may_come() -> None:
    """Where nothing is asked for but a number, its list is the labels' own."""
    told = book("RLSeqRec")
    asked = told.ask(*told.order(0))
    own = Labeller(teacher(), told.labels)(asked.requests, asked.wants)
    for ranked, items in zip(asked.ranked, own.items, strict=True):
        assert ranked[: len(items)].tolist() == items.tolist()
        assert len(ranked) <= RANKED
    within = book("RL+PersonalControlRec")
    found = within.ask(*within.order(0))
    for want, ranked in zip(found.wants, found.ranked, strict=True):
        assert set(ranked.tolist()) <= set(told.labels.rows(want.wanted[0]).tolist())


@pytest.mark.parametrize("name", list(RL_TASKS))
def test_every_task_of_reinforcement_learning_asks_its_kinds(name: str) -> None:
    told = book(name, requests=6)
    asked = told.ask(*told.order(0))
    assert len(asked)
    for want in asked.wants:
        kinds = {"+": bool(want.wanted), "-": bool(want.unwanted)}
        hows = {"LP": "at most", "MP": "at least", "EP": "about"}
        for kind in RL_TASKS[name][1] or ():
            assert kinds[kind] if kind in kinds else want.shares[0].how == hows[kind]


def test_requests_of_the_validation_split_are_asked_after_its_histories() -> None:
    told, split = book(), DATASET.split("valid")
    asked = told.held(split, 20, 0)
    rows = {str(user): number for number, user in enumerate(split.users)}
    assert len(asked) > 10
    for number in range(len(asked)):
        row = rows[asked.requests.users[number]]
        history = asked.requests.history(number).tolist()
        assert split.history(row).tolist()[-len(history) :] == history
        target = int(split.targets[row])
        assert int(asked.requests.targets[number]) == (-1 if target in history else target)
    again = book().held(split, 20, 0)
    assert again.wants == asked.wants


def test_users_who_are_held_out_are_asked_alone() -> None:
    told = book(held_out=0.5)
    asked = told.ask(*told.order(0))
    out = set(DATASET.train.users[held_out(DATASET.train.users, 0.5)].tolist())
    assert set(asked.requests.users.tolist()) <= out


def test_prompts_that_leave_no_room_are_left_out() -> None:
    told = book()
    whole = told.ask(*told.order(0))
    told.room = int(np.median(whole.prompts.lengths))
    some = told.ask(*told.order(0))
    assert 0 < len(some) < len(whole)
    assert set(some.rows.tolist()) == set(whole.rows[whole.prompts.lengths <= told.room].tolist())


def test_faults_are_named() -> None:
    with pytest.raises(ConfigError, match="asks for no list"):
        book("sequence")
    with pytest.raises(ConfigError, match="names nothing"):
        ListBook(MODEL, DATASET, Asks(), 0, teacher())
    with pytest.raises(ConfigError, match="there is none"):
        ListBook(MODEL, DATASET, Asks(tasks=("RLSeqRec",)), 0, None)
    with pytest.raises(ConfigError, match="in different ways"):
        book("RLSeqRec", {"task": "RLItemCount", "numbered": False})
    with pytest.raises(ConfigError, match="add up to nothing"):
        book({"task": "RLSeqRec", "share": 0})
