"""What the search is compared with: transformers' own beam search, and the definition of a score."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel


def generate(
    lm: PreTrainedModel, prompt: list[int], rows: list[list[int]], beams: int
) -> tuple[list[list[int]], np.ndarray]:
    """What transformers' own constrained beam search finds, one prompt at a time."""
    legal: dict[tuple[int, ...], set[int]] = {}
    for row in rows:
        for at in range(len(row)):
            legal.setdefault(tuple(row[:at]), set()).add(row[at])
    out = lm.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=len(rows[0]),
        do_sample=False,
        length_penalty=0.0,
        early_stopping=True,
        eos_token_id=None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
        prefix_allowed_tokens_fn=lambda _, ids: sorted(legal.get(tuple(ids[len(prompt) :].tolist()), {0})),
    )
    return out.sequences[:, len(prompt) :].tolist(), out.sequences_scores.numpy()


def score_all(
    lm: PreTrainedModel, prompt: list[int], rows: list[list[int]], normalize: str, skip: bool
) -> list[float]:
    """Each item's score by its definition, with full forward passes over the plain model."""
    width = max(map(len, rows))
    levels = [{row[at] for row in rows if len(row) > at} for at in range(width)]
    free = [len(levels[at]) == 1 and all(len(row) > at for row in rows) for at in range(width)]
    scores = []
    for row in rows:
        with torch.no_grad():
            logits = lm(torch.tensor([prompt + row]), use_cache=False).logits[0].float()
        total = 0.0
        for at, token in enumerate(row):
            if skip and free[at]:
                continue
            line = logits[len(prompt) + at - 1]
            siblings = {r[at] for r in rows if len(r) > at and r[:at] == row[:at]}
            over = {"vocab": range(len(line)), "level": levels[at], "legal": siblings}[normalize]
            total += float(line[token] - line[sorted(over)].logsumexp(-1))
        scores.append(total)
    return scores
