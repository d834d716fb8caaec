"""``itemic init``: from a folder of raw files to a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemic.cli.common import Set, print_table, say, settings

if TYPE_CHECKING:
    from itemic.data.look import Found


def init(
    path: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Raw files: a folder, a file, a pattern or a URL.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.")] = Path(
        "recipe.yaml"
    ),
    format: Annotated[
        str | None, typer.Option(help="The source's format.", show_default="what the files look like")
    ] = None,
    option: Set = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take what is proposed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe if it is there.")] = False,
) -> None:
    """Look at raw files and write a recipe sized to them and this machine."""
    from itemic.artifact import write_text
    from itemic.recipe.init import Machine, draft_recipe

    asks = not yes and sys.stdin.isatty()
    if not asks:
        _refuse_to_overwrite(output, force)
    found = _look(path, format, settings(option), asks)
    if asks:
        output = Path(typer.prompt("Write the recipe to", str(output)))
        _refuse_to_overwrite(output, force)
    machine = Machine.here()
    text = draft_recipe(found, machine, output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, text)
    say(f"this machine: {machine}")
    say(f"wrote {output}; next: itemic run {output}")


def _look(path: str, format: str | None, options: dict[str, object], asks: bool) -> Found:
    from itemic.data.look import fitting_formats, look

    if asks and format is None:
        formats = fitting_formats(path) or ("table",)
        format = typer.prompt(f"Format ({', '.join(formats)})", formats[0])
    found = look(path, format, options)
    _show(found)
    if asks and found.format == "table":
        given = _ask_columns(found)
        if given:
            found = look(path, format, {**options, **given})
            _show(found)
    return found


def _show(found: Found) -> None:
    say(f"{found.path} is read as {found.format}")
    for line in found.dataset.notes["read"].get("told", []):
        say(f"  {line}")
    for table in found.tables():
        print_table(table)


def _ask_columns(found: Found) -> dict[str, str]:
    """The columns that play other parts than was guessed."""
    from itemic.text import shown

    given = {}
    for columns in found.dataset.notes["read"]["columns"].values():
        for role, column in columns.items():
            asked = f"The column of each {role} [{shown(column)}]"
            answer = typer.prompt(asked, column, show_default=False)
            if answer != column:
                given[role] = answer
    return given


def _refuse_to_overwrite(output: Path, force: bool) -> None:
    from itemic.errors import ConfigError

    if output.exists() and not force:
        raise ConfigError(f"{output} is there already", "Choose another name with -o, or add --force.")
