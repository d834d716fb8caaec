"""``itemic evaluate``: what rankings are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itemic.cli.common import AsJson, Seed, load_dataset, print_json, print_table

app = typer.Typer(help="Rankings: score, compare.", no_args_is_help=True)
Cuts = Annotated[str, typer.Option("-k", help="Cuts of the metrics.")]


@app.command()
def score(
    ranking: Annotated[Path, typer.Argument(help="The folder of a ranking.")],
    dataset: Annotated[Path | None, typer.Option("--dataset", help="What was ranked; adds slices.")] = None,
    k: Cuts = "1,5,10,20",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.json")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Score a ranking: accuracy with intervals, exposure, and how slices of the requests fare."""
    from itemic.evaluate.compare import compare, slice_table
    from itemic.evaluate.ranking import Ranking
    from itemic.evaluate.report import score

    data = load_dataset(dataset) if dataset is not None else None
    report = score(Ranking.load(ranking), data, k=_cuts(k), seed=seed)
    if output is not None:
        report.save(output)
    if as_json:
        from dataclasses import asdict

        print_json(asdict(report))
        return
    print_table(compare([report]).table())
    print_table(slice_table(report))
    for name, value in report.exposure.items():
        typer.echo(f"{name}: {value:.4f}")


@app.command()
def compare(
    reports: Annotated[list[Path], typer.Argument(help="Reports of the same requests, JSON.")],
    metrics: Annotated[str, typer.Option(help="hr, ndcg, mrr.")] = "hr,ndcg",
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option(help="Print Markdown.")] = False,
) -> None:
    """Put reports side by side."""
    from itemic.evaluate.compare import compare
    from itemic.evaluate.report import Report

    found = compare([Report.load(file) for file in reports], metrics=metrics.split(","))
    if as_json:
        print_json(found.to_json())
    elif markdown:
        typer.echo(found.markdown())
    else:
        print_table(found.table())


def _cuts(text: str) -> list[int]:
    from itemic.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"-k is {text!r}", "Write numbers with commas, such as 1,5,10.") from error
