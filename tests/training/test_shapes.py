"""Shapes without weights, against published counts, sums by hand and what optimizers really keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, Qwen3Config, Qwen3ForCausalLM

from itemic.training.language.learning import learning
from itemic.training.language.shapes import empty_model, optimizer_bytes, stage_shape
from itemic.training.optimizer import Optimizer
from tests.families import BY_NAME
from tests.stages import stage_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ITEMIC = range(151_669, 176_247)
PUBLISHED = {
    "0.6b": 596_049_920,
    "1.7b": 1_720_574_976,
    "8b": 8_190_735_360,
}  # of the models on the Hub, head once
TOKENS = range(200, 290)


def config(size: str) -> Any:
    return AutoConfig.from_pretrained(CONFIGS / f"qwen3-{size}.json")


def small(device: str = "cpu", tie: bool = True) -> Qwen3ForCausalLM:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    found = Qwen3Config(**shape, num_key_value_heads=2, head_dim=16, vocab_size=300, tie_word_embeddings=tie)
    with torch.device(device):
        return Qwen3ForCausalLM(found)


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_the_published_ones(size: str) -> None:
    assert empty_model(config(size), 151_936).num_parameters() == PUBLISHED[size]


@pytest.mark.parametrize(("size", "matrices"), [("0.6b", 1), ("1.7b", 1), ("8b", 2)])
def test_expansion_and_new_rows_by_hand(size: str, matrices: int) -> None:
    """Tied models have one matrix of tokens, Qwen3-8B has two."""
    found = config(size)
    lm = empty_model(found, 176_384)
    width = {"0.6b": 1024, "1.7b": 2048, "8b": 4096}[size]
    grown = PUBLISHED[size] + matrices * (176_384 - 151_936) * width
    rows = stage_shape(lm, stage_of({"train.what": "embeddings"}), ITEMIC)
    assert (rows.parameters, rows.learning) == (grown, matrices * 24_578 * width)
    assert (rows.weights, rows.gradients) == (grown * 4, rows.learning * 4)
    assert rows.optimizer == rows.learning * 8
    full = stage_shape(lm, stage_of({"train.what": "all", "optimizer.ema": 0.99}), ITEMIC)
    assert (full.learning, full.optimizer) == (grown, grown * 12)
    assert all(weight.is_meta and weight.requires_grad for weight in lm.parameters())


def test_a_head_can_be_tied_and_untied() -> None:
    tied, untied = (empty_model(config("0.6b"), 151_936, tie).num_parameters() for tie in (True, False))
    assert untied - tied == 151_936 * 1024


@pytest.mark.parametrize("train", ["all", "embeddings", "last-layers", "lora"])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw-8bit", "adafactor", "muon"])
@pytest.mark.parametrize("tie", [True, False])
def test_the_optimizers_state_is_as_large_as_foretold(train: str, optimizer: str, tie: bool) -> None:
    """After a real step; what counts steps, and tables that all weights share, are left out."""
    if optimizer == "adamw-8bit":
        pytest.importorskip("bitsandbytes")
    stage = stage_of(
        {
            "train.what": train,
            "optimizer.name": optimizer,
            "train.layers": int(train == "last-layers"),
            "train.rank": 4,
        }
    )
    lm = small(tie=tie)
    with learning(lm, stage, TOKENS) as learns:
        made = Optimizer(stage, learns.named, learns.decay)
        for weight in learns.named.values():
            weight.grad = torch.randn_like(weight)
        made.step()
        kept = {name: value for name, value in made.tensors().items() if value.ndim and "qmap" not in name}
        real = sum(value.numel() * value.element_size() for value in kept.values())
        assert optimizer_bytes(stage, learns.named, learns.decay) == real
        count = sum(weight.numel() for weight in learns.named.values())
    empty = stage_shape(small("meta", tie), stage, TOKENS)
    assert (empty.learning, empty.optimizer) == (count, real)


@pytest.mark.parametrize(("family", "train"), [("GPT-2", "lora"), ("GLM-4.5", "lora"), ("gpt-oss", "all")])
def test_other_families_have_the_shapes_of_real_ones(family: str, train: str) -> None:
    lm = BY_NAME[family].model(300)
    stage = stage_of({"train.what": train, "optimizer.name": "muon"})
    with learning(lm, stage, TOKENS) as learns:
        count = sum(weight.numel() for weight in learns.named.values())
        made = Optimizer(stage, learns.named, learns.decay)
        for weight in learns.named.values():
            weight.grad = torch.randn_like(weight)
        made.step()
        real = sum(value.numel() * value.element_size() for value in made.tensors().values() if value.ndim)
    with torch.device("meta"):
        empty = type(lm)(lm.config)
    found = stage_shape(empty, stage, TOKENS)
    assert (found.learning, found.optimizer) == (count, real)


def test_four_bit_layers_are_as_large_as_foretold() -> None:
    Linear4bit = pytest.importorskip("bitsandbytes.nn").Linear4bit
    stage, lm = stage_of({"train.what": "qlora", "train.rank": 4}), small()
    with learning(lm, stage, TOKENS) as learns:
        real = 0
        for module in lm.modules():
            if isinstance(module, Linear4bit):
                state = module.weight.quant_state
                real += module.weight.numel() + state.absmax.numel() * state.absmax.element_size()
                real += state.state2.absmax.numel() * 4
        others = [weight for weight in lm.parameters() if weight.is_floating_point()]
        real += sum(weight.numel() * 4 for weight in others)
        count = sum(weight.numel() for weight in learns.named.values())
    found = stage_shape(small("meta"), stage, TOKENS)
    assert found.learning == count
    assert found.weights == pytest.approx(real, rel=2e-3)  # small matrices don't fill their last block


def test_tokens_of_a_step_are_whole_blocks() -> None:
    found = stage_shape(
        small("meta"), stage_of({"data.tokens_per_step": 10_000, "data.block_tokens": 4096}), TOKENS
    )
    assert (found.tokens, found.blocks) == (8192, 2)
