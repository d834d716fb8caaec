"""Checkpoints: a folder appears whole or not at all, is checked when read, and holds tensors and JSON only.

Each rank writes its own shards, in the background, by torch's distributed checkpoint as safetensors; a checkpoint is
read on any number of ranks.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from itemic.errors import ArtifactError
from itemic.progress import log
from itemic.training.ranks import ALONE, Ranks

STATE = "state.json"
SUFFIX = ".safetensors"
Tensors = dict[str, dict[str, Tensor]]
Shapes = dict[str, tuple[torch.Size, torch.dtype]]
_NAME = re.compile(r"step-(\d+)")
# torch's remark that a process on its own is a process on its own
warnings.filterwarnings("ignore", message="torch.distributed is disabled")


@dataclass(frozen=True)
class Checkpoint:
    """What was read: ``tensors[part][name]`` and the JSON state."""

    step: int
    tensors: Tensors
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: ``step-00000120/`` holds each rank's ``shard-…safetensors``, tensors named
    ``<part>/<name>``, and ``state.json``, which names the shards' digests and is written last, inside a folder that is
    renamed when all of it is on the disk.

    With several ranks every method is called by all of them, in the same order, on a folder that all of them see.

    Args:
        folder: where they are.
        ranks: who writes and reads.
    """

    def __init__(self, folder: Path, ranks: Ranks = ALONE) -> None:
        self.folder, self.ranks = folder, ranks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a folder, oldest first, whole or not."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(
        self,
        step: int,
        tensors: Tensors,
        state: Mapping[str, Any],
        *,
        needs: Sequence[int] = (),
        keep: int | None = None,
    ) -> None:
        """Copy a checkpoint to main memory and write it in the background; :meth:`finish` waits for that.

        Args:
            step: names it.
            tensors: what goes into the files; each rank writes its own part of those that are shared out.
            state: plain JSON; that of rank 0 counts.
            needs: other checkpoints that must stay as long as this one does, such as the best.
            keep: how many of the newest stay, beside those they need; None keeps all.

        Raises:
            ArtifactError: the checkpoint before this one could not be written.
        """
        self.finish()
        partial = self.folder / f".step-{step:08d}.partial"
        try:
            if self.ranks.main:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
        except OSError as error:
            raise _unwritable(self.path(step), str(error), self.steps()) from error
        self.ranks.wait()
        flat = {
            f"{part}/{name}": each.detach() for part, named in tensors.items() for name, each in named.items()
        }
        written = async_save(
            flat,
            storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True),
            process_group=self.ranks.files,
            no_dist=self.ranks.size == 1,
        )
        record = {**state, "step": step, "needs": list(needs), "ranks": self.ranks.size}
        self._pending = self._thread.submit(self._commit, written, partial, step, record, keep)

    def _commit(
        self, written: Any, partial: Path, step: int, record: dict[str, Any], keep: int | None
    ) -> None:
        """Wait for the shards and make the folder a checkpoint; every rank learns of every rank's failure."""
        files, fault = {}, ""
        try:
            written.result()
            for file in sorted(partial.glob(f"shard-{self.ranks.rank + 1:05d}-*{SUFFIX}")):
                _flush(file)
                files[file.name] = _digest(file)
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
            fault = _reason(error)
        told = self.ranks.gather_files((files, fault))
        fault = next((text for _, text in told if text), "")
        if self.ranks.main and not fault:
            fault = self._rename(
                partial, step, record | {"files": {k: v for part, _ in told for k, v in part.items()}}
            )
        fault = self.ranks.gather_files(fault)[0]
        if self.ranks.main:
            if fault:
                shutil.rmtree(partial, ignore_errors=True)
            elif keep is not None:
                self.prune(keep)
        if fault:
            raise _unwritable(self.path(step), fault, self.steps())

    def _rename(self, partial: Path, step: int, record: dict[str, Any]) -> str:
        """Rank 0's part of a commit; what went wrong, or nothing."""
        try:
            (partial / STATE).write_text(json.dumps(record), encoding="utf-8")
            _flush(partial / STATE)
            _flush(partial)
            shutil.rmtree(self.path(step), ignore_errors=True)
            partial.replace(self.path(step))
            _flush(self.folder)
        except OSError as error:
            return _reason(error)
        return ""

    def finish(self) -> None:
        """Wait until what is being written is there in full.

        Raises:
            ArtifactError: the disk is full or can't be written; earlier checkpoints are as they were, and nothing of
                this one is left.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Finish at the end of the block; when it ends with another error, only log what went wrong."""
        try:
            yield
        except BaseException:
            try:
                self.finish()
            except (ArtifactError, RuntimeError) as error:
                log.error("%s", error)
            raise
        self.finish()

    def latest(self) -> int | None:
        """The newest checkpoint that is whole; damaged ones are passed over with a warning that names them."""
        for step in reversed(self.ranks.share(self.steps())):
            try:
                self.verify(step)
                return step
            except ArtifactError as error:
                log.warning("passing over a damaged checkpoint: %s", error.message)
        return None

    def verify(self, step: int) -> None:
        """Compare every file with its digest; the ranks share the work.

        Raises:
            ArtifactError: naming a file that is missing, cut short or altered, and the checkpoint before.
        """
        folder = self.path(step)
        fault = ""
        try:
            files = sorted(self.state(step)["files"].items())
            for name, digest in files[self.ranks.rank :: self.ranks.size]:
                if _digest(folder / name) != digest:
                    fault = f"{folder / name} is damaged"
        except (OSError, AttributeError, KeyError, TypeError, ArtifactError) as error:
            fault = (
                error.message
                if isinstance(error, ArtifactError)
                else f"{folder} is not a whole checkpoint: {error}"
            )
        fault = next((text for text in self.ranks.gather(fault) if text), "")
        if fault:
            before = [earlier for earlier in self.steps() if earlier < step]
            other = f"{self.path(before[-1])} is the one before" if before else "there is no earlier one"
            raise ArtifactError(fault, f"Remove the checkpoint; {other}.")

    def state(self, step: int) -> dict[str, Any]:
        """The JSON state.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        try:
            found = json.loads((self.path(step) / STATE).read_text(encoding="utf-8"))
            if not isinstance(found.get("files"), dict):
                raise ValueError(f"{STATE} names no files")
        except (OSError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{self.path(step)} is not a whole checkpoint: {error}", "Remove it."
            ) from error
        return found  # type: ignore[no-any-return]

    def shapes(self, step: int) -> Shapes:
        """Whole shapes and types of the tensors, by ``<part>/<name>``."""
        found = HuggingFaceStorageReader(str(self.path(step))).read_metadata().state_dict_metadata
        return {name: (each.size, each.properties.dtype) for name, each in found.items()}  # type: ignore[union-attr]

    def read(self, step: int, tensors: Tensors) -> None:
        """Fill tensors, whole or shared out, in place.

        Raises:
            ArtifactError: one isn't there, or has another shape.
        """
        flat = {
            f"{part}/{name}": each.detach() for part, named in tensors.items() for name, each in named.items()
        }
        there = self.shapes(step)
        for name, tensor in flat.items():
            if name not in there or there[name][0] != tensor.shape:
                seen = f"shape {tuple(there[name][0])}" if name in there else "nothing"
                raise ArtifactError(
                    f"{self.path(step)} has {seen} for {name}, which the model has in shape {tuple(tensor.shape)}",
                    "It belongs to another model or stage; give the one that it was made with.",
                )
        load(
            flat,
            storage_reader=HuggingFaceStorageReader(str(self.path(step))),
            process_group=self.ranks.control,
            no_dist=self.ranks.size == 1,
        )

    def load(self, step: int) -> Checkpoint:
        """Verify and read one checkpoint, all of it, on this process alone.

        Raises:
            ArtifactError: a file is missing, cut short or altered.
        """
        alone = self if self.ranks.size == 1 else Checkpoints(self.folder)
        alone.verify(step)
        tensors: Tensors = {}
        for name, (shape, dtype) in alone.shapes(step).items():
            part, _, rest = name.partition("/")
            tensors.setdefault(part, {})[rest] = torch.empty(shape, dtype=dtype)
        alone.read(step, tensors)
        return Checkpoint(step, tensors, alone.state(step))

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
            return list(self.state(step)["needs"])
        except (ArtifactError, KeyError, TypeError):
            return []  # a damaged one is passed over anyway


def step_of(folder: Path) -> int:
    """The step of a checkpoint, by the name of its folder.

    Raises:
        ArtifactError: it has another name, or isn't there.
    """
    found = _NAME.fullmatch(folder.name)
    if found is None or not folder.is_dir():
        raise ArtifactError(
            f"{folder} is no checkpoint",
            "Give a folder step-… of a run's checkpoints/, as training leaves it.",
        )
    return int(found[1])


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


def _reason(error: BaseException) -> str:
    """One line of what went wrong, also of the errors that torch collects from all ranks."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    return "the disk is full" if full else str(error) or repr(error)


def _unwritable(path: Path, why: str, left: list[int]) -> ArtifactError:
    rest = f"the checkpoint of step {left[-1]} is intact" if left else "there is no earlier checkpoint"
    return ArtifactError(
        f"can't write the checkpoint {path}: {why}; {rest}",
        "Free some space (or lower checkpoints.keep) and start the same command again: it goes on from there.",
    )
