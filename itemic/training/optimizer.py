"""Optimizers with decay on matrices only, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from itemic.errors import missing_extra
from itemic.training.muon import Muon
from itemic.training.settings import TrainingSettings

Named = dict[str, nn.Parameter]


def trainable_parameters(lm: nn.Module) -> Named:
    """The weights that learn, by name; a tied weight once."""
    return {name: weight for name, weight in lm.named_parameters() if weight.requires_grad}


def decayed(model: nn.Module, named: Named) -> set[str]:
    """Names of the weights that decay: matrices, but neither embeddings nor a language model's head, nor norms and
    biases that have a row for each head or expert."""
    spared = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding) or type(module).__name__.endswith("Norm")
        for weight in module.parameters(recurse=False)
    }
    head = getattr(model, "get_output_embeddings", lambda: None)()  # as transformers calls it
    if head is not None:
        spared |= {id(weight) for weight in head.parameters()}
    return {
        name
        for name, weight in named.items()
        if weight.ndim >= 2 and id(weight) not in spared and not name.endswith("bias")
    }


class Optimizer:
    """One torch optimizer, or two beside each other, as one; decay on matrices only.

    ``muon`` takes the matrices in ``decay`` (Jordan et al. 2024; updates scaled to AdamW's root mean square, Liu et
    al. 2025, "Muon is scalable for LLM training") and leaves the rest to AdamW, experts that are kept in one tensor
    among them.

    Args:
        stage: which one, and its numbers.
        named: the weights that learn.
        decay: names of those that shrink by ``lr · weight_decay`` a step; others don't.

    Raises:
        ConfigError: ``adamw-8bit`` without bitsandbytes.
    """

    def __init__(self, stage: TrainingSettings, named: Named, decay: set[str]) -> None:
        self.named = named
        matrices = [w for name, w in named.items() if name in decay]
        others = [w for name, w in named.items() if name not in decay]
        flat = [w for w in matrices if w.ndim == 2] if stage.optimizer.name == "muon" else []
        groups = [
            ([w for w in matrices if not flat or w.ndim > 2], stage.optimizer.weight_decay),
            (others, 0.0),
        ]
        rest = [(weights, rate) for weights, rate in groups if weights]
        make = {"adamw-8bit": _adamw_8bit, "adafactor": _adafactor}.get(stage.optimizer.name, _adamw)
        self.parts = [_muon(stage, flat)] if flat else []
        self.parts += [make(stage, rest)] if rest else []

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def set_learning_rate(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def tensors(self) -> dict[str, Tensor]:
        """The state as ``<weight>.<key>``, counts as int64 scalars; empty before a step."""
        found = {}
        for name, weight in self.named.items():
            for key, value in self._state(weight).items():
                if isinstance(value, Tensor | int):
                    found[f"{name}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
        return found

    def room(self, shapes: Mapping[str, tuple[torch.Size, torch.dtype]]) -> dict[str, Tensor]:
        """Tensors for a state of these shapes, shared out as the weights are; :meth:`load` takes them over."""
        found = {}
        for key, (shape, dtype) in shapes.items():
            weight = self.named.get(key.rpartition(".")[0])
            if weight is not None and weight.shape == shape and dtype.is_floating_point:
                found[key] = torch.zeros_like(weight, dtype=dtype, requires_grad=False)
            else:
                found[key] = torch.empty(shape, dtype=dtype)
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave."""
        for name, weight in self.named.items():
            own = {
                key.removeprefix(f"{name}."): value
                for key, value in tensors.items()
                if key.rpartition(".")[0] == name
            }
            if own:
                part = next(part for part in self.parts if _holds(part, weight))
                part.state[weight] = {key: _restored(value, weight.device) for key, value in own.items()}

    def _state(self, weight: nn.Parameter) -> Mapping[str, Any]:
        return next((part.state[weight] for part in self.parts if weight in part.state), {})


def _holds(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> bool:
    return any(weight is other for group in optimizer.param_groups for other in group["params"])


def _restored(value: Tensor, device: torch.device) -> Tensor | int:
    return int(value) if value.ndim == 0 and value.dtype == torch.int64 else value.to(device)


Groups = list[tuple[list[nn.Parameter], float]]  # weights and their decay


def _grouped(groups: Groups) -> list[dict[str, Any]]:
    return [{"params": weights, "weight_decay": decay} for weights, decay in groups]


def _adamw(stage: TrainingSettings, groups: Groups) -> torch.optim.Optimizer:
    # fused: one pass over memory, on CPU as on CUDA
    return torch.optim.AdamW(
        _grouped(groups), lr=stage.learning_rate, betas=stage.optimizer.betas, fused=True
    )


def _adamw_8bit(stage: TrainingSettings, groups: Groups) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise missing_extra("optimizer adamw-8bit", "bitsandbytes", "adamw-8bit") from error
    made: torch.optim.Optimizer = AdamW8bit(
        _grouped(groups), lr=stage.learning_rate, betas=stage.optimizer.betas
    )
    return made


def _adafactor(stage: TrainingSettings, groups: Groups) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(_grouped(groups), lr=stage.learning_rate)


def _muon(stage: TrainingSettings, matrices: list[nn.Parameter]) -> torch.optim.Optimizer:
    return Muon(
        matrices,
        lr=stage.learning_rate,
        weight_decay=stage.optimizer.weight_decay,
        momentum=stage.optimizer.betas[0],
    )


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
