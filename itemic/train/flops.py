"""How much arithmetic a step needs, and how much a device could do: model FLOPs utilisation (MFU).

MFU is the FLOPs that the model's own formulas need, by the time they took, by the device's peak (Chowdhery et al. 2022,
"PaLM", appendix B): what is computed twice to save memory counts once, a forest counts as it is, shared beginnings
once, and what no loss depends on doesn't count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from itemic.forest.last_layer import last_layer

# Dense bfloat16 FLOPs a second, from the vendors' data sheets; the first name that a device's holds counts.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "MI300X": 1307e12,
}


def peak_flops(device: torch.device) -> float | None:
    """A device's peak in FLOPs a second; None for those that the table doesn't have, CPUs among them."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


@dataclass(frozen=True)
class ModelFlops:
    """What a forward and a backward pass of a model need.

    Attributes:
        by_token: per token, in the layers' matrices.
        by_parent: per token that a weighted one is predicted from, in the last layer's feed-forward.
        by_target: per weighted token, in the head.
        by_pair: per query and key that it sees, over all layers, as if none had a sliding window.
    """

    by_token: float
    by_parent: float
    by_target: float
    by_pair: float

    @classmethod
    def of(cls, lm: PreTrainedModel) -> ModelFlops:
        """A matrix of ``n`` numbers takes ``2 n`` FLOPs forward, as many for the gradient of what it is fed with, and
        as many for its own, where it learns; a query and a key take 4 per channel forward and 8 backward."""
        config: Any = lm.config.get_text_config()
        head = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
        last = last_layer(lm)
        short = [] if last is None else _matrices(last.mlp)
        matrices = [module for module in _matrices(lm) if module is not head and module not in short]
        channels = config.num_attention_heads * (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        return cls(
            by_token=float(sum(_flops(matrix) for matrix in matrices)),
            by_parent=float(sum(_flops(matrix) for matrix in short)),
            by_target=float(_flops(head)),
            by_pair=12.0 * channels * config.num_hidden_layers,
        )

    def __call__(self, tokens: int, parents: int, targets: int, pairs: int) -> float:
        """FLOPs of a step."""
        return (
            self.by_token * tokens
            + self.by_parent * parents
            + self.by_target * targets
            + self.by_pair * pairs
        )


def _matrices(module: nn.Module) -> list[nn.Linear]:
    return [each for each in module.modules() if isinstance(each, nn.Linear)]


def _flops(matrix: nn.Linear) -> int:
    # by its features: a quantized weight is packed
    return (6 if matrix.weight.requires_grad else 4) * matrix.in_features * matrix.out_features
