"""Reading a recipe's text: values with the place each one came from, overrides, environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from itemic.recipe.shipped import find_recipe, shipped_hint
from itemic.settings import KeyPath
from itemic.training.language.stage import WORDS

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")


class _Loader(yaml.SafeLoader):
    """Safe YAML as version 1.2 has it where that matters here: ``1e-3`` is a number, a date is a text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - declared so by yaml
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, which key, and what."""

    place: str
    path: KeyPath
    problem: str

    def __str__(self) -> str:
        return (
            f"{self.place}: {show(self.path)}: {self.problem}"
            if self.path
            else f"{self.place}: {self.problem}"
        )


def show(path: KeyPath) -> str:
    """A key path as a reader would write it, e.g. ``stages.0.epochs``."""
    return ".".join(str(key) for key in path)


@dataclass
class Source:
    """A recipe's values before they are checked.

    Attributes:
        file: as the user named it.
        value: the mapping, overrides and environment variables applied.
        places: for each key path, ``file:line`` or the override it came from.
        faults: what was wrong with the text itself.
        unset: for each key path whose text has a variable that fell back to its default, the variable's name.
    """

    file: str
    value: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    unset: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where a key stands; where it is missing, the nearest key around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.file

    def fault(self, path: KeyPath, problem: str) -> None:
        self.faults.append(Fault(self.place(path), path, problem))


def read_source(file: str | Path, overrides: Iterable[str] = ()) -> Source:
    """Read a recipe's text, a file or a shipped one by its name; whatever is wrong is among the ``faults``."""
    path = find_recipe(file)
    source = Source(str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = shipped_hint(path) if isinstance(error, FileNotFoundError) else ""
        source.fault((), f"can't be read: {getattr(error, 'strerror', None) or error}{hint}")
        return source
    _parse(text, source)
    if not source.faults:
        for override in overrides:
            _override(source, override)
        source.value = _expand(source.value, (), source)
    return source


def _parse(text: str, source: Source) -> None:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = {} if node is None else _construct(node, (), source, loader, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source.file}:{mark.line + 1}" if mark else source.file
        source.faults.append(Fault(place, (), f"not valid YAML: {error.problem or error.context}"))
        return
    except yaml.YAMLError as error:
        source.fault((), f"not valid YAML: {error}")
        return
    finally:
        loader.dispose()
    if isinstance(value, dict):
        source.value = value
    else:
        source.fault((), "a recipe is a mapping of keys, such as `name: …`")


def _construct(
    node: yaml.Node, path: KeyPath, source: Source, loader: _Loader, above: tuple[int, ...]
) -> Any:
    """The plain value of a node; notes on the way where each key stands."""
    source.places.setdefault(path, f"{source.file}:{node.start_mark.line + 1}")
    if id(node) in above:
        source.fault(path, "refers to itself")
        return None
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_construct(child, (*path, i), source, loader, above) for i, child in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    own = {id(key) for key, _ in node.value}
    loader.flatten_mapping(node)  # resolves `<<: *anchor`
    mapping: dict[str, Any] = {}
    written: set[str] = set()
    for key_node, child in node.value:
        key = str(key_node.value)
        below = (*path, key)
        if key in written and id(key_node) in own:
            source.fault(below, f"comes twice (again in line {key_node.start_mark.line + 1})")
            continue
        written.add(key) if id(key_node) in own else None
        source.places[below] = f"{source.file}:{key_node.start_mark.line + 1}"
        mapping[key] = _construct(child, below, source, loader, above)
    return mapping


def _override(source: Source, text: str) -> None:
    """Apply one ``a.b.0.c=value``; the value is YAML."""
    place = f"-s {text}"
    name, equals, raw = text.partition("=")
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in name.strip().split("."))
    if not equals or "" in path:
        source.faults.append(Fault(place, (), "an override is KEY=VALUE, such as stages.0.epochs=2"))
        return
    try:
        value = yaml.load(raw, _Loader)
    except yaml.YAMLError as error:
        source.faults.append(
            Fault(place, path, f"the value is not valid YAML: {getattr(error, 'problem', error)}")
        )
        return
    problem = _assign(source.value, path, value)
    if problem:
        source.faults.append(Fault(place, path, problem))
        return
    for known in [known for known in source.places if known[: len(path)] == path]:
        del source.places[known]
    source.places[path] = place


def _assign(root: dict[str, Any], path: KeyPath, value: Any) -> str | None:
    """Set the value at a path, making mappings on the way; what is wrong if it can't be.

    A part that is written as a bare word has keys like any other, and a bare word for a part with keys is its name.
    """
    here: Any = root
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, list):
            if not isinstance(key, int) or key >= len(here):
                return (
                    f"{show(path[:depth])} is a list of {len(here)}; use a number from 0 to {len(here) - 1}"
                )
        elif isinstance(here, dict):
            key = str(key)
            if not last and here.get(key) is None:
                here[key] = {}
            if key in WORDS and not last and isinstance(here[key], str):
                here[key] = {WORDS[key]: here[key]}
            if key in WORDS and last and isinstance(value, str) and isinstance(here.get(key), dict):
                here, key = here[key], WORDS[key]
        else:
            return f"{show(path[:depth])} is a single value and has no key {str(key)!r}"
        if last:
            here[key] = value
        else:
            here = here[key]
    return None


def _expand(value: Any, path: KeyPath, source: Source) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in every text."""
    if isinstance(value, dict):
        return {key: _expand(child, (*path, key), source) for key, child in value.items()}
    if isinstance(value, list):
        return [_expand(child, (*path, i), source) for i, child in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        given = os.environ.get(match["name"])
        found = given or match["default"]
        if not given and found is not None:
            source.unset[path] = match["name"]
        if found is None:
            source.fault(path, f"the environment variable {match['name']} is not set and has no default")
            return ""
        return found

    return _VARIABLE.sub(replace, value)
