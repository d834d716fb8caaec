"""Keep large buffers in the process: without this, glibc hands every freed tensor back to the kernel and
takes page faults for the next one, a third of a small model's training time."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import cache

import torch

_OPTIONS = {  # mallopt's numbers, from malloc.h
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),
    "MALLOC_TOP_PAD_": (-2, 2**28),
    "MALLOC_MMAP_THRESHOLD_": (-3, 2**30),
}


@cache
def keep_buffers() -> bool:
    """Tune glibc's malloc for tensors that come and go; environment variables of the user's own win.

    Returns:
        whether anything was set; False on other systems and other C libraries.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _OPTIONS):
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, value) for option, value in _OPTIONS.values())


def peak_memory(device: torch.device) -> int:
    """The most bytes that were ever in use: allocated on a GPU, else resident in this process; 0 where nobody
    knows."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
