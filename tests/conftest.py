"""Fixtures that all rooms share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# a loaded machine must not fail a test: time belongs into benchmarks
settings.register_profile("itemic", deadline=None)
settings.load_profile("itemic")

SHARED = Path(os.environ.get("ITEMIC_SHARED", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}; set ITEMIC_SHARED to the folder that holds it")
    return SHARED


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny recipe, ``tiny.yaml``, and its finished run, ``run``; read it, don't change it."""
    from itemic.cli.app import call
    from tests.runs import write_recipe

    folder = tmp_path_factory.mktemp("finished")
    assert call(["run", str(write_recipe(folder)), "-o", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of ``finished`` to work on."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    return folder
