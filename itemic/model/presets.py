"""Sizes of models made from scratch: Qwen3's shape, from one million parameters to Qwen3-0.6B's own
numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from transformers import Qwen3Config

from itemic.errors import ConfigError


@dataclass(frozen=True)
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

    parameters: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    rope_theta: float = 10_000.0
    tie: bool = True


PRESETS: dict[str, Preset] = {
    "qwen3-pico": Preset(984_000, 128, 4, 4, 2, 32, 512),
    "qwen3-nano": Preset(1_918_000, 192, 4, 6, 3, 32, 640),
    "qwen3-micro": Preset(5_902_000, 256, 6, 8, 4, 32, 1024),
    "qwen3-mini": Preset(25_176_000, 512, 8, 8, 4, 64, 1536),
    "qwen3-small": Preset(99_114_000, 768, 14, 12, 6, 64, 2304),
    "qwen3-0.6b": Preset(440_467_000, 1024, 28, 16, 8, 128, 3072, rope_theta=1_000_000.0),
}
OVERRIDES = tuple(field.name for field in fields(Preset) if field.name != "parameters")


def preset_config(name: str, *, vocab_size: int, max_length: int, **overrides: Any) -> Qwen3Config:
    """The configuration of a preset, or of a shape near one.

    Args:
        name: a key of :data:`PRESETS`.
        vocab_size: rows of the embedding matrix.
        max_length: the longest row that positions are promised for.
        overrides: any field of :class:`Preset` but ``parameters``; None leaves the preset's value.

    Raises:
        ConfigError: an unknown preset or override, or a shape that can't be.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown model preset {name!r}", f"Use one of {', '.join(PRESETS)}.")
    unknown = sorted(set(overrides) - set(OVERRIDES))
    if unknown:
        raise ConfigError(
            f"a preset has no setting {', '.join(map(repr, unknown))}",
            f"Settings are {', '.join(OVERRIDES)}.",
        )
    shape = replace(PRESETS[name], **{key: value for key, value in overrides.items() if value is not None})
    _check(shape)
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=max_length,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tie,
    )


def _check(shape: Preset) -> None:
    for key in ("hidden_size", "layers", "heads", "kv_heads", "head_dim", "intermediate_size"):
        if getattr(shape, key) < 1:
            raise ConfigError(f"model {key} is {getattr(shape, key)}", "Give a positive number.")
    if shape.heads % shape.kv_heads:
        raise ConfigError(
            f"{shape.heads} heads can't share {shape.kv_heads} key-value heads",
            "Set kv_heads to a divisor of heads.",
        )
    if shape.head_dim % 2:
        raise ConfigError(f"model head_dim is {shape.head_dim}", "Rotary positions need an even number.")
