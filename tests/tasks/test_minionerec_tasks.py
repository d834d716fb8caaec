"""MiniOneRec's five supervised tasks as the recipes spell them: what each says, in whole semantic IDs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from itemic import schema as c
from itemic.errors import ConfigError
from itemic.model import Model, new_model
from itemic.recipe.shipped import find_shipped
from itemic.sid.index import ItemIndex
from itemic.tasks import build_conversations, make_task, validate
from itemic.tasks.build import read_entries
from itemic.tasks.task import Task
from tests.tasks.helpers import N, make_dataset, make_sequences, messages, metadata

FIVE: dict[str, dict[str, Any]] = {  # by the name of its conversations: the task and its options
    "SidSFT": {"task": "C", "windows": ["all"], "max_items": 10},
    "sid2title": {"task": "A", "kinds": ["title"]},
    "title2sid": {"task": "B", "kinds": ["title"]},
    "sid2description": {"task": "A", "kinds": ["description"]},
    "description2sid": {"task": "B", "kinds": ["description"]},
    "TitleHistory2Sid": {"task": "C", "windows": ["all"], "max_items": 10, "history_text": "title"},
    "FusionSeqRec": {"task": "F", "max_items": 10},
}
ANSWERED = ("SidSFT", "title2sid", "description2sid", "TitleHistory2Sid")  # whose answers are semantic IDs
TOKEN = re.compile(r"<[a-d]_\d+>")
DATA = make_dataset(make_sequences())


def codes(levels: int) -> np.ndarray:
    """Of four levels the last one alone tells the items of a pair apart, so that whoever drops it mixes them up."""
    row = np.arange(N)
    if levels == 3:
        return np.stack([row // 10, row // 5 % 2, row % 5], axis=1)
    return np.stack([row // 10, row // 5 % 2, row % 5 // 2, row % 5 % 2], axis=1)


def make_index(levels: int) -> ItemIndex:
    sizes = (4, 2, 5) if levels == 3 else (4, 2, 3, 2)
    return ItemIndex([f"i{i}" for i in range(N)], codes(levels), sizes, "minionerec")


def text(levels: int, row: int) -> str:
    return "".join(f"<{'abcd'[level]}_{code}>" for level, code in enumerate(codes(levels)[row]))


def named(name: str) -> tuple[Task, dict[str, Any]]:
    (entry,) = read_entries([FIVE[name] | {"source": name}], 0)
    return entry.task, FIVE[name]


@pytest.fixture(scope="module", params=[3, 4])
def spoken(request: pytest.FixtureRequest) -> tuple[int, Model]:
    index = make_index(request.param)
    return request.param, new_model("qwen3-pico", index, [f"item {i}" for i in range(N)], vocab_size=300)


@pytest.mark.parametrize("name", FIVE)
def test_every_level_of_every_semantic_id_is_there(name: str, spoken: tuple[int, Model]) -> None:
    """In text, read by a pattern of its own; and in tokens, where the answer is supervised."""
    levels, model = spoken
    rows = {text(levels, row): row for row in range(N)}
    assert len(rows) == N
    frame = named(name)[0].build(DATA, make_index(levels))
    assert len(frame) > 10
    ids = {f"i{row}": row for row in range(N)}
    for row, about in zip(frame[c.MESSAGES], metadata(frame), strict=True):
        _, asked, answer = messages(row)
        for said in (asked, answer):
            tokens = TOKEN.findall(said)
            assert len(tokens) % levels == 0
            whole = ["".join(tokens[at : at + levels]) for at in range(0, len(tokens), levels)]
            assert all(each in rows for each in whole)
        if name in ANSWERED:
            target = ids[about["target"][0]]
            assert answer == text(levels, target)
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            tokens_of, mask = model.chat.encode(turns)
            supervised = [token for token, learnt in zip(tokens_of, mask, strict=True) if learnt]
            expected = model.tokenizer.convert_tokens_to_ids(TOKEN.findall(text(levels, target)))
            assert supervised[:levels] == expected
            assert len(expected) == levels
        else:
            assert not TOKEN.search(answer)
            assert TOKEN.search(asked)


@pytest.mark.parametrize("levels", [3, 4])
def test_each_says_what_it_is_called(levels: int) -> None:
    """Against a plain loop over users and catalogue."""
    titles = [
        title if row not in (7, 8) else None for row, title in enumerate(DATA.items[c.TITLE].to_list())
    ]  # 7 has none, that of 8 must be cleaned
    histories = [
        (items[max(0, stop - 10) : stop].tolist(), int(items[stop]))
        for items in (DATA.train[user] for user in range(len(DATA.train)))
        for stop in range(1, len(items))
    ]
    expected: dict[str, set[tuple[str, str]]] = {
        "SidSFT": {("".join(text(levels, i) for i in seen), text(levels, then)) for seen, then in histories},
        "TitleHistory2Sid": {
            ("\n".join(str(titles[i]) for i in seen), text(levels, then))
            for seen, then in histories
            if not {7, 8} & set(seen)
        },
        "FusionSeqRec": {
            ("".join(text(levels, i) for i in seen), str(titles[then]))
            for seen, then in histories
            if then not in (7, 8)
        },
        "sid2title": {(text(levels, i), title) for i, title in enumerate(titles) if title},
        "title2sid": {  # twins aren't asked for
            (title, text(levels, i)) for i, title in enumerate(titles) if title and titles.count(title) == 1
        },
    }
    for name, rows in expected.items():
        task, _ = named(name)
        found = set()
        for row in task.build(DATA, make_index(levels))[c.MESSAGES]:
            _, asked, answer = messages(row)
            lead = next(lead for lead in task.wordings if asked.startswith(lead))
            found.add((asked.removeprefix(lead), answer))
        assert rows <= found, name
        assert len(found - rows) < len(found) / 3, name  # what the loop leaves out


@pytest.mark.parametrize("name", ["A", "B"])
def test_kinds_are_a_part_of_all_and_evaluation_asks_the_first(name: str) -> None:
    index = make_index(3)
    task = make_task(name)
    whole = list(zip(task.build(DATA, index)[c.MESSAGES], metadata(task.build(DATA, index)), strict=True))
    for kind in task.leads:
        alone = make_task(name, kinds=[kind], templates=1)
        frame = alone.build(DATA, index)
        count = sum(about["kind"] == kind for _, about in whole)
        assert len(frame) == count > 0
        assert {about["kind"] for about in metadata(frame)} == {kind}
        asked = {messages(row)[1] for row in frame[c.MESSAGES]}
        prompts = [alone.prompt(index, [row], DATA).messages for row in range(N)]
        found = [prompt is not None and prompt[-1]["content"] in asked for prompt in prompts]
        assert sum(found) >= (1 if kind == "title part" else len(asked) * 0.5)  # parts are drawn at random
        assert all(
            prompt is not None and prompt[-1]["content"].startswith(task.leads[kind][0]) for prompt in prompts
        )


def test_kinds_that_can_not_be_are_named() -> None:
    for kinds, said in (
        (["titel"], "unknown kind 'titel'"),
        ([], r"kinds is \[\]"),
        (["title"] * 2, "title"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            make_task("A", kinds=kinds)
        assert "title, description, category, context" in caught.value.remedy


def test_together_they_are_sound() -> None:
    index = make_index(4)
    built = build_conversations(DATA, index, [spec | {"source": name} for name, spec in FIVE.items()])
    assert list(built.counts) == list(FIVE)
    report = validate(built, DATA, index, max_target_share=1.0)
    assert report.ok, report.faults


@pytest.mark.parametrize("recipe", ["minionerec-industrial", "minionerec-industrial-cpu"])
def test_the_recipes_teach_these(recipe: str) -> None:
    text = Path(find_shipped(recipe)).read_text(encoding="utf-8")
    tasks = {task.pop("source", task["task"]): task for task in yaml.safe_load(text)["tasks"]}
    taught = {
        name: {key: each for key, each in task.items() if key != "limit"} for name, task in tasks.items()
    }
    assert set(FIVE) - set(taught) == {"sid2description"}  # which is prepared there, and never taught
    assert {name: taught[name] for name in FIVE if name in taught} == {
        name: spec for name, spec in FIVE.items() if name in taught
    }
