"""The page of an analysis: one HTML file that opens anywhere, without a network."""

from __future__ import annotations

from itemic.analysis.page.page import write_page

__all__ = ["write_page"]
