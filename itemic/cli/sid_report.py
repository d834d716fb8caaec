"""``itemic sid report | compare | convert | export``: how good semantic IDs are, and in other systems' forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itemic.cli.common import (
    AsJson,
    Seed,
    artifact,
    load_dataset,
    load_index,
    print_json,
    print_table,
    say,
    start_logging,
)
from itemic.cli.sid import app

if TYPE_CHECKING:
    from itemic.data.dataset import Dataset
    from itemic.sid.codebooks import Codebooks
    from itemic.sid.index import ItemIndex
    from itemic.sid.report import SidReport
    from itemic.sid.vectors import Float32

__all__ = ["app"]

FALLBACK = "auto"  # the encoder that judges indexes which name none
Folder = Annotated[Path, typer.Argument(help="An index folder, or a run's or a model's.")]
Vectors = Annotated[
    Path | None,
    typer.Option(metavar="FILE.npy", help="Item vectors [n, d] to judge by, in the order of the dataset."),
]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a self-contained page with plots.")]


@app.command("report")
def report_(
    folder: Folder,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The dataset; adds duplicates, categories, examples.",
            show_default="a run's own",
        ),
    ] = None,
    vectors: Vectors = None,
    encode: Annotated[
        bool, typer.Option(help="Make the vectors again with the index's encoder, where none are given.")
    ] = True,
    name: Annotated[
        str | None, typer.Option(help="What to call the index.", show_default="by dataset and quantizer")
    ] = None,
    html: Html = None,
    as_json: AsJson = False,
    seed: Seed = 0,
) -> None:
    """How good semantic IDs are: usage of codes, collisions, branching, categories, neighbours.

    With vectors (given, or made again by the encoder that the index names) it tells the reconstruction error of every
    level and how many true neighbours share a prefix.
    """
    from itemic.sid.report import report

    start_logging()
    index = load_index(folder)
    dataset = _dataset_of(folder, data)
    if dataset is not None:
        index.check_dataset(dataset)
    table = _load_vectors(vectors) if vectors else None
    if table is None and dataset is not None and encode:
        table = _own_vectors(folder, index, dataset)
    books = None if table is None else _codebooks(folder, table)
    made = report(index, dataset, table, books, seed=seed, name=name)
    _show(made, html, as_json)


@app.command()
def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Index, run or model folders, reports (.json), or published files (.json, .parquet)."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The dataset of all of them; published files need it."),
    ] = None,
    vectors: Vectors = None,
    encode: Annotated[
        bool,
        typer.Option(
            help=f"Make vectors with the encoder of the first index that names one ({FALLBACK} if none does)."
        ),
    ] = True,
    html: Html = None,
    as_json: AsJson = False,
    seed: Seed = 0,
) -> None:
    """Several indexes side by side, published ones among them, all judged by the same vectors.

    Saved reports are taken as they are; everything else is measured anew against --data.
    """
    from itemic.sid.report import SidReport, report
    from itemic.sid.report import compare as side_by_side

    start_logging()
    dataset = None if data is None else load_dataset(data)
    found = [_read(source, dataset) for source in sources]
    table, used = (_load_vectors(vectors) if vectors else None), None
    if table is None and dataset is not None and encode:
        table, used = _common_vectors([one for one in found if not isinstance(one, SidReport)], dataset)
    reports = []
    for source, one in zip(sources, found, strict=True):
        if isinstance(one, SidReport):
            reports.append(one)
            continue
        fits = table is not None and (used is None or one.origin.get("encoder") == used)
        books = _codebooks(source, table) if fits and table is not None and source.is_dir() else None
        reports.append(report(one, dataset, table, books, seed=seed))
    _show(side_by_side(reports), html, as_json)


@app.command()
def convert(
    folder: Folder,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    format: Annotated[str, typer.Option(help="onerec, minionerec or offset.")],
) -> None:
    """Write the same codes in another token format, as a new index folder.

    The digest changes: models that speak the old tokens go on with the old folder.
    """
    from dataclasses import replace

    from itemic.sid.export import convert
    from itemic.sid.tokenizer import HEAD, ItemTokenizer

    start_logging()
    source = _index_folder(folder)
    index = convert(load_index(folder), format)
    with artifact(output, "index", index.origin | {"format": format}, {"index": source}) as target:
        if (source / HEAD).is_file():
            replace(ItemTokenizer.load(source), index=index).save(target)
        else:
            index.save(target)
    say(f"{len(index):,} items, such as {index.text(0)}; digest {index.digest}")


@app.command()
def export(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="The file to write; one that is there is replaced.")],
    name: Annotated[str, typer.Option("--as", help="letter (MiniOneRec's too), onerec-think or openonerec.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="The dataset; onerec-think writes its texts.", show_default="a run's own"
        ),
    ] = None,
) -> None:
    """Write semantic IDs as the file that another system reads; `itemic sid build --import` reads it back."""
    from itemic.sid.export import export_index

    start_logging()
    index = load_index(folder)
    export_index(index, file, name, _dataset_of(folder, data))
    typer.echo(f"wrote {len(index):,} semantic IDs to {file}")


# ------------------------------------------------------------------------- sources


def _index_folder(folder: Path) -> Path:
    return next((folder / name for name in ("index", "sid") if (folder / name).is_dir()), folder)


def _dataset_of(folder: Path, data: Path | None) -> Dataset | None:
    """The dataset that was named, else the one of the run that the index is in, else none."""
    if data is not None:
        return load_dataset(data)
    return load_dataset(folder) if (folder / "data").is_dir() else None


def _read(source: Path, dataset: Dataset | None) -> ItemIndex | SidReport:
    """An index, or a finished report."""
    from itemic.errors import ConfigError
    from itemic.sid.published import import_index
    from itemic.sid.report import SidReport

    if source.is_dir():
        index = load_index(source)
        if dataset is not None:
            index.check_dataset(dataset)
        return index
    if _is_report(source):
        return SidReport.load(source)
    if dataset is None:
        raise ConfigError(f"{source} holds semantic IDs without items", "Give their dataset with --data.")
    return import_index(dataset, source)


def _is_report(file: Path) -> bool:
    if file.suffix == ".parquet":
        return False
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the import says what is wrong with it
    return isinstance(content, dict) and {"digest", "levels", "prefixes"} <= set(content)


def _load_vectors(file: Path) -> Float32:
    import numpy as np

    from itemic.errors import DataError
    from itemic.sid.vectors import check_vectors

    try:
        return check_vectors(np.load(file, allow_pickle=False), str(file))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} holds no vectors: {error}", "Give what numpy.save wrote.") from error


def _own_vectors(folder: Path, index: ItemIndex, dataset: Dataset) -> Float32 | None:
    """The vectors that the index was made from; None where it names no encoder."""
    from itemic.sid.build import encode_items
    from itemic.sid.tokenizer import HEAD, ItemTokenizer

    source = _index_folder(folder)
    if (
        "assigned" in index.origin and (source / HEAD).is_file()
    ):  # the encoder didn't learn from the new items
        return ItemTokenizer.load(source).encoder.transform(dataset.items)
    made = _encoder_of(index)
    return None if made is None else encode_items(dataset, **made)[0]


def _common_vectors(indexes: list[ItemIndex], dataset: Dataset) -> tuple[Float32 | None, Any]:
    """Vectors to judge all indexes by, and the record of their encoder."""
    from itemic.progress import log
    from itemic.sid.build import encode_items

    if not indexes:
        return None, None
    made = next((found for found in map(_encoder_of, indexes) if found), {"encoder": FALLBACK})
    log.info("neighbours by the vectors of encoder %s", made["encoder"])
    vectors, record = encode_items(dataset, **made)
    return vectors, json.loads(json.dumps(record))


def _encoder_of(index: ItemIndex) -> dict[str, Any] | None:
    """Arguments of ``encode_items``; None for an index that names no encoder."""
    from itemic.sid.item_encoder import COLLABORATIVE

    record = index.origin.get("encoder")
    if record is None:
        return None
    shared = {key: record[key] for key in COLLABORATIVE if key in record}
    return {
        "encoder": record["name"],
        "options": record.get("options", {}) | shared,
        "seed": index.origin.get("seed", 0),
    }


def _codebooks(folder: Path, vectors: Float32) -> Codebooks | None:
    """The codebooks of a bundle for vectors of that width; None where there are none."""
    from itemic.sid.codebooks import Codebooks
    from itemic.sid.index import CODEBOOKS
    from itemic.sid.tokenizer import HEAD

    source = _index_folder(folder)
    if not (source / HEAD).is_file():
        return None
    books = Codebooks.load(source / CODEBOOKS)
    return books if books.width == vectors.shape[1] else None


def _show(made: Any, html: Path | None, as_json: bool) -> None:
    from itemic.artifact import write_text

    print_json(made.to_json()) if as_json else print_table(made.table())
    if html is not None:
        write_text(html, made.html())
        typer.echo(f"wrote {html}", err=as_json)
