"""What is wrong with a model folder is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from itemic.model import Model, new_model
from itemic.model.check import check_model
from itemic.sid.index import ItemIndex

CODES = np.array([[i % 4, i // 4] for i in range(12)])
INDEX = ItemIndex([f"i{i}" for i in range(12)], CODES, (4, 3))
NAMES = ["configuration", "index", "tokenizer", "weights", "numbers", "forests", "generation"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "whole"
    new_model("qwen3-pico", INDEX, [f"item {i} of the shop" for i in range(12)], vocab_size=300).save(folder)
    return folder


def test_a_whole_model_passes(whole: Path) -> None:
    proofs = check_model(whole)
    assert [proof.name for proof in proofs] == NAMES
    assert all(proof.ok for proof in proofs)
    again = check_model(whole, reference=Model.load(whole).lm)
    assert [proof.name for proof in again] == [*NAMES, "same logits"]
    assert all(proof.ok for proof in again)


def change_weights(folder: Path, name: str, change: Callable[[torch.Tensor], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def nan(folder: Path) -> None:
    change_weights(folder, "model.norm.weight", lambda weight: weight[3:5].fill_(float("nan")))


def twins(folder: Path) -> None:
    first = Model.load(folder).new_token_range[0]
    change_weights(folder, "model.embed_tokens.weight", lambda table: table[first].copy_(table[first + 1]))


def lost_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_index(folder: Path) -> None:
    ItemIndex(INDEX.item_ids, CODES[::-1], (4, 3)).save(folder / "sid")


def split_token(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.replace(INDEX.tokens[1], "<s_z_99>"), encoding="utf-8")


def token_between_blanks(folder: Path) -> None:
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for token in state["added_tokens"]:
        token["single_word"] = token["single_word"] or token["content"] == INDEX.tokens[2]
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")


def no_record(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["itemic"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("harm", "name", "detail"),
    [
        (nan, "numbers", "model.norm.weight has 2 values"),
        (twins, "numbers", "1 of the index's"),
        (lost_weight, "weights", "model.norm.weight"),
        (other_index, "index", "sid/ holds index"),
        (split_token, "tokenizer", INDEX.tokens[1]),
        (token_between_blanks, "tokenizer", f"'{INDEX.tokens[2]}' as one token between letters"),
        (no_record, "configuration", "without an item index"),
    ],
)
def test_each_fault_is_found(
    whole: Path, tmp_path: Path, harm: Callable[[Path], None], name: str, detail: str
) -> None:
    folder = tmp_path / "hurt"
    shutil.copytree(whole, folder)
    harm(folder)
    proofs = {proof.name: proof for proof in check_model(folder)}
    assert proofs[name].ok is False
    assert detail in proofs[name].detail
    before = NAMES[: NAMES.index(name)]
    assert all(proofs[other].ok for other in before)
    if name in ("configuration", "index", "tokenizer", "weights"):
        assert all(proofs[other].ok is None for other in NAMES[len(before) + 1 :])


def test_other_weights_have_other_logits(whole: Path) -> None:
    reference = Model.load(whole)
    with torch.no_grad():
        reference.lm.get_input_embeddings().weight.mul_(1.05)
    last = check_model(whole, reference=reference.lm)[-1]
    assert last.ok is False
    assert "differ" in last.detail


def test_half_precision_is_near_enough(whole: Path, tmp_path: Path) -> None:
    model = Model.load(whole)
    model.save(tmp_path / "half", dtype="bfloat16")
    proofs = check_model(tmp_path / "half", reference=model.lm)
    assert all(proof.ok for proof in proofs)
    assert "bfloat16" in next(proof.detail for proof in proofs if proof.name == "weights")


def test_a_model_of_codes_alone_passes(tmp_path: Path) -> None:
    """A model that was made for a code space and no items: OpenOneRec's pretraining."""
    index = ItemIndex.of_codes((4, 3))
    new_model("qwen3-pico", index, vocab_size=300).save(tmp_path / "m")
    proofs = check_model(tmp_path / "m", reference=Model.load(tmp_path / "m").lm)
    assert [proof.name for proof in proofs] == [*NAMES, "same logits"]
    assert all(proof.ok for proof in proofs), proofs
    assert "0 items, 9 tokens" in proofs[1].detail
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "names 0 items" in card
    assert "the codes alone" in card
