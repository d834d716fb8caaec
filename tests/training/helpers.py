"""Tiny models and rows for the tests of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from itemic.forest.rows import TokenRows
from itemic.training.language.breakdown import TokenKinds
from itemic.training.language.learning import Learning
from itemic.training.language.next_token import NextToken
from itemic.training.language.stage import Stage
from itemic.training.language.stream import ConversationSteps, KeptRows, TrainingRows
from itemic.training.loop import Trainer

VOCABULARY = 64
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def tiny_lm(*, tied: bool = True, kind: str = "qwen3", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(tie_word_embeddings=tied, **SHAPE)).eval()
    return Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=tied, **SHAPE)).eval()


def toy_rows(users: int = 20, seed: int = 0, names: tuple[str, ...] = ("all",)) -> TrainingRows:
    """Per user the prefixes of length 4, 6, 8 and 10 of one random sequence, the last two tokens weighted."""
    rng = np.random.default_rng(seed)
    whole = [[3 + user % 61, *rng.integers(3, VOCABULARY, 9).tolist()] for user in range(users)]
    rows = [tokens[:n] for tokens in whole for n in (4, 6, 8, 10)]
    weights = [[0.0] * (len(row) - 2) + [1.0, 1.0] for row in rows]
    groups = np.repeat(np.arange(users), 4)
    sources = (groups % len(names)).astype(np.int32)
    return TrainingRows(TokenRows.of(rows, weights), groups, sources, names, digest="toy")


def lm_trainer(
    lm: PreTrainedModel,
    data: TrainingRows | ConversationSteps,
    stage: Stage,
    *,
    seed: int = 0,
    learns: Learning | None = None,
    kinds: TokenKinds | None = None,
    made: type[Trainer] = Trainer,
    **rest: Any,
) -> Trainer:
    """The loop with the loss of the next token."""
    source = KeptRows.of(lm, data, stage, seed) if isinstance(data, TrainingRows) else data
    objective = NextToken.of(lm, stage, learns, kinds=kinds, sources=source.names)
    return made(objective, source, stage, seed=seed, **rest)


def copy_of(lm: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in lm.state_dict().items()}
