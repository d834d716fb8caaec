"""The files and folders that a recipe reads: which there are, and which are missing."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from itemic.recipe.schema import DataPart
from itemic.settings import KeyPath

WILD = "*?["
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def missing_inputs(sections: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What a recipe's sections name and nobody can find. Nothing is asked of remote stores."""
    named: list[tuple[KeyPath, str | None]] = []
    if (data := sections.get("data")) is not None:
        named.append((("data", "path"), data.path))
    if (index := sections.get("index")) is not None:
        named.append((("index", "import"), index.published))
    if (model := sections.get("model")) is not None:
        named.append((("model", "base"), model.base))
    if (profile := sections.get("profile")) is not None:
        named.append((("profile", "writer", "base"), profile.writer.base))
    if (distribution := sections.get("distribution")) is not None:
        named.append((("distribution", "config"), distribution.config))
    for i, task in enumerate(sections.get("tasks") or []):
        if (file := task.arguments.get("path")) is not None:
            named.append((("tasks", i, "path"), file))
    for path, value in named:
        if value is not None and not _remote(value) and not local_files(value):
            yield path, f"there is nothing at {value}"
    if (conversations := sections.get("conversations")) is not None:
        for i, file in enumerate(conversations.files):
            for problem in _missing_conversations(file):
                yield ("conversations", "files", i), problem


def on_the_hub(name: str) -> bool:
    """Whether a name that is no folder here may be a model's on the Hugging Face hub, ``owner/model``."""
    return _HUB_NAME.fullmatch(name) is not None


def _missing_conversations(value: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    if _remote(value):
        return
    if value in above:
        yield f"{value} lists itself"
    elif not local_files(value):
        yield f"there is nothing at {value}"
    elif value.endswith(".json"):
        yield from _missing_in_list(value, (*above, value))


def _missing_in_list(value: str, above: tuple[str, ...]) -> Iterator[str]:
    try:
        names = read_list(value)
    except ValueError as error:
        yield f"{value}: {error}"
        return
    lacking = [name for name in names if not _remote(name) and not local_files(name)]
    if lacking:
        rest = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        yield f"{value} lists files that are not there: {lacking[0]}{rest}"
    for name in names:
        if name.endswith(".json") and name not in lacking:
            yield from _missing_conversations(name, above)


def _remote(path: str) -> bool:
    return "://" in path


def local_files(path: str) -> list[str]:
    """What a local path or glob names, in order of the names; empty where there is nothing."""
    if any(mark in path for mark in WILD):
        return sorted(glob.glob(str(Path(path).expanduser()), recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
    return [path] if Path(path).expanduser().exists() else []


def read_list(file: str | Path) -> list[str]:
    """The paths in a JSON list of files.

    Raises:
        ValueError: it is none.
    """
    try:
        names = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError('is no list of paths, ["a.parquet", …]')
    return names


def data_inputs(data: DataPart) -> dict[str, str | list[str]]:
    """What raw data are read from: a path or files, and what options name beside a file: items, users."""
    if data.path is None:
        return {}
    wild = any(mark in data.path for mark in WILD) and not _remote(data.path)
    found: dict[str, str | list[str]] = {"path": local_files(data.path) if wild else data.path}
    beside = not _remote(data.path) and not Path(data.path).expanduser().is_dir()
    for name in ("items", "users"):
        named = data.options.get(name)
        if isinstance(named, str) and beside:
            found[name] = named if _remote(named) else local_files(str(Path(data.path).parent / named))
    return found


def conversation_inputs(path: str) -> list[str]:
    """All that decides what a path of conversations holds: the path itself, or what a glob or list names."""
    if _remote(path):
        return [path]
    if path.endswith(".json"):
        return [file for name in read_list(path) for file in conversation_inputs(name)]
    return local_files(path)
