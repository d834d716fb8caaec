"""Weights read from a folder one by one, and written so: what transformers reads and writes at once."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from itemic.errors import ModelError
from itemic.model.folder import load_lm
from itemic.model.stored import stored_of, weights_and_buffers
from itemic.model.streamed import write_weights

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
EXPERTS: dict[str, Any] = SHAPE | {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8}
KINDS: dict[str, dict[str, Any]] = {
    "qwen3": SHAPE | {"head_dim": 8, "tie_word_embeddings": True},
    "llama": SHAPE | {"tie_word_embeddings": False},
    "gpt2": GPT2,
    "phi": SHAPE,  # a head with a bias
    "gemma3_text": SHAPE | {"head_dim": 8, "num_key_value_heads": 2},  # a scale among the buffers
    "qwen3_moe": EXPERTS,  # stored one expert after the other, kept in one tensor
}


def made(kind: str, folder: Path, size: str = "50GB") -> PreTrainedModel:
    from transformers import AutoConfig

    torch.manual_seed(0)
    lm: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind]))  # type: ignore[no-untyped-call]
    lm = lm.to(torch.bfloat16)
    lm.generation_config.top_k = 7  # not what the configuration says
    lm.generation_config.do_sample = True
    lm.save_pretrained(folder, max_shard_size=size)
    return load_lm(folder, "cpu", None)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_that_transformers_loads(kind: str, tmp_path: Path) -> None:
    lm = made(kind, tmp_path)
    empty = load_lm(tmp_path, "meta", None)
    stored = stored_of(empty)
    assert stored is not None
    assert stored_of(lm) is None
    assert empty.generation_config.to_dict() == lm.generation_config.to_dict()
    theirs = dict(lm.named_parameters())
    assert theirs.keys() == dict(empty.named_parameters()).keys()
    for name, weight in empty.named_parameters():
        assert weight.is_meta
        assert weight.dtype == theirs[name].dtype
        assert torch.equal(stored.read(name), theirs[name])
        assert torch.equal(stored.read(name, 1, 3), theirs[name][1:3])
    buffers = dict(lm.named_buffers())
    assert buffers.keys() == dict(empty.named_buffers()).keys()
    for name, buffer in empty.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name])


@pytest.mark.parametrize(
    ("kind", "size"), [*((kind, "50GB") for kind in KINDS), ("llama", "30KB"), ("gpt2", "30KB")]
)
def test_files_are_those_that_transformers_writes(kind: str, size: str, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    lm = made(kind, theirs, size)
    values = dict(lm.named_parameters(remove_duplicate=False)) | dict(lm.named_buffers())
    asked = []

    def value(name: str) -> torch.Tensor:
        asked.append(name)
        return values[name].detach().float()

    ours.mkdir()
    empty = load_lm(theirs, "meta", None)
    write_weights(empty, value, ours, size)
    found = sorted(path.name for path in theirs.glob("model*"))
    assert sorted(path.name for path in ours.iterdir()) == found
    assert (len(found) > 2) == (size == "30KB")
    for name in found:
        assert filecmp.cmp(theirs / name, ours / name, shallow=False), name
    assert len(asked) == len(set(asked)) == len(weights_and_buffers(empty))
    first, asked = asked, []
    write_weights(empty, value, None, size)
    assert asked == first


@pytest.mark.parametrize("fault", ["missing", "shape", "broken"])
def test_what_is_wrong_with_a_folder_is_told(fault: str, tmp_path: Path) -> None:
    made("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.self_attn.q_proj.weight"
    if fault == "missing":
        del tensors[name]
    tensors |= {name: torch.zeros(3, 3)} if fault == "shape" else {}
    save_file(tensors, file, {"format": "pt"})
    if fault == "broken":
        file.write_bytes(file.read_bytes()[:1000])
    text = {"missing": f"lacks weights, first {name}", "shape": f"other shapes of weights, first {name}"}
    with pytest.raises(ModelError, match=text.get(fault, "can't be loaded")):
        load_lm(tmp_path, "meta", None)
