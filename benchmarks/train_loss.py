"""The head and its cross-entropy, forward and backward, where few tokens carry loss: hidden size 1,024, one token in
twenty supervised, random numbers. *Full logits* is what a model's own forward does: the head on every token, then
``cross_entropy`` that ignores the labels of the rest. Each side runs in a process of its own: once for the memory (the
peak over what inputs and head take; the gradients count), once more for the time, in process CPU seconds on one thread.
Ours and full logits do so three times in turn, for medians; torch's own chunked form once, as it takes minutes.

    python benchmarks/train.py        runs it
"""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import Row, in_subprocess, peak_rss
from torch import Tensor
from torch.nn import functional

from itemic.forest.loss import weighted_cross_entropy

HIDDEN, SUPERVISED, IGNORED = 1024, 0.05, -100
REPEATS = 3
AGREE = 1e-4  # largest difference of gradients, to the largest gradient

Side = Callable[[Tensor, Tensor, Tensor], Tensor]  # hidden [n, d], head [V, d], targets [n] → mean loss


def ours(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """As ``forest_loss`` does: the head on weighted tokens only."""
    at = (targets != IGNORED).nonzero()[:, 0]
    return weighted_cross_entropy(hidden[at], head, targets[at], torch.ones(len(at)))[0] / len(at)


def full_logits(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(hidden, head), targets, ignore_index=IGNORED)


def torch_chunked(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return functional.linear_cross_entropy(hidden, head, targets, ignore_index=IGNORED, options=options)


SIDES: dict[str, Side] = {"ours": ours, "full": full_logits, "torch": torch_chunked}


def inputs(tokens: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, HIDDEN, generator=generator)
    head = torch.randn(vocabulary, HIDDEN, generator=generator).mul_(0.02)
    targets = torch.full((tokens,), IGNORED)
    at = torch.randperm(tokens, generator=generator)[: round(SUPERVISED * tokens)]
    targets[at] = torch.randint(vocabulary, (len(at),), generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(), targets


def run(side: str, tokens: int, vocabulary: int, path: str) -> dict[str, float]:
    """Memory and time of one side; its gradients go to ``path``, the head's as three random projections."""
    torch.set_num_threads(1)
    work = SIDES[side]
    work(*inputs(64, 512)).backward()
    hidden, head, targets = inputs(tokens, vocabulary)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the work needs
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts again from here
    before = peak_rss()
    work(hidden, head, targets).backward()
    memory = peak_rss() - before
    hidden.grad = head.grad = None
    started = time.process_time()
    loss = work(hidden, head, targets)
    loss.backward()
    seconds = time.process_time() - started
    assert hidden.grad is not None
    assert head.grad is not None
    projections = torch.randn(HIDDEN, 3, generator=torch.Generator().manual_seed(1))
    np.savez(path, hidden=hidden.grad.numpy(), head=(head.grad @ projections).numpy())
    return {"seconds": seconds, "bytes": memory, "loss": float(loss.detach())}


def measure(quick: bool) -> list[Row]:
    tokens, vocabulary = (512, 32_768) if quick else (2048, 176_384)
    sides = ["ours", "full", *(["torch"] if hasattr(functional, "linear_cross_entropy") else [])]
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    gradients = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in (*sides, *sides[:2] * (0 if quick else REPEATS - 1)):
            path = f"{folder}/{side}.npz"
            runs[side].append(in_subprocess(__file__, [side, str(tokens), str(vocabulary), path]))
            gradients[side] = dict(np.load(path))
    found = {
        side: {key: statistics.median(run[key] for run in several) for key in several[0]}
        for side, several in runs.items()
    }
    name = f"cross-entropy, {tokens:,} tokens, vocabulary {vocabulary:,}"
    lines = []
    aims = None if quick else (0.1, 0.2)  # they are for the full size: fixed costs weigh on a small one
    for peer, label, targets in (("full", "full logits", aims), ("torch", "torch's chunked", None)):
        if peer not in found:
            continue
        for key, unit, scale, limit in (("seconds", "CPU s", 1, 0), ("bytes", "MB", 2**20, 1)):
            mine, other = found["ours"][key] / scale, found[peer][key] / scale
            goal = f"≤ {targets[limit]:g} of it" if targets else None
            holds = mine <= targets[limit] * other if targets else None
            what = "time" if key == "seconds" else "peak memory"
            lines.append(
                Row(f"{name}, against {label}: {what}", mine, other, unit, other / mine, goal, holds)
            )
    worst = max(
        float(
            np.abs(gradients["ours"][key] - gradients["full"][key]).max()
            / np.abs(gradients["full"][key]).max()
        )
        for key in ("hidden", "head")
    )
    same = abs(found["ours"]["loss"] / found["full"]["loss"] - 1)
    lines.append(Row(f"{name}: loss, relative difference", same, None, "", None, "≤ 1e-5", same <= 1e-5))
    label = f"{name}: gradients, largest difference to the largest"
    return [*lines, Row(label, worst, None, "", None, f"≤ {AGREE:g}", worst <= AGREE)]


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
