"""The quality of semantic IDs: a report on one index, and several side by side."""

from __future__ import annotations

from itemic.sid.report.compare import SidComparison, compare
from itemic.sid.report.measure import report
from itemic.sid.report.report import SidReport

__all__ = ["SidComparison", "SidReport", "compare", "report"]
