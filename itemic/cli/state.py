"""What the options before the command said."""

from __future__ import annotations

verbose = False
arguments: list[str] = []  # of the whole command line
