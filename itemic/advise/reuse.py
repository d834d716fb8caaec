"""Finished steps of one run for another: linked where they are what it would make; nothing is computed twice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from itemic.artifact import UNRECORDED, staleness
from itemic.pipeline import Run
from itemic.progress import log

TOKENS = "conversations.tokens"  # what trainings keep of conversations, by digests of its own
LEFT = tuple(
    name for name in UNRECORDED if name.islower() and "." not in name
)  # checkpoints, and trackers' files


def link_steps(run: Run, source: Path) -> list[str]:
    """Put into a run's folder what another run's has made already, step by step; files are shared (hard links), and
    never changed by either: a step that is made again is a folder of its own.

    Args:
        run: which is to be executed; steps that it has up to date stay.
        source: the other run's folder.

    Returns:
        the names of the steps that were taken.
    """
    taken = []
    for planned in run.plan():
        name, target = planned.step.name, run.root / planned.step.name
        if not planned.run or target.exists() or staleness(source / name, planned.manifest) is not None:
            continue
        _link(source / name, target)
        taken.append(name)
    if "conversations" in taken and (source / TOKENS).is_dir() and not (run.root / TOKENS).exists():
        _link(source / TOKENS, run.root / TOKENS)
    if taken:
        log.info("%s takes %s from %s", run.root, ", ".join(taken), source)
    return taken


def _link(source: Path, target: Path) -> None:
    """Copy a folder, by links where the disk can; it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.taken")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=_file, ignore=shutil.ignore_patterns(*LEFT))
    partial.replace(target)


def _file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
    return target
