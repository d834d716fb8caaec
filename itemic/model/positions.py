"""How many positions a model was made for."""

from __future__ import annotations

from transformers import PreTrainedModel


def most_positions(lm: PreTrainedModel) -> int | None:
    """Tokens that the model can read in one sequence; None where its configuration names no bound.

    Configurations name it ``max_position_embeddings``, or map their own word for it (``n_positions``) to that.
    """
    found = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
