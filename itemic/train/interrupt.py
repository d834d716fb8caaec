"""Ctrl-C between steps, never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from itemic.progress import log


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C only asks: a step is never torn. The second interrupts at once.

    Yields:
        whether somebody asked. Outside the main thread nobody can.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        log.info("finishing the step and writing a checkpoint; interrupt again to stop at once")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
