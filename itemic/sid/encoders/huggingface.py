"""Model folders of the Hugging Face kind: where they are, what tells two of them apart, and where they run."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from itemic.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
# Everything a model is read from; no pickles, no code, no copies for other engines.
FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
OTHERS = ["onnx/*", "openvino/*", "original/*", "coreml/*"]
TOKENIZERS = {"tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model"} | {
    "sentencepiece.bpe.model"
}

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
SAMPLE = 4096  # bytes of a sample
SAMPLES = 8  # evenly spaced samples per tensor


def find_model(name: str, revision: str | None = None) -> Path:
    """The folder of a model: a local one, or a name on the Hugging Face hub, which is downloaded once.

    Raises:
        ModelError: it is neither, or can't be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if HUB_NAME.fullmatch(name) is None:
        raise ModelError(
            f"{name} is not a folder", "Give the folder of a Hugging Face model, or its name on the hub."
        )
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, revision=revision, allow_patterns=FILES, ignore_patterns=OTHERS)
    except (
        Exception
    ) as error:  # a wrong name, no such model, no network, no permission: each has its own class
        raise ModelError(
            f"model {name!r} is no folder here and can't be had from the Hugging Face hub: {first_line(error)}",
            "Give the folder of a model, or its full name on the hub; without a network download it before.",
        ) from error
    return Path(found)


def model_label(name: str) -> str:
    """How a model is called in an identity: its name on the hub, or the last part of its folder's path."""
    folder = Path(name)
    return folder.resolve().name if folder.is_dir() else name


def model_digest(folder: Path) -> str:
    """What tells two models apart, without reading all of their weights: 16 hex digits.

    Over every JSON and text file (configuration, tokenizer, pooling) and, of every safetensors file, its header, its
    size and samples of each tensor: 8 evenly spaced blocks of 4 KB, so a tensor of up to 32 KB as a whole. Training
    changes a tensor nearly everywhere, so it changes this digest; a change of a few rows of a large matrix may not.
    Names, places and dates of files don't count.

    Raises:
        ModelError: the folder has no weights in safetensors, or a broken file of them.
    """
    total = hashlib.sha256()
    weights = 0
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        inner = file.relative_to(folder)
        if any(inner.match(pattern) for pattern in OTHERS) or any(
            part.startswith(".") for part in inner.parts
        ):
            continue
        if file.suffix == ".safetensors":
            total.update(str(inner).encode() + _digest_weights(file))
            weights += 1
        elif file.suffix in (".json", ".txt", ".model"):
            total.update(str(inner).encode() + hashlib.sha256(file.read_bytes()).digest())
    if not weights:
        raise ModelError(
            f"{folder} holds no weights in safetensors",
            "Use a model that has them; pickled weights are not read.",
        )
    return total.hexdigest()[:16]


def _digest_weights(file: Path) -> bytes:
    total = hashlib.sha256(str(file.stat().st_size).encode())
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = stream.read(length)
            total.update(header)
            for name, tensor in sorted(json.loads(header).items()):
                if name != "__metadata__":
                    start, stop = tensor["data_offsets"]
                    _sample(stream, 8 + length + start, 8 + length + stop, total)
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError, struct.error) as error:
        raise ModelError(
            f"{file} is no safetensors file: {first_line(error)}", "Copy the model again."
        ) from error
    return total.digest()


def _sample(stream: BinaryIO, start: int, stop: int, total: Any) -> None:
    step = max(SAMPLE, (stop - start - SAMPLE) // (SAMPLES - 1))
    for place in range(start, stop, step):
        stream.seek(place)
        total.update(stream.read(min(SAMPLE, stop - place)))


def require_tokenizer(folder: Path) -> None:
    """Make sure that a tokenizer is there: without one transformers makes up one that knows no word.

    Raises:
        ModelError: there is none.
    """
    if not any(path.name in TOKENIZERS for path in folder.rglob("*")):
        raise ModelError(f"{folder} has no tokenizer", "Copy the model's tokenizer files there.")


def pick_device(device: str) -> torch.device:
    """The device of that name; ``auto`` is the GPU where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(
            f"device {device!r} can't be used: {first_line(error)}", "Use auto, cpu, or a GPU that is there."
        ) from error


def check_dtype(dtype: str) -> None:
    """Make sure that weights can have that dtype.

    Raises:
        ConfigError: they can't.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r} of an encoder", f"Use one of {', '.join(DTYPES)}.")


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars and reports of what a folder lacks, which whoever loads it looks at."""
    from transformers.utils import logging

    shown, loud = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(loud)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def nan_remedy(dtype: str) -> str:
    """What to do about NaN in the vectors of a model with weights of that dtype."""
    if dtype == "float16":
        return "float16 overflows easily: use dtype float32 or bfloat16."
    return "Look at the model's weights; with float32 it is they that are broken."


@contextmanager
def told_memory(batch_size: int) -> Iterator[None]:
    """Turn a GPU that is out of memory into a fault that says what to do."""
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU has no room for {batch_size} texts at once",
            "Lower batch_size or max_length, or use bfloat16.",
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
