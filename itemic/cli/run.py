"""``itemic run``, ``itemic check``, ``itemic recommend`` and ``itemic report``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemic.cli import state
from itemic.cli.common import AsJson, print_json, print_table, say, start_logging
from itemic.errors import ConfigError

if TYPE_CHECKING:
    from itemic.pipeline import Planned, Run
    from itemic.pipeline.wanted import ListMode

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A YAML file, or a name that `itemic recipe list` shows.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key, e.g. stages.0.epochs=2."),
]


def check(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE|RUN", help="A recipe, or a folder that a run or command made.")
    ],
    override: Overrides = None,
    shapes: Annotated[
        bool,
        typer.Option("--shapes", help="Show parameters, bytes and tokens of each stage; needs no weights."),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="For --shapes: config.json of a base model that isn't there."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="For --shapes: how many tokens its tokenizer has.", min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report all faults of a recipe at once, with their lines, and the files that it waits for.

    Of a folder, read all files and name each that is damaged, missing or new; the exit status is 1 where it is damaged.
    """
    from itemic.recipe import check_recipe
    from itemic.recipe.shipped import find_recipe
    from itemic.recipe.trackers import trackers_of
    from itemic.trackers import check_trackers

    if recipe.is_dir() and find_recipe(recipe) == recipe:
        _check_folder(recipe, as_json)
        return
    found, waiting = check_recipe(recipe, override or [])
    told = check_trackers(trackers_of(found))
    stages = found.trained
    seen = None
    if shapes or config is not None or tokens is not None:
        from itemic.pipeline.shapes import recipe_shapes

        seen = recipe_shapes(found, config, tokens)
    if as_json:
        about = {
            "name": found.name,
            "stages": stages,
            "waits_for": [str(fault) for fault in waiting],
            "notes": told,
        }
        print_json(about | {"shapes": None if seen is None else seen.to_json()})
        return
    say(f"{recipe} is sound: run {found.name!r} trains {', '.join(stages) or 'nothing'}")
    for fault in waiting:
        say(f"  it waits for {fault}")
    for line in told:
        say(f"  {line}")
    if seen is not None:
        print_table(seen.table())


def _check_folder(folder: Path, as_json: bool) -> None:
    from itemic.pipeline import verify_folder

    found = verify_folder(folder)
    if as_json:
        print_json([held.to_json() for held in found])
    else:
        for held in found:
            say(str(held))
    if not all(held.ok for held in found):
        raise typer.Exit(1)


def run(
    recipe: RecipeFile,
    override: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder.", show_default="runs/<name>")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Do this step and all after it again.",
            show_default="what is stale",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="STEP", help="Stop after this step.", show_default="the last")
    ] = None,
    force: Annotated[bool, typer.Option(help="Do again what is up to date.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild/--no-rebuild", help="Make damaged steps again, or stop at them.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and why.")] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask at each step: keep, rerun, change the recipe, or stop.")
    ] = False,
) -> None:
    """Run a recipe: whatever isn't up to date, step after step, resumable at any moment.

    Steps are data, index, conversations, model, train.STAGE for each stage, evaluate and report; without data in the
    recipe index, model and training.
    """
    from itemic.pipeline import Run
    from itemic.recipe import load_recipe

    job = Run.of(load_recipe(recipe, override or []), output)
    if dry_run:
        from itemic.pipeline.run import check_tasks

        check_tasks(job.recipe)
        _show_plan(job.plan(start=start, until=until, force=force, rebuild=rebuild), job)
        return
    start_logging()
    command = shlex.join(["itemic", *state.arguments])
    if interactive:
        from itemic.cli.stepwise import refuse, step_by_step

        refuse(**{"--from": start, "--until": until, "--force": force, "--no-rebuild": not rebuild})
        done = step_by_step(recipe, override or [], job, command)
        if done is not None:
            _show_end(done, "report" if done.recipe.data is not None else done.recipe.trainings[-1].name)
        return
    plan = job.execute(start=start, until=until, force=force, rebuild=rebuild, command=command)
    if plan:  # else this is another rank than the first
        _show_end(job, plan[-1].step.name)


def _show_end(job: Run, last: str) -> None:
    if last == "report":
        from itemic.evaluate.compare import Comparison
        from itemic.pipeline.profiles import profile_results
        from itemic.pipeline.work import COMPARISON, PAGE, list_results

        if job.recipe.model is not None:
            print_table(Comparison.load(job.root / "report" / COMPARISON).table())
        for results in list_results(job.root) if job.recipe.evaluate.control is not None else []:
            print_table(results.table())
        profiles = profile_results(job.root) if job.recipe.profile is not None else None
        for table in [] if profiles is None else profiles.tables():
            print_table(table)
        say(f"{job.root / 'report' / PAGE} shows the whole run")
    say(f"{job.root}: {last} is done")


