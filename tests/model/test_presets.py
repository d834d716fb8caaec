from __future__ import annotations

import pytest
import torch
from transformers import Qwen3ForCausalLM

from itemic.errors import ConfigError
from itemic.model.configuration import preset_config
from itemic.model.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_parameters_it_states(name: str) -> None:
    config = preset_config(name, vocab_size=1000, max_length=64)
    with torch.device("meta"):
        lm = Qwen3ForCausalLM(config)
    embeddings = lm.get_input_embeddings().weight
    assert lm.get_output_embeddings().weight is embeddings
    rest = sum(weight.numel() for weight in lm.parameters()) - embeddings.numel()
    assert rest == pytest.approx(PRESETS[name].parameters, rel=0.01)


def test_the_largest_preset_is_qwen3_06b() -> None:
    config = preset_config("qwen3-0.6b", vocab_size=151_936, max_length=40_960)
    with torch.device("meta"):
        total = Qwen3ForCausalLM(config).num_parameters()
    assert total == 596_049_920  # what the published checkpoint's card counts as 0.6B
    assert config.rope_parameters["rope_theta"] == 1e6
    assert set(config.layer_types) == {"full_attention"}


def test_overrides_change_the_shape() -> None:
    config = preset_config(
        "qwen3-nano",
        vocab_size=100,
        max_length=32,
        hidden_size=64,
        layers=3,
        heads=4,
        kv_heads=2,
        tie=False,
    )
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 3, 4)
    assert config.tie_word_embeddings is False
    assert config.head_dim == PRESETS["qwen3-nano"].head_dim


@pytest.mark.parametrize(
    ("name", "overrides", "word"),
    [
        ("qwen3-giga", {}, "qwen3-giga"),
        ("qwen3-nano", {"width": 3}, "width"),
        ("qwen3-nano", {"heads": 5}, "kv_heads"),
        ("qwen3-nano", {"layers": 0}, "layers"),
        ("qwen3-nano", {"head_dim": 7}, "head_dim"),
        ("qwen3-nano", {"dropout": 0.1}, "dropout"),
    ],
)
def test_impossible_shapes_are_refused(name: str, overrides: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset_config(name, vocab_size=100, max_length=32, **overrides)
    assert word in str(caught.value)
