"""Vectors as ``X.emb-….npy``, as MiniOneRec keeps them, and beside it the ids that its rows belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from itemic.artifact import write_json
from itemic.errors import DataError
from itemic.sid.vectors import Float32


def ids_file(file: Path) -> Path:
    """``X.emb-lsa.npy`` → ``X.emb-lsa.ids.json``."""
    return file.with_suffix(".ids.json")


def write_npy(file: Path, ids: Sequence[str], vectors: Float32) -> None:
    """Write vectors float32 ``[n, d]`` and, as a JSON list, the ``n`` ids of their items."""
    np.save(file, vectors.astype(np.float32, copy=False))
    write_json(ids_file(file), list(ids))


def read_ids(file: Path) -> list[str] | None:
    """The ids of a ``.npy`` file's rows; None where no file beside it tells them.

    Raises:
        DataError: that file holds something else than a list of ids.
    """
    beside = ids_file(file)
    if not beside.is_file():
        return None
    try:
        ids = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{beside} is no JSON: {error}", "Write the vectors again.") from error
    if not isinstance(ids, list) or not all(isinstance(item, str | int) for item in ids):
        raise DataError(f"{beside} holds no list of item ids", "Write the vectors again.")
    return [str(item) for item in ids]
