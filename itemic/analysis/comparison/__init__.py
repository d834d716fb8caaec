"""Rankers side by side: by how much they differ, where, on which requests, and at what cost."""

from __future__ import annotations

from itemic.analysis.comparison.contrast import contrast
from itemic.analysis.comparison.sides import Side
from itemic.analysis.comparison.versus import Contrast, Cost, Example, Pair, Part, Standing, Versus

__all__ = ["Contrast", "Cost", "Example", "Pair", "Part", "Side", "Standing", "Versus", "contrast"]
