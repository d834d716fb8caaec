"""``itemic control``: recommendations that do what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemic.cli.common import Output, artifact, say, start_logging

if TYPE_CHECKING:
    from itemic.model.chat import ChatRenderer

app = typer.Typer(help="Recommendations that do what they are told: samples of others.", no_args_is_help=True)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or conversations.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A .pickle, .json or .jsonl.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="Whose template prompts are written with.", show_default="the run's last stage"),
    ] = None,
) -> None:
    """Write conversations as RecLM-gen's static samples, a list of epochs."""
    from itemic.control.static import samples_of, write_static
    from itemic.tasks.conversation import Conversations

    start_logging()
    inside = run / "conversations"
    found = Conversations.open(inside if inside.is_dir() else run)
    counts = write_static(output, samples_of(found, _chat(run, model).prompt_text))
    for epoch, count in enumerate(counts):
        say(f"epoch {epoch}: {count:,} samples")
    typer.echo(f"wrote {output}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="RecLM-gen's samples: .pickle, .json or .jsonl.")],
    output: Output,
    turns: Annotated[
        bool,
        typer.Option("--turns", help="A template is to be put around inputs: they are what a user says."),
    ] = False,
) -> None:
    """Read RecLM-gen's static samples as conversations, which a recipe's stage trains on (files)."""
    from itemic.control.static import read_static
    from itemic.tasks.conversation import ConversationWriter

    start_logging()
    found = read_static(file, turns=turns)
    made = artifact(output, "conversations", {"turns": turns}, {"file": file})
    with made as folder, ConversationWriter(folder) as writer:
        writer.write(found.read())
    say(f"{len(found):,} conversations")


def _chat(run: Path, model: Path | None) -> ChatRenderer:
    """The renderer of a model, or of a run's last one."""
    from itemic.model import Model

    if model is not None:
        return Model.load(model).chat
    from itemic.pipeline.recommend import open_run
    from itemic.pipeline.steps import last_stage

    job = open_run(run)
    return Model.load(job.made(last_stage(job.recipe))).chat
