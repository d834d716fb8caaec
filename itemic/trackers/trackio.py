"""trackio, a local dashboard: ``trackio show``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from itemic.trackers.tracker import PROJECT, Rows, Tracker


class Trackio(Tracker):
    """Numbers and tables in trackio's own database (``TRACKIO_DIR``)."""

    name = "trackio"
    package = "trackio"
    distribution = "trackio"

    def start(self, config: dict[str, Any], step: int) -> None:
        self.library.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=self.run_name,
            config=config,
            resume="allow",
            embed=False,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.library.log(dict(values), step=step)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
        table = self.library.Table(columns=list(columns), data=[list(row) for row in rows])
        self.library.log({name: table}, step=step)

    def close(self) -> None:
        self.library.finish()
