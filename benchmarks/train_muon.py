"""Muon on a CPU: our iteration, in float32, against ``torch.optim.Muon``, whose iteration is in bfloat16.

Both sides step the matrices of a model's layers, with the same weights and gradients; process CPU seconds on one
thread, in turn, medians. A second row adds what a step costs beside it: forward and backward of 2,048 tokens in rows of
128. How far the updates are from those in float64 is printed above the table.

    python benchmarks/train_muon.py [--quick]
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import Row, main, median_alternating
from torch.optim._muon import _zeropower_via_newtonschulz

from itemic.forest.build import TokenForest, chain_forest
from itemic.forest.context import forest_attention
from itemic.forest.rows import TokenRows
from itemic.forest.run import forest_loss
from itemic.model.configuration import preset_config
from itemic.training.muon import ROUNDS, A, B, C, Muon, orthogonal
from itemic.training.optimizer import decayed, trainable_parameters

VOCABULARY, TOKENS, LENGTH = 1600, 2048, 128


def measure(quick: bool = False) -> list[Row]:
    torch.set_num_threads(1)
    rows = []
    for preset in ("qwen3-pico",) if quick else ("qwen3-pico", "qwen3-nano"):
        lm = model_of(preset)
        named = trainable_parameters(lm)
        matrices = [named[name] for name in sorted(decayed(lm, named))]
        backward = backward_seconds(lm)
        options = {"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95}
        ours, theirs = (
            Muon(matrices, **options),
            torch.optim.Muon(matrices, **options, adjust_lr_fn="match_rms_adamw"),
        )
        mine, other = median_alternating(ours.step, theirs.step, repeats=3 if quick else 7)
        told = f"Muon's step, {preset} ({sum(w.numel() for w in matrices) / 1e6:.1f} M in matrices)"
        rows.append(Row(told, mine, other, "CPU s", other / mine, None, None))
        whole = f"the same with forward and backward of {TOKENS:,} tokens, {preset}"
        mine, other = mine + backward, other + backward
        rows.append(Row(whole, mine, other, "CPU s", other / mine, None, None))
        apart = ", torch's by ".join(f"{off(matrices, ours=own):.1e}" for own in (True, False))
        print(f"{preset}: off a float64 update by {apart}")
    return rows


def model_of(preset: str) -> torch.nn.Module:
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(0)
    return Qwen3ForCausalLM(preset_config(preset, vocab_size=VOCABULARY, max_length=LENGTH))


def rows_of_tokens() -> TokenForest:
    """2,048 random tokens in rows of 128, all of them targets."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(VOCABULARY, size=(TOKENS // LENGTH, LENGTH)).tolist()
    return chain_forest(TokenRows.of(tokens, [[1.0] * LENGTH] * len(tokens)))


def backward_seconds(lm: torch.nn.Module) -> float:
    """The median of three; gradients stay."""
    forest, seconds = rows_of_tokens(), []
    with forest_attention(lm):
        for _ in range(4):
            lm.zero_grad()
            started = time.process_time()
            (forest_loss(lm, forest).total / TOKENS).backward()
            seconds.append(time.process_time() - started)
    return float(np.median(seconds[1:]))


def off(matrices: list[torch.nn.Parameter], *, ours: bool) -> float:
    """The largest relative distance of an update from that in float64, by Frobenius' norm."""
    found = []
    for weight in matrices:
        grad = weight.grad
        exact = _exact(grad.double())
        one = orthogonal(grad) if ours else _zeropower_via_newtonschulz(grad, (A, B, C), ROUNDS, 1e-7)
        found.append(float((one.double() - exact).norm() / exact.norm()))
    return max(found)


def _exact(matrix: torch.Tensor) -> torch.Tensor:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        values = A * values + B * values**3 + C * values**5
    return (left * values) @ right


if __name__ == "__main__":
    main("Muon on a CPU", measure, __doc__)
