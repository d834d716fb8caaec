"""Datasets: readers, filters, splits, statistics."""

from __future__ import annotations

from itemic.data.dataset import Dataset, Requests, Sequences
from itemic.data.describe import describe, description_table, plot_description
from itemic.data.filters import FilterRule, apply_filters
from itemic.data.readers import READERS, detect_format, read
from itemic.data.simulator import Simulation, SimulatorConfig, simulate
from itemic.data.split import SplitRule

__all__ = [
    "READERS",
    "Dataset",
    "FilterRule",
    "Requests",
    "Sequences",
    "Simulation",
    "SimulatorConfig",
    "SplitRule",
    "apply_filters",
    "describe",
    "description_table",
    "detect_format",
    "plot_description",
    "read",
    "simulate",
]
