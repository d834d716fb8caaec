"""Which conversations know what only validation or test may know.

An event is *held out* when its item is a target of validation or test. With semantic IDs compared, not items,
a conversation leaks when

1. it is about a user (``group`` is ``user:<id>``) and names an item, in its text or as its target, that this
   user has among the held-out events and not in training;
2. it is about a user and names two items in a row of which the second is held out right after the first, and
   which don't follow each other in this user's training part; where the answer is the title of the next item
   (task F), the target follows the last item named;
3. it is about no user and comes from neither A, B nor D (which only read the catalogue), and leads from an
   item to another where that hop leads to a held-out event for some user and never occurs in training. For
   rows of the kind ``before`` the hop runs from the answer to the item asked about;
4. it says itself that it belongs to another split than train.

Lists that a teacher made of training data (tasks ``SFT…``) are its opinion, in which one item doesn't follow another,
and which may well hold what a user takes later: of these the last rule alone is asked.

What the text says in titles rather than semantic IDs is judged by its target alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.sid.names import ItemNames
from itemic.tasks.next_title import NEXT_TITLE

CATALOGUE_TASKS = ("A", "B", "D")
LISTS = "SFT"  # how the names of tasks begin that teach lists, most of them a teacher's


@dataclass(frozen=True)
class HeldOut:
    """What must not be seen, as tables of semantic ID numbers: ``met`` (user, y), ``steps`` (user, x, y),
    ``hops`` (x, y)."""

    met: pl.DataFrame
    steps: pl.DataFrame
    hops: pl.DataFrame

    @classmethod
    def of(cls, dataset: Dataset, index: ItemNames) -> HeldOut:
        """Everything that occurs only with a target of validation or test."""
        whole, held = dataset.sequences, dataset.labels > 0
        user = pl.Series(whole.users, dtype=pl.String).gather(
            np.repeat(np.arange(len(whole)), np.diff(whole.offsets))
        )
        number = index.name_numbers[whole.items]
        table = pl.DataFrame({"user": user, "y": number, "held": held}).with_columns(
            x=pl.col("y").shift(1).over("user")
        )
        step = table.filter(pl.col("x").is_not_null())
        return cls(
            _only_held(table, ["user", "y"]),
            _only_held(step, ["user", "x", "y"]),
            _only_held(step, ["x", "y"]),
        )


def _only_held(table: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    seen = table.filter(~pl.col("held")).select(keys)
    return table.filter("held").select(keys).unique().join(seen, on=keys, how="anti")


def find_leaks(rows: pl.DataFrame, mentions: pl.DataFrame, held: HeldOut) -> pl.DataFrame:
    """The rows that leak.

    Args:
        rows: ``row``, ``task``, ``kind``, ``group``, ``split`` and ``targets`` (List of semantic ID numbers).
        mentions: ``row`` and ``y``, the number of every known semantic ID in a row's text, in order.
        held: what must not be seen.

    Returns:
        ``row`` and ``detail``.
    """
    known = rows.with_columns(
        user=pl.when(pl.col("group").str.starts_with("user:")).then(pl.col("group").str.strip_prefix("user:"))
    )
    opinion = pl.col("task").fill_null("").str.starts_with(LISTS)
    known = known.filter(~opinion)
    spoken = mentions.join(
        known.select("row", "user", "task", "kind"), on="row", how="inner", maintain_order="left"
    )
    pairs = spoken.with_columns(x=pl.col("y").shift(1).over("row")).filter(pl.col("x").is_not_null())
    named = pl.concat(
        [
            spoken.select("row", "user", "y"),
            known.select("row", "user", y="targets").explode("y").filter(pl.col("y").is_not_null()),
        ]
    ).filter(pl.col("user").is_not_null())
    steps = pl.concat([pairs.select("row", "user", "x", "y"), _told_in_words(known, spoken)])
    free = pairs.filter(
        pl.col("user").is_null() & ~pl.col("task").fill_null("").is_in(CATALOGUE_TASKS)
    ).with_columns(
        x=pl.when(pl.col("kind").eq_missing("before")).then("y").otherwise("x"),
        y=pl.when(pl.col("kind").eq_missing("before")).then("x").otherwise("y"),
    )
    found = {
        "names an item that this user has as a target of validation or test only": named.join(
            held.met, on=["user", "y"], how="semi"
        ),
        "lets an item follow another as it does in validation or test only": steps.join(
            held.steps, on=["user", "x", "y"], how="semi"
        ),
        "leads from item to item as users do in validation or test only": free.join(
            held.hops, on=["x", "y"], how="semi"
        ),
        "belongs to another split than train": rows.filter(pl.col("split").ne(c.TRAIN)),
    }
    leaks = [table.select("row", detail=pl.lit(detail)) for detail, table in found.items()]
    return pl.concat(leaks).unique("row", keep="first", maintain_order=True).sort("row")


def _told_in_words(known: pl.DataFrame, spoken: pl.DataFrame) -> pl.DataFrame:
    """``row``, ``user``, ``x`` and ``y`` of the rows that answer with the next item's title: ``y`` is the target, ``x``
    the last item of the text."""
    last = spoken.group_by("row", maintain_order=True).agg(x=pl.col("y").last())
    target = pl.col("targets").list.first().cast(spoken["y"].dtype)
    answered = known.filter(pl.col("kind").eq_missing(NEXT_TITLE)).select("row", "user", y=target)
    return answered.join(last, on="row", maintain_order="left").select("row", "user", "x", "y")
