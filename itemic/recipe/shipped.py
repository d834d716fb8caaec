"""The recipes that come with the package, and the files that go with them: launchers and examples."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

from itemic.errors import ConfigError
from itemic.settings import meant

SHIPPED = Path(__file__).resolve().parents[1] / "recipes"
SUFFIX = ".yaml"


def recipe_names() -> list[str]:
    """The shipped recipes by the names that ``itemic run`` knows."""
    return sorted(file.stem for file in SHIPPED.glob(f"*{SUFFIX}"))


def companion_names() -> list[str]:
    """The other shipped files, as ``folder/file``."""
    return sorted(str(file.relative_to(SHIPPED)) for file in SHIPPED.glob("*/*") if file.is_file())


def find_recipe(name: str | Path) -> Path:
    """A recipe's file: the one named, or, for a bare name that is no file, the shipped one.

    A name with a suffix or a folder never means a shipped recipe: who misses such a file wants to know.
    """
    file = Path(name)
    shipped = SHIPPED / f"{file}{SUFFIX}"
    return shipped if not file.is_file() and str(file) in recipe_names() else file


def shipped_hint(file: Path) -> str:
    """What may have been meant by a file that isn't there; empty where no shipped recipe is near."""
    near = difflib.get_close_matches(file.stem, recipe_names(), 1)
    return f"; did you mean {near[0]!r}, a recipe that comes with itemic?" if near else ""


def describe_recipe(name: str) -> str:
    """What a shipped recipe is for: its first line."""
    with find_shipped(name).open(encoding="utf-8") as stream:
        return stream.readline().lstrip("# ").strip()


def find_shipped(name: str) -> Path:
    """The shipped recipe, file or folder of a name.

    Raises:
        ConfigError: there is none.
    """
    folders = {Path(companion).parts[0] for companion in companion_names()}
    if name in recipe_names():
        return SHIPPED / f"{name}{SUFFIX}"
    if name in folders or name in companion_names():
        return SHIPPED / name
    known = [*recipe_names(), *sorted(folders)]
    raise ConfigError(
        f"no recipe {name!r} comes with itemic{meant(name, known)}", "`itemic recipe list` shows all of them."
    )


def copy_shipped(name: str, output: Path | None = None) -> Path:
    """Copy a shipped recipe, file or folder.

    Args:
        name: see :func:`find_shipped`.
        output: the file or folder to make; None for the one of the same name in the current folder.

    Raises:
        ConfigError: there is no such recipe, or the output is there already.
    """
    source = find_shipped(name)
    target = output or Path(source.name)
    if target.exists():
        raise ConfigError(f"{target} is there already", "Choose another name with -o, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return target
