"""Weights & Biases."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from itemic.trackers.tracker import PROJECT, Rows, Tracker

SERVER = "https://api.wandb.ai"
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


class WandB(Tracker):
    """Numbers as a run's history, tables as ``wandb.Table``."""

    name = "wandb"
    package = "wandb"
    distribution = "wandb"
    login = "Log in with `wandb login`; `wandb sync` sends what was written offline."

    @classmethod
    def offline(cls) -> bool:
        """Where no mode is chosen and no key is found, the library would ask for one on the terminal."""
        chosen = os.environ.get("WANDB_MODE") or any(os.environ.get(key) for key in KEYS)
        return not chosen and not _in_netrc(os.environ.get("WANDB_BASE_URL", SERVER))

    def start(self, config: dict[str, Any], step: int) -> None:
        self.run = self.library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.run_name,
            id=self.identity,
            resume="allow",
            dir=str(self.folder),
            config=config,
            mode="offline" if self.offline() else None,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
        table = self.library.Table(columns=list(columns), data=[list(row) for row in rows])
        self.run.log({name: table}, step=step)

    def close(self) -> None:
        self.run.finish()


def _in_netrc(server: str) -> bool:
    """Whether the file of passwords, where ``wandb login`` leaves the key, names the server."""
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path("~/.netrc"), Path("~/_netrc")]
    for file in files:
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(str(file.expanduser())).authenticators(urlsplit(server).netloc):
                return True
    return False
