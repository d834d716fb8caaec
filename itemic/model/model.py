"""The model: an ordinary Hugging Face folder that carries its item index along in ``sid/``."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from itemic.artifact import write_text
from itemic.errors import IndexMismatchError, ModelError
from itemic.forest.rows import TokenRows
from itemic.forest.support import check_supported
from itemic.model.card import model_card
from itemic.model.chat import ChatRenderer
from itemic.sid.index import ItemIndex

SID = "sid"
RECORD = "itemic"  # the key of config.json that says which index the model was made for
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAKE = "Make one with `itemic model new` or `itemic model expand`."


def remember_index(lm: PreTrainedModel, index: ItemIndex, first: int, added: int) -> None:
    """Write into a model's configuration which index it speaks.

    Args:
        lm: the model, changed in place.
        index: the index.
        first: the id of the index's first token.
        added: how many tokens, from ``first`` on, the model has learned nothing about before.
    """
    setattr(
        lm.config,
        RECORD,
        {"digest": index.digest, "first_token": first, "tokens": len(index.tokens), "new_tokens": added},
    )


@dataclass(eq=False)
class Model:
    """A causal language model, its tokenizer and the index of the items that it names.

    Attributes:
        lm: the Hugging Face model, unmodified.
        tokenizer: each token of the index is one token of it.
        index: item → semantic ID.
    """

    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    index: ItemIndex

    def __post_init__(self) -> None:
        record = getattr(self.lm.config, RECORD, None)
        if not isinstance(record, dict) or not {"digest", "first_token", "tokens", "new_tokens"} <= set(
            record
        ):
            raise ModelError("the model's configuration names no item index", MAKE)
        if record["digest"] != self.index.digest:
            raise IndexMismatchError(
                f"the model was made for item index {record['digest']}, not for {self.index.digest}",
                "Use the index in the model's own sid/ folder, or expand the base model for this index.",
            )
        start, tokens = record["first_token"], self.index.tokens
        if self.tokenizer.convert_tokens_to_ids(tokens) != list(range(start, start + len(tokens))):
            raise IndexMismatchError(
                f"the tokenizer doesn't have the index's {len(tokens)} tokens from id {start} on",
                "Restore tokenizer.json from where the folder was copied, or expand the base model again.",
            )
        rows = len(embeddings(self.lm))
        if start + record["new_tokens"] > rows:
            raise ModelError(f"the model has {rows} embeddings, too few for its tokenizer", MAKE)
        self.item_rows  # noqa: B018  (each token is read as one token, or this raises)

    # ------------------------------------------------------------------ tokens

    @property
    def new_token_range(self) -> tuple[int, int]:
        """(start, stop) of the token ids that were added for the index (and for our chat template, if it
        was)."""
        record = getattr(self.lm.config, RECORD)
        return record["first_token"], record["first_token"] + record["new_tokens"]

    @property
    def item_tokens(self) -> range:
        """The ids of the index's tokens."""
        start = self.new_token_range[0]
        return range(start, start + len(self.index.tokens))

    @cached_property
    def item_rows(self) -> TokenRows:
        """The token ids that name each item: begin, codes, end."""
        return self.index.token_rows(self.tokenizer)

    @cached_property
    def chat(self) -> ChatRenderer:
        """From conversations to token ids."""
        return ChatRenderer(self.tokenizer, self.item_tokens)

    # ------------------------------------------------------------------- files

    def save(self, folder: str | Path, *, dtype: torch.dtype | str | None = None) -> None:
        """Write a plain Hugging Face folder with ``sid/`` and a model card; all of it or nothing.

        Args:
            folder: made, or replaced where it holds an older model; other files in it stay.
            dtype: the dtype of the weights on disk; None for the model's own.

        Raises:
            OSError: the disk refuses; what stood in ``folder`` before still stands there.
        """
        final = Path(folder)
        scratch = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            self._write(scratch, dtype)
            _move_in(scratch, final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write(self, folder: Path, dtype: torch.dtype | str | None) -> None:
        folder.mkdir(parents=True)
        lm = self.lm
        if dtype is not None and as_dtype(dtype) != lm.dtype:
            lm = torch.nn.Module.to(copy.deepcopy(lm), as_dtype(dtype))
        lm.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.index.save(folder / SID)
        write_text(folder / "README.md", model_card(lm, len(self.tokenizer), self.index))

    @classmethod
    def load(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | str | None = None
    ) -> Model:
        """Read a folder that :meth:`save` wrote, and check that model, tokenizer and index belong together.

        Args:
            folder: a local folder.
            device: where the weights go.
            dtype: of the weights; None for the one they were saved in.

        Raises:
            ModelError: no model folder, weights missing or broken.
            IndexMismatchError: ``sid/`` is not the index that the model was made for.
        """
        root = Path(folder)
        config = read_config(root)
        if not isinstance(getattr(config, RECORD, None), dict):
            raise ModelError(
                f"{root} is a model without an item index", "Add one with `itemic model expand`."
            )
        index = ItemIndex.load(root / SID)
        return cls(load_lm(root, device, dtype), load_tokenizer(root), index)


def supported(lm: PreTrainedModel) -> None:
    """Make sure that token forests and our beam search work with a model, by a small forward pass.

    Raises:
        ModelError: they don't; the message says why.
    """
    check_supported(lm)


def embeddings(lm: PreTrainedModel) -> torch.nn.Parameter:
    """The matrix of input embeddings ``[V, d]``."""
    return cast(torch.nn.Parameter, lm.get_input_embeddings().weight)


def head(lm: PreTrainedModel) -> torch.nn.Parameter:
    """The matrix of the head ``[V, d]``; the very same object where it is tied."""
    output: Any = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
    return cast(torch.nn.Parameter, output.weight)


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
        return AutoConfig.from_pretrained(root, local_files_only=True)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{root / 'config.json'} can't be used: {str(error).splitlines()[0]}",
            "Use a model that transformers knows without code of its own.",
        ) from error


def load_tokenizer(root: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        ModelError: there is none, or only a slow one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(root, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exceptions on broken files
        raise ModelError(
            f"{root} has no usable tokenizer: {str(error).splitlines()[0]}",
            "Copy the model's tokenizer.json there.",
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{root} has a slow tokenizer", "Convert it to a tokenizer.json.")
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_lm(root: Path, device: torch.device | str, dtype: torch.dtype | str | None) -> PreTrainedModel:
    """The weights of a model folder, in eval mode.

    Raises:
        ModelError: weights are missing, broken or of other shapes.
    """
    from safetensors import SafetensorError

    wanted = "auto" if dtype is None else as_dtype(dtype)
    again = "Copy the folder again, or save the model again."
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            root, dtype=wanted, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{root} can't be loaded: {str(error).splitlines()[0]}", again) from error
    lm, info = loaded
    for fault, keys in (("lacks", info["missing_keys"]), ("has other shapes of", info["mismatched_keys"])):
        if keys:
            raise ModelError(f"{root} {fault} {len(keys)} weights, first {sorted(map(str, keys))[0]}", again)
    return cast(PreTrainedModel, lm.to(device).eval())


def _move_in(scratch: Path, final: Path) -> None:
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
