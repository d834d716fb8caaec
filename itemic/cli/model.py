"""``itemic model``: new models, and base models that learn to write items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from itemic.model.model import Model

app = typer.Typer(
    help="Language models that speak items: make, check, export, checkpoints.",
    no_args_is_help=True,
)
Index = Annotated[Path, typer.Option("--index", help="The index whose tokens it gets.")]


@app.command()
def new(
    preset: Annotated[str, typer.Argument(help="qwen3-pico, -nano, -micro, -mini, -small or -0.6b.")],
    index: Index,
    dataset: Annotated[Path, typer.Option("--dataset", help="Whose texts the tokenizer learns from.")],
    output: Output,
    vocab_size: Annotated[int, typer.Option(help="Of the text part of the vocabulary.", min=300)] = 4096,
    init: Annotated[str, typer.Option(help="Of the code tokens: normal or text.")] = "normal",
    option: Set = None,
    seed: Seed = 0,
) -> None:
    """Make a Qwen3-shaped model with random weights (-s layers=2 sets the shape)."""
    from itemic.model.build import new_model
    from itemic.sid.text import item_texts

    start_logging()
    data, shape = load_dataset(dataset), settings(option)
    model = new_model(
        preset,
        load_names(index),
        item_texts(data.items),
        vocab_size=vocab_size,
        init=init,
        seed=seed,
        **shape,
    )
    config = {"preset": preset, "vocab_size": vocab_size, "init": init, "shape": shape}
    with artifact(output, "model", config, {"index": index, "dataset": dataset}, seed) as folder:
        model.save(folder)
    typer.echo(f"{model.lm.num_parameters():,} parameters, {len(model.tokenizer):,} tokens")


@app.command()
def expand(
    base: Annotated[
        str, typer.Argument(help="A Hugging Face causal language model: its folder, or its name on the hub.")
    ],
    index: Index,
    output: Output,
    dataset: Annotated[Path | None, typer.Option("--dataset", help="Needed for --init text.")] = None,
    init: Annotated[str, typer.Option(help="Of the new rows: moments, text or mean.")] = "moments",
    pad_to: Annotated[int, typer.Option(help="Rows are a multiple of this.", min=1)] = 256,
    tie: Annotated[
        bool | None,
        typer.Option(
            "--tie/--untie", help="Whether the head is the embedding matrix.", show_default="as in the base"
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Of a model on the hub: a branch, a tag or a commit.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Give a base model one token for every code of an index."""
    from itemic.model.expand import expand

    start_logging()
    data = load_dataset(dataset) if dataset is not None else None
    ours = load_names(index)
    model = expand(base, ours, init=init, pad_to=pad_to, tie=tie, dataset=data, seed=seed, revision=revision)
    config = {"base": base, "revision": revision, "init": init, "pad_to": pad_to, "tie": tie}
    with artifact(output, "model", config, {"base": Path(base), "index": index}, seed) as folder:
        model.save(folder)
    typer.echo(f"{model.lm.num_parameters():,} parameters, {len(model.tokenizer):,} tokens")


@app.command()
def reindex(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    index: Annotated[Path, typer.Option("--index", help="What `itemic sid assign` wrote.")],
    output: Output,
) -> None:
    """Let a model recommend new items: the same weights, with an index that has more of them."""
    from itemic.model.model import Model

    start_logging()
    model = Model.load(folder)
    more = model.with_index(load_names(index))
    with artifact(output, "model", {"index": more.index.digest}, {"base": folder, "index": index}) as target:
        more.save(target)
    typer.echo(f"{len(more.index):,} items, {len(model.index):,} before")


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(help="A model folder, a checkpoint (step-…), or a run with --checkpoint.")
    ],
    output: Output,
    checkpoint: Annotated[
        int | None, typer.Option(metavar="STEP", help="Of a run: the checkpoint of this step.", min=1)
    ] = None,
    stage: Annotated[str | None, typer.Option(help="For --checkpoint: of this stage.")] = None,
    base: Annotated[
        Path | None, typer.Option("--base", help="For a checkpoint: the model that its stage began from.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the weights: float32, bfloat16 or float16.", show_default="as they are"),
    ] = None,
    average: Annotated[
        bool,
        typer.Option(
            "--average/--last", help="Of a checkpoint: averaged weights if it has some, or the last."
        ),
    ] = True,
) -> None:
    """Write a plain Hugging Face folder with a model card."""
    start_logging()
    if checkpoint is not None:
        from itemic.pipeline.checkpoints import find_checkpoint

        found = find_checkpoint(source, checkpoint, stage)
        source, base = found.folder, base or found.base
    model = _folder_or_checkpoint(source, base, average)
    config = {"dtype": dtype, "average": average}
    inputs = {"source": source} | ({} if base is None else {"base": base})
    with artifact(output, "model", config, inputs) as folder:
        model.save(folder, dtype=dtype)
    typer.echo(f"{model.lm.num_parameters():,} parameters, {len(model.index):,} items")


