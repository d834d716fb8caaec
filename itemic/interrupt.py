"""Ctrl-C, and the signals by which schedulers ask a process to end."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("itemic")

Handler = Callable[[int, FrameType | None], None]

# SIGTERM is what systemd, Docker and Kubernetes send before they kill; SIGUSR1 what SLURM is usually told to send
# before a job is preempted (sbatch --signal=USR1@120). Windows knows no SIGUSR1.
ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C, SIGTERM or SIGUSR1 only asks: a step is never torn. The second interrupts at
    once.

    Yields:
        whether somebody asked. Outside the main thread nobody can.
    """
    asked = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        name = signal.Signals(number).name
        log.info("%s: finishing the step and writing a checkpoint; again to stop at once", name)

    with handling(note):
        yield asked.is_set


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Inside the block all these signals go to the handler; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ASKING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def stop(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt
