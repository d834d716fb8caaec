"""RecLM-gen's static samples: as they write them, as we do, and what they become."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.cli.app import call
from itemic.control.static import read_epochs, read_static, samples_of, write_static
from itemic.errors import ConfigError, DataError
from itemic.model import Model
from itemic.tasks.conversation import Conversations

ENDINGS = [".pickle", ".pkl", ".json", ".jsonl"]
FIELDS = {"user": "u1", "sub_sequential": ["1", "2"], "item_count": 2, "share": 0.5, "target": None}
EPOCHS: list[list[dict[str, Any]]] = [
    [
        {"input_text": "[INST] Two? [/INST]", "output_text": "1. Jaws\n 2. Ünder\n</s>", "task": "SFTSeqRec"}
        | {"input_field_data": FIELDS},
        {"input_text": "Say\n", "output_text": "it"},
    ],
    [],
    [{"input_text": "Only asked", "task": "RLSeqRec", "input_field_data": {"candidates": {"a": [1]}}}],
]


def no_render(messages: Any) -> str:
    raise AssertionError("texts need no template")


@pytest.mark.parametrize("ending", ENDINGS)
def test_samples_come_back_epoch_by_epoch(ending: str, tmp_path: Path) -> None:
    file = tmp_path / "new" / f"SFT_dataset_train{ending}"
    assert write_static(file, EPOCHS) == [2, 0, 1]
    assert read_epochs(file) == EPOCHS
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_pickle_is_what_recLM_gen_loads(tmp_path: Path) -> None:
    write_static(tmp_path / "a.pickle", EPOCHS)
    assert pickle.loads((tmp_path / "a.pickle").read_bytes()) == EPOCHS


def test_samples_become_conversations_whose_inputs_have_no_loss(tmp_path: Path) -> None:
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(EPOCHS))
    found = read_static(tmp_path / "a.pickle")
    rows = list(found)
    assert [row.text for row in rows] == [
        "[INST] Two? [/INST] 1. Jaws\n 2. Ünder\n</s>",
        "Say\nit",
        "Only asked",
    ]
    parts = [json.loads(text) for text in found.read()["segments"]]
    assert parts[0][0] == {"type": "text", "text": "[INST] Two? [/INST]", "loss": False}
    assert [part.get("loss") for part in parts[0]] == [False, None]
    assert [row.source for row in rows] == ["SFTSeqRec", "static", "RLSeqRec"]
    assert rows[0].metadata == {"task": "SFTSeqRec", "epoch": 0, "fields": FIELDS}
    assert [row.metadata["epoch"] for row in rows] == [0, 0, 2]
    assert len({row.uuid for row in rows}) == 3
    again = samples_of(found, no_render)
    named = [[{"task": "static", "input_field_data": {}} | one for one in epoch] for epoch in EPOCHS]
    assert again == named


def test_samples_may_become_turns(tmp_path: Path) -> None:
    write_static(tmp_path / "a.jsonl", EPOCHS)
    rows = list(read_static(tmp_path / "a.jsonl", turns=True))
    assert rows[0].messages == [
        {"role": "user", "content": "[INST] Two? [/INST]"},
        {"role": "assistant", "content": "1. Jaws\n 2. Ünder\n</s>"},
    ]
    assert rows[2].messages == [{"role": "user", "content": "Only asked"}]


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@given(epochs=st.lists(st.lists(st.tuples(texts, texts.filter(bool)), max_size=3), max_size=3))
def test_any_texts_come_back_from_conversations(
    epochs: list[list[tuple[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples = [
        [
            {"input_text": asked, "output_text": said, "task": "t", "input_field_data": {}}
            for asked, said in epoch
        ]
        for epoch in epochs
    ]
    file = tmp_path_factory.mktemp("any") / "a.jsonl"
    write_static(file, samples)
    again = samples_of(read_static(file), no_render)
    while samples and not samples[-1]:  # nothing is left of an empty last epoch
        samples.pop()
    assert again == samples


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([[{"output_text": "a"}]], "input_text is missing"),
        ([[{"input_text": 3}]], "input_text is no text"),
        ([[{"input_text": "a", "output_text": ["b"]}]], "output_text is no text"),
        ([[{"input_text": "a", "input_field_data": [1]}]], "input_field_data is no dict"),
        ([["text"]], "sample 0 is no dict"),
        ([[{"input_text": "a", "input_field_data": {"n": {1, 2}}}]], "set"),
        ([[{"input_text": "a", "input_field_data": {(1, 2): 3}}]], r"the key \(1, 2\)"),
    ],
)
def test_bad_samples_are_named_in_both_directions(samples: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.pickle"
    with pytest.raises(DataError, match=said):
        write_static(file, samples)
    assert not file.exists()
    file.write_bytes(pickle.dumps(samples))
    with pytest.raises(DataError, match=f"a.pickle, epoch 0, sample 0.*{said}|{said}"):
        read_static(file)


def test_what_no_reader_takes_is_not_written(tmp_path: Path) -> None:
    for value, said in ((np.int64(1), "numpy.int64"), (Path("a"), "PosixPath")):
        with pytest.raises(DataError, match=said):
            write_static(tmp_path / "a.pickle", [[{"input_text": "a", "input_field_data": {"n": value}}]])
    with pytest.raises(DataError, match="no text"):
        write_static(tmp_path / "a.jsonl", [[{"input_text": "\ud800"}]])
    assert not list(tmp_path.iterdir())
    deep: dict[str, Any] = {"input_text": "a"}
    deep["input_field_data"] = deep
    with pytest.raises(DataError, match="too deep"):
        write_static(tmp_path / "a.pickle", [[deep]])


class Calls:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def test_a_pickle_that_executes_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.pickle"
    file.write_bytes(pickle.dumps([[{"input_text": "a", "task": Calls(tmp_path / "made")}]]))
    with pytest.raises(DataError, match=r"posix\.mkdir"):
        read_static(file)
    assert call(["control", "import", str(file), "-o", str(tmp_path / "talks")]) == 2
    assert "posix.mkdir" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "talks").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "in which form"),
        ("a.pickle", b"", "damaged"),
        ("a.json", b"[[", "can't be read"),
        ("a.json", b'{"a": 1}', "no list of epochs"),
        ("a.json", b'[{"input_text": "a"}]', "no list of epochs"),
        ("a.jsonl", b'{"input_text": "a"}\n{', "can't be read"),
        ("a.jsonl", b'{"input_text": "a", "epoch": -1}', "the epoch is -1"),
        ("a.jsonl", b'{"input_text": "a", "epoch": 1000000000000}', "names epoch"),
        ("a.jsonl", b"7\n", "line 1 is no dict"),
        ("a.json", b"\xff\xfe", "can't be read"),
    ],
)
def test_files_of_something_else_are_refused(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DataError, ConfigError), match=said) as caught:
        read_static(tmp_path / name)
    assert caught.value.remedy
    with pytest.raises(DataError, match="can't be read"):
        read_static(tmp_path / "nowhere.json")


def test_the_commands_write_and_read(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's conversations as samples, whose texts are what its model reads."""
    file = tmp_path / "SFT_dataset_train.pickle"
    assert call(["control", "export", str(finished / "run"), "-o", str(file)]) == 0
    (epoch,) = pickle.loads(file.read_bytes())
    told = list(Conversations.open(finished / "run" / "conversations"))
    assert f"epoch 0: {len(told):,} samples" in capsys.readouterr().out
    assert len(epoch) == len(told)
    chat = Model.load(finished / "run" / "train.all").chat
    said = [(one, row.messages) for one, row in zip(epoch, told, strict=True) if row.messages]
    assert said
    for one, messages in said:
        assert one["output_text"] == messages[-1]["content"]
        prompt = chat.tokenizer.encode(one["input_text"], add_special_tokens=False)
        assert prompt == chat.prompt(messages[:-1])
    assert call(["control", "import", str(file), "-o", str(tmp_path / "talks")]) == 0
    again = list(Conversations.open(tmp_path / "talks"))
    assert [row.text for row in again][:5] == [
        one["input_text"] + ("" if one["input_text"][-1].isspace() else " ") + one["output_text"]
        for one in epoch[:5]
    ]
