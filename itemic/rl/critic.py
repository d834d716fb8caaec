"""The critic: what a policy's tokens are worth, as a head on its own model, or on adapters of its own beside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from itemic.errors import ArtifactError
from itemic.training.language.stage import Learns
from itemic.training.optimizer import Named

NAME = "critic"  # of the adapters beside the policy's
FILE = "critic.safetensors"


class ValueHead(nn.Module):
    """Hidden states to values: one layer of hidden units, and 0 for everything at the beginning.

    Args:
        width: of the hidden states.
        hidden: units.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inside = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[n, width]`` to float32 ``[n]``."""
        with torch.autocast(hidden.device.type, enabled=False):
            found: Tensor = self.out(torch.tanh(self.inside(hidden.float())))[:, 0]
        return found


def value_head(lm: PreTrainedModel, hidden: int | None) -> ValueHead:
    """A new one on a model's last hidden states, of torch's own random state."""
    width = int(lm.config.get_text_config().hidden_size)
    return ValueHead(width, hidden or width).to(lm.device)


def critic_adapters(lm: PreTrainedModel, train: Learns) -> Named:
    """Further adapters on the matrices that a policy's adapters are on, which add nothing until they have learned.

    Args:
        lm: a model with the adapters of :func:`itemic.training.language.learning.learning`.
        train: their rank and the like.

    Returns:
        the critic's, by name; they learn like the policy's, which stay the active ones.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = dict(_adapted(lm))
    config = LoraConfig(
        r=train.rank,
        lora_alpha=train.alpha,  # type: ignore[arg-type]
        lora_dropout=train.dropout,
        target_modules=list(layers),
        fan_in_fan_out=train.what != "qlora"
        and any(isinstance(layer.base_layer, Conv1D) for layer in layers.values()),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are adapters already
        inject_adapter_in_model(config, lm, adapter_name=NAME)
    _switch(lm, "default")
    return {name: weight for name, weight in lm.named_parameters() if f".{NAME}." in name}


@contextmanager
def as_critic(lm: PreTrainedModel) -> Iterator[None]:
    """Inside the block the model computes with the critic's adapters in place of the policy's."""
    _switch(lm, NAME)
    try:
        yield
    finally:
        _switch(lm, "default")


def _switch(lm: PreTrainedModel, adapter: str) -> None:
    for _, layer in _adapted(lm):
        layer.set_adapter(adapter)
        for name, weight in layer.named_parameters():
            if "lora_" in name:
                weight.requires_grad_(True)  # both learn, whichever computes


def _adapted(lm: PreTrainedModel) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in lm.named_modules() if isinstance(module, LoraLayer))


def save_critic(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a critic beside the model of its policy."""
    tensors = {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


@torch.no_grad()
def load_critic(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Fill a critic with what :func:`save_critic` wrote.

    Raises:
        ArtifactError: there is none, or one of another shape.
    """
    file = Path(folder) / FILE
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{file} can't be read: {error}", "Name the folder of a stage with objective ppo."
        ) from error
    if {name: tensor.shape for name, tensor in found.items()} != {
        name: weight.shape for name, weight in weights.items()
    }:
        raise ArtifactError(
            f"{file} is the critic of another model, or of other adapters",
            "Train it with the same `train` and `objective.ppo.hidden`.",
        )
    for name, weight in weights.items():
        weight.copy_(found[name])
