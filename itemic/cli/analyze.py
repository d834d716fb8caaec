"""``itemic analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itemic.cli.common import AsJson, Seed, Set, print_json, print_table, say, settings, start_logging


def analyze(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|RANKING|FILE",
            help="A run's folder, a ranking's, or a table of recommendations that another system made.",
        ),
    ],
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Places that count as shown.", min=1)] = 10,
    ranker: Annotated[str, typer.Option(help="Of a run: model, model+memory, a baseline, …")] = "model",
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Of a ranking or table: whose requests it answers.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="Of a ranking or table: the items' semantic IDs.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of a table: valid or test.")] = "test",
    slices: Annotated[
        list[Path] | None,
        typer.Option("--slices", metavar="FILE", help="Columns of yours by user_id or item_id, to slice by."),
    ] = None,
    detectors: Annotated[
        str | None, typer.Option(help="Those to ask, with commas; all of them unless given.")
    ] = None,
    thresholds: Set = None,
    ask_model: Annotated[
        int,
        typer.Option(
            "--ask-model",
            metavar="N",
            help="Ask the model of N bad cases for the target itself: search error or model error?",
            min=0,
        ),
    ] = 0,
    most: Annotated[
        int, typer.Option("--cases", help="Cases in the page; of more a stated sample.", min=1)
    ] = 25_000,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write; of a run its folder `analysis`."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why recommendations fail: which patterns go with failure, and which only seem to.

    A case is bad where its target is not among the first K items. Writes report.html to read, filter and search,
    badcase_report.json, eval_results.jsonl with a request a line, summary_report.txt and plots in visualizations/.
    """
    from itemic.analysis import Thresholds, write_analysis
    from itemic.analysis.summary import causes_table, head_table, kinds_table
    from itemic.pipeline.analyze import analyze_source, source_of
    from itemic.settings import settings_from

    start_logging()
    told = settings_from(Thresholds, settings(thresholds))
    found = source_of(source, ranker=ranker, dataset=dataset, index=index, split=split)
    evidence, analysis, flags = analyze_source(
        found,
        k=top_k,
        thresholds=told,
        detectors=None if detectors is None else [name.strip() for name in detectors.split(",")],
        tables=slices or [],
        ask_model=ask_model,
        seed=seed,
    )
    folder = output or _folder(found.run, ranker)
    write_analysis(folder, evidence, analysis, flags, most=most)
    if as_json:
        print_json(analysis.to_json())
        return
    for table in (head_table(analysis), causes_table(analysis), kinds_table(analysis)):
        print_table(table)
    say(f"wrote {folder}; open {folder / 'report.html'}")


def _folder(run: Path | None, ranker: str) -> Path:
    if run is None:
        return Path("analysis")
    return run / ("analysis" if ranker == "model" else f"analysis-{ranker}")
