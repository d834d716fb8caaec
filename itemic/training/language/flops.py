"""How much arithmetic a step needs, for model FLOPs utilisation (MFU).

MFU is the FLOPs that the model's own formulas need, by the time they took, by the device's peak (Chowdhery et al. 2022,
"PaLM", appendix B): what is computed twice to save memory counts once, a forest counts as it is, shared beginnings
once, and what no loss depends on doesn't count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from itemic.forest.last_layer import last_layer


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
        as many for its own, where it learns; a query and a key take 2 per channel forward and 4 backward, and so does
        a value. Of a mixture's experts those count that a token is given to. A layer with a window counts as if it
        had none."""
        config: Any = lm.config.get_text_config()
        head = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
        last = last_layer(lm)
        short = [] if last is None else list(last.mlp.modules())
        others = [module for module in lm.modules() if module is not head and module not in short]
        share = _share_of_experts(config)
        return cls(
            by_token=sum(_flops(module, share) for module in others),
            by_parent=sum(_flops(module, share) for module in short),
            by_target=_flops(head, share),
            by_pair=6.0 * sum(_channels(layer) for layer in _by_layer(config)),
        )

    def __call__(self, tokens: int, parents: int, targets: int, pairs: int) -> float:
        """FLOPs of a step."""
        return (
            self.by_token * tokens
            + self.by_parent * parents
            + self.by_target * targets
            + self.by_pair * pairs
        )


def _by_layer(config: Any) -> list[Any]:
    """The configuration of each layer; in some families their heads differ."""
    own = getattr(config, "per_layer_config", None)
    count = config.num_hidden_layers
    return [config] * count if own is None else [own[number] for number in range(count)]


def _channels(config: Any) -> int:
    """Channels of a layer's queries and of its values together, over all heads."""
    heads = config.num_attention_heads
    plain = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope, rest = getattr(config, "qk_rope_head_dim", None), getattr(config, "qk_nope_head_dim", None)
    query = plain if rope is None or rest is None else rope + rest
    return int(heads * (query + (getattr(config, "v_head_dim", None) or plain)))


def _share_of_experts(config: Any) -> float:
    """What share of a mixture's experts a token is given to; 1 where there are none."""
    names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    chosen = next(
        (getattr(config, name, None) for name in ("num_experts_per_tok", "moe_k") if hasattr(config, name)), 0
    )
    there = next((getattr(config, name) for name in names if getattr(config, name, None)), 0)
    return chosen / there if chosen and there else 1.0


def _flops(module: nn.Module, share: float) -> float:
    """Of the module's own matrices, for a token that comes through."""
    if isinstance(module, nn.Linear):  # by its features: a quantized weight is packed
        return (6 if module.weight.requires_grad else 4) * module.in_features * module.out_features
    if isinstance(module, nn.Embedding) or type(module).__name__.endswith("Norm"):
        return 0.0
    named = module.named_parameters(recurse=False)
    own = [
        weight for name, weight in named if weight.ndim > 1 and not name.endswith("bias")
    ]  # experts have a row each
    return sum((6 if w.requires_grad else 4) * w.numel() * (share if w.ndim > 2 else 1.0) for w in own)
