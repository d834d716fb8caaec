"""Progress bars and log lines: one console for everything, quiet where nobody looks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from itemic.screen import plain
from itemic.text import shown as visible

T = TypeVar("T")

console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
log = logging.getLogger("itemic")


def setup_logging(verbose: bool = False) -> None:
    """Send the package's log lines to the console; called once by the command line, never on import. On a terminal
    they go around the bars, elsewhere each is one plain line."""
    log.handlers[:] = [_fitting_handler()]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False


@contextmanager
def log_to(file: Path) -> Iterator[Callable[[str], None]]:
    """Append the package's log lines to a file too, whatever the console shows of them; hands out what writes a line
    into the file alone."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(_Line(datefmt="%Y-%m-%d %H:%M:%S"))
    level = log.level
    if not log.isEnabledFor(logging.INFO):
        log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield lambda text: handler.emit(logging.LogRecord(log.name, logging.INFO, "", 0, "%s", (text,), None))
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def make_progress(*extra: TextColumn, shown: bool = True) -> Progress:
    """A progress display with description, bar, count, elapsed and remaining time, then ``extra`` columns."""
    return Progress(
        _Description(),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *extra,
        console=console,
        transient=False,
        disable=not (shown and sys.stderr.isatty()),
    )


@contextmanager
def progress_bar(description: str, total: int | None, shown: bool = True) -> Iterator[_Bar]:
    """A bar to ``advance`` by hand; shows nothing when stderr is no terminal."""
    with make_progress(shown=shown) as display:
        yield _Bar(display, display.add_task(description, total=total))


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(description, total) as bar:
        for item in items:
            yield item
            bar.advance()


def _fitting_handler() -> logging.Handler:
    if sys.stderr.isatty():
        return _Handler(
            console=console, show_path=False, markup=False, show_level=False, log_time_format="%H:%M:%S"
        )
    handler = _Stderr()
    handler.setFormatter(_Line(datefmt="%H:%M:%S"))
    return handler


class _Handler(RichHandler):
    """Log lines may name items: their control codes are made visible."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), lines=True)


class _Line(logging.Formatter):
    """Time and message, plain text; of a message of several lines the others are set in."""

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, self.datefmt)
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        text = visible(f"{warning}{record.getMessage()}", lines=True)
        return f"{time} {text}".replace("\n", "\n" + " " * (len(time) + 1))


class _Stderr(logging.Handler):
    """Whatever stderr is when a line comes."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


class _Description(ProgressColumn):
    """What a bar is of, as it is."""

    def render(self, task: Task) -> Text:
        return plain(task.description)


class _Bar:
    def __init__(self, display: Progress, task: object) -> None:
        self._display = display
        self._task = task

    def advance(self, steps: float = 1) -> None:
        self._display.advance(self._task, steps)  # type: ignore[arg-type]

    def describe(self, text: str) -> None:
        self._display.update(self._task, description=text)  # type: ignore[arg-type]
