"""``itemic data``: raw files to datasets, what is in them, and the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itemic.cli.common import (
    AsJson,
    Output,
    Seed,
    Set,
    artifact,
    load_dataset,
    load_index,
    print_json,
    print_table,
    say,
    settings,
    start_logging,
)

if TYPE_CHECKING:
    from itemic.data.settings import FilterRule

app = typer.Typer(help="Datasets: import, export, describe, simulate.", no_args_is_help=True)
SPLITS = "leave-one-out, leave-last-out, temporal or published"
Split = Annotated[str, typer.Option(help=f"{SPLITS}.")]
Limit = Annotated[
    int | None, typer.Option(help="At most so many, for a quick trial.", min=1, show_default="all")
]
MaybeSplit = Annotated[
    str | None,
    typer.Option(help=f"{SPLITS}.", show_default="published where the source has one, else leave-one-out"),
]
History = Annotated[int | None, typer.Option(help="The most items that a request shows.", min=1)]
MaybeHistory = Annotated[
    int | None,
    typer.Option(help="The most items that a request shows.", min=1, show_default="50, or as published"),
]


@app.command("import")
def import_(
    path: Annotated[str, typer.Argument(help="Raw files: a folder, a file, a pattern or a URL.")],
    output: Output,
    format: Annotated[str, typer.Option(help="The source's format; auto looks at the files.")] = "auto",
    on_bad_row: Annotated[
        str, typer.Option(help="error: stop at it; drop: leave it out and count.")
    ] = "error",
    missing_text: Annotated[
        str,
        typer.Option(
            help="Items without a title or metadata. keep: known by id; drop: with their interactions; error."
        ),
    ] = "keep",
    option: Set = None,
    filter: Annotated[
        list[str] | None,
        typer.Option("--filter", "-f", metavar="KEY=VALUE", help="A filter, e.g. user_k_core=5."),
    ] = None,
    split: MaybeSplit = None,
    history: MaybeHistory = None,
    limit_users: Limit = None,
    limit_items: Limit = None,
    limit_rows: Limit = None,
    seed: Seed = 0,
) -> None:
    """Read raw files into a dataset folder."""
    from itemic.data import apply_filters, describe, description_table, read
    from itemic.data.split import choose_split
    from itemic.errors import ConfigError

    start_logging()
    options, rules = settings(option), settings(filter)
    reading: dict[str, Any] = {"on_bad_row": on_bad_row, "missing_text": missing_text}
    reading |= {
        "seed": seed,
        "limit_users": limit_users,
        "limit_items": limit_items,
        "limit_rows": limit_rows,
    }
    for key in reading.keys() & options.keys():
        raise ConfigError(f"-s {key} is no option of a format", f"Give --{key.replace('_', '-')} instead.")
    dataset = read(format, path, **reading, **options)
    if rules:
        dataset = apply_filters(dataset, _filter_rule(rules))
    rule = choose_split(dataset.rule, method=split, **({"history": history} if history else {}))
    dataset = dataset.with_split(rule)
    found = describe(dataset)  # what can't be described leaves nothing behind
    config = {"format": format, **reading, "options": options, "filters": rules, "split": rule.to_json()}
    with artifact(output, "data", config, {"path": Path(path)}, seed) as folder:
        dataset.save(folder)
    print_table(description_table(found))


def _filter_rule(rules: dict[str, Any]) -> FilterRule:
    from itemic.data.settings import FilterRule
    from itemic.settings import settings_from

    return settings_from(FilterRule, rules)


@app.command()
def describe(
    folder: Annotated[Path, typer.Argument(help="A dataset folder, or a run's.")],
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it as well.")] = None,
    as_json: AsJson = False,
) -> None:
    """Counts, sparsity, lengths, popularity and texts of a dataset."""
    from itemic.data.statistics import describe, description_table, plot_description

    dataset = load_dataset(folder)
    found = describe(dataset)
    print_json(found) if as_json else print_table(description_table(found))
    if plot is not None:
        plot_description(dataset, plot)
        typer.echo(f"wrote {plot}", err=as_json)


@app.command()
def export(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or a run's.")],
    output: Output,
    format: Annotated[
        str,
        typer.Option(
            help="minionerec, letter, recbole, reclm-gen, onerec-think or openonerec.", show_default=False
        ),
    ],
    index: Annotated[
        Path | None,
        typer.Option(help="Semantic IDs to write as well: an index folder, a run's or a model's."),
    ] = None,
) -> None:
    """Write a dataset as the files of another system; they are called as the folder is."""
    from itemic.sid.export import export_dataset

    found = load_dataset(dataset)
    sids = None if index is None else load_index(index)
    with artifact(output, "export", {"format": format}, {"dataset": dataset}) as folder:
        lost = export_dataset(found, folder, format, index=sids, name=output.resolve().name)
    if lost:
        say(f"not in these files: {'; '.join(lost)}")


@app.command()
def simulate(
    output: Output,
    option: Set = None,
    seed: Seed = 0,
    split: Split = "leave-one-out",
    history: History = 50,
) -> None:
    """Make up a marketplace that knows its own next-item distribution; prints the best reachable figures."""
    from itemic.data import Simulation, SimulatorConfig, SplitRule
    from itemic.data.simulator import simulate
    from itemic.settings import settings_from

    start_logging()
    options = settings(option)
    rule = settings_from(SplitRule, {"method": split, "history": history})
    made: Simulation = simulate(settings_from(SimulatorConfig, options), seed).with_split(rule)
    with artifact(output, "data", options | {"split": rule.to_json()}, {}, seed) as folder:
        made.save(folder)
    best = made.best([1, 5, 10], "test")
    typer.echo("best reachable on test: " + "  ".join(f"{name} {value:.4f}" for name, value in best.items()))
