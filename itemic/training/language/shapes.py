"""What a stage will need, without a weight of the model: its shapes, from the configuration alone.

The model is built on torch's ``meta`` device, expanded by the code that expands real ones, and handed to
:func:`itemic.training.language.learning.learning`, which decides what learns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from itemic.model.expand import check_kind, resize, set_tied
from itemic.model.layers import matrices_of_layers
from itemic.training.language.learning import learning
from itemic.training.language.stage import LanguageStage
from itemic.training.optimizer import Named

FLOAT = 4  # bytes; weights, gradients and averages are float32 while a stage lasts
NF4 = (
    0.5 + 1 / 64 + 4 / (64 * 256)
)  # bytes a weight: 4 bits, an 8-bit constant a 64, and a float of 256 of these
SMALLEST_8BIT = 4096  # bitsandbytes keeps the state of smaller weights in float32
BLOCK_8BIT = 256  # weights that share a constant of AdamW's 8-bit state


@dataclass(frozen=True)
class StageShape:
    """What a stage holds, all ranks together.

    Attributes:
        name: the stage.
        train: which weights learn, in words.
        parameters: of the model, adapters included.
        learning: those that learn.
        weights: bytes of all weights; of the layers' matrices in 4 bits under ``qlora`` (their originals wait in
            main memory).
        gradients: bytes.
        optimizer: bytes of the optimizer's state, and of further copies of the weights: averaged ones, a reference's.
        tokens: forest tokens of a step, about.
        blocks: how many blocks they are computed in.
    """

    name: str
    train: str
    parameters: int
    learning: int
    weights: int
    gradients: int
    optimizer: int
    tokens: int
    blocks: int

    @property
    def total(self) -> int:
        """Bytes of all three; activations come on top."""
        return self.weights + self.gradients + self.optimizer


def empty_model(config: Any, rows: int, tie: bool | None = None) -> PreTrainedModel:
    """A model without storage, with matrices of ``rows`` rows.

    Raises:
        ModelError: a kind of model that can't be trained here.
    """
    check_kind(config)
    with torch.device("meta"):
        lm: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    if tie is not None:
        set_tied(lm, tie)
    resize(lm, rows)
    return lm


def stage_shape(lm: PreTrainedModel, stage: LanguageStage, tokens: range) -> StageShape:
    """The shape of one stage.

    Args:
        lm: a model, with storage or without; it is as before afterwards.
        stage: what is to be done.
        tokens: ids of the index's tokens.

    Raises:
        ConfigError: the model has no such layers or matrices.
    """
    small = (
        _numel(lm.get_submodule(name) for name in matrices_of_layers(lm))
        if stage.train.what == "qlora"
        else 0
    )
    # what learns over layers in 4 bits is what learns over whole ones, and nothing can be quantized on meta
    same: Any = stage
    if stage.train.what == "qlora":
        same = replace(same, train=replace(stage.train, what="lora"))
    with learning(lm, same, tokens) as learns:
        every = sum(weight.numel() for weight in lm.parameters())
        learned = sum(weight.numel() for weight in learns.named.values())
        state = optimizer_bytes(stage, learns.named, learns.decay)
    return StageShape(
        stage.name,
        stage.train.what if stage.train.what != "last-layers" else f"last {stage.train.layers} layers",
        every,
        learned,
        round((every - small) * FLOAT + small * NF4),
        learned * FLOAT,
        state + learned * FLOAT * (bool(stage.optimizer.ema) + stage.copies),
        stage.data.blocks_per_step * stage.data.planned_block,
        stage.data.blocks_per_step,
    )


def _numel(modules: Any) -> int:
    return sum(module.weight.numel() for module in modules)


def optimizer_bytes(stage: LanguageStage, named: Named, decay: set[str]) -> int:
    """Bytes of the state that :class:`itemic.training.optimizer.Optimizer` keeps, counters left out."""
    total = 0
    for name, weight in named.items():
        if stage.optimizer.name == "muon" and name in decay and weight.ndim == 2:
            total += weight.numel() * FLOAT  # the momentum
        elif stage.optimizer.name == "adafactor":
            total += _adafactor(weight) * FLOAT
        elif stage.optimizer.name == "adamw-8bit" and weight.numel() >= SMALLEST_8BIT:
            total += 2 * (weight.numel() + -(-weight.numel() // BLOCK_8BIT) * FLOAT)
        else:
            total += 2 * weight.numel() * FLOAT
    return total


def _adafactor(weight: nn.Parameter) -> int:
    """Second moments by row and by column of a matrix, one by one of a vector."""
    if weight.ndim < 2:
        return weight.numel()
    return weight.numel() // weight.shape[-1] + weight.numel() // weight.shape[-2]
