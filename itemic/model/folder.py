"""Reading and replacing Hugging Face model folders: local files only, no pickles, no code that a model brings
along."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils import logging as hf_logging

from itemic.errors import ModelError
from itemic.model.stored import remember_stored, stored_dtype
from itemic.sid.encoders.huggingface import TOKENIZERS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def without_deepspeed() -> Iterator[None]:
    """As if DeepSpeed weren't installed, unless it is at work already.

    To unwrap what it saves transformers imports it, which takes seconds and, where there is no GPU, prints a warning; a
    model of ours has nothing around it.
    """
    if "deepspeed" in sys.modules:
        yield
        return
    sys.modules["deepspeed"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["deepspeed"]


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A torch dtype from its name.

    Raises:
        ModelError: not one that weights are kept in.
    """
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(dtype)
    if found is None or found not in DTYPES.values():
        raise ModelError(f"unknown dtype {dtype!r}", f"Use one of {', '.join(DTYPES)}.")
    return found


def read_config(root: Path) -> Any:
    """The configuration of a model folder.

    Raises:
        ModelError: no folder, no ``config.json``, or one that names no known architecture.
    """
    if not root.is_dir():
        raise ModelError(f"{root} is not a folder", "Give the folder of a Hugging Face model.")
    if not (root / "config.json").is_file():
        raise ModelError(f"{root} holds no config.json", "Give the folder of a Hugging Face model.")
    try:
        return AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{root / 'config.json'} can't be used: {str(error).splitlines()[0]}",
            "Use a model that transformers knows without code of its own.",
        ) from error


def load_tokenizer(root: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, fast or in Python.

    Raises:
        ModelError: there is none, it can't be read, or it is of a kind that takes no new tokens.
    """
    if not any(_of_tokenizer(path) for path in root.iterdir()):
        raise ModelError(f"{root} has no tokenizer", "Copy the model's tokenizer files there.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(root, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exceptions on broken files
        raise ModelError(
            f"{root} has no usable tokenizer: {_reason(error)}",
            _remedy(root),
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or not _takes_tokens(tokenizer):
        raise ModelError(
            f"{root} has a {type(tokenizer).__name__}, which takes no new tokens",
            "Copy the model's tokenizer.json there.",
        )
    return tokenizer


def _of_tokenizer(path: Path) -> bool:
    """Whether a file is a tokenizer's: without any, transformers makes up one that knows no word."""
    return path.name in TOKENIZERS | {"tokenizer_config.json", "tekken.json"} or path.suffix == ".model"


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _remedy(root: Path) -> str:
    """What helps against a tokenizer that can't be read: a SentencePiece file alone needs the package that reads it."""
    copy = "opy the model's tokenizer.json there."
    if (root / "tokenizer.json").is_file() or not any(root.glob("*.model")):
        return f"C{copy}"
    try:
        from sentencepiece import sentencepiece_model_pb2  # noqa: F401
    except ImportError:
        return f'It is a SentencePiece file: `pip install "itemic[sentencepiece]"`, or c{copy}'
    except Exception:  # made for a later protobuf than is installed, which is an error of protobuf's own kind
        return (
            f"It is a SentencePiece file, and sentencepiece wants a later protobuf: install one, or c{copy}"
        )
    return f"C{copy}"


def _takes_tokens(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether tokens can be added: some tokenizers of transformers only wrap a library with a fixed vocabulary."""
    try:
        tokenizer.add_tokens([])
    except NotImplementedError:
        return False
    return True


def load_lm(root: Path, device: torch.device | str, dtype: torch.dtype | str | None) -> PreTrainedModel:
    """The weights of a model folder, in eval mode; on the device ``meta`` none are read, but
    :func:`itemic.model.stored.stored_of` knows where they are.

    Raises:
        ModelError: weights are missing, broken or of other shapes.
    """
    wanted = "auto" if dtype is None else as_dtype(dtype)
    if torch.device(device).type == "meta":
        config = read_config(root)
        kept = stored_dtype(root) if config.dtype is None else config.dtype
        empty = _empty_lm(config, kept if dtype is None else as_dtype(dtype))
        if (root / GENERATION_CONFIG_NAME).is_file():
            empty.generation_config = GenerationConfig.from_pretrained(root, local_files_only=True)
        remember_stored(empty, root)
        return empty
    again = "Copy the folder again, or save the model again."
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                root,
                dtype=wanted,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{root} can't be loaded: {str(error).splitlines()[0]}", again) from error
    lm, info = loaded
    for fault, keys in (("lacks", info["missing_keys"]), ("has other shapes of", info["mismatched_keys"])):
        if keys:
            raise ModelError(f"{root} {fault} {len(keys)} weights, first {sorted(map(str, keys))[0]}", again)
    return cast(PreTrainedModel, lm.to(device).eval())


def _empty_lm(config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """A model without storage."""
    with torch.device("meta"):
        lm: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    return cast(PreTrainedModel, lm.eval())


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> None:
    """Make a model folder, or replace the model in one; all of it or nothing.

    Args:
        folder: where it is to stand.
        write: writes it into a folder that doesn't exist yet.
    """
    final = Path(folder)
    scratch = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        write(scratch)
        move_in(scratch, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def move_in(scratch: Path, final: Path) -> None:
    """One rename where nothing stands yet; else file by file, config.json last: without it a folder is no
    model."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.exists():
        scratch.replace(final)
        return
    (final / "config.json").unlink(missing_ok=True)
    for stale in [*final.glob("*.safetensors"), *final.glob("*.safetensors.index.json")]:
        stale.unlink()
    for entry in sorted(scratch.iterdir(), key=lambda path: path.name == "config.json"):
        if entry.is_dir():
            shutil.rmtree(final / entry.name, ignore_errors=True)
        entry.replace(final / entry.name)
