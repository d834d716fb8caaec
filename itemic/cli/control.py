"""``itemic control``: recommendations that do what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemic.cli.common import AsJson, Output, artifact, print_json, print_table, say, start_logging

if TYPE_CHECKING:
    from itemic.model.chat import ChatRenderer

app = typer.Typer(
    help="Recommendations that do what they are told: tests, samples of others.", no_args_is_help=True
)


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


@app.command()
def evaluate(
    folder: Annotated[
        Path | None, typer.Argument(metavar="RUN|MODEL", help="A finished run, or a model's folder.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="An OpenAI-compatible server to ask instead.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of a server: the model's name there.")] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Of a server or a model: its run, or a dataset.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="A test task; may be repeated.", show_default="eight")
    ] = None,
    mode: Annotated[str, typer.Option(help="soft, distinct, hard, ranked or free.")] = "soft",
    users: Annotated[int, typer.Option(help="Requests of each task.", min=1)] = 320,
    k: Annotated[str, typer.Option("-k", help="Cuts of the metrics.")] = "1,5,10",
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME,…", help="What labels are made of.", show_default="as was taught"),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="history, or oracle: categories are read off the hidden item.")
    ] = "history",
    unwanted: Annotated[
        str, typer.Option(help="Whose list says what is unwanted: own, teacher or history.")
    ] = "own",
    price: Annotated[
        bool,
        typer.Option("--price", help="A second table: no control, soft, distinct, hard, ranked, filtered."),
    ] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="topk, most or candidates."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="valid or test.", show_default="what the recipe evaluates")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of what is drawn.", min=0, show_default="the recipe's")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Tables and answers.", show_default="RUN/control"
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Send a server texts under the run's template, not chats.")
    ] = False,
    concurrency: Annotated[int, typer.Option(help="Requests to a server at once.", min=1)] = 32,
    timeout: Annotated[float, typer.Option(help="Seconds that a server may be silent.", min=0.1)] = 300.0,
    retries: Annotated[int, typer.Option(help="How often a server is asked again.", min=0)] = 6,
    max_tokens: Annotated[int, typer.Option(help="A server's longest answer.", min=1)] = 512,
    as_json: AsJson = False,
) -> None:
    """Ask the test tasks of control, and tell in one table how well lists do what they are told.

    Whoever is interrupted and asks again goes on from the answers that are there.
    """
    from itemic.cli.common import settings as pairs
    from itemic.cli.evaluate import cuts_of
    from itemic.control.tests import ListTests
    from itemic.endpoint import Endpoint
    from itemic.errors import ConfigError
    from itemic.pipeline.lists import Where, evaluate_control
    from itemic.settings import settings_from

    start_logging()
    given = {"mode": mode if endpoint is None else "free", "users": users, "k": cuts_of(k)}
    given |= {"protocol": protocol, "unwanted": unwanted, "price": price}
    given |= {"tasks": task} if task else {}
    given |= {"columns": columns.split(",")} if columns else {}
    where = None
    if endpoint is not None:
        if model is None:
            raise ConfigError("the server is asked for no model", "Give --model with its name there.")
        said = Endpoint(
            endpoint,
            model,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            max_tokens=max_tokens,
            temperature=0.0,
        )
        where = Where(said, plain)
    elif model is not None or plain:
        raise ConfigError("--model and --plain are about a server", "Give --endpoint too, or leave them out.")
    asked = settings_from(ListTests, given | pairs(options))
    found = evaluate_control(
        folder, asked, dataset=dataset, where=where, output=output, split=split, seed=seed
    )
    if as_json:
        print_json([results.to_json() for results in found])
        return
    for results in found:
        print_table(results.table())


def _chat(run: Path, model: Path | None) -> ChatRenderer:
    """The renderer of a model, or of a run's last one."""
    from itemic.model import Model

    if model is not None:
        return Model.load(model).chat
    from itemic.pipeline.recommend import open_run
    from itemic.pipeline.steps import last_stage

    job = open_run(run)
    return Model.load(job.made(last_stage(job.recipe))).chat
