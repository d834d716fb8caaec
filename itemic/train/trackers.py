"""Where a run's numbers can be watched, by name; ``log.jsonl`` has them in any case.

Projects, keys and modes are set by the environment variables of each library (``WANDB_MODE=offline``,
``SWANLAB_MODE=offline``, …). A new tracker is a class and one row in :data:`TRACKERS`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from itemic.errors import ConfigError

PROJECT = "itemic"


class Tracker(ABC):
    """A place for numbers.

    Args:
        folder: the run's; files go into one of their own in it.
        config: what the run was asked to do.
        step: optimizer steps done; numbers of later ones, if there are any, will come again.

    Raises:
        ConfigError: the library isn't installed.
    """

    name: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        try:
            self.library: Any = importlib.import_module(self.package)
        except ImportError as error:
            raise ConfigError(
                f"tracker {self.name} needs {self.package.partition('.')[0]}",
                f"Install it with `pip install {self.name}`, or take it out of trackers.",
            ) from error
        self.folder = folder / self.name
        self.run_name = f"{folder.parent.name} {folder.name}"
        self.start(dict(config), step)

    @property
    def identity(self) -> str:
        """Names the run's folder, so that a run that goes on goes on here as well."""
        return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]

    @abstractmethod
    def start(self, config: dict[str, Any], step: int) -> None:
        """Open the run."""

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after an optimizer step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class TensorBoard(Tracker):
    """Event files, for ``tensorboard --logdir``."""

    name = "tensorboard"
    package = "torch.utils.tensorboard"

    def start(self, config: dict[str, Any], step: int) -> None:
        self.board = self.library.SummaryWriter(str(self.folder), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.board.add_scalar(key, value, step)

    def close(self) -> None:
        self.board.close()


class WandB(Tracker):
    """Weights & Biases."""

    name = "wandb"
    package = "wandb"

    def start(self, config: dict[str, Any], step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run = self.library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.run_name,
            id=self.identity,
            resume="allow",
            dir=str(self.folder),
            config=config,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class SwanLab(Tracker):
    """SwanLab."""

    name = "swanlab"
    package = "swanlab"

    def start(self, config: dict[str, Any], step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.library.init(
            project=os.environ.get("SWANLAB_PROJECT", PROJECT),
            name=self.run_name,
            id=self.identity,
            resume="allow",
            log_dir=str(self.folder),
            config=config,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.library.log(dict(values), step=step)

    def close(self) -> None:
        self.library.finish()


class Trackio(Tracker):
    """trackio, a local dashboard."""

    name = "trackio"
    package = "trackio"

    def start(self, config: dict[str, Any], step: int) -> None:
        self.library.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=self.run_name, config=config
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.library.log(dict(values), step=step)

    def close(self) -> None:
        self.library.finish()


TRACKERS: dict[str, type[Tracker]] = {
    tracker.name: tracker for tracker in (TensorBoard, WandB, SwanLab, Trackio)
}
