"""Why a recommender fails: patterns of bad cases, told from coincidences."""

from __future__ import annotations

from itemic.analysis.analysis import Analysis, Cause, Level, Pair, Part
from itemic.analysis.cases import Case, Cases, Item, choose_cases
from itemic.analysis.causes import analyze
from itemic.analysis.detector import Detector, Found, Thresholds
from itemic.analysis.detectors import DETECTORS
from itemic.analysis.evidence import Evidence, gather
from itemic.analysis.files import write_analysis

__all__ = [
    "DETECTORS",
    "Analysis",
    "Case",
    "Cases",
    "Cause",
    "Detector",
    "Evidence",
    "Found",
    "Item",
    "Level",
    "Pair",
    "Part",
    "Thresholds",
    "analyze",
    "choose_cases",
    "gather",
    "write_analysis",
]
