"""MovieLens: ``ratings.csv`` and ``movies.csv``, or the older ``.dat`` files ("::" between fields), with ``users.dat``
where there is one."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.delimited import Delimited, csv_rows, require_columns, with_unit
from itemic.data.readers.events import Events, read_events
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows, Catalogue
from itemic.data.readers.source import Source
from itemic.data.readers.users import UserRows

COLUMNS = ("userId", "movieId", "rating", "timestamp")
NO_GENRES = "(no genres listed)"
FURTHER = {c.TAGS: pl.List(pl.String), "year": pl.Int32}
USERS = {"gender": pl.String, "age": pl.String, "occupation": pl.String, "zip_code": pl.String}
# What the numbers of users.dat mean, as the README of ML-1M says
AGES = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56+",
}
OCCUPATIONS = (
    *("other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service"),
    *("doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer"),
    *("programmer", "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer"),
    *("tradesman/craftsman", "unemployed", "writer"),
)
_YEAR = re.compile(r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$")  # Toy Story (1995), The Office (2005-2013)


def finds(source: Source) -> bool:
    return any(source.match(f"ratings.{kind}") and source.match(f"movies.{kind}") for kind in ("csv", "dat"))


def read(source: Source, rows: BadRows, *, promise_order: bool = False) -> Dataset:
    """Read ratings and movies; genres become tags, and the year of a title a column. Of ``users.dat`` gender, age and
    occupation (in words) and ``zip_code`` are known of users.

    Args:
        source: the folder.
        rows: what to do with bad ones.
        promise_order: an event earlier than one before it of the same user is a bad row, not one to be
            sorted.
    """
    if source.match("ratings.csv"):
        ratings, movies = source.one("ratings.csv"), source.one("movies.csv")
        header = tuple(next(iter(source.head(ratings)), "").split(","))
        require_columns(source.where(ratings), COLUMNS, header)
        layout = Delimited(header, *COLUMNS)
        catalogue = _movies_csv(source, movies, rows)
    else:
        ratings, movies = source.one("ratings.dat"), source.one("movies.dat")
        layout = Delimited(COLUMNS, *COLUMNS, separator="::", quoted=False)
        catalogue = _movies_dat(source, movies, rows)
    layout = with_unit(source, ratings, layout)
    events = Events()
    is_csv = ratings.endswith("csv")
    lines = read_events(source, ratings, rows, events, header=is_csv, **layout.reading)
    users = None if is_csv or not source.match("users.dat") else _users(source, source.one("users.dat"), rows)
    return assemble(
        name=source.folder_name,
        catalogue=catalogue,
        events=events,
        rows=rows,
        files={ratings: lines, movies: catalogue.taken}
        | ({} if users is None else {source.one("users.dat"): users.taken}),
        promise_order=promise_order,
        notes={"format": "movielens"},
        users=None if users is None else users.frame(),
    )


def _movies_csv(source: Source, file: str, rows: BadRows) -> Catalogue:
    catalogue = Catalogue(rows, source.where(file), more=FURTHER)
    for line, row in csv_rows(source, file, ("movieId", "title", "genres"), rows):
        catalogue.add(
            f"line {line}", row["movieId"], row["title"], more=_further(row["title"], row["genres"])
        )
    return catalogue


def _movies_dat(source: Source, file: str, rows: BadRows) -> Catalogue:
    catalogue = Catalogue(rows, source.where(file), more=FURTHER)
    for lines in source.batches(file):
        for number, raw in lines:
            fields = _decode(raw).split("::")
            if len(fields) == 3:
                catalogue.add(f"line {number}", fields[0], fields[1], more=_further(*fields[1:]))
            elif raw.strip():
                what = f"{len(fields)} fields where there should be 3"
                rows.report("broken line", f"{source.where(file)}, line {number}", what)
    return catalogue


def _users(source: Source, file: str, rows: BadRows) -> UserRows:
    found = UserRows(rows, source.where(file), USERS)
    for lines in source.batches(file):
        for number, raw in lines:
            fields = [field.strip() for field in _decode(raw).split("::")]
            if len(fields) == 5:
                user, gender, age, work, place = fields
                known = int(work) if work.isdecimal() else len(OCCUPATIONS)
                work = OCCUPATIONS[known] if known < len(OCCUPATIONS) else work
                told = (gender, AGES.get(age, age), work, place)
                found.add(
                    f"line {number}",
                    user,
                    {name: text or None for name, text in zip(USERS, told, strict=True)},
                )
            elif raw.strip():
                what = f"{len(fields)} fields where there should be 5"
                rows.report("broken line", f"{source.where(file)}, line {number}", what)
    return found


def _decode(raw: bytes) -> str:
    """ML-1M is latin-1, ML-10M is UTF-8; accented latin-1 text is practically never valid UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _further(title: str, genres: str) -> dict[str, Any]:
    year = _YEAR.search(title)
    names = [] if genres == NO_GENRES else [name for name in genres.strip().split("|") if name]
    return {c.TAGS: names, "year": int(year.group(1)) if year else None}


READER = Reader("movielens", "ratings.csv and movies.csv, or ratings.dat and movies.dat", finds, read)
