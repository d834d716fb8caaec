"""A whole run as one HTML page: table, predictions, curves, semantic IDs, data, steps, recipe."""

from __future__ import annotations

from itemic.pipeline.page.page import run_page

__all__ = ["run_page"]
