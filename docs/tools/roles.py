"""Docstrings on the site: roles such as ``:class:`itemic.Dataset` `` become code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from meanings import markdown


class Roles(griffe.Extension):
    """Puts Markdown in the place of roles."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object that was just read."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
