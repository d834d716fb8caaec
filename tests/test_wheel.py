"""The wheel alone, with what it declares and nothing else: it holds the recipes, and runs one to its table."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    *("-s", "data.simulate={users: 60, items: 40, categories: 4, brands: 6, shortest: 4, longest: 8}"),
    *("-s", "index.levels=[8, 8]", "-s", "stages.0.epochs=null", "-s", "stages.0.steps=2"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    (found,) = folder.glob("itemic-*.whl")
    return found


def required_by(made: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for each in map(Requirement, made.requires or []):
        if any(each.marker is None or each.marker.evaluate({"extra": extra}) for extra in extras):
            yield each


def closure(requirement: Requirement, found: dict[str, set[str]]) -> None:
    """All that a requirement brings along, as names with the extras that were asked of each."""
    asked = found.setdefault(canonicalize_name(requirement.name), set())
    extras = {"", *requirement.extras} - asked
    asked |= extras
    for each in required_by(distribution(requirement.name), extras):
        closure(each, found)


def link(name: str, packages: Path) -> None:
    """Put every file of an installed distribution into a folder of packages as a link."""
    here = distribution(name)
    for file in here.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(here.locate_file(file))).resolve())


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment: the wheel installed by pip, its dependencies linked to those here."""
    root = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(root, with_pip=False)
    made = root / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(made),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
    ]
    subprocess.run([*pip, str(wheel)], check=True)
    (packages,) = root.glob("lib/python*/site-packages")
    (itemic,) = distributions(name="itemic", path=[str(packages)])
    needed: dict[str, set[str]] = {}
    for each in required_by(itemic, {""}):
        closure(each, needed)
    for name in needed:
        link(name, packages)
    return made


def run(python: Path, *arguments: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "itemic").rglob("*") if file.is_file()}
    assert {name for name in files if "__pycache__" not in name} <= names
    assert {name.partition("/")[0] for name in names} == {"itemic", "itemic-0.1.0.dist-info"}
    assert not [name for name in names if "__pycache__" in name]
    assert {"itemic/py.typed", "itemic/recipes/quickstart.yaml"} <= names


def test_it_stands_alone(python: Path, tmp_path: Path) -> None:
    """From an empty folder, with none of the extras to be found."""
    code = "import itemic, importlib.util as u; print(itemic.__file__, u.find_spec('peft'), u.find_spec('pytest'))"
    file, *others = run(python, "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(python.parents[1])
    assert others == ["None", "None"]
    command = str(python.with_name("itemic"))
    assert "recommends" in run(python, command, "--help", cwd=tmp_path)
    assert "quickstart" in run(python, command, "recipe", "list", cwd=tmp_path)
    table = run(python, command, "run", "quickstart", *SMALL, cwd=tmp_path)
    assert "popularity" in table
    assert (tmp_path / "runs" / "quickstart" / "report" / "comparison.json").is_file()
