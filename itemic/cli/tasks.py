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
        list[str] | None,
        typer.Option("--task", "-t", help="A to F, profile, rationale or sequence.", show_default="A to E"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="The most rows of each task.", min=1, show_default="all")
    ] = None,
    times: Annotated[
        bool, typer.Option("--times", help="Say when items were taken, for objective.weights.half_life.")
    ] = False,
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
    told = {"tasks": tasks} | ({"times": True} if times else {})
    with artifact(output, "conversations", told, inputs, seed) as folder:
        built = build_conversations(data, sids, tasks, seed=seed, output=folder, times=times)
    for source, count in built.counts.items():
        say(f"{source}: {count:,}")


@app.command()
def rationales(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or a run's.")],
    index: Index,
    output: Output,
    endpoint: Annotated[
        str,
        typer.Option(
            help="The root of an OpenAI-compatible API, as http://localhost:8000/v1.", show_default=False
        ),
    ],
    model: Annotated[str, typer.Option(help="Its name there.", show_default=False)],
    answers: Annotated[
        Path | None,
        typer.Option(help="The file that keeps what was answered.", show_default="OUTPUT.answers.jsonl"),
    ] = None,
    limit: Annotated[int, typer.Option(help="The most conversations.", min=1)] = 1000,
    similar: Annotated[int, typer.Option(help="How many other users' histories are shown.", min=0)] = 3,
    key: Annotated[str, typer.Option(help="The variable that holds the API key.")] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests at once.", min=1)] = 8,
    retries: Annotated[int, typer.Option(help="How often a failed request is made again.", min=0)] = 6,
    timeout: Annotated[float, typer.Option(help="Seconds without a sign of an answer.")] = 300.0,
    max_tokens: Annotated[int, typer.Option(help="The longest answer.", min=1)] = 512,
    temperature: Annotated[float, typer.Option(help="Of sampling.")] = 0.7,
    option: Set = None,
    seed: Seed = 0,
) -> None:
    """Conversations whose thoughts an endpoint writes; interrupted, the same command goes on.

    It is shown training histories alone, each with what came next and with like histories of other users.
    """
    from itemic.endpoint import Endpoint
    from itemic.tasks.written import write_rationales

    start_logging()
    asked = Endpoint(endpoint, model, key, concurrency, retries, timeout, max_tokens, temperature)
    options = settings(option)
    data, names = load_dataset(dataset), load_names(index)
    config = {"body": asked.body([]), "limit": limit, "similar": similar, "options": options}
    kept = answers or output.with_name(f"{output.name}.answers.jsonl")
    with artifact(output, "conversations", config, {"dataset": dataset, "index": index}, seed) as folder:
        built = write_rationales(
            data,
            names,
            asked,
            answers=kept,
            limit=limit,
            similar=similar,
            seed=seed,
            output=folder,
            **options,
        )
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
