"""``itemic teacher``: the sequential model that labels and rewards are read from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemic.cli.common import load_dataset, say, start_logging

if TYPE_CHECKING:
    from itemic.data.dataset import Dataset

app = typer.Typer(help="A run's sequential teacher: serve its answers.", no_args_is_help=True)


@app.callback()
def _teacher() -> None:
    """Keep ``serve`` a command of its own."""


@app.command()
def serve(
    run: Annotated[Path, typer.Argument(help="The folder of a run with a teacher, or a teacher's folder.")],
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 12621,
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", help="Whose categories are known by name.", show_default="the run's"),
    ] = None,
) -> None:
    """Answer POST /inference and /ranking as RecLM-gen's clients ask them; Ctrl-C or SIGTERM ends it."""
    from itemic.data.categories import named_rows
    from itemic.errors import IndexMismatchError
    from itemic.teacher.desk import Desk
    from itemic.teacher.serve import bound
    from itemic.teacher.serve import run as serve_until_told
    from itemic.teacher.teacher import Teacher

    start_logging()
    teacher = Teacher.load(run / "teacher" if (run / "teacher").is_dir() else run, _device())
    data = _dataset_of(run, dataset)
    if data is not None and data.catalogue != teacher.catalogue:
        raise IndexMismatchError(
            f"the teacher is of catalogue {teacher.catalogue}, the dataset of {data.catalogue}",
            "Give the dataset that it was trained on.",
        )
    categories = None if data is None else named_rows(data.items, (", ", " > "))
    with bound(host, port) as listening:
        address = f"http://{host}:{listening.getsockname()[1]}"
        say(f"{teacher.name}, {len(teacher.item_ids):,} items, answers at {address}/inference and /ranking")
        serve_until_told(Desk(teacher, categories), listening)


def _dataset_of(run: Path, given: Path | None) -> Dataset | None:
    if given is not None:
        return load_dataset(given)
    return load_dataset(run) if (run / "data").is_dir() else None


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
