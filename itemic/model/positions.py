"""How many positions a model was made for."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def most_positions(lm: PreTrainedModel) -> int | None:
    """Tokens that the model can read in one sequence; None where its configuration names no bound.

    Configurations name it ``max_position_embeddings``, or map their own word for it (``n_positions``) to that. Of a
    model with two sets of rotary frequencies (``longrope``: Phi-3's and Phi-4-mini's long forms) it is where the short
    set ends: the whole sequence changes to the other set there, so no two sequences of a batch could share anything.
    """
    config = lm.config.get_text_config()
    found = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        found = rope.get("original_max_position_embeddings") or found
    return found if isinstance(found, int) and found > 0 else None


def learned_positions(lm: PreTrainedModel) -> int | None:
    """How many positions a model has learned a vector for (GPT-2, OPT): it can't read one more. None where it computes
    them, which it can for any."""
    words = lm.get_input_embeddings()
    for name, module in lm.base_model.named_modules():
        learned = isinstance(module, nn.Embedding) and module is not words
        if learned and any(word in name.rpartition(".")[2] for word in ("wpe", "pos")):
            return most_positions(lm)
    return None
