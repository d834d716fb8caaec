"""``itemic recipe``: the recipes that come with the package, and recipes from other systems' settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itemic.cli.common import AsJson, print_json, say

app = typer.Typer(help="Recipes: list, show, copy, import other systems' settings.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="What `itemic recipe list` shows.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """The recipes that come with itemic, and the files that go with them."""
    from itemic.recipe.shipped import companion_names, describe_recipe, recipe_names

    about = {name: describe_recipe(name) for name in recipe_names()}
    if as_json:
        print_json({"recipes": about, "files": companion_names()})
        return
    wide = max(map(len, about))
    for name, text in about.items():
        say(f"{name:<{wide}}  {text}")
    say("\nFiles that go with them, copied one by one or folder by folder:")
    for name in companion_names():
        say(f"  {name}")


@app.command()
def show(name: Name) -> None:
    """Print a shipped recipe or file."""
    from itemic.errors import ConfigError
    from itemic.recipe.shipped import find_shipped

    file = find_shipped(name)
    if file.is_dir():
        raise ConfigError(f"{name} is a folder", f"`itemic recipe copy {name}` writes its files.")
    typer.echo(file.read_text(encoding="utf-8"), nl=False)


@app.command()
def copy(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="What to write.", show_default="its own name in this folder"),
    ] = None,
) -> None:
    """Copy a shipped recipe, file or folder, to change it."""
    from itemic.recipe.shipped import copy_shipped

    say(f"wrote {copy_shipped(name, output)}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="OpenOneRec's data configuration, a JSON file.")],
    flags: Annotated[
        str | None, typer.Option("--flags", help='Its training flags: "--learning_rate 2e-4 …".')
    ] = None,
    flags_file: Annotated[
        Path | None, typer.Option("--flags-file", help="The shell script that has them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The recipe to write.", show_default="the screen")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the run.", show_default="that of --output_dir")] = None,
    ranks: Annotated[
        int | None, typer.Option(help="GPUs that train.", min=1, show_default="what the script says")
    ] = None,
) -> None:
    """Write a recipe that says what OpenOneRec's files say; what it can't say is told."""
    from itemic.artifact import write_text
    from itemic.errors import ConfigError
    from itemic.recipe.openonerec import import_openonerec

    if flags is not None and flags_file is not None:
        raise ConfigError("flags come twice", "Give --flags or --flags-file.")
    if output is not None and output.exists():
        raise ConfigError(f"{output} is there already", "Choose another name, or remove it.")
    if flags_file is not None:
        try:
            flags = flags_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{flags_file} can't be read: {error}", "Give a shell script.") from error
    found = import_openonerec(file, flags, name=name, ranks=ranks)
    for line in found.told:
        say(f"note: {line}", err=True)
    if output is None:
        typer.echo(found.text, nl=False)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, found.text)
    typer.echo(f"wrote {output}")
