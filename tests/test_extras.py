"""What the package imports is what it declares: dependencies anywhere, extras inside functions, each by its name."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = {"dev", "bench", "docs"}


def canonical(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group()).lower()


PLACES = packages_distributions()
NEEDED = {canonical(each) for each in PROJECT["dependencies"]}
OPTIONAL = {
    canonical(each) for extra, found in EXTRAS.items() if extra not in FOR_DEVELOPERS for each in found
} - {"itemic"}


def imports(file: Path) -> list[tuple[str, bool]]:
    """The distribution of each import of somebody else's package, and whether it happens with the module's own."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in {name.partition(".")[0] for name in names} - {"itemic"} - sys.stdlib_module_names:
            made_by = canonical(PLACES.get(name, [name])[0])
            found.append((made_by, id(node) not in inside | typing))
    return found


def test_every_import_is_declared() -> None:
    for file in sorted((ROOT / "itemic").rglob("*.py")):
        for name, at_once in imports(file):
            assert name in NEEDED | OPTIONAL, (
                f"{file.relative_to(ROOT)} imports {name}, which nothing declares"
            )
            assert name in NEEDED or not at_once, f"{file.relative_to(ROOT)} can't be imported without {name}"


def test_every_dependency_is_used() -> None:
    used = {name for file in (ROOT / "itemic").rglob("*.py") for name, _ in imports(file)}
    assert used >= NEEDED


@pytest.mark.parametrize("folder", ["itemic", "docs", "benchmarks"])
def test_every_extra_that_is_named_exists(folder: str) -> None:
    named = {
        extra.strip()
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".md", ".yaml")
        for extras in re.findall(r"itemic\[([\w,\s-]+)\]", file.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert named - {"NAME"} <= set(EXTRAS), f"no extra {', '.join(sorted(named - set(EXTRAS)))}"


def test_the_extra_of_all_trackers_is_all_trackers() -> None:
    from itemic.trackers import TRACKERS

    assert EXTRAS["trackers"] == [f"itemic[{','.join(TRACKERS)}]"]
    assert set(TRACKERS) <= set(EXTRAS)
