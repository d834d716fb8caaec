from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from itemic.errors import IndexMismatchError, ModelError
from itemic.model import Model
from itemic.model import model as module
from itemic.model.model import embeddings, head
from itemic.sid.index import ItemIndex
from tests.model.helpers import small_index
from tests.model.test_build import INDEX, tiny


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


@pytest.fixture(scope="module")
def saved(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def logits(lm: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return lm(torch.arange(40)[None], use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("tie", [True, False])
def test_plain_transformers_load_what_was_saved(tie: bool, tmp_path: Path) -> None:
    model = tiny(tie=tie)
    model.save(tmp_path / "m")
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert torch.equal(logits(lm), logits(model.lm))
    assert (head(lm) is embeddings(lm)) == tie
    conversation = [
        {"role": "user", "content": INDEX.text(0)},
        {"role": "assistant", "content": INDEX.text(1)},
    ]
    assert (
        tokenizer.apply_chat_template(conversation, return_dict=False) == model.chat.encode(conversation)[0]
    )
    assert lm.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.encode("<|im_end|>")[0]


def test_a_loaded_model_is_the_saved_one(model: Model, saved: Path) -> None:
    loaded = Model.load(saved)
    assert torch.equal(logits(loaded.lm), logits(model.lm))
    assert loaded.new_token_range == model.new_token_range
    assert loaded.index.digest == model.index.digest
    assert np.array_equal(loaded.item_rows.tokens, model.item_rows.tokens)
    assert loaded.chat.digest == model.chat.digest
    assert not loaded.lm.training


def test_weights_can_be_saved_and_loaded_in_bfloat16(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "half", dtype="bfloat16")
    assert model.lm.dtype == torch.float32
    half = Model.load(tmp_path / "half")
    assert half.lm.dtype == torch.bfloat16
    assert torch.equal(embeddings(half.lm), embeddings(model.lm).bfloat16())
    assert Model.load(tmp_path / "half", dtype=torch.float32).lm.dtype == torch.float32
    with pytest.raises(ModelError, match="int4"):
        Model.load(tmp_path / "half", dtype="int4")


def test_the_card_tells_what_the_model_is(model: Model, saved: Path) -> None:
    card = (saved / "README.md").read_text()
    for fact in (
        INDEX.digest,
        INDEX.text(0),
        f"{model.lm.num_parameters():,}",
        "qwen3",
        "float32",
        "30 items",
    ):
        assert fact in card


def test_saving_over_an_older_model_keeps_other_files_and_no_old_weights(model: Model, folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    model.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert torch.equal(logits(Model.load(folder).lm), logits(model.lm))
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]


def test_a_failed_save_leaves_the_old_model_and_nothing_else(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    monkeypatch.setattr(module, "model_card", full)
    for target in (folder, folder.parent / "fresh"):
        with pytest.raises(OSError, match="No space left"):
            model.save(target)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]


def test_another_index_is_refused(folder: Path) -> None:
    other = small_index(count=29)
    shutil.rmtree(folder / "sid")
    other.save(folder / "sid")
    with pytest.raises(IndexMismatchError) as caught:
        Model.load(folder)
    assert INDEX.digest in str(caught.value)
    assert other.digest in str(caught.value)


def test_a_model_and_a_foreign_index_do_not_make_a_model(model: Model) -> None:
    with pytest.raises(IndexMismatchError, match="made for item index"):
        Model(model.lm, model.tokenizer, small_index(count=12))


def test_a_tokenizer_without_the_tokens_is_refused(folder: Path) -> None:
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] != INDEX.tokens[3]]
    file.write_text(json.dumps(state))
    with pytest.raises(IndexMismatchError, match="the tokenizer doesn't have"):
        Model.load(folder)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage", "word"),
    [
        ("config.json", Path.unlink, "no config.json"),
        ("config.json", _truncate, "config.json can't be used"),
        ("model.safetensors", Path.unlink, "can't be loaded"),
        ("model.safetensors", _truncate, "can't be loaded"),
        ("tokenizer.json", _truncate, "no usable tokenizer"),
        ("sid/index.json", Path.unlink, "not an item index"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(folder: Path, name: str, damage: object, word: str) -> None:
    damage(folder / name)  # type: ignore[operator]
    with pytest.raises((ModelError, IndexMismatchError)) as caught:
        Model.load(folder)
    assert word in str(caught.value)
    assert str(folder) in str(caught.value)


def test_missing_weights_are_never_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    state = load_file(file)
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, first model.layers.1.mlp.up_proj.weight"):
        Model.load(folder)


def test_a_folder_without_an_index_says_how_to_get_one(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["itemic"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="itemic model expand"):
        Model.load(folder)
    with pytest.raises(ModelError, match="not a folder"):
        Model.load(folder / "nowhere")


def test_the_index_travels_along(saved: Path) -> None:
    assert ItemIndex.load(saved / "sid").digest == INDEX.digest


def test_saving_imports_no_deepspeed(tmp_path: Path) -> None:
    """transformers would, which takes seconds and warns on a machine without a GPU."""
    pytest.importorskip("deepspeed", reason="nothing to import")
    code = (
        "import sys; from pathlib import Path; from tests.model.test_build import tiny\n"
        f"tiny().save(Path({str(tmp_path)!r})); print('deepspeed' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
