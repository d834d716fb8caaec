"""What to change in a recipe, and why: advice from an analysis, and rounds of it."""

from __future__ import annotations
