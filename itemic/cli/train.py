"""``itemic train``: one stage by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itemic.cli.common import Seed, start_logging
from itemic.training.language.stage import Stage


def _keys() -> str:
    """All keys of a stage with their defaults, for the help."""
    lines = [f"  {key}: {_shown(value)}" for key, value in Stage().flat().items()]
    return "\b\nKeys of a stage and their defaults:\n" + "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


KEYS = _keys()


def train(
    model: Annotated[Path, typer.Argument(help="The folder of a model that knows its index.")],
    conversations: Annotated[
        list[str],
        typer.Option(
            "--conversations",
            metavar="FILES",
            help="A Parquet file, a folder, a glob or a JSON list of files, local or remote; may come again.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The trained model; gone on with.")
    ],
    stage: Annotated[
        Path | None, typer.Option("--stage", metavar="FILE", help="A YAML file of a stage's keys.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="A key of the stage.")
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", help="Validated on; needed for validation.every and validation.samples."),
    ] = None,
    strategy: Annotated[str, typer.Option(help="Of several processes: ddp, fsdp or deepspeed.")] = "ddp",
    deepspeed: Annotated[
        str | None, typer.Option("--deepspeed", metavar="FILE", help="DeepSpeed's JSON, for its strategy.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Train a model on conversations, for one stage; the same command goes on where it was stopped.

    What a stage does is said by its keys, in a file (--stage) or one by one (-s epochs=2 -s schedule.warmup=0.1).
    """
    from itemic.cli.common import load_dataset
    from itemic.recipe.stage import read_stage

    asked = read_stage(stage, override or [])
    start_logging()
    from itemic.model import Model
    from itemic.training.distribution import Distribution
    from itemic.training.language.run import train
    from itemic.training.ranks import joined

    distribution = Distribution.of({"strategy": strategy, "config": deepspeed})
    data = load_dataset(dataset) if dataset is not None else None
    with joined() as ranks:
        train(
            Model.load(model, device=ranks.device_for(distribution)),
            conversations[0] if len(conversations) == 1 else conversations,
            stage=asked,
            dataset=data,
            output=output,
            seed=seed,
            distribution=distribution,
        )
        if ranks.main:
            typer.echo(f"{output}: the trained model")
