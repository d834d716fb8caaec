"""A model's folder says how it is asked, and whoever asks it by that word alone gets the same answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import itemic
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.data.settings import SimulatorConfig
from itemic.decode import BeamSearch
from itemic.errors import ConfigError, IndexMismatchError, ModelError
from itemic.evaluate.recommend import ModelRanker
from itemic.model import Model
from itemic.model.expand import expand
from itemic.sid.index import ItemIndex
from itemic.sid.trie import Trie
from itemic.tasks import TASKS
from itemic.tasks.asking import Asker, task_to_ask
from tests.model.helpers import family_folder
from tests.stages import stage_of

TINY = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 32}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return itemic.simulate(
        SimulatorConfig(users=40, items=30, categories=4, brands=5, shortest=4, longest=8), 0
    ).dataset


@pytest.fixture(scope="module")
def index(dataset: Dataset) -> ItemIndex:
    return itemic.build_index(dataset, levels=[8, 8])


def trained(index: ItemIndex, dataset: Dataset, folder: Path, task: dict[str, object] | str) -> Model:
    model = itemic.new_model("qwen3-pico", index, dataset.items["title"].to_list(), vocab_size=400, **TINY)  # type: ignore[arg-type]
    conversations = itemic.build_conversations(dataset, index, tasks=[{"task": "A", "limit": 5}, task])
    itemic.train(
        model, conversations, stage=stage_of({"steps": 1, "data.tokens_per_step": 512}), output=folder
    )
    return Model.load(folder)


@pytest.mark.parametrize(
    "task",
    [
        "C",
        "sequence",
        {"task": "C", "history_text": "sid+title", "max_items": 7, "system": "You sell music."},
        {"task": "C", "history_text": "title", "system": None},
    ],
    ids=["C", "sequence", "titles beside", "titles alone"],
)
def test_the_card_s_program_ranks_as_the_search_does(
    task: dict[str, object] | str, dataset: Dataset, index: ItemIndex, tmp_path: Path
) -> None:
    model = trained(index, dataset, tmp_path, task)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(import polars.*?)```", card, re.DOTALL)
    assert program is not None
    names: dict[str, object] = {}
    exec(program[1].replace("this folder", str(tmp_path)), names)
    first = Requests(
        np.array(["u"], object), np.array([0, 3]), np.arange(3, dtype=np.int32), np.array([-1], np.int32)
    )
    asked = Asker(model, task_to_ask(model, None), dataset=dataset).ask(first)
    assert asked.prompts[0].tolist() == names["start"].input_ids[0].tolist()  # type: ignore[attr-defined]
    search = BeamSearch(model.lm, Trie.build(model.item_rows), beams=10, skip_forced=False)
    items, _ = search.rank(asked.prompts, k=10)
    assert names["ranked"] == [index.item_ids[row] for row in items[0]]
    assert names["tokenizer"].pad_token is not None  # type: ignore[attr-defined]


def test_the_first_line_is_an_option(dataset: Dataset, index: ItemIndex, tmp_path: Path) -> None:
    line = "You recommend films."
    built = itemic.build_conversations(dataset, index, tasks={"task": "C", "system": line})
    messages = json.loads(built.read()["messages"][0])
    assert messages[0] == {"role": "system", "content": line}
    model = trained(index, dataset, tmp_path, {"task": "C", "system": line})
    assert line in model.tokenizer.decode(ModelRanker(model).ask(dataset.split("test")).prompts[0])
    bare = itemic.build_conversations(dataset, index, tasks={"task": "C", "system": None})
    assert [turn["role"] for turn in json.loads(bare.read()["messages"][0])] == ["user", "assistant"]
    with pytest.raises(ConfigError, match="its plain texts have no system turn"):
        itemic.build_conversations(dataset, index, tasks={"task": "sequence", "system": line})


def test_a_task_may_be_a_name(dataset: Dataset, index: ItemIndex) -> None:
    by_name = itemic.build_conversations(dataset, index, tasks=["C"]).read()
    assert by_name.equals(itemic.build_conversations(dataset, index, tasks=[{"task": "C"}]).read())
    assert by_name.equals(itemic.build_conversations(dataset, index, tasks="C").read())
    with pytest.raises(ConfigError, match=r"tasks\[0\]: the entry is 3"):
        itemic.build_conversations(dataset, index, tasks=[3])  # type: ignore[list-item]


def test_a_model_without_a_word_is_asked_c(dataset: Dataset, index: ItemIndex) -> None:
    model = itemic.new_model("qwen3-pico", index, **TINY)  # type: ignore[arg-type]
    assert model.asked is None
    assert task_to_ask(model, None) == TASKS["C"]


def test_conversations_in_another_index_s_words_are_refused(
    dataset: Dataset, index: ItemIndex, tmp_path: Path
) -> None:
    other = itemic.build_index(dataset, levels=[8, 8], seed=5)
    assert other.digest != index.digest
    model = itemic.new_model("qwen3-pico", index, **TINY)  # type: ignore[arg-type]
    built = itemic.build_conversations(dataset, other, tasks="C", output=tmp_path / "conversations")
    for conversations in (built, tmp_path / "conversations", [tmp_path / "conversations"]):
        with pytest.raises(
            IndexMismatchError, match=f"speak item index {other.digest}, the model {index.digest}"
        ):
            itemic.train(model, conversations, stage={"steps": 1})
    strangers = itemic.simulate(SimulatorConfig(users=40, items=31, categories=4, brands=5), 0).dataset
    with pytest.raises(IndexMismatchError, match=strangers.catalogue):
        itemic.train(
            model,
            itemic.build_conversations(dataset, index, tasks="C"),
            stage={"steps": 1},
            dataset=strangers,
        )


# ------------------------------------------------------------------------------ names on the hub


def test_a_name_on_the_hub_is_found_in_the_cache(
    index: ItemIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network, what was downloaded before is there by name and revision."""
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub/models--somebody--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text(commit)
    (cached / "snapshots").mkdir()
    family_folder(tmp_path, "llama").rename(cached / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = expand("somebody/tiny", index)
    again = expand(str(cached / "snapshots" / commit), index)
    assert (model.lm.get_input_embeddings().weight == again.lm.get_input_embeddings().weight).all()
    assert expand("somebody/tiny", index, revision=commit).index.digest == index.digest
    assert model.tokenizer.pad_token is not None
    assert model.lm.config.pad_token_id == model.tokenizer.pad_token_id
    with pytest.raises(
        ModelError, match="'nobody/tiny' is no folder here and can't be had from the Hugging Face hub"
    ):
        expand("nobody/tiny", index)


def test_training_never_goes_past_the_model_s_positions(
    dataset: Dataset, index: ItemIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the usual max_length of 1024, a model of 184 positions learns from the latest items, and that is told."""
    words = dataset.items["title"].to_list()
    model = itemic.new_model("qwen3-pico", index, words, vocab_size=400, max_length=184, **TINY)  # type: ignore[arg-type]
    conversations = itemic.build_conversations(dataset, index, tasks={"task": "C", "windows": ["all"]})
    whole = model.chat.encode_table(conversations.read()).lengths
    assert whole.max() > 184 > whole.min()
    with caplog.at_level("WARNING", "itemic"):
        itemic.train(
            model, conversations, stage=stage_of({"steps": 1, "data.tokens_per_step": 512}), output=tmp_path
        )
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["stage"]["data"]["max_length"] == 184
    assert f"{(whole > 184).sum()} of {len(whole)} rows over 184 tokens" in caplog.text
