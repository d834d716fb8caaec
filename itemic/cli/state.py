"""What the options before the command said."""

from __future__ import annotations

verbose = False
