"""The command line as Markdown: every command, what it does, its arguments and options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main
from meanings import markdown, written

from itemic.cli.app import app


def commands() -> Iterator[str]:
    """Blocks of Markdown for all commands, groups first to last."""
    yield "## Command line\n\nWhat each command takes; `itemic COMMAND --help` says the same."
    yield from _commands("itemic", typer.main.get_command(app))


def _commands(path: str, command: Any) -> Iterator[str]:
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from _commands(f"{path} {name}", each)
    if not hasattr(command, "commands"):
        yield f"### `{path}`\n\n{' '.join(markdown(command.help or '').split())}"
        rows = [_row(parameter) for parameter in command.params if not parameter.hidden]
        yield "\n".join(["| argument | default | meaning |", "| --- | --- | --- |", *rows])


def _row(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    name = (
        ", ".join(sorted(parameter.opts, key=len, reverse=True))
        if option
        else parameter.metavar or parameter.name.upper()
    )
    if option and not parameter.is_flag:
        name += f" {parameter.metavar or parameter.name.upper()}"
    said = " ".join(markdown(parameter.help or "").split()).replace("|", "\\|")
    return f"| `{name}` | {_default(parameter)} | {said} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default.replace("<", "&lt;")
    default = parameter.default() if callable(parameter.default) else parameter.default
    nothing = default is None or default is False or default in ([], ())
    return "" if nothing else written(getattr(default, "value", default))
