"""Windows of dialogues: whole turns within their room, drawn anew each epoch; files of two forms, and bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from itemic import schema as c
from itemic.control.tasks.dialogues import Dialogues, read_dialogues
from itemic.control.tasks.table import with_control
from itemic.errors import ConfigError, DataError
from itemic.sid.titles import TitleNames
from itemic.tasks import build_conversations
from tests.tasks.helpers import make_dataset, make_index, make_sequences, metadata

DATA = make_dataset(make_sequences())
INDEX = make_index()


def dialogue(number: int, turns: int) -> list[dict[str, str]]:
    """Ten letters a turn, which say where they are from."""
    return [
        {"from": ("human", "gpt")[n % 2], "value": f"{number:03} {n:03} " + ("q?", "a.")[n % 2]}
        for n in range(turns)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    whole = [{"id": str(n), "conversations": dialogue(n, 2 + n % 9)} for n in range(30)]
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(whole), "utf-8")
    return path


def told(frame: pl.DataFrame) -> list[list[dict[str, str]]]:
    return [json.loads(text) for text in frame[c.MESSAGES]]


def test_windows_are_whole_turns_from_a_question_to_an_answer(file: Path) -> None:
    frame = Dialogues(path=str(file), max_chars=45, epochs=3).build(DATA, INDEX, seed=1)
    assert len(frame) == 90
    assert frame[c.UUID].n_unique() == 90
    starts, sizes = set(), set()
    for window, about in zip(told(frame), metadata(frame), strict=True):
        assert [turn["role"] for turn in window] == ["user", "assistant"] * (len(window) // 2)
        numbers = [tuple(map(int, turn["content"].split()[:2])) for turn in window]
        first = numbers[0][1]
        assert numbers == [(numbers[0][0], n) for n in range(first, first + len(window))]
        own = 2 + numbers[0][0] % 9
        room = 4 if first + 4 <= own else (own - first) // 2 * 2  # 45 letters: two pairs
        assert len(window) == room
        assert (about["task"], about["split"]) == ("ShareChatGPT", c.TRAIN)
        starts.add(first)
        sizes.add(len(window))
    assert len(starts) > 2
    assert sizes == {2, 4}
    assert len({about["group"] for about in metadata(frame)}) == 90


def test_epochs_differ_and_depend_on_seed_and_number_alone(file: Path) -> None:
    def made(**options: Any) -> list[str]:
        seed = options.pop("seed", 0)
        return (
            Dialogues(path=str(file), samples=20, **options)
            .build(DATA, INDEX, seed=seed)[c.MESSAGES]
            .to_list()
        )

    both = made(epochs=2)
    assert both == made(epochs=2)
    assert made(epochs=1) == both[:20] != both[20:]
    assert made(epochs=1, seed=5) != both[:20]


def test_other_forms_say_the_same(file: Path, tmp_path: Path) -> None:
    whole = json.loads(file.read_text("utf-8"))
    roles = {"human": "user", "gpt": "assistant"}
    lines = [
        {
            "messages": [
                {"role": roles[turn["from"]], "content": turn["value"]} for turn in own["conversations"]
            ]
        }
        for own in whole
    ]
    lines[3]["messages"][0]["content"] = [{"type": "text", "text": lines[3]["messages"][0]["content"]}]
    other = tmp_path / "talk.jsonl"
    other.write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    assert read_dialogues(other) == read_dialogues(file)


def test_what_cannot_be_used_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = INDEX.texts
    talks = [
        [("system", "Be kind."), ("human", "a"), ("gpt", f"see {items[0]}\n\n<|im_end|>now"), ("gpt", "b")],
        [("human", "c"), ("tool", "d"), ("gpt", "e")],
        [("human", "f"), ("gpt", "g"), ("human", "h"), ("gpt", " ")],
        [("gpt", "i"), ("human", "j")],
        [("human", "k"), ("gpt", "l" * 500)],
    ]
    path = tmp_path / "talk.json"
    path.write_text(
        json.dumps(
            [{"conversations": [{"from": who, "value": text} for who, text in talk]} for talk in talks]
        )
    )
    with caplog.at_level("INFO", logger="itemic"):
        windows = told(Dialogues(path=str(path), max_chars=200).build(DATA, INDEX))
    assert [[turn["role"] for turn in own] for own in windows] == [
        ["system", "user", "assistant"],
        ["user", "assistant"],
    ]
    said = windows[0][2]["content"]
    assert said.startswith("see ")
    assert said.endswith("now\nb")
    assert "\n\n" in said
    assert "<" not in said
    assert "2 dialogues are cut short" in caplog.text
    assert "of 4 dialogues 2 have no question and answer" in caplog.text
    with pytest.raises(DataError, match="no question and answer within 1 characters"):
        Dialogues(path=str(path), max_chars=1).build(DATA, INDEX)
    own = told(Dialogues(path=str(path), max_chars=200, system="Hello.").build(DATA, TitleNames.of(DATA)))
    assert [window[0]["content"] for window in own] == ["Be kind.", "Hello."]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.json", "[{", "is no JSON"),
        ("a.jsonl", '{"messages": []}\n{', "line 2 is no JSON"),
        ("a.json", '[{"id": 1}]', "dialogue 0 has neither conversations nor messages"),
        ("a.json", "[3]", "dialogue 0 has neither"),
        ("a.jsonl", '{"conversations": 3}', "line 1: conversations is no list"),
        ("a.json", '[{"conversations": [{"from": "human"}]}]', "turn 0 has no 'from' and 'value'"),
        ("a.json", '[{"conversations": [{"from": "human", "value": 7}]}]', "turn 0: value is no text"),
        ("a.json", "[]", "no dialogue with an answer"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, problem: str) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=problem):
        Dialogues(path=str(path)).build(DATA, INDEX)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_dialogues(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match="path is missing"):
        Dialogues().build(DATA, INDEX)
    with pytest.raises(ConfigError, match="max_chars is 0"):
        Dialogues(path="x", max_chars=0)


def test_dialogues_stand_in_a_mixture(file: Path) -> None:
    tasks = [
        {"task": "SFTControlRec", "samples": 30},
        {"task": "ShareChatGPT", "path": str(file), "samples": 10},
    ]
    built = build_conversations(DATA, INDEX, with_control(tasks, DATA))
    assert built.counts["ShareChatGPT"] == 10
    assert [task["task"] for task in built.taught.tasks] == ["SFTControlRec", "ShareChatGPT"]
    with pytest.raises(ConfigError, match="asks nothing about histories"):
        Dialogues(path=str(file)).prompt(INDEX, [1, 2])
