"""The house keeps its floors: what imports what, and what an import brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import itemic

ROOT = Path(__file__).resolve().parents[1]
INSTANT = (
    "itemic",
    "itemic.errors",
    "itemic.schema",
    "itemic.artifact",
    "itemic.progress",
    "itemic.data",
    "itemic.metrics",
    "itemic.recipe",
    "itemic.pipeline",
    "itemic.cli",
    "itemic.training",
)


def test_floors_and_promises_hold() -> None:
    """The contracts of pyproject.toml, by import-linter."""
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("module", INSTANT)
def test_importing_brings_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "sklearn", "matplotlib.pyplot"} & set(done.stdout.split())


def test_every_public_name_is_there_and_typed() -> None:
    source = (ROOT / "itemic" / "__init__.py").read_text(encoding="utf-8")
    typed = source.partition("if TYPE_CHECKING:")[2].partition("_HOMES")[0]
    for name in itemic.__all__:
        assert getattr(itemic, name) is not None
        assert name in typed.replace(",", " ").split()
    with pytest.raises(AttributeError, match="no attribute 'recommmend'"):
        itemic.recommmend  # noqa: B018


def test_train_is_the_function_whatever_was_imported_before() -> None:
    code = "import itemic.training.language.run as run, itemic; print(itemic.train is run.train, itemic.Stage.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "Stage"]


def test_no_file_speaks_of_a_machine() -> None:
    """Paths of somebody's machine don't belong into the project."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    marks = ("/" + "root/", "/" + "home/", "/" + "work/")
    for name in listed.stdout.split("\n"):
        file = ROOT / name
        if file.suffix in (".py", ".md", ".toml", ".yaml", ".txt") and file.is_file():
            text = file.read_text(encoding="utf-8")
            assert not [mark for mark in marks if mark in text], name
