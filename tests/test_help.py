"""Help: short and long, one line a command, defaults said, examples that can be run, completion."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from itemic.cli.app import app, call
from itemic.cli.help import EXAMPLES, one_line

ROOT = typer.main.get_command(app)


def walk(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from walk(command, (*path, name))


EVERY = list(walk())


@pytest.mark.parametrize("path", [path for path, _ in EVERY], ids=" ".join)
def test_short_help_is_the_same_and_fits_a_terminal(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = []
    for flag in ("-h", "--help"):
        assert call([*path, flag]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    text, _, examples = shown[0].partition("Examples:")
    assert max(map(len, text.splitlines())) <= 80
    assert max(map(len, examples.splitlines()), default=0) <= 110
    assert "..." not in text.partition("-h, --help")[2]  # where groups list their commands


@pytest.mark.parametrize(
    ("path", "command"), EVERY, ids=lambda one: " ".join(one) if isinstance(one, tuple) else ""
)
def test_every_parameter_says_what_it_is_and_its_default(path: tuple[str, ...], command: Any) -> None:
    context = command.context_class(command, info_name="itemic")
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False):
            continue
        assert parameter.help, f"itemic {' '.join(path)}: {parameter.name} has no help"
        told = parameter.get_help_record(context)[1]
        switch = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
        if parameter.default in (None, (), []) or callable(parameter.default) or switch:
            continue
        assert "default: " in told, f"itemic {' '.join(path)}: {parameter.name} doesn't say its default"


def test_commands_stand_under_headings(capsys: pytest.CaptureFixture[str]) -> None:
    call(["-h"])
    lines = capsys.readouterr().out.splitlines()
    rooms = lines.index("Room by room:")
    runs = lines.index("A run of a recipe:")
    assert runs < rooms
    assert [line.split()[0] for line in lines[runs + 1 : runs + 3]] == ["init", "run"]
    assert {line.split()[0] for line in lines[rooms + 1 :]} == {
        "data",
        "sid",
        "tasks",
        "profile",
        "rl",
        "teacher",
        "control",
        "model",
        "train",
        "evaluate",
    }


def test_a_line_is_a_sentence_or_whole_clauses() -> None:
    assert one_line("Short one. And more.\n\nMuch more.", 60) == "Short one."
    assert (
        one_line("Rank all items, exactly, by beams that are constrained.", 30) == "Rank all items, exactly."
    )
    assert one_line("Show it (-s sets what it is), at length.", 20) == "Show it."
    assert one_line("Nothing here can be cut at all", 20) == "Nothing here can…"


def test_examples_can_be_parsed_and_are_of_commands_that_there_are() -> None:
    from tests.test_docs import parse

    known = {" ".join(path) for path, _ in EVERY}
    assert set(EXAMPLES) <= known
    for path, lines in EXAMPLES.items():
        for line in lines:
            words = shlex.split(line)
            assert words[0] == "itemic"
            assert " ".join(words[1:]).startswith(path)
            parse(words[1:])


def test_the_shell_completes_commands_and_options() -> None:
    code = "import sys; sys.argv = ['itemic']; from itemic.cli import main; main()"
    for words, expected in (
        ("itemic re", {"recipe", "recommend", "report"}),
        ("itemic run --un", {"--until"}),
    ):
        environment = os.environ | {
            "_ITEMIC_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert expected <= set(done.stdout.split()), done.stderr
