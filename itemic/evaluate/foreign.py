"""Recommendations that other programs made, as a ranking: RecTools' and RecBole's tables, and our own exports."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import DataError
from itemic.evaluate.ranking import NAMED, Ranking, RankingWriter

NAMES = {  # what others call our columns; those of RecBole have a type behind them, such as user_id:token
    "user": ("user_id", "user", "userid", "uid"),
    "item": ("item_id", "item", "itemid", "iid", "item_list", "item_id_list"),
    "rank": ("rank",),
    "score": ("score", "prediction", "rating"),
    "request": ("request",),
}
TEXT = (".csv", ".tsv", ".txt", ".inter", ".rec", ".gz")
PARQUET = (".parquet", ".pq")
SUFFIXES = (*TEXT, *PARQUET, ".json")
FORM = (
    "Give columns user_id and item_id, and rank or score: CSV, TSV, Parquet, a RecBole file, or what "
    "`itemic evaluate export` writes."
)


@dataclass
class _Strangers:
    """Ids that the dataset doesn't have: how many, and the first of them."""

    users: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    missing: int = 0

    @property
    def notes(self) -> list[str]:
        found = [
            f"{len(ids):,} {kind} of the file {'is' if len(ids) == 1 else 'are'} unknown here ({_named(ids)}): {so}."
            for kind, ids, so in (
                ("user(s)", self.users, "left out"),
                ("item(s)", self.items, "they keep their places and hit nothing"),
            )
            if ids
        ]
        if self.missing:
            found.append(
                f"{self.missing:,} requests have no recommendations in the file and count as misses."
            )
        return found


def read_recommendations(
    path: str | Path, dataset: Dataset, split: str = c.TEST, name: str | None = None
) -> Ranking:
    """Read a table of recommendations as a ranking of a split's requests.

    The file is a table with a row for each user and item (RecTools' ``user_id, item_id, score, rank``; RecBole's
    ``user_id:token, item_id:token, score:float``, also with a list of items in a row), or what ``itemic evaluate
    export`` wrote. Lists are in the order of ``rank``, else of falling ``score``, else of the file. Ids are compared as
    text.

    Args:
        path: CSV, TSV, Parquet, JSON, or a RecBole file (``.inter``).
        dataset: whose users were asked.
        split: ``valid`` or ``test``.
        name: of the ranker; None for the file's.

    Returns:
        a ranking in a folder that lives as long as it does. ``head.config["notes"]`` says which users and items of
        the file are unknown, and how many requests have no list and count as misses.

    Raises:
        DataError: the file can't be read, lacks a column, has an item twice in a list, fits no user or no item, or
            doesn't say which of a user's requests it answers.
    """
    file = Path(path)
    requests = dataset.split(split)
    table = _ordered(_with_places(_read(file), file), file)
    strangers = _Strangers()
    table = _requests_of(table, requests, strangers, file, split)
    table = _rows_of(table, dataset, strangers, file)
    items, scores = _arrays(table, len(requests))
    strangers.missing = len(requests) - table["request"].n_unique()
    config = {"read": file.name, "notes": strangers.notes}
    writer = RankingWriter(None, name or file.stem, requests, dataset.item_ids, items.shape[1], config=config)
    for part in range(writer.head.parts):
        start, stop = writer.head.bounds(part)
        writer.write(part, items[start:stop], scores[start:stop])
    return writer.ranking


def is_recommendations(path: Path) -> bool:
    """Whether a file is one of those that :func:`read_recommendations` reads, by its name (and beginning, if JSON)."""
    if path.suffix.lower() != ".json":
        return path.is_file() and path.suffix.lower() in SUFFIXES
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(12).replace(" ", "").startswith('{"metrics":')


