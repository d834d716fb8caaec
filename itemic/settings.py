"""Settings: small frozen tables that check themselves, in Python as in a recipe, and say all that is wrong at once.

A class of settings is a dataclass of pydantic's. Its fields say their types and ranges; what ties two fields together
stands in validators, which raise :func:`wrong`. Made in Python, it raises our :class:`ConfigError`; inside of another
one or of a recipe its faults become theirs, each with its key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import InitErrorDetails, PydanticCustomError

from itemic.errors import ConfigError

__all__ = [
    "Amount",
    "Count",
    "KeyPath",
    "Listed",
    "NotNegative",
    "Number",
    "PartOfOne",
    "Positive",
    "Share",
    "Switch",
    "Text",
    "Whole",
    "config_error",
    "faults_of",
    "flat_settings",
    "keys_of",
    "meant",
    "named",
    "settings",
    "settings_from",
    "settings_json",
    "some_of",
    "wrong",
]

T = TypeVar("T")
KeyPath = tuple[str | int, ...]
MISSING_KEY = "is missing"

# A number in quotes is no number, and true is none either.
Text = Annotated[str, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Amount = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
PartOfOne = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Listed = BeforeValidator(_tupled)  # of a tuple, which YAML and JSON write as a list

if TYPE_CHECKING:
    from dataclasses import dataclass as settings
else:

    def settings(*, frozen: bool, repr: bool = True) -> Any:
        """Make a class one of settings: unknown keys are refused, and whatever is wrong is a :class:`ConfigError`."""

        def made(cls: type[T]) -> type[T]:
            checked = pydantic_dataclass(
                cls,
                frozen=frozen,
                repr=repr,
                config=ConfigDict(extra="forbid", arbitrary_types_allowed=False),
            )
            plain = checked.__init__

            @wraps(plain)
            def __init__(self: Any, *args: Any, **given: Any) -> None:
                try:
                    plain(self, *args, **given)
                except ValidationError as error:
                    raise config_error(type(self), error) from None

            checked.__init__ = __init__
            return checked

        return made


def named(key: str) -> BeforeValidator:
    """Of a part that may be written as a bare word, which is its ``key``: ``schedule: linear``."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def some_of(cls: Any, *without: str) -> BeforeValidator:
    """Of a mapping with some of the keys of settings, ``without`` a few, where others say what isn't given. Its values
    are checked as the settings', and it stays a mapping."""

    def checked(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        faults: list[tuple[KeyPath, str]] = []
        faults += [((key,), _unknown(key, cls, without)) for key in value if key in without]
        try:
            TypeAdapter(cls).validate_python({key: each for key, each in value.items() if key not in without})
        except ValidationError as error:
            faults += [
                (path, problem)
                for path, problem in faults_of(cls, error)
                if len(path) > 1 or problem != MISSING_KEY
            ]
        if faults:
            raise _all_wrong(faults, value)
        return value

    return BeforeValidator(checked)


def wrong(problem: str, value: Any = None, *path: str | int) -> ValidationError:
    """What a validator raises: ``problem``, at the key that it looks at or at one below it."""
    return _all_wrong([(path, problem)], value)


def _all_wrong(faults: Iterable[tuple[KeyPath, str]], value: Any) -> ValidationError:
    lines = []
    for path, problem in faults:
        found = PydanticCustomError("itemic", "{problem}", {"problem": problem})
        lines.append(InitErrorDetails(type=found, loc=path, input=value))
    return ValidationError.from_exception_data("", lines)


def settings_from(cls: type[T], value: T | Mapping[str, Any] | None) -> T:
    """Settings from a mapping, as a recipe has it.

    Raises:
        ConfigError: naming every key and every value that can't work.
    """
    if isinstance(value, cls):
        return value
    try:
        return TypeAdapter(cls).validate_python({} if value is None else value)
    except ValidationError as error:
        raise config_error(cls, error) from None


def settings_json(value: Any, *, usual: bool = True) -> Any:
    """Settings as plain mappings, lists and values.

    Args:
        value: settings, or what stands in them.
        usual: with what is at its default as well.
    """
    if is_dataclass(value) and not isinstance(value, type):
        told = ((field, getattr(value, field.name)) for field in fields(value))
        return {
            field.name: settings_json(each, usual=usual)
            for field, each in told
            if usual
            or each != (field.default if field.default_factory is MISSING else field.default_factory())
        }
    if isinstance(value, tuple | list):
        return [settings_json(each, usual=usual) for each in value]
    if isinstance(value, Mapping):
        return {key: settings_json(each, usual=usual) for key, each in value.items()}
    return value


def flat_settings(value: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted keys: ``{"schedule.warmup": 0.05, …}``."""
    found: dict[str, Any] = {}
    for field in fields(value):
        key, each = prefix + field.name, getattr(value, field.name)
        found |= flat_settings(each, f"{key}.") if is_dataclass(each) else {key: settings_json(each)}
    return found


def config_error(cls: type[Any], error: ValidationError) -> ConfigError:
    """The faults that pydantic found in settings, as one error of ours."""
    told = []
    for path, problem in faults_of(cls, error):
        key = ".".join(map(str, path))
        space = " " if problem.startswith(("is ", "must ", "needs ")) else ": "
        told.append(f"{key}{space}{problem}" if key else problem)
    return ConfigError(f"{cls.__name__}: {'; '.join(told)}", "Mend these keys.")


def faults_of(cls: Any, error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    """What pydantic found in values for ``cls``: the key, and what is wrong with it; a key's faults are one."""
    found: dict[KeyPath, list[Any]] = {}
    for fault in error.errors(include_url=False):
        first, *rest = fault["loc"] or (None,)
        if isinstance(first, int) and is_dataclass(cls):  # made in Python, and told by its place
            first = fields(cls)[first].name
        path, kinds = _path_of(cls, () if first is None else (first, *rest))
        found.setdefault(path, []).append((fault, kinds))
    for path, faults in found.items():
        yield path, _problem(path, *zip(*faults, strict=True))


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where a known word is near, else the known words."""
    choices = list(known)
    near = difflib.get_close_matches(word, choices, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(choices)}"


def _problem(path: KeyPath, faults: tuple[Any, ...], kinds: tuple[Any, ...]) -> str:
    fault, around = faults[0], kinds[0]
    kind, value = fault["type"], fault.get("input")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown(str(path[-1]), around)
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return MISSING_KEY
    if kind == "itemic":
        return str(fault["msg"])
    if kind in ("model_type", "dict_type", "dataclass_type"):
        return f"must be a mapping of keys, not {value!r}"
    words = [str(each["msg"]) for each in faults if each["type"] != "dataclass_type"]
    near = ""
    if kind == "literal_error" and isinstance(value, str):
        choices = [choice for each in faults for choice in _choices(each)]
        near = (
            f"; did you mean {best[0]!r}?" if (best := difflib.get_close_matches(value, choices, 1)) else ""
        )
    first, *others = dict.fromkeys(word[0].lower() + word[1:] for word in words)
    told = " or ".join([first, *(word.removeprefix("input should be ") for word in others)])
    return f"is {value!r}: {told}{near}"


def _choices(fault: Any) -> list[str]:
    return re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))


def _unknown(key: str, around: Any, without: Iterable[str] = ()) -> str:
    moved: Mapping[str, str] = getattr(around, "MOVED", {})
    if key in moved:
        return f"is {moved[key]} now"
    known = [name for name in keys_of(around) if name not in without] if around is not None else []
    near = difflib.get_close_matches(key, [*known, *moved], 1)
    return (
        f"unknown key; did you mean {moved.get(near[0], near[0])!r}?"
        if near
        else "unknown key" + meant(key, known)
    )


def keys_of(cls: Any) -> list[str]:
    """The keys that settings, or a section of a recipe, have."""
    if issubclass(cls, BaseModel):
        return [field.alias or name for name, field in cls.model_fields.items()]
    return [field.name for field in fields(cls)]


def _path_of(cls: Any, loc: KeyPath) -> tuple[KeyPath, Any]:
    """The keys of pydantic's path to a fault, without the names it has for the choices of a union; and the class that
    the last of them belongs to, if it is one of settings."""
    path: list[str | int] = []
    here, around = cls, None
    for key in loc:
        tables = list(_tables(here))
        if tables:
            around = next((table for table in tables if key in keys_of(table)), tables[0])
            if any(table.__name__ == key for table in tables):
                continue
            path.append(key)
            here = _types(around).get(str(key))
        elif isinstance(key, int) or here in (None, Any) or _is_mapping(here):
            path.append(key)
            around, here = None, _inner(here, key)
    return tuple(path), around


def _types(cls: Any) -> dict[str, Any]:
    if issubclass(cls, BaseModel):
        return {field.alias or name: field.annotation for name, field in cls.model_fields.items()}
    return {name: field.annotation for name, field in cls.__pydantic_fields__.items()}


def _tables(kind: Any) -> Iterator[type[Any]]:
    """The classes of settings and of sections that a value of this type can be; not those inside of a list."""
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or hasattr(kind, "__pydantic_fields__")):
        yield kind
    elif not _is_list(kind) and not _is_mapping(kind):
        for inner in get_args(kind):
            yield from _tables(inner)


def _bare(kind: Any) -> list[Any]:
    """The types of a union, or the only one, what is annotated without its annotation."""
    inner = get_args(kind)
    if hasattr(kind, "__metadata__"):
        return _bare(inner[0])
    if inner and getattr(kind, "__origin__", None) is None:  # A | B
        return [each for one in inner for each in _bare(one)]
    return [kind]


def _is_list(kind: Any) -> bool:
    return any(getattr(each, "__origin__", each) in (list, tuple) for each in _bare(kind))


def _is_mapping(kind: Any) -> bool:
    return any(getattr(each, "__origin__", each) in (dict, Mapping) for each in _bare(kind))


def _inner(kind: Any, key: str | int) -> Any:
    for each in _bare(kind):
        if getattr(each, "__origin__", None) in (list, tuple) and isinstance(key, int):
            return get_args(each)[0]
        if getattr(each, "__origin__", None) is dict:
            return get_args(each)[1]
    return None
