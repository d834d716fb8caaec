"""Checkpoints: a folder appears whole or not at all, is checked when read, and holds tensors and JSON
only."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from itemic.errors import ArtifactError
from itemic.progress import log

STATE = "state.json"
Tensors = dict[str, dict[str, Tensor]]
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """What was read: ``tensors[part][name]`` and the JSON state."""

    step: int
    tensors: Tensors
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: ``step-00000120/`` holds ``<part>.safetensors`` files and ``state.json``,
    which names their digests and is written last, inside a folder that is renamed when all of it is on the
    disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a folder, oldest first, whole or not."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, tensors: Tensors, state: Mapping[str, Any], needs: Sequence[int] = ()) -> None:
        """Write a checkpoint; it is there in full when this returns, and not at all when this fails.

        Args:
            step: names it.
            tensors: what goes into the files.
            state: plain JSON.
            needs: other checkpoints that must stay as long as this one does, such as the best.

        Raises:
            ArtifactError: the disk is full or can't be written; earlier checkpoints are as they were.
        """
        partial = self.folder / f".step-{step:08d}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            files = {}
            for part, named in tensors.items():
                file = partial / f"{part}.safetensors"
                save_file({name: tensor.detach().contiguous().cpu() for name, tensor in named.items()}, file)
                _flush(file)
                files[file.name] = _digest(file)
            text = json.dumps({**state, "step": step, "needs": list(needs), "files": files})
            (partial / STATE).write_text(text, encoding="utf-8")
            _flush(partial / STATE)
            _flush(partial)
            shutil.rmtree(self.path(step), ignore_errors=True)
            partial.replace(self.path(step))
            _flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise _unwritable(self.path(step), error, self.steps()) from error

    def load(self, step: int) -> Checkpoint:
        """Read and verify one checkpoint.

        Raises:
            ArtifactError: a file is missing, cut short or altered.
        """
        folder = self.path(step)
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            tensors: Tensors = {}
            for name, digest in state["files"].items():
                if _digest(folder / name) != digest:
                    raise ArtifactError(f"{folder / name} is damaged", "Remove the checkpoint.")
                tensors[name.removesuffix(".safetensors")] = load_file(folder / name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ArtifactError(f"{folder} is not a whole checkpoint: {error}", "Remove it.") from error
        return Checkpoint(step, tensors, state)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are passed over with a warning that names
        them."""
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except ArtifactError as error:
                log.warning("passing over a damaged checkpoint: %s", error.message)
        return None

    def prune(self, keep: int) -> None:
        """Remove all but the newest ``keep`` and those they need, and what an interrupted write left
        behind."""
        steps = self.steps()
        stay = {*steps[-keep:], *(need for step in steps[-keep:] for need in self._needs(step))}
        for step in steps:
            if step not in stay:
                shutil.rmtree(self.path(step), ignore_errors=True)
        for partial in self.folder.glob(".step-*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def _needs(self, step: int) -> list[int]:
        try:
            return list(json.loads((self.path(step) / STATE).read_text(encoding="utf-8"))["needs"])
        except (OSError, ValueError, KeyError, TypeError):
            return []  # a damaged one is passed over anyway


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, as JSON."""
    version, numbers, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - the global state is what is saved
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), np.asarray(keys).tolist(), int(place), int(has_gauss), float(cached)],
        "torch": _hex(torch.get_rng_state()),
        "cuda": [_hex(state) for state in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put back what :func:`random_state` gave. States of CUDA devices that aren't here are left out."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), place, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(_unhex(state["torch"]))
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_unhex(text) for text in state["cuda"]])


def _hex(tensor: Tensor) -> str:
    return tensor.numpy().tobytes().hex()


def _unhex(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, error: Exception, left: list[int]) -> ArtifactError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    why = "the disk is full" if full else str(error)
    rest = f"the checkpoint of step {left[-1]} is intact" if left else "there is no earlier checkpoint"
    return ArtifactError(
        f"can't write the checkpoint {path}: {why}; {rest}",
        "Free some space (or lower keep) and start the same command again: it goes on from there.",
    )
