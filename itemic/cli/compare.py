"""``itemic compare``: whether one ranker is better than another, where, and at what cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemic.cli.common import AsJson, Seed, load_dataset, print_json, print_table, say
from itemic.errors import ConfigError

TITLE = 48  # letters of a title on a screen

if TYPE_CHECKING:
    from itemic.analysis.comparison import Versus
    from itemic.evaluate.compare import Comparison


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RANKER…",
            help="Folders of runs or rankings, reports (JSON), or tables of recommendations; NAME=PATH,PATH names "
            "one with several seeds.",
        ),
    ],
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset", help="Whose requests were ranked.", show_default="the run's, where there is one"
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="What tables of recommendations answer: valid or test.")
    ] = "test",
    slices: Annotated[
        list[Path] | None,
        typer.Option(
            "--slices",
            metavar="FILE",
            help="A table with user_id or item_id, whose other columns are slices; may be given again.",
        ),
    ] = None,
    metrics: Annotated[str, typer.Option(help="hr, ndcg, mrr.")] = "hr,ndcg",
    k: Annotated[str, typer.Option("-k", help="Cuts of rankings that have no report.")] = "1,5,10,20",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write tables, a picture and a page there."),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option(help="Print Markdown.")] = False,
) -> None:
    """Compare rankers of the same requests: the first against each other one, with intervals and tests.

    Differences are paired by request, with intervals over users (and seeds, where a ranker has several), and corrected
    for how many are looked at. Where no difference is shown, it says which would have been, and how many requests it
    takes. With a dataset at hand (a run has it) there are slices, examples of wins and losses, and figures beyond
    accuracy. Reports that stand in a run know their rankings; other reports alone give the table without differences.

    -o FOLDER writes comparison.json, .md, .png and .html.
    """
    from itemic.cli.evaluate import cuts_of
    from itemic.cli.sources import measured, run_of, side_by_side, source_of

    if split not in ("valid", "test"):
        raise ConfigError(f"--split is {split!r}", "Use valid or test.")
    given = [source_of(text) for text in sources]
    runs = (run for source in given for path in source.paths if (run := run_of(path)) is not None)
    where = dataset or next((run for run in runs if (run / "data").is_dir()), None)
    data = load_dataset(where) if where is not None else None
    cuts = cuts_of(k)
    found = [
        (source.name, [measured(path, cuts, seed, data, split) for path in source.paths]) for source in given
    ]
    table, versus = side_by_side(found, metrics.split(","), seed, data, slices or ())
    if output is not None:
        _write(table, versus, output)
    if as_json:
        print_json(_plain(table, versus))
    elif markdown:
        say(_document(table, versus))
    else:
        _print(table, versus)
    if output is not None and not as_json:
        typer.echo(f"wrote {output}", err=True)


def _print(table: Comparison, versus: Versus | None) -> None:
    from dataclasses import replace

    print_table(table.table() if versus is None else replace(table, differences=[]).table())
    if versus is None:
        return
    from itemic.analysis.comparison.sheets import described, sheets, told

    for sheet in sheets(versus):
        print_table(sheet.table())
    for pair in versus.pairs:
        for title, examples in told(pair):
            say(title, bold=True)
            for example in examples[:2]:
                say("\n".join(f"  {line}" for line in described(example, pair, TITLE)))
    for note in versus.notes:
        say(note, dim=True)


def _plain(table: Comparison, versus: Versus | None) -> dict[str, object]:
    return table.to_json() | ({} if versus is None else {"versus": versus.to_json()})


def _document(table: Comparison, versus: Versus | None) -> str:
    from dataclasses import replace

    if versus is None:
        return table.markdown()
    from itemic.analysis.comparison.sheets import document

    return "\n".join([replace(table, differences=[]).markdown(), document(versus)])


def _write(table: Comparison, versus: Versus | None, folder: Path) -> None:
    """Each file appears whole; those of another comparison are replaced."""
    from dataclasses import replace

    from itemic.artifact import write_json, write_text

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file", "Give a folder to write to.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", _plain(table, versus))
    write_text(folder / "comparison.md", _document(table, versus))
    if versus is not None:
        from itemic.analysis.comparison.chart import plot
        from itemic.analysis.comparison.page import page

        scratch = folder / ".comparison.png"
        plot(versus, scratch)
        scratch.replace(folder / "comparison.png")
        write_text(folder / "comparison.html", page(versus, replace(table, differences=[])))
