"""Readers: one module per source format, all to the same :class:`~itemic.data.dataset.Dataset`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from itemic.data.dataset import Dataset
from itemic.data.limits import apply_limits
from itemic.data.readers import (
    amazon_2014,
    amazon_2018,
    amazon_2023,
    letter,
    minionerec,
    movielens,
    onerec_think,
    openonerec,
    recbole,
    reclm_gen,
    table,
)
from itemic.data.readers.labels import as_labels, check_labels
from itemic.data.readers.missing import check_policy
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import Source
from itemic.errors import ConfigError, DataError

READERS: dict[str, Reader] = {
    "onerec-think": onerec_think.READER,
    "openonerec": openonerec.READER,
    "letter": letter.READER,
    "minionerec": minionerec.READER,
    "movielens": movielens.READER,
    "amazon-2014": amazon_2014.READER,
    "amazon-2018": amazon_2018.READER,
    "amazon-2023": amazon_2023.READER,
    "recbole": recbole.READER,
    "reclm-gen": reclm_gen.READER,
    "table": table.READER,
}


def read(
    format: str,
    path: str | Path,
    *,
    on_bad_row: str = "error",
    missing_text: str = "keep",
    categories_are: str | None = None,
    limit_users: int | None = None,
    limit_items: int | None = None,
    limit_rows: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Dataset:
    """Read raw files.

    Args:
        format: a key of ``READERS``, or ``"auto"``.
        path: the folder that holds the files; any URL that fsspec knows.
        on_bad_row: ``"error"``: the first bad row is an error that names it. ``"drop"``: bad rows are left
            out and counted in ``Dataset.notes``.
        missing_text: of items that the metadata lack or that have no title: ``"keep"`` them, known by their id and
            what text there is; ``"drop"`` them and their interactions; or ``"error"``. They are counted in
            ``Dataset.notes``.
        categories_are: read what items are filed under as a ``"path"`` (general to specific) or as ``"tags"`` (beside
            each other); None as the format has it.
        limit_users: for a quick trial on a part; likewise ``limit_items`` and ``limit_rows``, see
            :func:`itemic.data.limits.apply_limits`.
        limit_items: see there.
        limit_rows: see there.
        seed: of the parts that are drawn.
        options: of the format; see the ``read`` of its module.

    Raises:
        DataError: a file is missing, damaged or has bad rows.
        ConfigError: unknown format, policy or option.
    """
    source = Source(path)
    name = _detect(source) if format == "auto" else format
    if name not in READERS:
        raise ConfigError(f"unknown format {name!r}", f"Use one of auto, {', '.join(READERS)}.")
    reader = READERS[name]
    known = list(inspect.signature(reader.read).parameters)[2:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"the format {name} has no option {', '.join(unknown)}", f"It has {', '.join(known) or 'none'}."
        )
    check_policy(missing_text)
    check_labels(categories_are)
    whole = as_labels(reader.read(source, BadRows(on_bad_row, missing_text), **options), categories_are)
    return apply_limits(
        whole, limit_users=limit_users, limit_items=limit_items, limit_rows=limit_rows, seed=seed
    )


def detect_format(path: str | Path) -> str:
    """The format of a folder, by the names and first lines of its files.

    Raises:
        DataError: no format fits, or more than one does.
    """
    return _detect(Source(path))


def _detect(source: Source) -> str:
    found = [name for name, reader in READERS.items() if not reader.general and reader.finds(source)]
    found = found or [name for name, reader in READERS.items() if reader.general and reader.finds(source)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{source.path} can be read as {' or '.join(found)}",
            f"Name the format: one of {', '.join(found)}.",
        )
    looked = "; ".join(f"{name}: {reader.looks_for}" for name, reader in READERS.items())
    raise DataError(
        f"no known format in {source.path}; looked for {looked}", "Name the format, or check the folder."
    )


__all__ = ["READERS", "Reader", "detect_format", "read"]
