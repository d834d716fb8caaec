"""Files of JSON lines that grow: the first line says whose they are, and what they have isn't made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from itemic.errors import ArtifactError

Line = dict[str, Any]


def kept_lines(file: Path, head: Mapping[str, Any], what: str) -> list[Line]:
    """The whole lines that a file has behind its head; a line that was being written when a run ended goes. A file that
    isn't there is begun.

    Args:
        file: of JSON lines.
        head: plain JSON that says whose lines they are.
        what: what it holds where the head is another one, for the error.

    Raises:
        ArtifactError: the file has another head, or none.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = text.split("\n")[:-1]  # JSON lets other line ends pass
    if not lines:
        file.write_text(json.dumps(head) + "\n", encoding="utf-8")
        return []
    try:
        same = json.loads(lines[0]) == json.loads(json.dumps(head))
        found = [json.loads(line) for line in lines[1:]] if same else []
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged: {error}", "Remove it; it is made anew.") from error
    if not same:
        raise ArtifactError(f"{file} holds {what}", "Give another output folder, or remove this one.")
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return found


def add_lines(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write some more."""
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(map(written, lines))


def written(line: Mapping[str, Any]) -> str:
    """One line."""
    return json.dumps(line, ensure_ascii=False) + "\n"


def grown(
    file: Path,
    head: Mapping[str, Any],
    count: int,
    make: Callable[[int, int], Sequence[Line]],
    *,
    chunk: int,
    what: str,
) -> list[Line]:
    """``count`` lines, of which those that aren't in the file yet are made, chunk by chunk.

    Args:
        file: of JSON lines.
        head: says whose they are.
        count: how many there are in the end.
        make: of ``start`` and ``stop`` the lines from the one to the other.
        chunk: how many are made between two looks at the disk; chunks always begin at its multiples, so that whatever
            is computed together is the same however often a run was stopped.
        what: as in :func:`kept_lines`.

    Raises:
        ArtifactError: the file has another head, or none.
    """
    found = kept_lines(file, head, what)
    whole = count if len(found) == count else len(found) // chunk * chunk
    if whole < len(found):  # a part of a chunk came to the disk
        file.unlink()
        kept_lines(file, head, what)
        add_lines(file, found[:whole])
    found = found[:whole]
    for start in range(whole, count, chunk):
        made = make(start, min(start + chunk, count))
        add_lines(file, made)
        found += made
    return found
