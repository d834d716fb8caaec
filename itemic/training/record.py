"""The record of a training in its folder: what it was, and whether it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from itemic.errors import ArtifactError
from itemic.progress import log

RECORD = "training.json"


def finished(folder: Path, identity: Mapping[str, Any], what: str = "training run") -> bool:
    """Whether the folder holds already what this run would make.

    Raises:
        ArtifactError: it holds another run.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        record = {}
    theirs = record.get("identity", {})
    begun = record.get("finished") or any((folder / "checkpoints").glob("step-*"))
    if theirs != identity and begun:
        keys = sorted(key for key in {*theirs, *identity} if theirs.get(key) != identity.get(key))
        changed = ", ".join(f"{key} was {theirs.get(key)}, now {identity.get(key)}" for key in keys)
        raise ArtifactError(
            f"{folder} holds another {what}: {changed}",
            "Give another output folder, or remove this one.",
        )
    return bool(record.get("finished"))


def compare_threads(folder: Path) -> None:
    """Tell when a run goes on with another number of threads: sums are then rounded in another order."""
    try:
        before = json.loads((folder / RECORD).read_text(encoding="utf-8")).get("threads")
    except (OSError, ValueError):
        return
    now = torch.get_num_threads()
    if before != now and any((folder / "checkpoints").glob("step-*")):
        log.warning(
            "%s began with %s threads and goes on with %d: not bit for bit the same run", folder, before, now
        )
