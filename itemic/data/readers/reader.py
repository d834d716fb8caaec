"""What a format's module offers to the table of readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from itemic.data.dataset import Dataset
from itemic.data.readers.source import Source


@dataclass(frozen=True)
class Reader:
    """One source format.

    Attributes:
        name: the format's name.
        looks_for: the files by which it is recognised, for messages.
        finds: whether a folder holds this format; looks at names and first lines only.
        general: whether it is asked only where no other format is found.
        read: ``(source, rows, **options) -> Dataset``; its keyword arguments are the format's options.
    """

    name: str
    looks_for: str
    finds: Callable[[Source], bool]
    read: Callable[..., Dataset]
    general: bool = False
