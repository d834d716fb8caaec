"""AdamW with decay on matrices only, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from itemic.train.stage import Stage

Named = dict[str, nn.Parameter]


def trainable_parameters(lm: nn.Module) -> Named:
    """The weights that learn, by name; a tied weight once."""
    return {name: weight for name, weight in lm.named_parameters() if weight.requires_grad}


def decayed(lm: Any, named: Named) -> set[str]:
    """Names of the weights that decay: matrices, but neither embeddings nor the head."""
    spared = {
        id(weight)
        for module in lm.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    }
    head = lm.get_output_embeddings()
    if head is not None:
        spared |= {id(weight) for weight in head.parameters()}
    return {name for name, weight in named.items() if weight.ndim >= 2 and id(weight) not in spared}


def make_optimizer(stage: Stage, named: Named, decay: set[str]) -> torch.optim.AdamW:
    """AdamW over ``named`` in two groups: those in ``decay`` shrink by ``lr · weight_decay`` a step, others
    don't."""
    groups = [
        {"params": [w for n, w in named.items() if n in decay], "weight_decay": stage.weight_decay},
        {"params": [w for n, w in named.items() if n not in decay], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=stage.learning_rate,
        betas=stage.betas,
        fused=True,  # one pass over memory, on CPU as on CUDA
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer, named: Named) -> dict[str, Tensor]:
    """AdamW's state: ``<weight>.step``, ``<weight>.exp_avg`` and ``<weight>.exp_avg_sq``; empty before a
    step."""
    return {
        f"{name}.{key}": value
        for name, weight in named.items()
        for key, value in optimizer.state.get(weight, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, named: Named, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    for name, weight in named.items():
        state = {
            key: tensors[f"{name}.{key}"].to(weight.device)
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{name}.{key}" in tensors
        }
        if state:
            optimizer.state[weight] = state


class WeightAverage:
    """An exponential moving average of weights (Polyak averaging), beside the weights themselves.

    After step ``t`` (from 0): ``average ← d·average + (1-d)·weight`` with ``d = min(decay, (1+t)/(10+t))``,
    so that the first steps, far from anything good, are soon forgotten.
    """

    def __init__(self, named: Named, decay: float) -> None:
        self.decay = decay
        self.named = named
        self.average = {name: weight.detach().clone() for name, weight in named.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.average.values()), [w.detach() for w in self.named.values()], 1 - decay
        )

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average in place; the second call puts them back."""
        for name, weight in self.named.items():
            kept = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(kept)
