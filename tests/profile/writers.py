"""A writer small enough for tests, that has learnt to say what somebody likes; and what its words are worth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, Qwen3ForCausalLM

from itemic.forest.rows import TokenRows
from itemic.model.configuration import preset_config
from itemic.model.tokenizer import train_tokenizer
from itemic.profile.writer import Writer

COLOURS = ("red", "green", "blue", "white", "black")
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 16,
    "intermediate_size": 48,
}


def messages(count: int) -> list[list[dict[str, str]]]:
    """Users who had some colours."""
    draw = np.random.default_rng(0)
    had = [[COLOURS[at] for at in draw.integers(0, 5, 2)] for _ in range(count)]
    return [[{"role": "user", "content": f"had {' and '.join(own)}. likes?"}] for own in had]


def untaught(max_length: int = 128) -> Writer:
    texts = [f"had {one} and {two}. likes? likes {one}" for one in COLOURS for two in COLOURS]
    tokenizer = train_tokenizer(texts, vocab_size=300)
    config = preset_config("qwen3-pico", vocab_size=320, max_length=max_length, **SMALL)
    config.eos_token_id = tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lm = Qwen3ForCausalLM(config)
    lm.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)  # type: ignore[no-untyped-call]
    return Writer(lm.eval(), tokenizer)


@cache
def _taught() -> Writer:
    """It says "likes" and any colour, whoever asks, mostly."""
    writer = untaught()
    pairs = [
        [
            {"role": "user", "content": f"had {one} and {two}. likes?"},
            {"role": "assistant", "content": f"likes {three}"},
        ]
        for one in COLOURS
        for two in COLOURS
        for three in COLOURS
    ]
    rows = writer.chat.encode_batch(pairs)
    weights = rows.weights
    assert weights is not None
    length = int(rows.lengths.max())
    ids = torch.zeros((len(rows), length), dtype=torch.int64)
    labels = torch.full((len(rows), length), -100)
    for row in range(len(rows)):
        own = torch.from_numpy(rows[row].astype(np.int64))
        ids[row, : len(own)] = own
        ours = torch.from_numpy(weights[rows.offsets[row] : rows.offsets[row + 1]] > 0)
        labels[row, : len(own)][ours] = own[ours]
    optimizer = torch.optim.AdamW(writer.lm.parameters(), lr=1e-2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(60):
            part = torch.randint(len(rows), (32,))
            loss = writer.lm(input_ids=ids[part], labels=labels[part], use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return writer


def taught() -> Writer:
    return _taught().copied()


class Likes:
    """A profile is worth 1 where it names the session's colour: session ``i`` wants colour ``i % 5``."""

    def __call__(self, texts: Sequence[str], sessions: Any) -> Any:
        return np.array(
            [
                float(COLOURS[session % 5] in text)
                for text, session in zip(texts, sessions.tolist(), strict=True)
            ]
        )


class LikesBlue:
    """The same wish for all."""

    def __call__(self, texts: Sequence[str], sessions: Any) -> Any:
        return np.array([float("blue" in text) for text in texts])


def prompts(writer: Writer, count: int) -> TokenRows:
    return writer.prompts(messages(count))
