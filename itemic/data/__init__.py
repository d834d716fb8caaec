"""Datasets: readers, filters, splits, statistics, simulator.

Each name is imported when it is first used, so that settings are at hand without polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itemic.data.dataset import Dataset
    from itemic.data.filters import apply_filters
    from itemic.data.readers import READERS, detect_format, read
    from itemic.data.sequences import Requests, Sequences
    from itemic.data.settings import FilterRule, SimulatorConfig, SplitRule
    from itemic.data.simulator import Simulation, simulate
    from itemic.data.statistics import describe, description_table, plot_description

_NAMES = {
    "dataset": ("Dataset", "Requests", "Sequences"),
    "statistics": ("describe", "description_table", "plot_description"),
    "filters": ("apply_filters",),
    "readers": ("READERS", "detect_format", "read"),
    "settings": ("FilterRule", "SimulatorConfig", "SplitRule"),
    "simulator": ("Simulation", "simulate"),
}

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


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _NAMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"itemic.data.{home}"), name)