@app.command()
def checkpoints(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one of its train.STAGE.")],
    as_json: AsJson = False,
) -> None:
    """List the checkpoints that are kept, with their validations (a stage's checkpoints: {keep: all} keeps them)."""
    from itemic.pipeline.checkpoints import list_checkpoints

    found = list_checkpoints(run)
    if as_json:
        print_json([kept.to_json() for kept in found])
        return
    if not found:
        typer.echo(f"{run} keeps no checkpoints")
        return
    from itemic.screen import Table

    metrics = list(dict.fromkeys(key for kept in found for key in kept.metrics if "@" in key))
    table = Table("stage", "step", "saved", "size", *metrics, "")
    for kept in found:
        numbers = [f"{kept.metrics[key]:.4f}" if key in kept.metrics else "" for key in metrics]
        size, saved = f"{kept.size / 1e6:,.1f} MB", f"{kept.saved:%Y-%m-%d %H:%M:%S}"
        table.add_row(kept.stage, str(kept.step), saved, size, *numbers, "best" if kept.best else "")
    print_table(table)


def _folder_or_checkpoint(source: Path, base: Path | None, average: bool = True) -> Model:
    from itemic.errors import ConfigError
    from itemic.model.model import Model
    from itemic.training.language.export import checkpoint_model, is_checkpoint

    if is_checkpoint(source) != (base is not None):
        raise ConfigError(
            f"{source} is {'a checkpoint' if base is None else 'no checkpoint'}",
            f"{'Give' if base is None else 'Leave out'} --base, the model that a checkpoint's stage began from.",
        )
    return Model.load(source) if base is None else checkpoint_model(source, base, average=average)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    against: Annotated[
        Path | None, typer.Option("--against", help="A model folder or checkpoint whose logits it must have.")
    ] = None,
    base: Annotated[Path | None, typer.Option("--base", help="As for export.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a model is whole: weights, tokens, index, generation; the exit status is 1 where it isn't."""
    from dataclasses import asdict

    from itemic.model.check import check_model

    reference = None if against is None else _folder_or_checkpoint(against, base).lm
    proofs = check_model(folder, reference=reference)
    if as_json:
        print_json([asdict(proof) for proof in proofs])
    else:
        for proof in proofs:
            mark = {True: "ok", False: "FAULT", None: "-"}[proof.ok]
            say(f"{mark:>5}  {proof.name}: {proof.detail}")
    if not all(proof.ok for proof in proofs):
        raise typer.Exit(1)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    as_json: AsJson = False,
) -> None:
    """What a model folder holds, and that its parts belong together."""
    from itemic.model.model import Model, embeddings

    model = Model.load(folder)
    first, stop = model.new_token_range
    about = {
        "kind": model.lm.config.model_type,
        "parameters": model.lm.num_parameters(),
        "dtype": str(model.lm.dtype).removeprefix("torch."),
        "vocabulary": len(model.tokenizer),
        "embeddings": len(embeddings(model.lm)),
        "tied": bool(model.lm.config.get_text_config().tie_word_embeddings),
        "item_tokens": [first, stop],
        "items": len(model.index),
        "index": model.index.digest,
    }
    if as_json:
        print_json(about)
        return
    for key, value in about.items():
        say(f"{key}: {value}")


@app.command()
def curves(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or one of its train.STAGE.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture, a PNG.")],
) -> None:
    """Draw the losses and validations of a run's stages."""
    from itemic.training.curves import plot_curves

    plot_curves(folder, output)
    typer.echo(f"{output}: the curves of {folder}")
