"""What commands share: options, printing, artifacts made outside of runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itemic.errors import ConfigError

if TYPE_CHECKING:
    from itemic.data.dataset import Dataset
    from itemic.sid.index import ItemIndex
    from itemic.sid.names import ItemNames

Output = Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")]
Seed = Annotated[int, typer.Option(help="Of all random choices.", min=0)]
Set = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="An option; the value is YAML.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings(pairs: list[str] | None) -> dict[str, Any]:
    """``["dims=64", "fields={title: 1}"]`` as a mapping.

    Raises:
        ConfigError: a pair without ``=``, or a value that is not YAML.
    """
    import yaml

    found = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        try:
            if not equals:
                raise ConfigError(f"-s {pair} has no value", "Write -s KEY=VALUE.")
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"-s {pair}: the value is not YAML", "Quote it, or mend it.") from error
    return found


def start_logging() -> None:
    """Log lines on stderr, as detailed as --verbose asks; of several ranks the first alone tells how it goes."""
    from itemic.cli import state
    from itemic.progress import log, setup_logging

    setup_logging(state.verbose)
    if os.environ.get("RANK", "0") != "0":
        log.setLevel("WARNING")


@contextmanager
def artifact(
    output: Path, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Path], seed: int | None = None
) -> Iterator[Path]:
    """A folder made by one command: whole or not at all, with a manifest that says how."""
    from itemic.artifact import Manifest, building, digest_files, versions

    digests = {name: digest_files(path) for name, path in inputs.items() if path.exists()}
    plain = json.loads(json.dumps(dict(config), default=str))
    manifest = Manifest(kind, plain, digests, seed, versions=versions("polars", "torch", "transformers"))
    with building(output, manifest, resume=False) as folder:
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    typer.echo(f"wrote {output}")


def load_dataset(folder: Path) -> Dataset:
    """A dataset folder, or the one in a run's folder."""
    from itemic.data import Dataset

    inside = folder / "data"
    return Dataset.load(inside if inside.is_dir() else folder)


def load_index(folder: Path) -> ItemIndex:
    """An index folder of semantic IDs, or the one in a run's or a model's folder."""
    from itemic.sid.index import ItemIndex

    return ItemIndex.load(_index_in(folder))


def load_names(folder: Path) -> ItemNames:
    """The same where items may go by titles as well."""
    from itemic.sid.kinds import load_names

    return load_names(_index_in(folder))


def _index_in(folder: Path) -> Path:
    return next((folder / name for name in ("index", "sid") if (folder / name).is_dir()), folder)


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """Lines that hold text of others, on stdout or stderr: control codes are made visible."""
    from itemic.text import shown

    typer.secho(shown(text, lines=True), err=err, **style)


def print_json(value: Any) -> None:
    say(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(table: Any) -> None:
    """A rich table on stdout."""
    from rich.console import Console

    from itemic.screen import WIDE

    screen = Console()
    wide = screen if screen.is_terminal else Console(width=WIDE)
    wide.print(table)
