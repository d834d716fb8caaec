"""``itemic tasks``: conversations, and the checks of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itemic.cli.common import (
    AsJson,
    Output,
    Seed,
    Set,
    artifact,
    load_dataset,
    load_names,
    print_json,
    print_table,
    say,
    settings,
    start_logging,
)

app = typer.Typer(help="Conversations: build, validate, preview.", no_args_is_help=True)
Data = Annotated[Path, typer.Option("--dataset", help="A dataset folder, or a run's.")]
Index = Annotated[Path, typer.Option("--index", help="An index folder, or a run's or a model's.")]
Rows = Annotated[Path, typer.Argument(help="A Parquet file or a folder of them.")]


@app.command()
def build(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or a run's.")],
    index: Index,
    output: Output,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="A to F, rationale or sequence.", show_default="A to E")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="The most rows of each task.", min=1, show_default="all")
    ] = None,
    option: Set = None,
    seed: Seed = 0,
) -> None:
    """Build the conversations of one or more tasks (-s max_items=20 sets an option of all of them)."""
    from itemic.tasks.build import build_conversations

    start_logging()
    shared = settings(option) | ({"limit": limit} if limit else {})
    tasks = [{"task": name, **shared} for name in task or ["A", "B", "C", "D", "E"]]
    data, sids = load_dataset(dataset), load_names(index)
    inputs = {"dataset": dataset, "index": index}
    with artifact(output, "conversations", {"tasks": tasks}, inputs, seed) as folder:
        built = build_conversations(data, sids, tasks, seed=seed, output=folder)
    for source, count in built.counts.items():
        say(f"{source}: {count:,}")


@app.command()
def validate(
    conversations: Rows,
    dataset: Data,
    index: Index,
    max_characters: Annotated[int, typer.Option(help="The longest conversation.", min=1)] = 20_000,
    as_json: AsJson = False,
) -> None:
    """Check form, roles, semantic IDs, lengths, duplicates, balance and leakage; exits with 1 on faults."""
    from itemic.tasks.validate import validate as check_conversations

    data, sids = load_dataset(dataset), load_names(index)
    report = check_conversations(conversations, data, sids, max_chars=max_characters)
    print_json(report.to_json()) if as_json else print_table(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def preview(
    conversations: Rows,
    count: Annotated[int, typer.Option("-n", help="How many.", min=1)] = 5,
    task: Annotated[
        str | None, typer.Option(help="Of one task or source alone.", show_default="of all")
    ] = None,
    index: Annotated[Path | None, typer.Option("--index", help="Highlights its semantic IDs.")] = None,
    seed: Seed = 0,
) -> None:
    """Show some conversations at random."""
    from itemic.tasks.preview import preview as sample

    sids = load_names(index) if index is not None else None
    print_table(sample(conversations, count, seed=seed, task=task, index=sids))
