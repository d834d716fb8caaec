"""Where a run can be watched: TensorBoard, Weights & Biases, SwanLab, trackio. A new one is a class and a row here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from itemic.errors import ConfigError
from itemic.trackers.swanlab import SwanLab
from itemic.trackers.tensorboard import TensorBoard
from itemic.trackers.tracker import Rows, Tracker
from itemic.trackers.trackio import Trackio
from itemic.trackers.wandb import WandB

TRACKERS: dict[str, type[Tracker]] = {
    tracker.name: tracker for tracker in (TensorBoard, WandB, SwanLab, Trackio)
}

__all__ = ["TRACKERS", "Tracker", "Trackers", "check_trackers", "open_trackers"]


class Trackers:
    """All trackers of a run behind one face."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = trackers

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after a step."""
        for tracker in self._trackers:
            tracker.write(step, values)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
        """Rows of text and numbers under a name; nothing where there are none."""
        for tracker in self._trackers if rows else ():
            tracker.table(step, name, columns, rows)


@contextmanager
def open_trackers(
    names: Iterable[str],
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    step: int = 0,
    run: Path | None = None,
) -> Iterator[Trackers]:
    """Trackers that are open inside the block.

    Args:
        names: keys of :data:`TRACKERS`.
        folder: files go into one folder of each tracker in it.
        config: what the run was asked to do.
        step: steps done; what was written of later ones will come again.
        run: the folder that names the run, where it isn't ``folder``: what is written goes on there.

    Raises:
        ConfigError: a library isn't installed, or its server refuses.
    """
    with ExitStack() as stack:
        opened = []
        for name in names:
            tracker = TRACKERS[name](folder, run or folder)
            tracker.open(config or {}, step)
            stack.callback(tracker.close)
            opened.append(tracker)
        yield Trackers(opened)


def check_trackers(names: Iterable[str]) -> list[str]:
    """Look before anything is computed whether trackers can be written to.

    Returns:
        a line for each that will write offline because nobody is logged in.

    Raises:
        ConfigError: a name is unknown, or a library isn't installed.
    """
    told = []
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            raise ConfigError(f"unknown tracker {name!r}", f"Use one of {', '.join(TRACKERS)}.")
        tracker = TRACKERS[name]
        if importlib.util.find_spec(tracker.distribution) is None:
            raise tracker.missing()
        if tracker.offline():
            told.append(f"tracker {name}: nobody is logged in, so it writes offline; {tracker.login}")
    return told
