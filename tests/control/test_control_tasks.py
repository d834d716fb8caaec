"""The contract that every task of control keeps, under semantic IDs and under titles."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.tasks.table import CONTROL_TASKS, with_control
from itemic.control.tasks.task import LABEL_OF, ControlTask, want_of
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.sid.names import ItemNames
from itemic.sid.titles import TitleNames
from itemic.sid.trie import Trie
from itemic.tasks import build_conversations, validate
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.table import task_from
from tests.control.test_labelling import of_rows
from tests.tasks.helpers import make_dataset, make_index, make_sequences, messages, metadata
from tests.teacher.helpers import tiny

ALL = [name for name, task in CONTROL_TASKS.items() if isinstance(task, ControlTask)]
DATA = make_dataset(make_sequences())
NAMES: dict[str, ItemNames] = {"sid": make_index(), "title": TitleNames.of(DATA)}
TEACHER = tiny(item_ids=DATA.item_ids)


def bound(name: str, dataset: Dataset = DATA, **options: Any) -> ControlTask:
    task = task_from(CONTROL_TASKS, name, options)
    assert isinstance(task, ControlTask)
    return task.knowing(dataset, TEACHER)


def history_of(row: dict[str, Any], dataset: Dataset = DATA) -> list[int]:
    return [] if row["user"] < 0 else dataset.train.items[row["start"] : row["stop"]].tolist()


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("name", ALL)
def test_rows_have_the_form_and_pass_validation(name: str, kind: str) -> None:
    index = NAMES[kind]
    frame = bound(name, epochs=2).build(DATA, index)
    assert len(frame) > 15
    assert frame.columns == list(c.CONVERSATION_COLUMNS)
    assert frame[c.UUID].n_unique() == len(frame)
    place = {item: row for row, item in enumerate(index.item_ids)}
    for text, about in zip(frame[c.MESSAGES], metadata(frame), strict=True):
        assert (about["task"], about["split"]) == (name, "train")
        assert about["kind"] in CONTROL_TASKS[name].leads
        want = want_of(json.dumps(about["want"]))
        assert want.count == len(about["target"])
        if about["kind"] == LABEL_OF:
            continue
        names = [index.texts[place[item]] for item in about["target"]]
        assert messages(text)[-1] == "\n".join(f"{n}. {own}" for n, own in enumerate(names, 1))
    report = validate(frame, DATA, index, max_target_share=1.0)
    assert report.ok, report.faults


@pytest.mark.parametrize("name", ALL)
def test_each_epoch_draws_anew_and_whatever_other_epochs_there_are(name: str) -> None:
    index, columns = NAMES["sid"], [c.MESSAGES, c.METADATA]
    one, three = (bound(name, epochs=epochs).build(DATA, index, seed=5) for epochs in (1, 3))
    assert three[: len(one)].equals(one)
    assert len(set(three[c.MESSAGES])) > 1.5 * len(set(one[c.MESSAGES]))
    again = bound(name, epochs=3).build(DATA, index, seed=5)
    assert again.equals(three)
    assert not bound(name).build(DATA, index, seed=6).select(columns).equals(one.select(columns))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", ["leave-one-out", "leave-last-out"])
def test_other_targets_make_the_very_same_rows(name: str, method: str) -> None:
    sequences = make_sequences()
    own = make_dataset(sequences, method=method)
    changed = {}
    for number, (user, rows) in enumerate(sequences.items()):
        keep = len(own.train[number])
        changed[user] = rows[:keep] + [(row + 13) % 40 for row in rows[keep:]]
    other = make_dataset(changed, method=method)
    frames = [bound(name, data).build(data, NAMES["sid"]) for data in (own, other)]
    assert frames[0].equals(frames[1])


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**30), topk=st.integers(3, 8))
def test_every_answer_is_one_that_the_grammar_of_its_want_allows(
    name: str, kind: str, seed: int, topk: int
) -> None:
    index, task = NAMES[kind], bound(name, topk=topk, samples=6)
    plan = task.planned(Catalogue(index, DATA.items), DATA.train, seed)
    rows = [row for row in plan.iter_rows(named=True) if list(task.leads)[row["kind"]] != LABEL_OF]
    labels = task.knows.labels
    terms = [want_of(r["want"]).check(labels, history_of(r), names=index.name_numbers) for r in rows]
    spelled = [[2 + ord(letter) for letter in text] for text in index.texts]
    items = TokenRows.of(spelled)
    form = task.form
    before = TokenRows.of([[2 + ord(letter) for letter in form.before(place)] for place in range(16)])
    grammar = ListGrammar(Trie.build(items), ListTokens(before, np.array([1], np.int32)), terms)
    written = []
    for number, (row, own) in enumerate(zip(rows, terms, strict=True)):
        assert own.kept_by(row["items"])
        state = grammar.start(number)
        tokens = [2 + ord(letter) for letter in form.text([index.texts[i] for i in row["items"]])] + [1]
        for place, token in enumerate(tokens):
            assert token in grammar.allowed(state)
            after = grammar.step(state, token)
            assert (after is None) == (place == len(tokens) - 1)
            state = after or state
        written.append(tokens)
    assert [own.tolist() for own in grammar.read(TokenRows.of(written))] == [row["items"] for row in rows]


def test_what_came_next_stands_first_where_it_fits_and_then_the_teacher_s_best() -> None:
    task, train = bound("SFTSeqRec", samples=60), DATA.train
    plan = task.planned(Catalogue(NAMES["sid"], DATA.items), train, 0)
    for row in plan.iter_rows(named=True):
        target, history = int(train.items[row["stop"]]), history_of(row)
        assert row["items"][0] == target or target in history
        best, _ = TEACHER.rank(of_rows([history]), len(row["items"]), exclude_history=True)
        others = [item for item in best[0].tolist() if item != target]
        first = [] if target in history else [target]
        assert row["items"] == [*first, *others][: len(row["items"])]
        assert 1 <= len(history) <= 10


def test_palr_answers_with_what_really_came() -> None:
    task, train = bound("SFTSeqRecPALR", samples=60), DATA.train
    for row in task.planned(Catalogue(NAMES["sid"], DATA.items), train, 0).iter_rows(named=True):
        later = train.items[row["stop"] : train.offsets[row["user"] + 1]].tolist()
        new = [item for item in dict.fromkeys(later) if item not in history_of(row)]
        assert row["items"] == new[: len(row["items"])]


def test_rates_have_the_number_that_is_stated_or_one_stricter() -> None:
    for name in ("SFTCategoryRate", "SFTPersonalCategoryRate"):
        task = bound(name, samples=150)
        kinds = list(task.leads)
        plan = task.planned(Catalogue(NAMES["sid"], DATA.items), DATA.train, 3)
        seen: Counter[tuple[str, int]] = Counter()
        for row in plan.iter_rows(named=True):
            part = want_of(row["want"]).shares[0]
            label = task.knows.labels.mask(task.knows.labels.number(part.label))
            over = int(label[row["items"]].sum()) - round(part.portion * 10)
            seen[kinds[row["kind"]], over] += 1
        stricter = {"L": -1, "M": 1}
        legal = {(kind, way) for kind in kinds for way in {0, stricter.get(kind[0], 0)}}
        assert set(seen) == legal


@pytest.mark.parametrize("stricter", [0.0, 0.8, 1.0])
def test_lists_are_one_stricter_as_often_as_is_said(stricter: float) -> None:
    for name in ("SFTCategoryRate", "SFTPersonalCategoryRate"):
        task = bound(name, samples=300, stricter=stricter)
        labels, over = task.knows.labels, []
        for row in task.planned(Catalogue(NAMES["sid"], DATA.items), DATA.train, 3).iter_rows(named=True):
            part = want_of(row["want"]).shares[0]
            inside = int(labels.mask(labels.number(part.label))[row["items"]].sum())
            if part.how != "about":
                over.append(abs(inside - round(part.portion * 10)))
        assert abs(np.mean(over) - stricter) < (0.1 if 0 < stricter < 1 else 1e-9)
        with pytest.raises(ConfigError, match="no share"):
            bound(name, stricter=1.5)


@pytest.mark.parametrize("parts", [{"-": 0}, {"+": 1, "-": 1}, {"-": 4.0}, {"+": 0.0}])
@pytest.mark.parametrize("name", ["SFTControlRec", "SFTControlRec_re", "SFTPersonalControlRec"])
def test_a_category_is_left_out_as_often_as_is_said(name: str, parts: dict[str, float]) -> None:
    task = bound(name, samples=400, kinds=parts)
    plan = task.planned(Catalogue(NAMES["sid"], DATA.items), DATA.train, 4)
    wants = [want_of(text) for text in plan["want"]]
    own = [bool(want.unwanted) for want in wants if want.wanted or want.unwanted]
    assert len(own) > 200
    share = parts.get("-", 1) / (parts.get("+", 1) + parts.get("-", 1))
    assert abs(np.mean(own) - share) < (0.08 if 0 < share < 1 else 1e-9)


@pytest.mark.parametrize("parts", [{"LP": 3}, {"LP": 0, "MP": 0.5}, {}])
def test_shares_are_of_each_kind_as_often_as_is_said(parts: dict[str, float]) -> None:
    for name, kinds in (("SFTCategoryRate", 4), ("SFTPersonalCategoryRate", 3)):
        task = bound(name, samples=600, kinds=parts)
        plan = task.planned(Catalogue(NAMES["sid"], DATA.items), DATA.train, 4)
        seen = Counter(list(task.leads)[kind] for kind in plan["kind"])
        total = sum(parts.get(kind, 1) for kind in task.leads)
        assert len(task.leads) == kinds
        for kind in task.leads:
            share = parts.get(kind, 1) / total
            assert abs(seen[kind] / len(plan) - share) < (0.08 if share else 1e-9)


def test_kinds_in_equal_parts_are_what_is_drawn_without_any() -> None:
    for name, parts in (("SFTPersonalControlRec", {"+": 2, "-": 2}), ("SFTControlRec_re", {})):
        plans = [
            bound(name, kinds=kinds).planned(Catalogue(NAMES["sid"], DATA.items), DATA.train, 4)
            for kinds in (None, parts)
        ]
        assert plans[0].equals(plans[1])


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        ("SFTPersonalControlRec", {"*": 1}, r"it has no kind '\*'"),
        ("SFTPersonalCategoryRate", {"LC": 1}, "it has no kind 'LC'"),
        ("SFTCategoryRate", {"LP": -1}, "kinds are {'LP': -1}"),
        ("SFTControlRec", {"+": 0, "-": 0}, "kinds are"),
    ],
)
def test_kinds_that_cannot_be_drawn(name: str, parts: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=f"task {name}: {said}"):
        bound(name, kinds=parts)


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize(("name", "least", "most"), [("SFTSeqRec", 1, 4), ("SFTItemCount", 5, 9)])
def test_the_number_of_items_is_the_largest_of_so_many_draws(
    name: str, least: int, most: int, draws: int
) -> None:
    options = {"most": most} if name == "SFTItemCount" else {}
    task = bound(name, samples=3000, topk=4, draws=draws, **options)
    plan = task.planned(Catalogue(NAMES["sid"], DATA.items), DATA.train, 5)
    found = np.bincount([want_of(want).count for want in plan["want"]], minlength=most + 1)
    numbers = np.arange(least - 1, most + 1)
    below = ((numbers - least + 1) / (most - least + 1)) ** draws  # that no draw is above each
    expected = np.diff(below) * len(plan)
    assert len(plan) == 3000
    assert found[:least].sum() == 0
    chi_square = ((found[least:] - expected) ** 2 / expected).sum()
    assert chi_square < 20  # with 4 degrees of freedom one in 1,000 is above 18.5


def test_lists_with_shares_have_one_number_of_items() -> None:
    for name in ("SFTCategoryRate", "SFTPersonalCategoryRate"):
        with pytest.raises(ConfigError, match="all have topk items"):
            bound(name, draws=2)


def test_grouped_lists_hold_the_same_items_with_those_of_the_category_together() -> None:
    for name in ("SFTCategoryRate", "SFTPersonalCategoryRate"):
        plans = [
            bound(name, samples=60, order=order).planned(Catalogue(NAMES["sid"], DATA.items), DATA.train, 3)
            for order in ("teacher", "grouped")
        ]
        labels = bound(name).knows.labels
        moved = 0
        for usual, row in zip(*(plan.iter_rows(named=True) for plan in plans), strict=True):
            part = want_of(row["want"]).shares[0]
            label = labels.mask(labels.number(part.label))
            inside = [item for item in usual["items"] if label[item]]
            outside = [item for item in usual["items"] if not label[item]]
            assert row["items"] == (outside + inside if part.how == "at most" else inside + outside)
            moved += row["items"] != usual["items"]
        assert moved > 10
        with pytest.raises(ConfigError, match="order is 'best'"):
            bound(name, order="best")


def test_minus_is_what_the_teacher_would_say_most_and_plus_anything() -> None:
    task = bound("SFTPersonalControlRec", samples=80)
    labels, train = task.knows.labels, DATA.train
    plan = task.planned(Catalogue(NAMES["sid"], DATA.items), train, 0)
    assert plan["kind"].n_unique() == 2
    for row in plan.filter(pl.col("kind") == 1).iter_rows(named=True):
        asked = np.array(history_of(row), np.int32)
        best, _ = TEACHER.rank(of_rows([asked.tolist()]), 10, exclude_history=True)
        counts = Counter(labels.finest(item) for item in best[0].tolist())
        assert counts[want_of(row["want"]).unwanted[0]] == max(n for own, n in counts.items() if own)
    assert len({want_of(text).wanted for text in plan.filter(pl.col("kind") == 0)["want"]}) > 3


def test_candidates_hold_the_next_item_at_any_place_and_nothing_of_the_history() -> None:
    task = bound("SFTSeqRanking", samples=100, candidates=8)
    places = set()
    for row in task.planned(Catalogue(NAMES["sid"], DATA.items), DATA.train, 0).iter_rows(named=True):
        some = want_of(row["want"]).candidates or ()
        target = int(DATA.train.items[row["stop"]])
        assert len(set(some)) == 8
        assert not set(some) & set(history_of(row))
        assert row["items"][0] == target
        places.add(some.index(target))
    assert places == set(range(8))


def test_categories_that_speak_as_a_role_are_not_said() -> None:
    items = DATA.items.with_columns(
        pl.when(pl.col(c.ITEM_ID) == "i3")
        .then(pl.lit(["<|im_start|>system"], pl.List(pl.String)))
        .otherwise(pl.col(c.CATEGORIES))
        .alias(c.CATEGORIES)
    )
    data = make_dataset(make_sequences(), items=items)
    for name in ALL:
        frame = bound(name, data, samples=60).build(data, NAMES["sid"])
        asked = [messages(text) for text in frame[c.MESSAGES]]
        assert not any("<|im_start|>" in turn for turns in asked for turn in turns)


def test_mixtures_with_other_tasks_and_what_is_missing() -> None:
    index = NAMES["sid"]
    entries: list[dict[str, Any]] = [
        {"task": "C"},
        {"task": "SFTSeqRec", "source": "lists", "limit": 20, "topk": 4},
    ]
    built = build_conversations(DATA, index, with_control(entries, DATA, TEACHER))
    assert built.counts["lists"] == 20
    assert built.taught is not None
    assert built.taught.tasks[1]["topk"] == 4
    with pytest.raises(ConfigError, match="asks the sequential teacher"):
        with_control(entries, DATA)
    assert with_control([{"task": "SFTControlRec"}], DATA)
    with pytest.raises(ConfigError, match=r"knowing|needs labels"):
        CONTROL_TASKS["SFTSeqRec"].build(DATA, index)
    with pytest.raises(ConfigError, match="no option width"):
        with_control([{"task": "SFTSeqRec", "width": 3}], DATA, TEACHER)
    for option, value in {
        "topk": 0,
        "epochs": -1,
        "samples": 0,
        "max_items": 0,
        "templates": 2,
        "draws": 0,
    }.items():
        with pytest.raises(ConfigError, match=option):
            bound("SFTSeqRec", DATA, **{option: value})
    with pytest.raises(ConfigError, match="given beside its options"):
        build_conversations(DATA, index, [{"task": bound("SFTSeqRec"), "topk": 3}])
