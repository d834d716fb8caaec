"""``itemic rl``: what reinforcement learning learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itemic.cli.common import AsJson, Seed, print_json, print_table, start_logging

app = typer.Typer(help="Reinforcement learning: what it learns from.", no_args_is_help=True)


@app.callback()
def _rl() -> None:
    """Keep ``preview`` a command of its own."""


@app.command()
def preview(
    run: Annotated[Path, typer.Argument(help="The folder of a run whose recipe has a section rl.")],
    count: Annotated[int, typer.Option("-n", help="How many prompts.", min=1)] = 5,
    stage: Annotated[
        str | None, typer.Option(help="The stage, where there are several.", show_default="the first")
    ] = None,
    trained: Annotated[
        bool, typer.Option("--trained", help="Ask the model that the stage made, not the one it begins with.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show groups as they are: a prompt, its answers, each reward, the advantage."""
    from rich.console import Group

    from itemic.pipeline.groups import preview_groups

    start_logging()
    lines, parts = preview_groups(run, count, stage=stage, seed=seed, trained=trained)
    print_json(lines) if as_json else print_table(Group(*parts))
