"""Where a model keeps its layers, and which of their parts are what: families name them differently."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from itemic.errors import ModelError

# What a layer adds to the residual stream comes out of modules of these names …
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
FEED_FORWARD = ("mlp", "feed_forward", "block_sparse_moe", "shared_mlp", "ffn", "fc2")
# … and goes into these first: OPT's feed-forward layer is two modules of the layer itself.
_INNER = ("fc1",)


def layers_of(lm: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name of a model's list of layers (``model.layers``, ``transformer.h``, …), and the list.

    Raises:
        ModelError: the model has no such list.
    """
    count = getattr(lm.config.get_text_config(), "num_hidden_layers", None)
    for name, module in lm.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(
        f"found no layers in a {lm.config.model_type} model",
        "Use `train: all` or `embeddings`, without dropout.",
    )


def branches(lm: PreTrainedModel) -> list[nn.Module]:
    """The attention and feed-forward modules of all layers, in their order.

    Raises:
        ModelError: a layer has another part with matrices, of which nobody knows what it is.
    """
    found = []
    for layer in layers_of(lm)[1]:
        for name, part in layer.named_children():
            if name in ATTENTION or name in FEED_FORWARD:
                found.append(part)
            elif name not in _INNER and any(weight.ndim > 1 for weight in part.parameters()):
                raise ModelError(
                    f"the layers of a {lm.config.model_type} model have a part {name}, which is neither known as "
                    "attention nor as feed-forward",
                    "Set dropout to 0.",
                )
    return found


def matrices_of_layers(lm: PreTrainedModel) -> list[str]:
    """Full names of the layers' matrices that are modules of their own. The experts of a mixture that are kept in one
    tensor, and its router, are none."""
    prefix = f"{layers_of(lm)[0]}."
    return [
        name
        for name, module in lm.named_modules()
        if name.startswith(prefix) and type(module) in (nn.Linear, Conv1D)
    ]
