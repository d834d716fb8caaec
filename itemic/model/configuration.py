"""The configuration of a model from scratch: a preset's shape, or one near it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import Qwen3Config

from itemic.errors import ConfigError
from itemic.model.presets import OVERRIDES, PRESETS


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
