"""What the code says of its own settings: meanings from docstrings, types and defaults in words."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

SECTION = re.compile(r"^(Args|Attributes|Options):$")
ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)$|^    (\w+(?:, \w+)*):$")
ELSEWHERE = re.compile(r"^as (?:in ``([^`]+)``|:class:`([\w.]+)` has (?:it|them))\.?$")
REQUIRED = object()
PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "anything"}


@dataclass(frozen=True)
class Setting:
    """One row of a table.

    Attributes:
        name: the key.
        kind: what values there are, in words.
        default: as it would be written in a recipe, or "required".
        meaning: Markdown; empty where the code says nothing.
    """

    name: str
    kind: str
    default: str
    meaning: str


def settings_of(table: type[Any], mirrored: type[Any] | None = None) -> list[Setting]:
    """The fields of a dataclass or of a pydantic model, in order; a model's go by their aliases.

    Args:
        table: whose fields.
        mirrored: a class with the same fields, whose docstring says what ``table``'s doesn't.
    """
    said = (meanings(mirrored, {}) if mirrored else {}) | meanings(table, {})
    hints = get_type_hints(table, include_extras=True)
    found = []
    for name, default in _defaults(table):
        alias = table.model_fields[name].alias if issubclass(table, BaseModel) else None
        found.append(Setting(alias or name, in_words(hints[name]), written(default), said.get(name, "")))
    return found


def options_of(
    call: Any, kinds: Mapping[str, type[Any]] | None = None, without: Sequence[str] = ()
) -> list[Setting]:
    """The keyword arguments of a class or a function."""
    said = meanings(call, kinds or {})
    made = call.__init__ if inspect.isclass(call) else call
    return [
        Setting(
            name, in_words(argument.annotation), written(_default_of(argument.default)), said.get(name, "")
        )
        for name, argument in inspect.signature(made, eval_str=True).parameters.items()
        if argument.kind is argument.KEYWORD_ONLY and name not in without
    ]


def _defaults(table: type[Any]) -> Iterator[tuple[str, Any]]:
    if issubclass(table, BaseModel):
        for name, field in table.model_fields.items():
            yield name, _default_of(field.get_default(call_default_factory=True))
        return
    for field in fields(table):
        made = field.default_factory() if field.default_factory is not MISSING else field.default
        yield field.name, _default_of(made)


def _default_of(value: Any) -> Any:
    return REQUIRED if value in (MISSING, PydanticUndefined, inspect.Parameter.empty) else value


def meanings(thing: Any, kinds: Mapping[str, Any]) -> dict[str, str]:
    """Name → Markdown, from the docstrings of a function, or of a class and its bases.

    Args:
        thing: whose docstrings are read.
        kinds: name → class or function, for entries that say ``as in ``name````.
    """
    found: dict[str, str] = {}
    for each in reversed(inspect.getmro(thing)) if inspect.isclass(thing) else (thing,):
        if each.__module__.startswith("itemic"):
            for name, text in _entries(each.__doc__ or ""):
                found[name] = _meant(name, text, kinds)
    return found


def _entries(doc: str) -> Iterator[tuple[str, str]]:
    """Name and text of every entry of a docstring's sections; one entry may have several names."""
    names: list[str] = []
    text: list[str] = []
    inside = False
    for line in [*inspect.cleandoc(doc).splitlines(), "."]:
        entry = ENTRY.match(line) if inside else None
        if names and (entry or not line.startswith("        ")):
            yield from ((name, " ".join(text)) for name in names)
            names = []
        if entry:
            names, text = (entry[1] or entry[3]).split(", "), [entry[2] or ""]
        elif names:
            text.append(line.strip())
        elif line.strip():
            inside = bool(SECTION.match(line))


def _meant(name: str, text: str, kinds: Mapping[str, Any]) -> str:
    elsewhere = ELSEWHERE.match(text.strip())
    if not elsewhere:
        return markdown(text)
    kind, path = elsewhere.groups()
    module, _, attribute = (path or "").rpartition(".")
    other = kinds[kind] if kind else getattr(import_module(module), attribute)
    return meanings(other, kinds).get(name, markdown(text))


def markdown(text: str) -> str:
    """A docstring's words as Markdown: no roles, single backticks."""
    text = re.sub(r"[,;]? see :\w+:`[^`]*`", "", text.strip())
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def introduction(table: type[Any]) -> str:
    """What stands in a docstring before its sections, as Markdown."""
    before = re.split(r"^(?:Args|Attributes|Options|Raises):$", inspect.getdoc(table) or "", flags=re.M)[0]
    return "\n\n".join(markdown(" ".join(part.split())) for part in before.strip().split("\n\n"))


def summary(thing: Any) -> str:
    """The first paragraph of a docstring, as Markdown."""
    return markdown(" ".join(inspect.getdoc(thing).split("\n\n")[0].split())) if inspect.getdoc(thing) else ""


def in_words(kind: Any) -> str:
    """What values a type has."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is inspect.Parameter.empty or kind in PLAIN:
        return PLAIN.get(kind, "anything")
    if kind is type(None):
        return "none"
    if origin is Annotated:
        return in_words(inner[0]) + _bounds(inner[1:])
    if origin is Literal:
        return _either([f"`{value}`" for value in inner])
    if origin in (Union, types.UnionType):
        return _either([in_words(each) for each in inner])
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "mapping"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        if origin is tuple and inner[-1] is not ...:
            return f"list of {len(inner)}: {in_words(inner[0])}"
        return f"list: {in_words(inner[0])}"
    if inspect.isclass(kind) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
        return "section"
    return "mapping" if kind is dict else str(getattr(kind, "__name__", kind))


def _bounds(limits: Sequence[Any]) -> str:
    """`` ≥ 0``, say; pydantic keeps bounds beside a type, some of them inside a ``Field``."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    flat = [each for limit in limits for each in (limit, *getattr(limit, "metadata", ()))]
    told = [
        f"{sign} {getattr(limit, name)}"
        for limit in flat
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    return " " + ", ".join(dict.fromkeys(told)) if told else ""


def _either(choices: Sequence[str]) -> str:
    return ", ".join(choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else choices[0]


def written(value: Any) -> str:
    """A default as a recipe would have it."""
    if value is REQUIRED:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, BaseModel) or is_dataclass(value):
        return "see below"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value.replace("\n", "\\n") or '""'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", r"e\1", repr(value)).replace("e+", "e")
    return str(value)
