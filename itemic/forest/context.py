"""A model set to attend over forests, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from itemic.forest.attention import NAME
from itemic.forest.last_layer import short_last_layer
from itemic.forest.support import with_keyword


@contextmanager
def forest_attention(lm: PreTrainedModel) -> Iterator[None]:
    """Run ``lm`` with forest attention inside the block; what it used before is restored after.

    Raises:
        ModelError: the model has layers that a forest can't be masked in.
    """
    reaching = with_keyword(lm, "forest")
    before = lm.config._attn_implementation
    lm.config._attn_implementation = NAME
    try:
        with reaching, short_last_layer(lm):
            yield
    finally:
        lm.config._attn_implementation = before
