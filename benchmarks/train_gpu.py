"""How much of a GPU training uses: Qwen3's 0.6B and 1.7B shapes with random weights and a vocabulary of 176,384, in
bfloat16 over float32 weights, forests in blocks of 8,192 tokens, eight blocks a step, AdamW, nothing computed twice.

The rows are synthetic and shaped like next-item rows of real users: a prompt of 60 tokens that all share, histories of
1 to 50 items with a mean near 8, five tokens an item, a row for every item but the first; a third of the forest's
tokens carries loss. MFU counts the FLOPs of the model's own formulas (:mod:`itemic.training.language.flops`) on forest
tokens, what is shared once.

Beside it stand two floors of a step's time: its FLOPs at the device's peak, and the bytes that have to pass through its
memory (:func:`floor_bytes`) at its bandwidth. Then, from a profile of a few more steps, where the device's time goes by
kind of kernel; *head* is all that the output matrix and the cross-entropy take, their matrix products included.

    python benchmarks/train.py --gpu [--quick] [--json FILE]
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Row
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from itemic.forest import TokenRows
from itemic.forest import run as forest_run
from itemic.forest.last_layer import last_layer
from itemic.training.language.next_token import NextToken
from itemic.training.language.stage import Stage, StageData
from itemic.training.language.stream import KeptRows, TrainingRows
from itemic.training.loop import Trainer
from itemic.training.peaks import peak_flops
from itemic.training.settings import CheckpointSettings, EngineSettings, LogSettings, Precision

VOCABULARY, FIRST_CODE = 176_384, 151_936
SHAPES: dict[str, dict[str, int]] = {
    "Qwen3-0.6B": {"hidden_size": 1024, "intermediate_size": 3072},
    "Qwen3-1.7B": {"hidden_size": 2048, "intermediate_size": 6144},
}
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32_768,
}
BLOCK, BLOCKS_PER_STEP, WARMUP = 8192, 8, 2
TARGET = 0.45

# Bytes a second of a device's memory, from the vendors' data sheets; the first name that a device's holds counts.
BANDWIDTHS = {
    "B200": 8.0e12,
    "H200": 4.8e12,
    "H100 PCIe": 2.0e12,
    "H100 NVL": 3.9e12,
    "H100": 3.35e12,
    "A100": 2.0e12,
    "L40S": 0.864e12,
    "L4": 0.3e12,
    "RTX 4090": 1.01e12,
    "MI300X": 5.3e12,
}

# Parts of kernels' names by kind; the first that fits counts. What fits none is elementwise work and reductions.
KINDS = {
    "attention": ("flex", "attention", "flash", "fmha"),
    "gemm": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "splitk", "triton_mm", "Cijk"),
    "optimizer": ("adam", "multi_tensor", "lpnorm", "foreach"),
    "copies": ("memcpy", "memset", "copy_kernel", "cattensor"),
}
OTHER = "elementwise and reductions"


def histories(tokens: int, seed: int = 0) -> TrainingRows:
    """Rows of as many users as it takes for about ``tokens`` forest tokens."""
    rng = np.random.default_rng(seed)
    prompt, close, end = rng.integers(0, FIRST_CODE, 60), rng.integers(0, FIRST_CODE, 8), np.array([0, 1])
    parts: list[np.ndarray[Any, Any]] = []
    groups: list[int] = []
    answer = 5 + len(end)
    user = made = 0
    while made < tokens:
        items = rng.integers(FIRST_CODE, VOCABULARY, (int(np.clip(1 + rng.geometric(1 / 8), 2, 51)), 5))
        for seen in range(1, len(items)):
            parts.append(np.concatenate([prompt, items[:seen].ravel(), close, items[seen], end]))
            groups.append(user)
        made += len(items) * 5 + (len(items) - 1) * (len(close) + answer)
        user += 1
    offsets = np.cumsum([0, *map(len, parts)])
    weights = np.zeros(offsets[-1], np.float32)
    weights[(offsets[1:, None] - 1 - np.arange(answer)).ravel()] = 1
    rows = TokenRows(np.concatenate(parts).astype(np.int32), offsets.astype(np.int64), weights)
    return TrainingRows(rows, np.array(groups, np.int64), np.zeros(len(parts), np.int32))


def stage_of(count: int, compiled: bool, precision: Precision = "bfloat16") -> Stage:
    return Stage(
        steps=count,
        data=StageData(tokens_per_step=BLOCK * BLOCKS_PER_STEP, block_tokens=BLOCK),
        engine=EngineSettings(precision=precision, compile=compiled),
        checkpoints=CheckpointSettings(every=0),
        logs=LogSettings(every=1),
    )


@dataclass(frozen=True)
class Step:
    """The median step of a run.

    Attributes:
        tokens, row_tokens, targets, blocks: what it holds.
        seconds: by the clock.
        flops: of the model's formulas.
        mfu: None where the device's peak is unknown.
    """

    tokens: float
    row_tokens: float
    targets: float
    blocks: float
    seconds: float
    flops: float
    mfu: float | None


def trained(lm: PreTrainedModel, data: TrainingRows, stage: Stage) -> Step:
    """Train; the median of what was logged of each step but the first ones."""
    with tempfile.TemporaryDirectory() as folder:
        Trainer(NextToken.of(lm, stage), KeptRows(data, stage), stage, folder=Path(folder)).run()
        text = (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line) for line in text]
    steps = [_step(before, line) for before, line in pairwise(lines)][WARMUP - 1 :]
    names = [field.name for field in fields(Step)]
    known = names if steps[0].mfu is not None else names[:-1]
    return Step(**{"mfu": None, **{n: statistics.median(getattr(step, n) for step in steps) for n in known}})


def _step(before: dict[str, float], line: dict[str, float]) -> Step:
    tokens, row_tokens, targets = (line[key] - before[key] for key in ("tokens", "row_tokens", "targets"))
    seconds = tokens / line["tokens_per_second"]
    blocks = tokens / (line["block_fill"] * BLOCK)
    return Step(
        tokens, row_tokens, targets, blocks, seconds, line["teraflops"] * 1e12 * seconds, line.get("mfu")
    )


def floor_bytes(lm: PreTrainedModel, step: Step) -> float:
    """Bytes that a step moves at the least, each number once for each use.

    By optimizer step and parameter 28: AdamW reads weight, gradient and two moments and writes all but the gradient, in
    float32. By block and parameter 18: the weight is read in float32 and written in bfloat16, read forward and
    backward, and the gradient is read and written in float32. By token and product of a matrix (one forward, two
    backward): its input and output in bfloat16. By weighted token and token of the vocabulary 8: a logit is written
    and read in float32. Attention, norms, the last layer's feed-forward (few tokens need it) and the rest are left out.
    """
    parameters = sum(weight.numel() for weight in lm.parameters())
    head = lm.get_output_embeddings()
    left_out = {head, *last_layer(lm).mlp.modules()}
    matrices = [m for m in lm.modules() if isinstance(m, nn.Linear) and m not in left_out]
    activations = 3 * 2 * sum(m.in_features + m.out_features for m in matrices) * step.tokens
    logits = 8 * step.targets * head.weight.shape[0]
    return (28 + 18 * step.blocks) * parameters + activations + logits


@contextmanager
def marked_head() -> Iterator[None]:
    """Inside the block a profile tells the head and its cross-entropy apart."""
    before = forest_run.weighted_cross_entropy

    def marked(*args: Any, **kwargs: Any) -> Any:
        with record_function("head"):
            return before(*args, **kwargs)

    forest_run.weighted_cross_entropy = marked
    try:
        yield
    finally:
        forest_run.weighted_cross_entropy = before


def kind_of(kernel: str) -> str:
    """The kind of a kernel, by its name."""
    name = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(p.lower() in name for p in parts)), OTHER)


def profiled(train: Callable[[], object]) -> dict[str, float]:
    """Shares of the device's busy time by kind of kernel, and of the head."""
    with marked_head(), profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        train()
    on_device = DeviceType.CUDA
    times = dict.fromkeys((*KINDS, OTHER), 0.0)
    head = 0.0
    for event in found.key_averages():
        if event.key == "head":
            if event.device_type != on_device:
                head = event.device_time_total
        elif event.device_type == on_device and not event.is_user_annotation:
            times[kind_of(event.key)] += event.self_device_time_total
    total = sum(times.values())
    return {kind: time / total for kind, time in (times | {"head": head}).items()}


