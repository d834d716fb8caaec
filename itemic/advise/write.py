"""A better recipe as a file: whole, checked, with the reason beside each key that changed."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from itemic.advise.advice import Advice
from itemic.advise.patch import APPEND, Change, faults_in, flow, patched, plain, to_text
from itemic.artifact import write_json, write_text
from itemic.errors import ConfigError
from itemic.recipe import Recipe, RecipeError
from itemic.recipe.source import read_source
from itemic.settings import KeyPath
from itemic.text import shown

ADVICE = "advice.json"
SUFFIX = "-improved"
WIDTH = 100


def next_name(name: str) -> str:
    """A name for what is made of a run: ``shop`` → ``shop-improved`` → ``shop-improved-2``."""
    found = re.fullmatch(rf"(.*{SUFFIX})(?:-(\d+))?", name)
    return f"{name}{SUFFIX}" if found is None else f"{found[1]}-{int(found[2] or 1) + 1}"


def improved_values(recipe: Recipe, taken: Sequence[Advice], name: str | None = None) -> dict[str, Any]:
    """What the recipe says with all changes made, under a name of its own.

    Raises:
        RecipeError: it has faults that the recipe had not.
    """
    before = plain(recipe)
    changes = [change for one in taken for change in one.changes]
    values = patched(before, changes) | {"name": name or next_name(recipe.name)}
    known = {(fault.path, fault.problem) for fault in faults_in(before)}
    new = [fault for fault in faults_in(values) if (fault.path, fault.problem) not in known]
    if new:
        raise RecipeError("the recipe with these changes", new)
    return values


def improved_text(recipe: Recipe, taken: Sequence[Advice], name: str | None = None, head: str = "") -> str:
    """The same as YAML, with a comment above each key that changed.

    Args:
        recipe: what was run.
        taken: the advice that is followed.
        name: of the new run; None for the recipe's with ``-improved``.
        head: lines to stand above it all.
    """
    values = improved_values(recipe, taken, name)
    text = to_text(values)
    notes: dict[int, list[str]] = {}
    places = _places(text)
    lengths: dict[KeyPath, int] = {}
    for one in taken:
        for change in one.changes:
            line = places[_written(change, plain(recipe), lengths)]
            notes.setdefault(line, []).append(f"{one.strategy}: {_was(change)}{change.reason}")
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for number, written in enumerate(text.splitlines(), 1):
        indent = written[: len(written) - len(written.lstrip())]
        for note in notes.get(number, []):
            lines += [f"{indent}# {part}" for part in textwrap.wrap(shown(note), WIDTH)]
        lines.append(written)
    return "\n".join(lines) + "\n"


def _was(change: Change) -> str:
    return "" if change.before is None else f"{flow(change.before)} before; "


def _places(text: str) -> dict[KeyPath, int]:
    """The line of each key."""
    with TemporaryDirectory(prefix="itemic-recipe-") as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        found = read_source(file).places
    return {path: int(place.rpartition(":")[2]) for path, place in found.items()}


def _written(change: Change, values: Mapping[str, Any], lengths: dict[KeyPath, int]) -> KeyPath:
    """Where a change stands in the new recipe: what was added to a list has a number there."""
    if change.path[-1] != APPEND:
        return change.path
    at = change.path[:-1]
    if at not in lengths:
        here: Any = values
        for key in at:
            here = here.get(key, []) if isinstance(here, Mapping) else here[int(key)]
        lengths[at] = len(here or [])
    lengths[at] += 1
    return (*at, lengths[at] - 1)


def write_improved(
    file: str | Path,
    recipe: Recipe,
    taken: Sequence[Advice],
    *,
    about: Mapping[str, Any],
    force: bool = False,
) -> Path:
    """Write the recipe, and its reasons as ``advice.json`` beside it.

    Args:
        file: the recipe to write.
        recipe: what was run.
        taken: the advice that is followed.
        about: of what run and analysis, for the reader.
        force: whether a recipe that is there may be replaced.

    Returns:
        the file of reasons.

    Raises:
        ConfigError: the file is there.
        RecipeError: the new recipe would have faults.
    """
    path = Path(file)
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already", "Choose another name with -o, or add --force.")
    head = "\n".join(f"{key}: {value}" for key, value in about.items())
    text = improved_text(recipe, taken, head=f"What `itemic advise` made of this:\n{shown(head, lines=True)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = path.with_name(ADVICE)
    write_json(reasons, dict(about) | {"recipe": path.name, "advice": [one.to_json() for one in taken]})
    write_text(path, text)
    return reasons