def _read(file: Path) -> pl.DataFrame:
    """The file's table, columns by our names; all but lists as text."""
    kind = file.suffix.lower()
    try:
        if kind == ".json":
            table = _from_export(json.loads(file.read_text(encoding="utf-8")))
        elif kind in PARQUET:
            table = pl.read_parquet(file)
        elif kind in TEXT:
            table = pl.read_csv(
                file, separator=_separator(file), infer_schema=False, quote_char=_quotes(file)
            )
        else:
            raise DataError(f"{file} is no table that is known", FORM)
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"can't read {file}: {error}", FORM) from error
    plain = {column: column.partition(":")[0].strip().lower() for column in table.columns}
    found = {}
    for ours, theirs in NAMES.items():
        match = [column for name in theirs for column, bare in plain.items() if bare == name]
        if match:
            found[ours] = match[0]
    if absent := [name for name in ("user", "item") if name not in found]:
        raise DataError(f"{file} lacks the {absent[0]}: it has {', '.join(table.columns) or 'nothing'}", FORM)
    table = table.select(pl.col(column).alias(ours) for ours, column in found.items())
    seq = found["item"].endswith(":token_seq") or found["item"].endswith("list")
    if seq and table["item"].dtype == pl.String:
        table = table.with_columns(pl.col("item").str.strip_chars("[] ").str.split(" "))
    if table["item"].dtype == pl.List:
        lists = [name for name, dtype in table.schema.items() if isinstance(dtype, pl.List)]
        table = table.explode(lists, empty_as_null=True)
    return table.with_columns(_as_text(table[name]) for name in ("user", "item"))


def _from_export(value: dict[str, object]) -> pl.DataFrame:
    rows = [
        (one["request"], one["user"], place["item"], place["rank"], place["score"])
        for one in value["predictions"]  # type: ignore[attr-defined]
        for place in one["items"]
    ]
    return pl.DataFrame(
        rows,
        {
            "request": pl.Int64,
            "user_id": pl.String,
            "item_id": pl.String,
            "rank": pl.Int64,
            "score": pl.Float64,
        },
        orient="row",
    )


def _header(file: Path) -> str:
    import gzip

    with (
        gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")
    ) as lines:
        return lines.readline()


def _separator(file: Path) -> str:
    first = _header(file)
    return max("\t,;|", key=lambda mark: (first.count(mark), mark == "\t"))


def _quotes(file: Path) -> str | None:
    """RecBole's files quote nothing."""
    return None if ":token" in _header(file) else '"'


def _as_text(ids: pl.Series) -> pl.Series:
    """Ids as text; a column of whole numbers that pandas made floats of loses its point."""
    if ids.dtype.is_float() and (whole := ids.drop_nulls().drop_nans()).eq(whole.round()).all():
        ids = ids.fill_nan(None).cast(pl.Int64)
    return ids.cast(pl.String)


def _with_places(table: pl.DataFrame, file: Path) -> pl.DataFrame:
    """Rows with an item, and columns ``line``, ``rank`` and ``score`` as numbers, null where the file has none."""
    table = table.with_row_index("line", offset=1)
    nobody = table.filter(pl.col("user").is_null() | (pl.col("user") == ""))
    if len(nobody):
        raise DataError(f"row {nobody['line'][0]} of {file} names no user", "Mend the row, or leave it out.")
    empty = pl.col("item").is_null() | (pl.col("item") == "")
    table = table.filter(~empty)  # a request that got nothing has a row without an item in our exports
    if not len(table):
        raise DataError(f"{file} recommends nothing", FORM)
    for name in ("rank", "score"):
        if name not in table.columns:
            table = table.with_columns(pl.lit(None, pl.Float64).alias(name))
            continue
        numbers = table[name].cast(pl.Float64, strict=False).fill_nan(None)
        if numbers.null_count():
            row = table.filter(numbers.is_null()).row(0, named=True)
            raise DataError(
                f"row {row['line']} of {file} has the {name} {row[name]!r}", f"Give a number as the {name}."
            )
        table = table.with_columns(numbers.alias(name))
    return table


