"""Who makes the chunks of a stream: processes, or a thread of our own. Content never depends on it."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from dataclasses import replace
from typing import Any

from torchdata.nodes import BaseNode, ParallelMapper  # type: ignore[import-untyped]

from itemic.errors import ItemicError
from itemic.interrupt import ASKING
from itemic.training.language.lanes import Chunk, Lanes

Key = tuple[int, int, int]  # lane, epoch, chunk
TICK = 0.2  # seconds between looks at the processes while one waits
PATIENCE = 10.0  # seconds for them to finish what they are at when a stream is closed


class Crew:
    """Makes chunks in the order in which they are asked for. Close it when done.

    torchdata's ``ParallelMapper`` runs the processes; it waits for ever for one that was killed, so they are
    watched. They are started afresh and not forked: the tokenizer's, polars' and torch's threads don't survive a
    fork.

    Args:
        lanes: what to make.
        workers: how many processes; 0 for a thread of this one.
    """

    def __init__(self, lanes: Lanes, workers: int) -> None:
        self._lanes = lanes
        self._orders = _Orders()
        self._open: list[Key] = []  # asked for and not handed over
        self._done: dict[Key, Chunk | Exception] = {}
        self._arrived = threading.Condition()
        self._fault: BaseException | None = None
        # a thread gets a tokenizer of its own; the training's may be asked for prompts at the same time
        work = _Work(lanes if workers else replace(lanes, encode=copy.deepcopy(lanes.encode)))
        self._mapper = ParallelMapper(
            self._orders,
            work,
            num_workers=workers,
            method="process",
            multiprocessing_context="spawn",
            snapshot_frequency=0,
        )
        before = set(multiprocessing.active_children())
        self._mapper.reset()
        self._processes = [p for p in multiprocessing.active_children() if p not in before]
        self._pump = threading.Thread(target=self._collect, name="chunks", daemon=True)
        self._pump.start()

    def ask(self, key: Key) -> None:
        """Have a chunk made."""
        self._open.append(key)
        self._orders.queue.put(key)

    def get(self, key: Key) -> Chunk:
        """A chunk that was asked for; waits for it.

        Raises:
            ItemicError: it can't be made, or a process has died.
        """
        self._check()
        with self._arrived:
            while key not in self._done:
                if self._fault is not None:
                    raise self._fault
                if not self._arrived.wait(TICK):
                    self._check()
            self._open.remove(key)
            found = self._done.pop(key)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Stop what works; nothing is left running."""
        try:
            while True:
                self._orders.queue.get_nowait()
        except queue.Empty:
            self._orders.queue.put(None)
        if all(process.is_alive() for process in self._processes):
            self._pump.join(PATIENCE)
        for process in self._processes:
            if self._pump.is_alive():
                process.kill()
        if self._pump.is_alive() and self._processes:
            self._mapper._it._it._shutdown()  # it would wait for the dead; there is no public way to tell it
        for process in self._processes:
            process.join(PATIENCE)
        self._pump.join(PATIENCE)

    def _collect(self) -> None:
        try:
            for key, found in self._mapper:
                with self._arrived:
                    self._done[key] = found
                    self._arrived.notify()
        except BaseException as error:
            with self._arrived:
                self._fault = error
                self._arrived.notify()

    def _check(self) -> None:
        dead = [process for process in self._processes if not process.is_alive()]
        if not dead:
            return
        code = dead[0].exitcode or 0
        how = f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        left = (self._lanes.spans(*key) for key in self._open if key not in self._done)
        where = next((f", probably at {self._lanes.groups.describe(spans)}" for spans in left), "")
        raise ItemicError(
            f"a process that tokenises died ({how}){where}",
            "Lower data.workers or data.shuffle_buffer if memory ran out, and start the same command again; a script"
            ' of your own must begin its work under `if __name__ == "__main__":`.',
        )


class _Orders(BaseNode):  # type: ignore[misc]
    """What was asked for, as torchdata's source."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.SimpleQueue[Key | None] = queue.SimpleQueue()

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        super().reset(initial_state)

    def next(self) -> Key:
        key = self.queue.get()
        if key is None:
            raise StopIteration
        return key

    def get_state(self) -> dict[str, Any]:
        return {}


class _Work:
    """Makes a chunk. Errors are handed over as they are: torchdata would make texts of them."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes

    def __call__(self, key: Key) -> tuple[Key, Chunk | Exception]:
        try:
            return key, self.lanes.chunk(*key)
        except ItemicError as error:
            return key, error
        except Exception:
            return key, RuntimeError(f"chunk {key} can't be made:\n{traceback.format_exc()}")

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return _arrive, (pickle.dumps(self.lanes),)


def _arrive(lanes: bytes) -> _Work:
    """In a new process, before anything else: leave Ctrl-C and its like to the training, and end when that does."""
    for number in ASKING:  # schedulers send them to every process of a job
        signal.signal(number, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes share the cores already
    threading.Thread(target=_follow, name="parent", daemon=True).start()
    return _Work(pickle.loads(lanes))  # our own bytes, from the process that started this one


def _follow() -> None:
    while (parent := multiprocessing.parent_process()) is None:  # it is known when the process is set up
        time.sleep(TICK)
    parent.join()
    os._exit(1)