def compare(name: str, compiled: bool, quick: bool) -> list[Row]:
    device = torch.device("cuda")
    with device:
        lm = Qwen3ForCausalLM(Qwen3Config(**COMMON, **SHAPES[name])).train()
    count = WARMUP + (3 if quick else 10)
    data = histories(count * BLOCK * BLOCKS_PER_STEP)
    stage = stage_of(count, compiled)
    step = trained(lm, data, stage)
    moved = floor_bytes(lm, step)
    stage = stage_of(3, compiled)
    shares = profiled(lambda: Trainer(NextToken.of(lm, stage), KeptRows(data, stage), stage).run())
    peak, bandwidth = peak_flops(device), bandwidth_of(torch.cuda.get_device_name(device))
    label = f"{name}, {'compiled' if compiled else 'eager'}"

    def plain(what: str, value: float, unit: str) -> Row:
        return Row(f"{label}: {what}", value, None, unit, None, None, None)

    found = [
        plain("FLOPs of a step", step.flops / 1e12, "TFLOP"),
        plain("bytes of a step, floor", moved / 1e9, "GB"),
    ]
    if peak:
        found.append(plain("FLOPs at the device's peak", 1e3 * step.flops / peak, "ms"))
    if bandwidth:
        found.append(plain("bytes at the device's bandwidth", 1e3 * moved / bandwidth, "ms"))
    found.append(plain("a step as measured", 1e3 * step.seconds, "ms"))
    if step.mfu is not None:
        goal = (f"≥ {TARGET}", step.mfu >= TARGET) if compiled else (None, None)
        found.append(Row(f"{label}: MFU", step.mfu, None, "share of the peak", None, *goal))
    found += [
        plain("forest tokens", step.tokens / step.seconds, "tokens/s"),
        plain("row tokens", step.row_tokens / step.seconds, "tokens/s"),
    ]
    found.append(plain(f"tokens of a block, of {BLOCK:,}", step.tokens / step.blocks / BLOCK, "share"))
    return found + [plain(f"device time in {kind}", share, "share") for kind, share in shares.items()]


def bandwidth_of(name: str) -> float | None:
    return next((bandwidth for part, bandwidth in BANDWIDTHS.items() if part in name), None)


def measure(quick: bool) -> list[Row]:
    if not torch.cuda.is_available():
        sys.exit("--gpu needs a CUDA device, and torch sees none; leave --gpu out for what a CPU can measure")
    found = []
    for name in list(SHAPES)[:1] if quick else SHAPES:
        for compiled in (True, False):
            found += compare(name, compiled, quick)
            gc.collect()
            torch.cuda.empty_cache()
    return found