def _ordered(table: pl.DataFrame, file: Path) -> pl.DataFrame:
    """By user (and request), the best item first; nothing twice."""
    whose = ["request", "user"] if "request" in table.columns else ["user"]
    for column, what in (("item", "item"), ("rank", "rank")):
        twice = table.filter(pl.col(column).is_not_null() & pl.struct(*whose, column).is_duplicated())
        if len(twice):
            row = twice.row(0, named=True)
            shown = f"{row['rank']:g}" if column == "rank" else repr(row["item"])
            raise DataError(
                f"{file} gives user {row['user']!r} the {what} {shown} more than once (first in row {row['line']}; "
                f"{len(twice):,} such rows)",
                "Give each user one list, with every item once.",
            )
    return (
        table.with_columns(-pl.col("score"))
        .sort(*whose, "rank", "score", "line")
        .with_columns(-pl.col("score"))
    )


def _requests_of(
    table: pl.DataFrame, requests: Requests, strangers: _Strangers, file: Path, split: str
) -> pl.DataFrame:
    """With the number of the request that each row answers."""
    users = pl.Series("user", requests.users.tolist(), pl.String)
    asked = pl.DataFrame({"user": users, "_request": np.arange(len(requests), dtype=np.int64)})
    known = table["user"].is_in(users.unique().implode())
    strangers.users = table.filter(~known)["user"].unique(maintain_order=True).to_list()
    if not known.any():
        raise DataError(
            f"no user of {file} asks in the {split} split: it has {_named(strangers.users)}, the split "
            f"{_named(users.head(NAMED).to_list())}",
            "Give the recommendations of this dataset's users, by the ids that it has.",
        )
    table = table.filter(known)
    if "request" in table.columns:
        numbered = table.with_columns(_request=pl.col("request").cast(pl.Int64, strict=False)).drop("request")
        fits = numbered.join(asked, on=["user", "_request"], how="semi")
        if len(fits) < len(numbered):
            odd = numbered.join(asked, on=["user", "_request"], how="anti").row(0, named=True)
            raise DataError(
                f"row {odd['line']} of {file} is of request {odd['_request']} by user {odd['user']!r}, which the "
                f"{split} split doesn't have",
                "Give the dataset and split that were ranked.",
            )
        return numbered.rename({"_request": "request"})
    often = asked.filter(
        pl.col("user").is_duplicated() & pl.col("user").is_in(table["user"].unique().implode())
    )
    if len(often):
        who = often["user"][0]
        raise DataError(
            f"user {who!r} asks {int((users == who).sum())} times in the {split} split, and {file} doesn't say which "
            "request a row answers",
            "Add a column `request`, the number of the request within the split from 0.",
        )
    return table.join(asked, on="user", how="left", maintain_order="left").rename({"_request": "request"})


def _rows_of(table: pl.DataFrame, dataset: Dataset, strangers: _Strangers, file: Path) -> pl.DataFrame:
    """With the row of each item, -1 for unknown ones."""
    rows = pl.DataFrame({"item": dataset.item_ids, "row": np.arange(len(dataset.item_ids), dtype=np.int32)})
    table = table.join(rows, on="item", how="left", maintain_order="left")
    strangers.items = table.filter(pl.col("row").is_null())["item"].unique(maintain_order=True).to_list()
    if table["row"].null_count() == len(table):
        raise DataError(
            f"no item of {file} is in dataset {dataset.name!r}: it has {_named(strangers.items)}, the dataset "
            f"{_named(dataset.item_ids)}",
            "Give the dataset that was recommended from, by the ids that it has.",
        )
    return table.with_columns(pl.col("row").fill_null(-1))


def _arrays(table: pl.DataFrame, count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Lists ``[R, K]`` of a table in order."""
    request = table["request"].to_numpy()
    lengths = np.bincount(request, minlength=count)
    order = np.argsort(request, kind="stable")
    place = np.arange(len(table)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = np.full((count, int(lengths.max())), -1, np.int32)
    scores = np.full(items.shape, -np.inf, np.float32)
    at = request[order], place
    items[at] = table["row"].to_numpy()[order]
    given = table["score"].is_not_null().all()
    scores[at] = table["score"].to_numpy()[order] if given else -(place + 1.0)
    return items, scores


def _named(ids: list[str]) -> str:
    more = ", …" if len(ids) > NAMED else ""
    return ", ".join(map(repr, ids[:NAMED])) + more
