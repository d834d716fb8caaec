"""In which numbers a training computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices faster in bfloat16 than in float32.

    Of CPUs those with AMX do. AVX-512 has instructions for it as well, by which products take longer than in float32,
    and casts come on top.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``auto``, ``float32`` or ``bfloat16`` as a dtype."""
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which forward and loss are computed."""
    dtype = compute_dtype(precision, device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Let CPU kernels that add in no fixed order take the one that does; on CUDA that costs too much."""
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled()
    warn, fill = torch.is_deterministic_algorithms_warn_only_enabled(), settings.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        settings.fill_uninitialized_memory = False  # a help in debugging that only costs time here
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        settings.fill_uninitialized_memory = fill
