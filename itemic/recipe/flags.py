"""Command-line flags of a training script, from a line or from the shell script that starts it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from itemic.errors import ConfigError

_ASSIGNED = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(\S*|\"[^\"\n]*\"|'[^'\n]*')\s*$", re.M)
_COMMENT = re.compile(r"(?m)^\s*#.*$|(?<=\s)#.*$")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(:-[^}]*)?\})")
ENDS = re.compile(r"^(?:\||&|;|\d?>|<).*")
YES, NO = ("true", "yes", "1"), ("false", "no", "0")
WORLD = ("nnodes", "nproc_per_node", "np", "n")  # of torchrun and mpirun


@dataclass
class Flags:
    """What stands on a command line.

    Attributes:
        given: value by name, without the dashes; the last one where a flag comes twice, as argparse has it.
        ranks: processes that the line starts, where it says so in numbers; else None.
        stray: words that belong to no flag.
    """

    given: dict[str, str | bool] = field(default_factory=dict)
    ranks: int | None = None
    stray: list[str] = field(default_factory=list)


def parse_flags(text: str, switches: frozenset[str] = frozenset()) -> Flags:
    """Read the flags of a Python script.

    Args:
        text: ``--a 1 --b=2 --c``, or a shell script that runs ``python3 ….py --a 1 …`` directly or by torchrun,
            mpirun or ``bash -c "…"``. Variables that the script sets are filled in; others stay as ``${NAME}``.
        switches: names of flags that take no value.

    Raises:
        ConfigError: the text can't be split into words.
    """
    plain = _COMMENT.sub("", text).replace("\\\n", " ")
    before, words = _arguments(_words(plain, _assigned(plain)))
    flags = Flags(ranks=_ranks(before))
    waiting: str | None = None
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            flags.given[name] = value if equals else True
            waiting = None if equals else name
            if equals and name in switches:
                flags.given[name] = _truth(value)
        elif waiting is None:
            flags.stray.append(word)
        elif waiting in switches:
            if word.lower() in (*YES, *NO):
                flags.given[waiting] = _truth(word)
            else:
                flags.stray.append(word)
            waiting = None
        else:
            flags.given[waiting], waiting = word, None
    return flags


def _truth(value: str) -> bool:
    return value.lower() not in NO


def _assigned(text: str) -> dict[str, str]:
    """Variables that a script sets, in order, earlier ones filled in."""
    known: dict[str, str] = {}
    for name, value in _ASSIGNED.findall(text):
        if "$(" not in value and "`" not in value:
            known[name] = _filled(value.strip("\"'"), known)
    return known


def _filled(text: str, known: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return known.get(name) or f"${{{name}{match[3] or ''}}}"

    return _VARIABLE.sub(replace, text)


def _words(text: str, known: Mapping[str, str]) -> list[str]:
    try:
        return [_filled(word, known) for word in shlex.split(text)]
    except ValueError as error:
        raise ConfigError(
            f"the flags can't be read: {str(error).lower()}", "Give the training command alone."
        ) from error


def _arguments(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before the script's name, and those after it up to where the command ends."""
    nested = [word for word in words if ".py " in word and "--" in word]  # bash -c "python3 train.py --a 1"
    if nested:
        outer = words[: words.index(nested[-1])]
        inner, rest = _arguments(_words(nested[-1], {}))
        return [*outer, *inner], rest
    # the script is the first Python file that flags follow: a wrapper comes before it, values after it
    scripts = (
        place + 1
        for place, (word, after) in enumerate(pairwise([*words, "--"]))
        if word.endswith(".py") and (after.startswith("--") or ENDS.match(after))
    )
    start = next(scripts, 0)
    return words[: max(start - 1, 0)], list(_until_the_end(words[start:]))


def _until_the_end(words: list[str]) -> Iterator[str]:
    for word in words:
        if ENDS.match(word):
            return
        yield word


def _ranks(words: list[str]) -> int | None:
    """Nodes times processes a node, or mpirun's number; None where it is not said in numbers."""
    found: dict[str, str] = {}
    for word, after in pairwise([*words, ""]):
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if word.startswith("-") and name in WORLD:
            found[name] = value if equals else after
    if not found or not all(value.isdigit() for value in found.values()):
        return None
    if "nproc_per_node" in found:
        return int(found["nproc_per_node"]) * int(found.get("nnodes", "1"))
    return int(found["np"]) if "np" in found else int(found["n"]) if "n" in found else None
