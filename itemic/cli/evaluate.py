"""``itemic evaluate``: what rankings are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itemic.cli.common import (
    AsJson,
    Seed,
    Set,
    load_dataset,
    print_json,
    print_table,
    settings,
    start_logging,
)

app = typer.Typer(help="Rankings: rank, score, words, export.", no_args_is_help=True)
Cuts = Annotated[str, typer.Option("-k", help="Cuts of the metrics.")]


@app.command()
def rank(
    model: Annotated[Path, typer.Argument(help="A model's folder, or that of a stage of a run.")],
    dataset: Annotated[
        Path, typer.Option("--dataset", help="Whose requests it answers; a run's folder has it.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The ranking; gone on with.")
    ],
    task: Annotated[
        str | None,
        typer.Option(help="Whose prompt is asked.", show_default="what the model was trained with"),
    ] = None,
    options: Set = None,
    split: Annotated[str, typer.Option(help="valid or test.")] = "test",
    beams: Annotated[int, typer.Option(help="Width of the search.", min=1)] = 50,
    k: Annotated[int, typer.Option("-k", help="Items kept for each request.", min=1)] = 20,
    normalize: Annotated[str, typer.Option(help="What scores are over: vocab, level or legal.")] = "vocab",
    exclude_history: Annotated[bool, typer.Option(help="Leave out what the history has.")] = False,
    thinking: Annotated[
        str | None,
        typer.Option(
            help="How prompts end: no_think or empty.", show_default="as the model's template has it"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Requests that are searched at once.", min=1)] = 32,
    name: Annotated[str | None, typer.Option(help="In tables.", show_default="the folder's")] = None,
) -> None:
    """Rank the whole catalogue for every request of a split, exactly, with a model and constrained beams.

    -s gives the task other options than those that the model was trained with.
    """
    from itemic.errors import ConfigError
    from itemic.evaluate.recommend import recommend
    from itemic.model import Model
    from itemic.tasks import task_of, task_options
    from itemic.tasks.asking import task_to_ask
    from itemic.training.ranks import joined

    if split not in ("valid", "test"):
        raise ConfigError(f"--split is {split!r}", "Use valid or test.")
    start_logging()
    data = load_dataset(dataset)
    with joined() as ranks:
        device = ranks.device
    asked = Model.load(model, device=device)
    way = task_options(task_to_ask(asked, None)) if task is None else {"task": task}
    recommend(
        asked,
        data.split(split),
        task=task_of(way | settings(options)),
        dataset=data,
        beams=beams,
        k=k,
        normalize=normalize,
        exclude_history=exclude_history,
        thinking=thinking,
        batch_size=batch_size,
        name=name or model.resolve().name,
        output=output,
    )
    typer.echo(f"{output}: the ranking of {len(data.split(split))} requests")


@app.command()
def score(
    ranking: Annotated[Path, typer.Argument(help="The folder of a ranking.")],
    dataset: Annotated[Path | None, typer.Option("--dataset", help="What was ranked; adds slices.")] = None,
    k: Cuts = "1,5,10,20",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.json", help="Keep the report.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Score a ranking: accuracy with intervals, exposure, and how slices of the requests fare."""
    from itemic.evaluate.ranking import Ranking
    from itemic.evaluate.report import score
    from itemic.evaluate.tables import report_table, slice_table

    data = load_dataset(dataset) if dataset is not None else None
    report = score(Ranking.load(ranking), data, k=cuts_of(k), seed=seed)
    if output is not None:
        report.save(output)
    if as_json:
        from dataclasses import asdict

        print_json(asdict(report))
        return
    print_table(report_table(report))
    print_table(slice_table(report))


@app.command()
def words(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="The folder of a finished run, or a model's own.")
    ],
    shown: Annotated[
        str, typer.Option("--shown", metavar="N,N,…", help="How many of the latest items are shown.")
    ] = "0,1,2,5",
    profiles: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help='Written profiles: lines {"user": …, "profile": …, "items": [what the writer had read]}.',
            show_default="templated ones of each user's training interactions",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Whose prompt asks by items alone.", show_default="what the run evaluates"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="valid or test.", show_default="what the recipe evaluates")
    ] = None,
    users: Annotated[
        int | None, typer.Option(help="At most so many requests.", min=1, show_default="all")
    ] = None,
    k: Annotated[
        str | None, typer.Option("-k", help="Cuts of the metrics.", show_default="the recipe's")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="For a model's folder: the dataset that knows its users.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of bootstrap and drawing.", min=0, show_default="the recipe's")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Table and rankings.", show_default="RUN/words"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a profile in words is worth beside the latest few items: items alone, profile alone, both.

    The model's tasks must have had the task profile. Everybody ranks the whole catalogue for the same requests; an
    interrupted evaluation is gone on with by the same command.
    """
    from itemic.pipeline.words import evaluate_run_words

    start_logging()
    found = evaluate_run_words(
        folder,
        shown=cuts_of(shown, "--shown"),
        profiles=profiles,
        task=task,
        split=split,
        users=users,
        k=None if k is None else cuts_of(k),
        dataset=dataset,
        seed=seed,
        output=output,
    )
    if as_json:
        print_json(found.to_json())
    else:
        print_table(found.table())


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or that of a ranking.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Metrics and predictions, a request a line.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Predictions; the metrics go beside it, to FILE.metrics.csv."
        ),
    ] = None,
    ranker: Annotated[str, typer.Option(help="Of a run: model, or a baseline.")] = "model",
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Of a ranking: whose titles it has.")
    ] = None,
    k: Cuts = "1,5,10,20",
    seed: Seed = 0,
) -> None:
    """Write what was recommended to whom, and what that is worth, as plain files.

    Each prediction has request, user, rank, item, title, score, semantic_id, target, target_title and hit; where
    targets are not known there is no hit and nothing is measured.
    """
    from itemic.errors import ConfigError
    from itemic.evaluate.predictions import export_csv, export_json, export_metrics
    from itemic.evaluate.ranking import Ranking
    from itemic.evaluate.report import score

    if json_file is None and csv_file is None:
        raise ConfigError("nothing to write", "Give --json FILE, --csv FILE or both.")
    inside = run / "evaluate"
    found = Ranking.load(inside / ranker if inside.is_dir() else run)
    if dataset is None and inside.is_dir():
        dataset = run
    data = load_dataset(dataset) if dataset is not None else None
    report = score(found, data, k=[cut for cut in cuts_of(k) if cut <= found.head.k], seed=seed)
    if json_file is not None:
        export_json(found, report, data, json_file)
        typer.echo(f"{json_file}: metrics and predictions of {len(found)} requests")
    if csv_file is not None:
        export_csv(found, data, csv_file)
        export_metrics(report, metrics := csv_file.with_name(f"{csv_file.name}.metrics.csv"))
        typer.echo(f"{csv_file}: predictions of {len(found)} requests, {metrics.name}: their metrics")


def cuts_of(text: str, option: str = "-k") -> list[int]:
    """``"1,5,10"`` as numbers.

    Raises:
        ConfigError: they are none.
    """
    from itemic.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}", "Write numbers with commas, such as 1,5,10.") from error
