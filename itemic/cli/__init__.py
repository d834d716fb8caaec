"""The command line. ``main`` is the entry point; commands import their rooms when they are called."""

from __future__ import annotations

from itemic.cli.app import app, main

__all__ = ["app", "main"]
