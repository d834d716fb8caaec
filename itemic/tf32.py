"""How exactly a GPU multiplies float32 matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(wanted: bool, device: torch.device) -> Iterator[None]:
    """Let a CUDA device multiply float32 matrices in TensorFloat-32 inside the block, or keep it from that.

    TF32 has float32's range and ten bits of mantissa: several times as fast, on GPUs that have it (Ampere and later).
    Other devices, and what is computed in bfloat16, don't change. The process's own setting is put back afterwards;
    one made by torch's newer switches, which don't go together with this one, stands.
    """
    if device.type != "cuda":
        yield
        return
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        yield
        return
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
