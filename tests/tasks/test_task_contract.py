"""The contract that every task keeps."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from itemic import schema as c
from itemic.errors import ConfigError, IndexMismatchError
from itemic.schema import SYSTEM
from itemic.tasks import TASKS, build_conversations, make_task, validate
from itemic.tasks.catalogue import Catalogue
from tests.tasks.helpers import make_dataset, make_index, make_sequences, messages, metadata, small

ALL = list(TASKS)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("format", ["onerec", "minionerec", "offset"])
def test_rows_have_the_form_and_pass_validation(name: str, format: str) -> None:
    dataset, index = make_dataset(make_sequences()), make_index(format)
    frame = TASKS[name].build(dataset, index)
    assert len(frame) > 10
    assert frame.columns == list(c.CONVERSATION_COLUMNS)
    assert frame[c.UUID].n_unique() == len(frame)
    for row in metadata(frame):
        assert row["task"] == name
        assert row["split"] == "train"
        assert row["kind"] in TASKS[name].leads
        assert row["group"]
    report = validate(frame, dataset, index, max_target_share=1.0)
    assert report.ok, report.faults


@pytest.mark.parametrize("name", ALL)
def test_equal_seeds_make_equal_rows_and_other_seeds_other_ones(name: str) -> None:
    dataset, index = small()
    first = TASKS[name].build(dataset, index, seed=1)
    assert first.equals(TASKS[name].build(dataset, index, seed=1))
    assert first[c.UUID].to_list() != TASKS[name].build(dataset, index, seed=2)[c.UUID].to_list()


@pytest.mark.parametrize("name", ALL)
def test_parts_are_the_whole(name: str) -> None:
    dataset, index = small()
    parts = list(TASKS[name].frames(dataset, index, rows=7))
    assert max(map(len, parts)) == 7
    whole = TASKS[name].build(dataset, index)
    assert [row for part in parts for row in part.iter_rows()] == list(whole.iter_rows())


@pytest.mark.parametrize("name", ALL)
def test_a_limit_keeps_so_many_rows_and_whole_groups_but_one(name: str) -> None:
    dataset, index = small()
    whole, part = (TASKS[name].build(dataset, index, limit=limit) for limit in (None, 17))
    assert len(part) == 17
    texts = [c.MESSAGES, c.SEGMENTS]
    assert set(part.select(texts).iter_rows()) <= set(whole.select(texts).iter_rows())
    sizes, kept = ({}, {})
    for frame, counts in ((whole, sizes), (part, kept)):
        for row in metadata(frame):
            counts[row["group"]] = counts.get(row["group"], 0) + 1
    assert sum(kept[group] < sizes[group] for group in kept) <= 1


@pytest.mark.parametrize("name", ALL)
def test_every_kind_uses_all_its_wordings_and_groups_have_one(name: str) -> None:
    dataset, index = make_dataset(make_sequences(120)), make_index()
    options = {"kinds": list(TASKS[name].leads)} if hasattr(TASKS[name], "kinds") else {}
    task = TASKS[name] if name == "sequence" else make_task(name, templates=None, **options)
    plans = [task.planned(Catalogue(index, dataset.items), dataset.train, seed) for seed in range(5)]
    assert {lead for plan in plans for lead in plan["lead"]} == set(range(len(task.wordings)))
    assert all(plan.group_by("group", "kind").n_unique()["lead"].max() == 1 for plan in plans)


@pytest.mark.parametrize("name", ALL)
def test_the_prompt_of_evaluation_is_a_prompt_of_training(name: str) -> None:
    dataset, index = make_dataset(make_sequences(60)), make_index()
    task = TASKS[name] if name == "sequence" else make_task(name, templates=1)
    frame = task.build(dataset, index)
    if name == "sequence":
        texts = [json.loads(row)[0]["text"] for row in frame[c.SEGMENTS]]
        for user in range(len(dataset.train)):
            items = dataset.train[user]
            if len(items) > 1:
                prompt = task.prompt(index, items[:-1])
                assert prompt.text + index.text(items[-1]) in texts
        return
    asked = {tuple(messages(row)[:2]) for row in frame[c.MESSAGES]}
    train = dataset.train
    histories = [train[u][:stop] for u in range(len(train)) for stop in range(1, len(train[u]))]
    found = [task.prompt(index, history, dataset) for history in histories]
    known = [tuple(turn["content"] for turn in prompt.messages) in asked for prompt in found]
    assert all(known) if name in ("C", "E", "profile", "rationale") else sum(known) > len(known) * 0.5
    assert found[0].messages[0] == {"role": "system", "content": SYSTEM}


@pytest.mark.parametrize("name", ALL)
def test_many_prompts_are_the_single_ones(name: str) -> None:
    dataset, index = small()
    requests = dataset.split("test")
    many = TASKS[name].prompts(index, requests, dataset)
    assert many == [TASKS[name].prompt(index, requests.history(r), dataset) for r in range(len(requests))]


@pytest.mark.parametrize("name", ALL)
def test_parse_reads_exactly_one_semantic_id(name: str) -> None:
    index = make_index()
    task = TASKS[name]
    assert task.parse(f" {index.text(17)}\n", index) == 17
    for wrong in (
        "",
        "rose soap",
        index.text(3) + index.text(4),
        index.text(3)[:-5],
        "the item " + index.text(3),
    ):
        assert task.parse(wrong, index) is None
    sparse = make_index()
    object.__setattr__(sparse, "sizes", (9, 2, 5))
    assert task.parse("<|sid_begin|><s_a_8><s_b_0><s_c_0><|sid_end|>", sparse) is None


@pytest.mark.parametrize("name", ["B", "C", "E"])
def test_a_target_answer_is_exactly_the_semantic_id(name: str) -> None:
    dataset, index = small()
    frame = TASKS[name].build(dataset, index)
    for row, about in zip(frame[c.MESSAGES], metadata(frame), strict=True):
        target = TASKS[name].parse(messages(row)[-1], index)
        assert [index.item_ids[target]] == about["target"]
        assert messages(row)[-1] == index.text(target)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", ["leave-one-out", "leave-last-out"])
def test_other_targets_make_the_very_same_rows(name: str, method: str) -> None:
    """Nothing of validation or test reaches training: whatever the targets are, not one byte differs."""
    sequences = make_sequences()
    dataset, index = make_dataset(sequences, method=method), make_index()
    changed = {}
    for number, (user, rows) in enumerate(sequences.items()):
        keep = len(dataset.train[number])
        changed[user] = rows[:keep] + [(row + 13) % 40 for row in rows[keep:]]
    other = make_dataset(changed, method=method)
    assert changed != sequences
    assert TASKS[name].build(dataset, index).equals(TASKS[name].build(other, index))


def test_a_planted_target_is_found_nowhere_in_behaviour() -> None:
    """Item 39 is bought by nobody but as a target; only the catalogue's own rows may know it."""
    sequences = {
        user: [row % 39 for row in rows[:-2]] + [39, 39] if len(rows) >= 3 else [row % 39 for row in rows]
        for user, rows in make_sequences().items()
    }
    dataset, index = make_dataset(sequences), make_index()
    assert set(dataset.split("test").targets.tolist()) == set(dataset.split("valid").targets.tolist()) == {39}
    built = build_conversations(dataset, index, [{"task": name} for name in ALL]).read()
    rows = built.filter(built[c.SOURCE].is_in(["C", "E", "F", "profile", "rationale", "sequence"]))
    texts = "\n".join(str(row) for row in rows.iter_rows())
    assert len(rows) > 100
    assert index.text(39) not in texts
    assert '"i39"' not in texts
    assert not re.search(r"no 39\b", texts)
    catalogue = built.filter(built[c.SOURCE] == "A")
    assert any(index.text(39) in row for row in catalogue[c.MESSAGES])


