"""HTML pages that need nothing else: their parts, their charts, and how they are rendered."""

from __future__ import annotations

from itemic.page.parts import Cell, Figure, Grid, Key, Row
from itemic.page.render import render

__all__ = ["Cell", "Figure", "Grid", "Key", "Row", "render"]
