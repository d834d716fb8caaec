"""The face of a tracker, whatever library is behind it."""

from __future__ import annotations

import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from itemic.errors import ConfigError

PROJECT = "itemic"
Rows = Sequence[Sequence[str | int | float]]


class Tracker(ABC):
    """A place for numbers and tables. Projects, keys and modes are set by each library's own environment variables.

    Args:
        folder: files go into one of their own in it.
        run: names the run; a folder that is being built is the one that it becomes.

    Raises:
        ConfigError: the library isn't installed.
    """

    name: ClassVar[str]
    package: ClassVar[str]  # what is imported
    distribution: ClassVar[str]  # what must be installed for it
    login: ClassVar[str] = ""  # how to log in

    def __init__(self, folder: Path, run: Path) -> None:
        try:
            self.library: Any = importlib.import_module(self.package)
        except ImportError as error:
            raise self.missing() from error
        self.folder = folder / self.name
        self._run = run.resolve().with_name(run.resolve().name.removesuffix(".partial"))

    @classmethod
    def missing(cls) -> ConfigError:
        """What is said where the library isn't installed."""
        return ConfigError(
            f"tracker {cls.name} needs {cls.distribution}",
            f'Install it with `pip install "itemic[{cls.name}]"`, or take it out of trackers.',
        )

    @classmethod
    def offline(cls) -> bool:
        """Whether it writes files only because nobody is logged in."""
        return False

    @property
    def run_name(self) -> str:
        return f"{self._run.parent.name} {self._run.name}"

    @property
    def identity(self) -> str:
        """Names the run's folder, so that a run that goes on goes on here as well."""
        return hashlib.sha256(str(self._run).encode()).hexdigest()[:12]

    def open(self, config: Mapping[str, Any], step: int) -> None:
        """Open the run; ``step`` steps are done, numbers of later ones will come again.

        Raises:
            ConfigError: the library or its server refuses.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.start(dict(config), step)
        except Exception as error:
            raise ConfigError(
                f"tracker {self.name} can't be opened: {error}",
                f"Take it out of trackers, or mend what it says. {self.login}".strip(),
            ) from error

    @abstractmethod
    def start(self, config: dict[str, Any], step: int) -> None:
        """Open the run with the library."""

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after a step."""

    @abstractmethod
    def table(self, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
        """Rows of text and numbers."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


def markdown_table(columns: Sequence[str], rows: Rows) -> str:
    """A table for trackers that show Markdown. What stands in it is shown as it is."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: str | float) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    for mark, shown in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "&#124;"),
        ("*", "&#42;"),
        ("`", "&#96;"),
        ("\n", "<br>"),
    ):
        text = text.replace(mark, shown)
    return text
