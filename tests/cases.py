"""Small inputs of real users, kept beside the real data: each failed once, and its right answer is a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import SHARED


def case(name: str) -> Path:
    """The folder of one case; the test is skipped where it is absent."""
    folder = SHARED.parent / "cases" / name
    if not folder.is_dir():
        pytest.skip(f"no case at {folder}; set ITEMIC_SHARED to the folder 'data' beside 'cases'")
    return folder
