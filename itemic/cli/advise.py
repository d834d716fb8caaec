"""``itemic advise`` and ``itemic improve``: from why a run fails to a recipe that does better."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemic.cli.common import AsJson, print_json, print_table, say, start_logging

if TYPE_CHECKING:
    from itemic.advise.advice import Advice
    from itemic.analysis.analysis import Analysis
    from itemic.recipe import Recipe

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that was evaluated.")]
Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="Only these strategies, whatever the analysis says; several with commas.",
        show_default="what the analysis calls for",
    ),
]


def _named(strategies: list[str] | None) -> list[str] | None:
    from itemic.advise.advice import check_names

    if not strategies:
        return None
    return check_names(name.strip() for each in strategies for name in each.split(",") if name.strip())


def _show_rules(wanted: bool) -> None:
    if wanted:
        from itemic.advise.shown import rules_text

        say(rules_text())
        raise typer.Exit


def advise(
    run: RunFolder,
    analysis: Annotated[
        Path | None,
        typer.Option(
            "--analysis",
            metavar="FILE",
            help="What `itemic analyze` wrote.",
            show_default="badcase_report.json in the run's folder, or look now",
        ),
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Ask nothing, follow all advice.")] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The recipe to write.")
    ] = Path("improved.yaml"),
    strategy: Strategies = None,
    rules: Annotated[
        bool,
        typer.Option(
            "--rules",
            callback=_show_rules,
            is_eager=True,
            help="Show what each strategy reads, changes and costs; do nothing.",
        ),
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", help="With --strategy hyperparameter: search, with so many trials in all.", min=1
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="No trial of the search begins after so many.", min=0.0)
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="KEY=LOW:HIGH[:log]",
            help="What the search goes through.",
            show_default="learning rate, weight decay, dropout and length",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the advice, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what to change in a run's recipe, with the reasons, and write the recipe that has it.

    On a terminal each advice is shown with its evidence and cost, to be kept, skipped or edited.
    """
    from itemic.advise.advice import SEARCH, consider
    from itemic.advise.facts import facts_of
    from itemic.advise.read import find_analysis, run_recipe
    from itemic.advise.shown import ask_about, words_of
    from itemic.errors import ConfigError

    asks = not (auto or dry_run or as_json)
    if asks and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "there is no terminal to ask on", "Add --auto to follow all advice, or --dry-run to read it."
        )
    names = _named(strategy)
    start_logging()
    recipe = run_recipe(run)
    searched = _search(run, recipe, names, trials, minutes, space or [], dry_run)
    if searched is not None and names is not None:
        names = [name for name in names if name != SEARCH]
    found = find_analysis(run, recipe, analysis) if names is None or names else None
    decide = ask_about(say, _ask) if asks else lambda each, _: each
    taken = consider(found, recipe, decide, facts=facts_of(run, recipe), strategies=names)
    taken += [each for one in searched or [] if (each := decide(one, recipe)) is not None]
    if as_json:
        print_json({"run": str(run), **_about(found), "advice": [one.to_json() for one in taken]})
    elif not asks:
        say("\n\n".join(words_of(one) for one in taken))
    if searched == [] and not names:
        return
    if not taken:
        say("no advice: what the rules read calls for no change", err=as_json)
    elif not dry_run:
        _write(output, run, recipe, found, taken, force, quiet=as_json)


def _ask(question: str, usual: str) -> str:
    from itemic.text import shown

    return str(typer.prompt(shown(question), usual))


def _search(
    run: Path,
    recipe: Recipe,
    names: list[str] | None,
    trials: int | None,
    minutes: float | None,
    spaces: list[str],
    dry_run: bool,
) -> list[Advice] | None:
    """The advice of a search, none where nothing beats the recipe as it is; None where nobody wants one."""
    import shlex

    from itemic.advise.advice import SEARCH
    from itemic.cli import state
    from itemic.errors import ConfigError

    if trials is None and minutes is None and not spaces:
        return None
    if names is None or SEARCH not in names:
        raise ConfigError(
            "--trials, --minutes and --space are about a search", f"Add --strategy {SEARCH} to search."
        )
    from itemic.advise.search import search
    from itemic.advise.spaces import spaces_of

    searched = spaces_of(recipe, spaces)
    if dry_run:
        say("\n".join(["a search would go through", *(f"  {space.words}" for space in searched)]))
        return []
    command = shlex.join(["itemic", *state.arguments])
    many = trials if trials is not None else 1_000_000 if minutes is not None else 20
    found = search(run, recipe, searched, trials=many, minutes=minutes, command=command)
    one = found.advice()
    if one is None:
        say(f"of {len(found.tried)} trials none is above the recipe as it is", err=True)
    return [] if one is None else [one]


def _about(found: Analysis | None) -> dict[str, str]:
    if found is None:
        return {"analysis": "none: a search alone"}
    split = found.split or "other"
    about = {
        "analysis": f"of {found.name}, {found.bad:,} of {found.requests:,} {split} requests bad at {found.k}"
    }
    if split == "test":
        about["note"] = (
            "the analysis looked at the test split: judge the change on validation, as `itemic improve` does"
        )
    return about


def _write(
    output: Path,
    run: Path,
    recipe: Recipe,
    found: Analysis | None,
    taken: list[Advice],
    force: bool,
    quiet: bool,
) -> None:
    from itemic.advise.write import write_improved

    about = {"run": str(run)} | _about(found)
    reasons = write_improved(output, recipe, taken, about=about, force=force)
    count = sum(len(one.changes) for one in taken)
    say(f"wrote {output}, {count} keys changed, and the reasons to {reasons}", err=quiet)
    say(f"next: itemic run {output}", err=quiet)


def improve(
    run: RunFolder,
    rounds: Annotated[int, typer.Option(help="How many at most.", min=1)] = 3,
    strategy: Strategies = None,
    one_by_one: Annotated[
        bool,
        typer.Option(
            "--one-by-one", help="Follow one strategy a round, so that the comparison is about it alone."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Of the rounds.", show_default="RUN-improve"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find what fails, change the recipe, run it, compare; again while validation shows a gain.

    The test split is never looked at. What a change leaves as it was isn't computed again; a killed one goes on.
    """
    import shlex

    from itemic.advise.rounds import improve
    from itemic.cli import state

    names = _named(strategy)
    start_logging()
    command = shlex.join(["itemic", *state.arguments])
    found = improve(run, output, rounds=rounds, strategies=names, one_by_one=one_by_one, command=command)
    if as_json:
        print_json(found.to_json())
        return
    print_table(found.table())
    if found.recipe is None:
        say("the run's own recipe is the best of these")
    else:
        say(f"wrote {found.recipe}; next, with the test split: itemic run {found.recipe}")
