"""Any table of interactions, and a table of items where there is one."""

from __future__ import annotations

from collections.abc import Sequence

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.columns import ITEM, USER, Names
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import Source
from itemic.data.readers.table_build import build
from itemic.data.readers.table_files import find_tables, holds_interactions
from itemic.data.readers.text_table import Layout
from itemic.data.readers.tidy_events import Reading


def read(
    source: Source,
    rows: BadRows,
    *,
    interactions: str | None = None,
    items: str | bool | None = None,
    users: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    quoted: bool = True,
    encoding: str = "utf-8",
    columns: Sequence[str] | None = None,
    user: str | None = None,
    item: str | None = None,
    timestamp: str | bool | None = None,
    unit: str | None = None,
    rating: str | bool | None = None,
    review: str | bool | None = None,
    items_key: str | None = None,
    users_key: str | None = None,
    title: str | bool | None = None,
    description: str | bool | None = None,
    brand: str | bool | None = None,
    categories: str | bool | None = None,
    category_separator: str | None = None,
    tags: str | bool | None = None,
    tag_separator: str | None = None,
    price: str | bool | None = None,
    promise_order: bool = False,
) -> Dataset:
    """Read a table of interactions, and one of items.

    Files are text (CSV, TSV, …), Parquet, Arrow or JSON Lines, plain or compressed, each table in one file or in
    several whose names differ in numbers. What no option names is told from the columns' usual names and from the
    values; it is logged and noted in ``Dataset.notes["read"]``. Columns without a part travel along under their own
    names. Without a table of items, the interactions' own columns may tell of them (``product_name``, or what an option
    names): of each item the first value counts.

    Args:
        source: the folder, the file of interactions, or files of them.
        rows: what to do with bad ones.
        interactions: the file of interactions in a folder, or a pattern of its parts (``events/*.parquet``).
        items: likewise of items; False for none.
        users: likewise of users, whose columns are known of them; None for none.
        separator: of text files: one character, ``tab`` or ``space``; found from the header by default.
        decimal: the decimal mark of numbers in text files; by default a comma where fields are parted by semicolons and
            the numbers have commas.
        quoted: fields of text files may stand in double quotes.
        encoding: of text files.
        columns: the names of the columns where the text file of interactions has no header.
        user: the column of users.
        item: the column of items.
        timestamp: the column of times; False for none: then the order of rows is the order of time.
        unit: of times: ``s``, ``ms``, ``us``, ``ns``, ``iso``, ``yyyymmdd`` or a pattern like ``%d/%m/%Y``.
        rating: the column of ratings; False for none, likewise below.
        review: the column of what users wrote.
        items_key: the items' column of ids, where it has another name than in the interactions.
        users_key: the users' column of ids, where it has another name than in the interactions.
        title: the items' column of titles.
        description: that of descriptions.
        brand: that of brands.
        categories: that of category paths, from general to specific.
        category_separator: parts a path, e.g. ``>``.
        tags: that of labels without order, such as genres.
        tag_separator: parts labels, e.g. ``|``.
        price: that of prices.
        promise_order: an event earlier than one before it of the same user is a bad row, not one to be sorted.
    """
    names: Names = {USER: user, ITEM: item, c.TIMESTAMP: timestamp, c.RATING: rating, c.REVIEW: review}
    about: Names = {ITEM: items_key, c.TITLE: title, c.DESCRIPTION: description, c.BRAND: brand}
    about = {**about, c.CATEGORIES: categories, c.TAGS: tags, c.PRICE: price}
    layout = Layout(separator, quoted, encoding, tuple(columns) if columns else None)
    return build(
        source.name,
        find_tables(source, layout, names, interactions, items, users),
        names,
        about,
        Reading(unit, decimal, category_separator=category_separator, tag_separator=tag_separator),
        rows,
        promise_order=promise_order,
        users_key=users_key,
    )


READER = Reader(
    "table", "any table with a column of users and one of items", holds_interactions, read, general=True
)
