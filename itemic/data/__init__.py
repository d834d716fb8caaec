"""Datasets: readers, filters, splits, statistics."""

from __future__ import annotations

from itemic.data.dataset import Dataset, Requests, Sequences
from itemic.data.readers import READERS, detect_format, read
from itemic.data.split import SplitRule

__all__ = [
    "READERS",
    "Dataset",
    "Requests",
    "Sequences",
    "SplitRule",
    "detect_format",
    "read",
]
