"""Sizes of models made from scratch: Qwen3's shape, from one million parameters to Qwen3-0.6B's own
numbers."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from itemic.settings import Count, Positive, Switch, settings, wrong


@settings(frozen=True)
class Preset:
    """The shape of a Qwen3 model.

    Attributes:
        parameters: parameters in all but the embeddings (and the head, where it is untied).
        hidden_size: width of the residual stream.
        layers: decoder layers.
        heads: query heads.
        kv_heads: key and value heads, a divisor of ``heads``.
        head_dim: width of a head; even, for rotary positions.
        intermediate_size: width of the gated feed-forward layer.
        rope_theta: base of the rotary frequencies; small models here read short rows, so theirs is smaller.
        tie: whether the head is the embedding matrix.
    """

    parameters: Count
    hidden_size: Count
    layers: Count
    heads: Count
    kv_heads: Count
    head_dim: Annotated[Count, Field(multiple_of=2)]
    intermediate_size: Count
    rope_theta: Positive = 10_000.0
    tie: Switch = True

    @field_validator("kv_heads")
    @classmethod
    def _shared(cls, kv_heads: int, info: ValidationInfo) -> int:
        if (heads := info.data.get("heads", kv_heads)) % kv_heads:
            raise wrong(f"is {kv_heads}, no divisor of {heads} heads", kv_heads)
        return kv_heads


PRESETS: dict[str, Preset] = {
    "qwen3-pico": Preset(984_000, 128, 4, 4, 2, 32, 512),
    "qwen3-nano": Preset(1_918_000, 192, 4, 6, 3, 32, 640),
    "qwen3-micro": Preset(5_902_000, 256, 6, 8, 4, 32, 1024),
    "qwen3-mini": Preset(25_176_000, 512, 8, 8, 4, 64, 1536),
    "qwen3-small": Preset(99_114_000, 768, 14, 12, 6, 64, 2304),
    "qwen3-0.6b": Preset(440_467_000, 1024, 28, 16, 8, 128, 3072, rope_theta=1_000_000.0),
}
OVERRIDES = tuple(field.name for field in fields(Preset) if field.name != "parameters")
