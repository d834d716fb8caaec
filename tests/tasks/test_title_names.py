"""Tasks where items go by their titles: what they say, what they refuse, and what they read."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.sid.titles import TitleNames
from itemic.tasks import TASKS, build_conversations, make_task, validate
from itemic.tasks.catalogue import Catalogue
from tests.tasks.helpers import make_dataset, make_sequences, metadata

SENSIBLE = [name for name, task in TASKS.items() if task.codes is None]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(make_sequences())


@pytest.fixture(scope="module")
def names(dataset: Dataset) -> TitleNames:
    return TitleNames.of(dataset)


def texts(frame: object) -> list[str]:
    return [
        text
        for column in (c.MESSAGES, c.SEGMENTS)
        for row in frame[column].drop_nulls()  # type: ignore[index]
        for part in json.loads(row)
        for text in [part.get("content", part.get("text"))]
    ]


@pytest.mark.parametrize("name", SENSIBLE)
def test_rows_name_items_by_titles_and_pass_validation(
    name: str, dataset: Dataset, names: TitleNames
) -> None:
    frame = TASKS[name].build(dataset, names)
    assert len(frame) > 10
    report = validate(frame, dataset, names, max_target_share=1.0)
    assert report.ok, report.faults
    said = texts(frame)
    assert sum(len(names.find(text)) for text in said) >= len(frame)
    for text in said:
        assert "semantic ID" not in text
        assert text.count("{") == text.count("}") == len(names.find(text))
    for row in metadata(frame):
        assert row["kind"] != "title"


def test_answers_are_the_targets_names(dataset: Dataset, names: TitleNames) -> None:
    place = {item: row for row, item in enumerate(names.item_ids)}
    frame = TASKS["C"].build(dataset, names)
    for row, said in zip(metadata(frame), frame[c.MESSAGES], strict=True):
        answer = json.loads(said)[-1]["content"]
        assert answer == names.text(place[row["target"][0]])
        assert TASKS["C"].parse(answer, names) == place[row["target"][0]]


def test_answers_are_read_exactly_or_not_at_all(names: TitleNames) -> None:
    read = TASKS["C"].parse
    title = names.titles[3]
    assert read(f"<think>\nno {names.text(1)}\n</think>\n\n {names.text(3)}\n", names) == 3
    for answer in (
        title,
        title.lower(),
        f"{{{title}",
        f"{{{title}}}.",
        f"{{{title} }}",
        names.text(3) * 2,
        "{}",
    ):
        assert read(answer, names) is None
    assert names.titles[12] == f"{names.titles[11]} (2)"  # twins in the catalogue
    assert [read(names.text(row), names) for row in (11, 12)] == [11, 12]


def test_tasks_that_make_no_sense_say_so(dataset: Dataset, names: TitleNames) -> None:
    assert set(TASKS) - set(SENSIBLE) == {"B", "D", "F"}
    with pytest.raises(ConfigError) as caught:
        build_conversations(dataset, names, ["A", "B", "C", {"task": "D"}, "F"])
    lines = caught.value.message.splitlines()[1:]
    assert [line.partition(":")[0] for line in lines] == ["tasks[1]", "tasks[3]", "tasks[4]"]
    assert all("makes no sense where items go by their titles" in line for line in lines)
    with pytest.raises(ConfigError, match="task B makes no sense"):
        TASKS["B"].build(dataset, names)
    with pytest.raises(ConfigError, match="task D makes no sense"):
        TASKS["D"].prompt(names, [1, 2])
    for shown in ("title", "sid+title"):
        with pytest.raises(ConfigError, match=re.escape(f"history_text '{shown}'")):
            build_conversations(dataset, names, {"task": "C", "history_text": shown})
    with pytest.raises(ConfigError, match="a prefix is about the codes"):
        Catalogue(names).prefixes(1)


def test_a_system_line_of_one_s_own_stays(dataset: Dataset, names: TitleNames) -> None:
    line = "You know every semantic ID."
    task = make_task("C", system=line)
    assert json.loads(task.build(dataset, names)[c.MESSAGES][0])[0]["content"] == line
    prompt = TASKS["C"].prompt(names, [1, 2])
    assert prompt.messages is not None
    assert prompt.messages[0]["content"].endswith("Every item of its catalogue has a title.")
    assert prompt.messages[1]["content"].endswith(names.text(1) + names.text(2))


def test_names_that_no_item_has_are_faults(dataset: Dataset, names: TitleNames) -> None:
    frame = TASKS["C"].build(dataset, names, limit=4)
    rows = frame[c.MESSAGES].to_list()
    rows[0] = rows[0].replace("first:\\n{", "first:\\n{no such ")
    rows[1] = rows[1].replace("first:\\n{", "first:\\n")
    report = validate(frame.with_columns(pl.Series(c.MESSAGES, rows)), dataset, names)
    assert {fault.row for fault in report.faults if fault.check == "sid"} == {0, 1}
