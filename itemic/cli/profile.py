"""``itemic profile``: users described in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemic.cli.common import AsJson, print_json, print_table, start_logging
from itemic.errors import ConfigError

if TYPE_CHECKING:
    from itemic.profile.told import Described, Edited

app = typer.Typer(
    help="Users described in words: profiles, what they bring up, edits, tests.", no_args_is_help=True
)

Folder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The folder of a finished run whose recipe has a section profile."),
]
User = Annotated[str | None, typer.Option(help="A user of the dataset.")]
History = Annotated[
    str | None, typer.Option("--history", metavar="ID,ID,…", help="Items instead of a user, oldest first.")
]
First = Annotated[
    bool,
    typer.Option("--first", help="Read the user's first items, as sessions show them, not their latest."),
]
K = Annotated[int, typer.Option("-k", help="How many items.", min=1)]


@app.command()
def write(
    folder: Folder,
    user: User = None,
    history: History = None,
    first: First = False,
    samples: Annotated[
        int | None, typer.Option(help="Draw so many profiles.", min=1, show_default="the most probable one")
    ] = None,
    k: K = 10,
    seed: Annotated[
        int | None, typer.Option(help="Of the drawing.", min=0, show_default="the recipe's")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Describe a user in words, and show which items that brings up and which sentences do so.

    What a sentence brings is how much the items' scores fall without it. Names of categories and brands are held
    against the history that was read.
    """
    from itemic.pipeline.described import write_profile

    start_logging()
    _show(
        write_profile(folder, user=user, items=_ids(history), samples=samples, first=first, k=k, seed=seed),
        as_json,
    )


@app.command()
def edit(
    folder: Folder,
    user: User = None,
    history: History = None,
    first: First = False,
    profile: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The profile as it was.", show_default="what the writer writes"),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="The new profile.")] = None,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", metavar="FILE", help="The same from a file.")
    ] = None,
    sentence: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Put the text in the place of this sentence alone; an empty one takes it out.",
            min=1,
        ),
    ] = None,
    k: K = 10,
    as_json: AsJson = False,
) -> None:
    """Show what another profile changes in the list of a person.

    Text is read as plain words: HTML goes, other scripts and emoji stay.
    """
    from itemic.pipeline.described import edit_profile

    if (text is None) == (text_file is None):
        raise ConfigError("nothing says what the profile is to be", "Give one of --text and --text-file.")
    start_logging()
    _show(
        edit_profile(
            folder,
            text=_read(text_file) if text_file is not None else text or "",
            sentence=sentence,
            profile=profile,
            user=user,
            items=_ids(history),
            first=first,
            k=k,
        ),
        as_json,
    )


@app.command()
def evaluate(
    folder: Folder,
    split: Annotated[
        str | None, typer.Option(help="valid or test.", show_default="what the recipe evaluates")
    ] = None,
    users: Annotated[
        int | None, typer.Option(help="How many sessions are asked.", min=1, show_default="the recipe's")
    ] = None,
    k: Annotated[
        str | None, typer.Option("-k", help="Cuts of the metrics.", show_default="the recipe's")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="KEY=VALUE",
            help="A key of the recipe's profile.evaluate, such as judge=false.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of whom is asked, and what is drawn.", min=0, show_default="the recipe's"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Tables and answers.", show_default="RUN/profile/SPLIT"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test profiles: who finds what users took next, and what the profiles are worth beside that.

    Whoever is interrupted and asks again goes on from the answers that are there.
    """
    from itemic.cli.common import settings as pairs
    from itemic.cli.evaluate import cuts_of
    from itemic.pipeline.profiles import described_job, evaluate_profiles
    from itemic.profile.evaluation_settings import ProfileTests
    from itemic.settings import settings_from, settings_json

    start_logging()
    part = described_job(folder).recipe.profile
    asked = None if part is None else part.evaluate
    given = {} if asked is None else settings_json(asked)
    given |= {"users": users} if users is not None else {}
    given |= {"k": cuts_of(k)} if k is not None else {}
    tests = settings_from(ProfileTests, given | pairs(options))
    found = evaluate_profiles(folder, tests, split=split, seed=seed, output=output)
    if as_json:
        print_json(found.to_json())
        return
    for table in (found.table(), found.judged_table()):
        if table is not None:
            print_table(table)


def _ids(history: str | None) -> list[str] | None:
    return None if history is None else [item.strip() for item in history.split(",")]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text in UTF-8: {error}", "Save it as UTF-8.") from None


def _show(found: Described | Edited, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
        return
    for table in found.tables():
        print_table(table)