def _show_plan(plan: list[Planned], job: Run) -> None:
    from itemic.screen import Table

    table = Table("step", "", "why", title=str(job.root), title_justify="left")
    for planned in plan:
        table.add_row(planned.step.name, "run" if planned.run else "keep", planned.reason)
    print_table(table)


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, finished or not.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The page.", show_default="RUN/report.html"),
    ] = None,
) -> None:
    """Write a run as one HTML page: table, predictions, curves, semantic IDs, data, steps and recipe.

    The step report writes such a page too, as report/report.html; this is for runs that go on, or without one.
    """
    from itemic.artifact import write_text
    from itemic.pipeline.page import run_page

    start_logging()
    file = output or folder / "report.html"
    page = run_page(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page)
    say(f"wrote {file}")


def recommend(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="The folder of a finished run, or a model's own.")
    ],
    user: Annotated[str | None, typer.Option(help="A user of the dataset.")] = None,
    history: Annotated[
        str | None, typer.Option("--history", metavar="ID,ID,…", help="Items instead of a user.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="TEXT",
            help="What the person is like, in words; alone, or beside --user or --history.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items.", min=1)] = 10,
    beams: Annotated[
        int | None, typer.Option(help="Width of the search.", min=1, show_default="the recipe's; 1 for lists")
    ] = None,
    exclude_history: Annotated[
        bool | None,
        typer.Option(
            "--exclude-history/--allow-history",
            help="Whether known items may come again.",
            show_default="the recipe's",
        ),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="For a model's folder: the dataset that knows the user.")
    ] = None,
    think: Annotated[
        int | None,
        typer.Option(
            "--think",
            metavar="[N]",
            help="Let the model think first, and show its thoughts: N of them, else as the recipe has it, or 4.",
            min=0,
        ),
    ] = None,
    want: Annotated[
        list[str] | None, typer.Option("--want", metavar="LABEL", help="A category that all must be of.")
    ] = None,
    avoid: Annotated[
        list[str] | None, typer.Option("--avoid", metavar="LABEL", help="A category that none may be of.")
    ] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(
            "--share",
            metavar="LABEL=P",
            help="Which part of the list a category is to have: LABEL=.5 (about), LABEL<=.5 or LABEL>=.5.",
        ),
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            "--turn", metavar="TEXT", help='Then say "fewer of LABEL", "more of", "none of" or "only".'
        ),
    ] = None,
    soft: Annotated[
        bool, typer.Option("--soft", help="Say what is wanted, and leave it to the model to keep to it.")
    ] = False,
    written: Annotated[
        bool,
        typer.Option(
            "--written", help="Let the model write the list, instead of making it of the model's ranking."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank the catalogue for one user of a finished run, for a list of items, or for a person described in words.

    --profile asks models whose tasks had the task profile; of a text that is too long for the model the end is left
    out, which is told.

    With --want, --avoid, --share or --turn it is a list of exactly K items that keeps to them, made of the model's
    ranking of the items that may come. With --written the model writes it: its most probable token each time, or with
    --beams the most probable list that so many beams find. Labels of columns that weren't taught go by column and
    value: --want "brand=Nike".
    """
    from itemic.pipeline.recommend import recommend_one

    if want or avoid or share or soft or turn or written:
        for option, given in (
            ("--think", think),
            ("--profile", profile),
            ("--allow-history", exclude_history is False),
        ):
            if given is not None and given is not False:
                raise ConfigError(
                    f"{option} is for rankings, and lists are asked for", "Leave it out, or what is wanted."
                )
        own = [item.strip() for item in history.split(",")] if history is not None else None
        wanted = (want or [], avoid or [], share or [])
        mode: ListMode | None = "soft" if soft else "hard" if written or beams is not None else None
        _recommend_list(folder, user, own, k, wanted, turn or [], mode, beams or 1, dataset, as_json)
        return
    items = [item.strip() for item in history.split(",")] if history is not None else None
    answer = recommend_one(
        folder,
        user=user,
        items=items,
        profile=profile,
        k=k,
        beams=beams,
        exclude_history=exclude_history,
        dataset=dataset,
        think=think,
    )
    if as_json:
        print_json(answer.to_json())
    else:
        for table in answer.tables():
            print_table(table)


def _recommend_list(
    folder: Path,
    user: str | None,
    items: list[str] | None,
    count: int,
    wanted: tuple[list[str], list[str], list[str]],
    turns: list[str],
    mode: ListMode | None,
    beams: int,
    dataset: Path | None,
    as_json: bool,
) -> None:
    from itemic.pipeline.wanted import read_turn, read_want, recommend_list

    answer = recommend_list(
        folder,
        user=user,
        items=items,
        want=read_want(count, *wanted),
        mode=mode,
        beams=beams,
        dataset=dataset,
        turns=[read_turn(text) for text in turns],
    )
    if as_json:
        print_json(answer.to_json())
    else:
        for table in answer.tables():
            print_table(table)
