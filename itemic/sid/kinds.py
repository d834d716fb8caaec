"""The kinds of names. A new one is a class and one row here."""

from __future__ import annotations

from pathlib import Path

from itemic.errors import ConfigError, IndexMismatchError
from itemic.sid.index import ItemIndex
from itemic.sid.names import KIND, ItemNames, read_head
from itemic.sid.titles import TitleNames

KINDS: dict[str, type[ItemIndex] | type[TitleNames]] = {"sid": ItemIndex, "title": TitleNames}


def load_names(folder: str | Path) -> ItemNames:
    """Read the names of whichever kind a folder holds, as they were saved.

    Raises:
        IndexMismatchError: a file is missing or broken, or the names are not those that the digest names.
        ArtifactError: a file is not as it was when a command or a run wrote the folder.
    """
    kind = read_head(folder).get(KIND, ItemIndex.kind)
    if kind not in KINDS:
        raise IndexMismatchError(
            f"{folder} names items by {kind!r}, which nobody here knows",
            f"Make an index whose names are {' or '.join(KINDS)}.",
        )
    return KINDS[kind].load(folder)


def need_sids(names: ItemNames, what: str) -> ItemIndex:
    """Names as an item index, for what is about codes.

    Args:
        names: of any kind.
        what: who asks, as the beginning of a sentence.

    Raises:
        ConfigError: they are no semantic IDs.
    """
    if not isinstance(names, ItemIndex):
        raise ConfigError(
            f"{what} is about the codes of semantic IDs, and these items go by their {names.word}s",
            "Use an index of semantic IDs (names: sid in a recipe), or leave this out.",
        )
    return names
