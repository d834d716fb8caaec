"""``itemic sid``: semantic IDs for the items of a dataset."""

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
    load_index,
    print_json,
    print_table,
    say,
    settings,
    start_logging,
)

if TYPE_CHECKING:
    from itemic.sid.index import ItemIndex
    from itemic.sid.tokenizer import ItemTokenizer

app = typer.Typer(help="Semantic IDs: build, embed, judge, compare, take elsewhere.", no_args_is_help=True)
EncoderOptions = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the encoder; the value is YAML.")
]


@app.command()
def build(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.")],
    output: Output,
    published: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Published semantic IDs instead.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Items to vectors; auto: lsa, or collaborative without texts.")
    ] = "auto",
    encoder_option: EncoderOptions = None,
    quantizer: Annotated[str, typer.Option(help="Vectors to codes.")] = "rqkmeans",
    option: Set = None,
    levels: Annotated[str, typer.Option(help="Codes of each level.")] = "256,256,256,256",
    collisions: Annotated[
        str | None,
        typer.Option(help="keep, rank, reassign or sinkhorn.", show_default="reassign; keep with --import"),
    ] = None,
    duplicates: Annotated[
        str, typer.Option(help="Items with the very same text: apart, or share one semantic ID.")
    ] = "apart",
    format: Annotated[str, typer.Option(help="onerec, minionerec or offset.")] = "onerec",
    seed: Seed = 0,
) -> None:
    """Give every item a semantic ID (-s sets options of the quantizer)."""
    from itemic.sid.build import build_tokenizer
    from itemic.sid.published import import_index

    start_logging()
    data, sizes = load_dataset(dataset), _sizes(levels)
    made: ItemIndex | ItemTokenizer
    if published is not None:
        made = index = import_index(data, published, format=format, collisions=collisions or "keep")
    else:
        made = build_tokenizer(
            data,
            encoder=encoder,
            quantizer=quantizer,
            levels=sizes,
            collisions=collisions or "reassign",
            duplicates=duplicates,
            format=format,
            seed=seed,
            encoder_options=settings(encoder_option),
            quantizer_options=settings(option),
        )
        index = made.index
    inputs = {"dataset": dataset} | ({"import": published} if published else {})
    with artifact(output, "index", index.origin | {"format": format}, inputs, seed) as folder:
        made.save(folder)
    stats = index.collisions
    typer.echo(f"{stats.items:,} items, {stats.sids:,} semantic IDs, collision rate {stats.rate:.2%}")


@app.command()
def titles(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or a run's.")],
    output: Output,
    column: Annotated[str, typer.Option(help="The items' column of text that is their name.")] = "title",
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Cut names to so many tokens of --base.", show_default="not cut", min=1),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base model: its folder, or its name on the hub.")
    ] = None,
) -> None:
    """Let every item go by its title instead of a semantic ID: models need no new tokens for it."""
    from itemic.errors import ConfigError
    from itemic.sid.titles import TitleNames

    start_logging()
    if (max_tokens is None) != (base is None):
        raise ConfigError(
            "the tokens of --max-tokens are those of --base",
            "Give both of them, or neither to keep whole texts.",
        )
    tokenizer = None
    if base is not None:
        from itemic.model.folder import load_tokenizer
        from itemic.sid.encoders.huggingface import find_model

        tokenizer = load_tokenizer(find_model(base))
    names = TitleNames.of(load_dataset(dataset), column=column, max_tokens=max_tokens, tokenizer=tokenizer)
    with artifact(output, "index", names.origin, {"dataset": dataset}) as folder:
        names.save(folder)
    counts = {key: names.origin[key] for key in ("no_text", "cut", "numbered")}
    told = ", ".join(f"{count:,} {key.replace('_', ' ')}" for key, count in counts.items())
    typer.echo(f"{len(names):,} items by their {column}: {told}")


@app.command()
def embed(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or a run's.")],
    output: Output,
    encoder: Annotated[str, typer.Option(help="Text to vectors.")] = "lsa",
    encoder_option: EncoderOptions = None,
    seed: Seed = 0,
) -> None:
    """Write the items' vectors as X.emb-ENCODER.npy, with their ids beside it; the encoder precomputed reads them."""
    from itemic.sid.build import encode_items
    from itemic.sid.encoders.npy import write_npy

    start_logging()
    data = load_dataset(dataset)
    vectors, record = encode_items(data, encoder, seed=seed, options=settings(encoder_option))
    name = f"{data.name}.emb-{encoder}.npy"
    with artifact(output, "vectors", record, {"dataset": dataset}, seed) as folder:
        write_npy(folder / name, data.item_ids, vectors)
    typer.echo(f"{output / name}: {len(vectors):,} vectors of {vectors.shape[1]} numbers")


@app.command()
def assign(
    folder: Annotated[Path, typer.Argument(help="What `itemic sid build` wrote, or a run's folder.")],
    dataset: Annotated[
        Path, typer.Argument(help="A dataset folder that has the new items (and maybe old ones).")
    ],
    output: Output,
    as_json: AsJson = False,
) -> None:
    """Give semantic IDs to items that have none; old ones stay, and so do the codebooks."""
    from itemic.sid.tokenizer import ItemTokenizer

    start_logging()
    source = folder / "index" if (folder / "index").is_dir() else folder
    found = ItemTokenizer.load(source).assign(load_dataset(dataset).items)
    with artifact(output, "index", found.index.origin, {"index": source, "dataset": dataset}) as target:
        found.tokenizer.save(target)
    drift = None if found.drift is None else found.drift.to_json()
    if as_json:
        print_json({"new": len(found.new), "known": len(found.known), "moved": found.moved, "drift": drift})
        return
    typer.echo(
        f"{len(found.new):,} new items, {len(found.known):,} known before, {found.moved:,} not at their nearest codes"
    )
    if found.drift is not None:
        typer.echo(found.drift.line)
        worst = ", ".join(f"{name} ({value:.2f})" for name, value in found.drift.farthest[:5])
        say(f"farthest from the codebooks: {worst}")


def _sizes(text: str) -> list[int]:
    from itemic.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--levels is {text!r}", "Write sizes with commas, such as 256,256,256.") from error


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="An index folder, or a run's or a model's.")],
    item: Annotated[list[str] | None, typer.Option(help="Items to look up.")] = None,
    first: Annotated[int, typer.Option(help="How many items to list otherwise.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """What an index holds: levels, collisions, digest, and semantic IDs of some items."""
    from itemic.errors import DataError
    from itemic.screen import Table

    index = load_index(folder)
    places = {name: row for row, name in enumerate(index.item_ids)}
    unknown = [name for name in item or [] if name not in places]
    if unknown:
        raise DataError(f"{folder} has no item {unknown[0]!r}", f"Ids look like {index.item_ids[0]!r}.")
    rows = [places[name] for name in item] if item else list(range(min(first, len(index))))
    stats = index.collisions
    about = {
        "items": stats.items,
        "semantic_ids": stats.sids,
        "collision_rate": stats.rate,
        "sizes": list(index.sizes),
        "codes_used": [len(set(index.codes[:, level].tolist())) for level in range(index.levels)],
        "format": index.format,
        "digest": index.digest,
        "origin": index.origin,
    }
    if as_json:
        print_json(about | {"shown": {index.item_ids[row]: index.text(row) for row in rows}})
        return
    for key, value in about.items():
        say(f"{key}: {value}")
    table = Table("item", "semantic ID")
    for row in rows:
        table.add_row(index.item_ids[row], index.text(row))
    print_table(table)
