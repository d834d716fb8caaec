"""Muon with the precision that a processor is good at."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# of the quintic polynomial, as Jordan et al. 2024 choose it: steep at 0, and near 1 between .5 and 1.5
A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


class Muon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) with updates scaled to AdamW's root mean square (Liu et al. 2025, "Muon is scalable for
    LLM training", eq. 4): ``torch.optim.Muon``, state and all, whose iteration runs in float32 on a CPU.

    Torch iterates in bfloat16 everywhere. A CPU that has no instructions for it takes many times as long as in float32,
    longer than for the rest of a small model's step, and updates are some hundredths off.

    Args:
        matrices: the weights, ``[m, n]`` each.
        lr: learning rate.
        weight_decay: share of ``lr`` by which weights shrink in a step.
        momentum: of the gradients' average, Nesterov's.
    """

    def __init__(
        self, matrices: list[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float
    ) -> None:
        super().__init__(
            matrices, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of all weights that have a gradient, after ``closure`` has computed it where one is given."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        average = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        update = orthogonal(grad.lerp(average, group["momentum"]), group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))


def orthogonal(matrix: Tensor, epsilon: float = 1e-7) -> Tensor:
    """``U p(S) Vᵀ`` of a matrix ``U S Vᵀ``, where ``p`` brings singular values near 1: five rounds of
    ``X ← aX + (bXXᵀ + c(XXᵀ)²)X`` from ``X/‖X‖``.

    Args:
        matrix: ``[m, n]``.
        epsilon: the least norm that it is divided by.

    Returns:
        ``[m, n]``, float32 on a CPU, bfloat16 elsewhere.
    """
    found = matrix.to(torch.float32 if matrix.device.type == "cpu" else torch.bfloat16)
    tall = found.shape[0] > found.shape[1]
    found = found.T if tall else found
    found = found / found.norm().clamp(min=epsilon)
    for _ in range(ROUNDS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=B, alpha=C), found, beta=A)
    return found.T if tall else found
