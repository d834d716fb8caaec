"""The model: an ordinary Hugging Face folder that carries its item index along in ``sid/``."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from itemic.artifact import write_text
from itemic.errors import IndexMismatchError, ModelError
from itemic.forest.rows import TokenRows
from itemic.forest.support import check_supported
from itemic.model.card import model_card
from itemic.model.chat import ChatRenderer
from itemic.model.folder import (
    as_dtype,
    load_lm,
    load_tokenizer,
    read_config,
    write_folder,
)
from itemic.model.shorten import HistoryMarks
from itemic.model.spelled import Spelled
from itemic.model.streamed import Value, write_lm, write_weights
from itemic.sid.going_on import PLAIN
from itemic.sid.kinds import load_names
from itemic.sid.names import ItemNames

SID = "sid"
RECORD = "itemic"  # the key of config.json that says which index the model was made for
MAKE = "Make one with `itemic model new` or `itemic model expand`."


def remember_index(lm: PreTrainedModel, index: ItemNames, first: int, added: int) -> None:
    """Write into a model's configuration which index it speaks.

    Args:
        lm: the model, changed in place.
        index: what names its items.
        first: the id of the index's first token; where it has none, the id that one would have.
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
        index: item → semantic ID, or title (:class:`itemic.sid.titles.TitleNames`), which needs no tokens.
    """

    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    index: ItemNames

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
                "Restore the tokenizer's files from where the folder was copied, or expand the base model again.",
            )
        rows = len(embeddings(self.lm))
        if start + record["new_tokens"] > rows:
            raise ModelError(f"the model has {rows} embeddings, too few for its tokenizer", MAKE)
        self.item_rows  # noqa: B018  (each token is read as one token, or this raises)

    def __repr__(self) -> str:
        dtype = str(self.lm.dtype).removeprefix("torch.")
        about = f"{self.lm.num_parameters():,} parameters, {dtype} on {self.lm.device}"
        return f"<Model {self.lm.config.model_type}: {about}, {len(self.index):,} items>"

    # ------------------------------------------------------------------ tokens

    @property
    def new_token_range(self) -> tuple[int, int]:
        """(start, stop) of the token ids that were added for the index (and for our chat template, if it
        was)."""
        record = getattr(self.lm.config, RECORD)
        return record["first_token"], record["first_token"] + record["new_tokens"]

    @property
    def item_tokens(self) -> range:
        """The ids of the index's tokens; none where items go by titles."""
        start = self.new_token_range[0]
        return range(start, start + len(self.index.tokens))

    @cached_property
    def item_rows(self) -> TokenRows:
        """The token ids that name each item: begin, codes, end; or mark, title, mark."""
        return self.index.token_rows(self.tokenizer)

    @cached_property
    def history_marks(self) -> HistoryMarks:
        """By which tokens histories are known, for :func:`itemic.model.shorten.shorten_histories`."""
        items, starts = self.item_tokens, self.index.start_tokens(self.tokenizer)
        added = self.tokenizer.get_added_vocab().items()
        walls = sorted(number for text, number in added if number not in items and not PLAIN.fullmatch(text))
        return HistoryMarks(starts, np.array(walls, np.int32))

    @cached_property
    def chat(self) -> ChatRenderer:
        """From conversations to token ids."""
        names = None if self.index.tokens else Spelled(self.index, self.item_rows)
        return ChatRenderer(self.tokenizer, self.item_tokens, pattern=self.think_pattern, names=names)

    @property
    def think_pattern(self) -> bool:
        """Whether conversations are put into OpenOneRec's think pattern, see :mod:`itemic.model.think`.

        Set by the training that does so; prompts are then asked in the pattern as well.
        """
        return bool(getattr(self.lm.config, RECORD).get("think_pattern", False))

    @think_pattern.setter
    def think_pattern(self, wanted: bool) -> None:
        setattr(self.lm.config, RECORD, getattr(self.lm.config, RECORD) | {"think_pattern": wanted})
        self.__dict__.pop("chat", None)

    @property
    def asked(self) -> dict[str, Any] | None:
        """How the model is asked for an item, as its training recorded it; None where nobody said.

        Keys: ``task`` (name and options, see :func:`itemic.tasks.task_options`), ``head`` and ``tail`` (the text of a
        prompt before and after the history), ``shows`` (how an item stands in it: ``sid``, ``sid+title`` or ``title``),
        ``between`` (what separates two items) and ``most_items`` (how many of the latest are shown; None for all).
        ``shows`` is None for a task whose prompts say more than that.
        """
        found = getattr(self.lm.config, RECORD).get("asked")
        return None if found is None else dict(found)

    @asked.setter
    def asked(self, way: dict[str, Any]) -> None:
        setattr(self.lm.config, RECORD, getattr(self.lm.config, RECORD) | {"asked": way})

    @property
    def profile(self) -> dict[str, Any] | None:
        """The task ``profile`` that taught the model to go from words to items, as :func:`itemic.tasks.task_options`
        has it; None where none did."""
        found = getattr(self.lm.config, RECORD).get("profile")
        return None if found is None else dict(found)

    @profile.setter
    def profile(self, task: dict[str, Any]) -> None:
        setattr(self.lm.config, RECORD, getattr(self.lm.config, RECORD) | {"profile": task})

    # ------------------------------------------------------------------- items

    def with_index(self, index: ItemNames) -> Model:
        """The same weights with an index that has more items, as :meth:`ItemTokenizer.assign` makes one.

        Raises:
            IndexMismatchError: the index has other tokens, or names one of this model's items otherwise.
        """
        if index.kind != self.index.kind or index.tokens != self.index.tokens:
            raise IndexMismatchError(
                "the index has other tokens than the model's",
                "Assign new items with the model's own tokenizer.",
            )
        places = {name: row for row, name in enumerate(index.item_ids)}
        for row, name in enumerate(self.index.item_ids):
            if name not in places or index.texts[places[name]] != self.index.texts[row]:
                raise IndexMismatchError(
                    f"the index names item {name!r} otherwise than the model does, or not at all",
                    "Assign new items with the model's own tokenizer, which keeps the old ones.",
                )
        lm = copy.copy(self.lm)
        lm.config = copy.deepcopy(self.lm.config)
        setattr(lm.config, RECORD, getattr(lm.config, RECORD) | {"digest": index.digest})
        return Model(lm, self.tokenizer, index)

    # ------------------------------------------------------------------- files

    def save(self, folder: str | Path, *, dtype: torch.dtype | str | None = None) -> None:
        """Write a plain Hugging Face folder with ``sid/`` and a model card; all of it or nothing.

        Args:
            folder: made, or replaced where it holds an older model; other files in it stay.
            dtype: the dtype of the weights on disk; None for the model's own.

        Raises:
            OSError: the disk refuses; what stood in ``folder`` before still stands there.
        """
        write_folder(folder, partial(self._write, dtype=dtype))

    def save_streamed(self, folder: str | Path | None, value: Value) -> None:
        """The same for a model on the meta device, the weights of which are given one by one.

        Args:
            folder: as in :meth:`save`; None on ranks that only take part in what ``value`` does.
            value: gives a whole weight by its name; asked for in the same order on every rank.

        Raises:
            OSError: as in :meth:`save`.
            ModelError: the family's weights can't be written so.
        """
        if folder is None:
            write_weights(self.lm, value, None)
            return
        write_folder(folder, partial(self._write, value=value))

    def _write(
        self, folder: Path, dtype: torch.dtype | str | None = None, value: Value | None = None
    ) -> None:
        lm = self.lm
        if dtype is not None and as_dtype(dtype) != lm.dtype:
            lm = torch.nn.Module.to(copy.deepcopy(lm), as_dtype(dtype))
        write_lm(lm, self.tokenizer, folder, value)
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
        index = load_names(root / SID)
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
