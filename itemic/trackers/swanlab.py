"""SwanLab."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from itemic.trackers.tracker import PROJECT, Rows, Tracker, markdown_table


class SwanLab(Tracker):
    """Numbers as scalars, tables as text."""

    name = "swanlab"
    package = "swanlab"
    distribution = "swanlab"
    login = "Log in with `swanlab login`; `swanlab sync` sends what was written offline."

    @classmethod
    def offline(cls) -> bool:
        """Where its settings say online, as they do by default, and hold no key, the library would ask for one."""
        settings = importlib.import_module(cls.package).Settings()
        return settings.mode == "online" and not settings.api_key

    def start(self, config: dict[str, Any], step: int) -> None:
        self.library.init(
            project=os.environ.get("SWANLAB_PROJECT", PROJECT),
            name=self.run_name,
            id=self.identity,
            resume="allow",
            log_dir=str(self.folder),
            config=config,
            mode="offline" if self.offline() else None,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.library.log(dict(values), step=step)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
        self.library.log({name: self.library.Text(markdown_table(columns, rows))}, step=step)

    def close(self) -> None:
        self.library.finish()
