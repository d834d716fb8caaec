"""Training in float32 against bfloat16 on this CPU: what ``engine: {precision: auto}`` chooses between.

Both sides compute the loss of 2,048 tokens in rows of 128 and its gradient, with the same weights; process CPU seconds
on one thread, in turn, medians. *Ours* is float32, which ``auto`` is on CPUs without AMX. What ``auto`` is here is
printed above the table, and how far the gradients in bfloat16 are from those in float32.

    python benchmarks/train_precision.py [--quick]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from common import Row, main, median_alternating
from train_muon import TOKENS, model_of, rows_of_tokens

from itemic.forest.build import TokenForest
from itemic.forest.context import forest_attention
from itemic.forest.run import forest_loss
from itemic.training.precision import autocast, compute_dtype

PRESETS = ("qwen3-pico", "qwen3-nano", "qwen3-micro")
CPU = torch.device("cpu")


def measure(quick: bool = False) -> list[Row]:
    torch.set_num_threads(1)
    print(f"auto is {str(compute_dtype('auto', CPU)).removeprefix('torch.')} here")
    rows, forest = [], rows_of_tokens()
    for preset in PRESETS[:1] if quick else PRESETS:
        lm = model_of(preset)
        single, half = (partial(gradients, lm, forest, precision) for precision in ("float32", "bfloat16"))
        mine, other = median_alternating(single, half, repeats=3 if quick else 7)
        told = f"forward and backward of {TOKENS:,} tokens, {preset} ({lm.num_parameters() / 1e6:.1f} M)"
        rows.append(Row(told, mine, other, "CPU s", other / mine, None, None))
        print(f"{preset}: gradients in bfloat16 off by {off(single, half):.1e}")
    return rows


def gradients(lm: torch.nn.Module, forest: TokenForest, precision: str) -> torch.Tensor:
    """Of the mean loss; all of them, float64 ``[n]``."""
    lm.zero_grad()
    with forest_attention(lm), autocast(precision, CPU):
        loss = forest_loss(lm, forest).total / TOKENS
    loss.backward()
    return torch.cat(
        [weight.grad.flatten().double() for weight in lm.parameters() if weight.grad is not None]
    )


def off(single: Callable[[], torch.Tensor], half: Callable[[], torch.Tensor]) -> float:
    """The relative distance by the Euclidean norm."""
    exact = single()
    return float((half() - exact).norm() / exact.norm())


if __name__ == "__main__":
    main("Training in float32 against bfloat16", measure, __doc__)
