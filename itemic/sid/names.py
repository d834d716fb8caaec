"""The one face of what names an item: a semantic ID, or a title. Tries, prompts, answers and training go by it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from itemic.artifact import verify
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests, catalogue_digest
from itemic.errors import IndexMismatchError
from itemic.forest.rows import TokenRows

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

HEAD = "index.json"
KIND = "names"  # the key of the head that says which kind it is; semantic IDs have none
REBUILD = "Build or import the index again for this dataset."
CONTROL = r"<\|[^<>|]*\|>|</?think>"  # chat markers and other special tokens, of any tokenizer


@dataclass(frozen=True)
class NamePatterns:
    """How names look inside other text: regular expressions in what Rust's and Python's dialects share.

    Attributes:
        name: one whole name, of an item or not.
        prefix: the beginning of one, at least one level and not all of them; None where names have no levels.
        token: what only names are made of, a single token or mark.
    """

    name: str
    prefix: str | None
    token: str


class ItemNames(ABC):
    """What each item of a catalogue is called in conversations, as text and as tokens.

    Attributes:
        kind: ``sid`` or ``title``, as a recipe's ``index.names`` says it.
        word: what a name is called in prompts.
        item_ids: ids of the ``n`` items; their order is the dataset's (an item's *row*).
        origin: where the names come from, plain JSON.
    """

    kind: ClassVar[str]
    word: ClassVar[str]
    item_ids: list[str]
    origin: dict[str, Any]

    # --------------------------------------------------------------- what a kind says of itself

    @property
    @abstractmethod
    def digest(self) -> str:
        """16 hex digits that name the items and all their names: what a model must agree with."""

    @property
    @abstractmethod
    def tokens(self) -> list[str]:
        """The tokens that a tokenizer must be given, in a vocabulary's order; none where names are words."""

    @property
    @abstractmethod
    def texts(self) -> list[str]:
        """The names of all items, by row, as they stand in a conversation."""

    @abstractmethod
    def known_titles(self) -> list[str] | None:
        """What to show a reader for each item, by row; None where nobody knows."""

    @abstractmethod
    def examples(self, count: int) -> list[str]:
        """Names to look at."""

    @abstractmethod
    def named(self, text: str) -> Int32:
        """The rows of the items that a text names, all of it and exactly; empty where it is no item's name."""

    @abstractmethod
    def mentions(self, text: str) -> list[tuple[int, int, Int32]]:
        """Every item's name inside a text, as (start, stop, rows), from left to right."""

    @property
    @abstractmethod
    def name_numbers(self) -> Int64:
        """int64 ``[n]``: the number of each item's name; equal where items share one."""

    @property
    @abstractmethod
    def patterns(self) -> NamePatterns:
        """How names look inside other text."""

    @abstractmethod
    def token_rows(self, tokenizer: Callable[[list[str]], Sequence[int | None]] | Any) -> TokenRows:
        """The token ids of each item's name, ``n`` rows, the same wherever it stands.

        Raises:
            IndexMismatchError: the tokenizer can't write the names.
        """

    @abstractmethod
    def start_tokens(self, tokenizer: Any) -> Int32:
        """The token ids by which the beginning of a name is known."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the folder that :func:`itemic.sid.kinds.load_names` reads."""

    # ----------------------------------------------------------------------- what all have

    def __len__(self) -> int:
        return len(self.item_ids)

    def text(self, row: int) -> str:
        """The name of the item in that row."""
        return self.texts[row]

    @property
    def shared(self) -> int:
        """How many items have a name that another item has as well."""
        if not len(self):
            return 0
        crowd = np.bincount(self.name_numbers)
        return int(crowd[crowd > 1].sum())

    @property
    def distinct(self) -> int:
        """How many names there are."""
        return len(np.unique(self.name_numbers))

    @cached_property
    def catalogue(self) -> str:
        """The digest of the items that it names, in their order; equal to the dataset's own."""
        return catalogue_digest(self.item_ids)

    def check_dataset(self, dataset: Dataset) -> None:
        """Make sure that the names were made for these items in this order.

        Raises:
            IndexMismatchError: they were not.
        """
        theirs = dataset.item_ids
        if theirs == self.item_ids:
            return
        mine, known = set(self.item_ids), set(theirs)
        if mine == known:
            row = next(i for i, (a, b) in enumerate(zip(self.item_ids, theirs, strict=True)) if a != b)
            fault = (
                f"the same items in another order: row {row} is {self.item_ids[row]!r} and {theirs[row]!r}"
            )
        else:
            lacking = next((i for i in theirs if i not in mine), None)
            detail = (
                f"no {self.word} for item {lacking!r}"
                if lacking
                else f"{self.word}s of items that are not there"
            )
            counts = f"{len(mine - known)} items only in the index, {len(known - mine)} only in the dataset"
            fault = f"{counts} ({detail})"
        raise IndexMismatchError(
            f"the item index (catalogue {self.catalogue}) does not fit dataset {dataset.name!r} "
            f"(catalogue {dataset.catalogue}): {fault}",
            REBUILD,
        )

    def check_requests(self, requests: Requests) -> None:
        """Make sure that requests are about these items.

        Raises:
            IndexMismatchError: they are of another catalogue.
            DataError: they name rows that the index doesn't have.
        """
        requests.check_catalogue(self.catalogue, len(self), "the model's item index")


def read_head(folder: str | Path) -> dict[str, Any]:
    """The head of a folder of names, once its files are seen to be as they were written.

    Raises:
        IndexMismatchError: it has none, or a broken one.
        ArtifactError: a file is not as it was when a command or a run wrote the folder.
    """
    root = Path(folder)
    verify(root)
    try:
        head = json.loads((root / HEAD).read_text(encoding="utf-8"))
        if not isinstance(head, dict):
            raise ValueError(f"{HEAD} holds no object")
    except (OSError, ValueError) as error:
        raise IndexMismatchError(
            f"{root} is not an item index: {error}", "Make one with `itemic sid`."
        ) from error
    return head