@pytest.mark.parametrize("name", ALL)
def test_a_catalogue_without_users_and_users_without_past(name: str) -> None:
    dataset, index = make_dataset({"u": [3], "v": [4]}), make_index()
    frame = TASKS[name].build(dataset, index)
    assert frame.columns == list(c.CONVERSATION_COLUMNS)
    assert (len(frame) == 0) == (name in ("C", "E", "F", "profile", "rationale"))


def test_an_index_of_other_items_is_refused() -> None:
    dataset, index = small()
    object.__setattr__(index, "item_ids", index.item_ids[::-1])
    with pytest.raises(IndexMismatchError, match="another order"):
        TASKS["A"].build(dataset, index)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown task 'Z'"):
        make_task("Z")
    with pytest.raises(ConfigError, match="no option colour"):
        make_task("C", colour="red")
    for name, options, said in (
        ("A", {"templates": 0}, "templates is 0"),
        ("C", {"window": "round"}, "unknown window 'round'"),
        ("C", {"windows": [2, "some"]}, "'some' in windows"),
        ("C", {"windows": []}, "windows is empty"),
        ("C", {"max_items": 0}, "max_items is 0"),
        ("C", {"history_text": "words"}, "history_text 'words'"),
        ("C", {"split_points": "few"}, "split_points 'few'"),
        ("C", {"thoughts": "deep"}, "thoughts 'deep'"),
        ("D", {"examples": 0}, "examples is 0"),
        ("E", {"per_item": 0}, "per_item is 0"),
        ("E", {"kinds": ["near"]}, "unknown kind 'near'"),
        ("F", {"max_items": 0}, "max_items is 0"),
        ("F", {"split_points": "few"}, "split_points 'few'"),
        ("profile", {"kinds": ["words"]}, "unknown kind 'words'"),
        ("profile", {"max_items": 0}, "max_items is 0"),
        ("profile", {"split_points": "few"}, "split_points 'few'"),
        ("rationale", {"max_items": 0}, "max_items is 0"),
        ("rationale", {"latest": 0}, "latest is 0"),
        ("rationale", {"says": ["colour"]}, "unknown part 'colour'"),
        ("rationale", {"says": []}, "says is empty"),
        ("sequence", {"max_items": 1}, "max_items is 1"),
        ("C", {"max_items": "ten"}, "task C"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_task(name, **options)


def test_prompts_with_titles_need_the_dataset() -> None:
    dataset, index = small()
    task = make_task("C", history_text="title")
    with pytest.raises(ConfigError, match="item texts"):
        task.prompt(index, [1, 2])
    assert "no 2" in task.prompt(index, np.array([1, 2]), dataset).messages[1]["content"]
