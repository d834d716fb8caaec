"""What a format's module offers to the table of writers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from itemic.data.dataset import Dataset


@dataclass(frozen=True)
class Writer:
    """One system's files.

    Attributes:
        name: the format's name.
        write: ``(dataset, folder, name, sids) -> what is lost``: writes files that are called ``name`` into a folder
            that is there and empty; ``sids`` are the items' semantic IDs as texts of ``token_format``, or None.
        token_format: how the system writes semantic IDs, a key of ``TOKEN_FORMATS``; None where it has none.
        index_file: the system's file of semantic IDs alone, if it has one: a key of ``itemic.sid.export.EXPORTS``, and
            the file's name with ``{name}`` in it.
        users: whether its files say what is known of users.
        candidates: whether they hold the candidates to rank.
    """

    name: str
    write: Callable[[Dataset, Path, str, Sequence[str] | None], list[str]]
    token_format: str | None = None
    index_file: tuple[str, str] | None = None
    users: bool = False
    candidates: bool = False
