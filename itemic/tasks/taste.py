"""What a history says of a user's taste, by rule: what its latest items share, and what follows such items in training.

Everything is counted in the catalogue and the training sequences, many histories side by side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.sequences import Sequences
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.windows import gather_windows

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

FOLLOWERS = 2  # categories that are named as what follows
WORD = r"\p{L}{4,}"  # of a title, in lower case
FUNCTION_WORDS = ("with", "from", "your", "that", "this", "each", "pack", "size", "inch", "pieces", "piece")


def shared(values: pl.Series, offsets: Int64, items: Int32) -> pl.DataFrame:
    """The value that most of a history's items have; of equals the one that was had last.

    Args:
        values: what each item of the catalogue has, ``[n]``: strings (empty for nothing) or lists of them.
        offsets: int64 ``[R + 1]``.
        items: int32, the items of history ``r`` are ``items[offsets[r]:offsets[r + 1]]``, oldest first.

    Returns:
        ``R`` rows with ``value`` (empty where there is none), ``count`` (items that have it) and ``of`` (items that
        have any).
    """
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    table = pl.DataFrame({"row": rows, "at": np.arange(len(items)), "value": values.gather(items)})
    if values.dtype == pl.List(pl.String):
        table = table.with_columns(pl.col("value").list.unique(maintain_order=True)).explode("value")
    table = table.filter(pl.col("value").is_not_null() & (pl.col("value") != ""))
    of = table.group_by("row").agg(of=pl.col("at").n_unique())
    best = (
        table.group_by("row", "value")
        .agg(count=pl.len(), last=pl.col("at").max())
        .sort(["row", "count", "last", "value"], descending=[False, True, True, False])
        .group_by("row", maintain_order=True)
        .first()
    )
    every = pl.DataFrame({"row": np.arange(len(offsets) - 1)})
    found = every.join(best, on="row", how="left", maintain_order="left").join(
        of, on="row", how="left", maintain_order="left"
    )
    return found.select(
        pl.col("value").fill_null(""),
        pl.col("count").fill_null(0).cast(pl.Int64),
        pl.col("of").fill_null(0).cast(pl.Int64),
    )


def followers(labels: pl.Series, train: Sequences) -> pl.DataFrame:
    """The labels that most often come right after each other label in the training sequences.

    Args:
        labels: of each item of the catalogue, ``[n]``, empty for none.
        train: the training sequences.

    Returns:
        ``label`` and ``then``, a list of at most :data:`FOLLOWERS` labels other than itself, the most frequent first;
        of equals the alphabet decides.
    """
    inside = np.ones(len(train.items), bool)
    inside[train.offsets[1:][np.diff(train.offsets) > 0] - 1] = False  # a user's last item leads nowhere
    here = np.flatnonzero(inside)
    pairs = pl.DataFrame(
        {"label": labels.gather(train.items[here]), "then": labels.gather(train.items[here + 1])}
    )
    other = pairs.filter(
        (pl.col("label") != "") & (pl.col("then") != "") & (pl.col("label") != pl.col("then"))
    )
    counts = other.group_by("label", "then").len()
    ranked = counts.sort(["label", "len", "then"], descending=[False, True, False])
    return ranked.group_by("label", maintain_order=True).agg(pl.col("then").head(FOLLOWERS))


def title_words(catalogue: Catalogue) -> pl.Series:
    """The telling words of each item's title, as lists: neither its brand's nor its category's, nor function words."""
    fields = catalogue.fields
    known = fields.select(
        pl.concat_str([pl.col(c.BRAND), pl.col("path"), pl.col("tags")], separator=" ")
        .str.to_lowercase()
        .str.extract_all(WORD)
        .alias("known"),
        pl.col(c.TITLE).str.to_lowercase().str.extract_all(WORD).alias("word"),
    )
    told = known.with_columns(pl.col("word").list.set_difference("known").list.sort())
    return told.select(pl.col("word").list.set_difference(list(FUNCTION_WORDS)).list.sort())["word"]


class Tastes:
    """What the latest items of many histories say.

    Args:
        catalogue: the items' texts.
        train: the training sequences, in which it is counted what follows what.
        offsets: int64 ``[R + 1]``.
        items: int32, the histories, oldest first.
        latest: how many of each history's latest items are looked at.

    Attributes:
        category: what :func:`shared` says of the items' labels, see :func:`label_of`.
        brand: the same of the brands of those items that stand in the category's department.
        word: the same of the telling words of titles.
        last: the label of the last item.
        then: lists of labels, what follows the last item's.
    """

    def __init__(
        self, catalogue: Catalogue, train: Sequences, offsets: Int64, items: Int32, latest: int
    ) -> None:
        self.labels = label_of(catalogue)
        start = np.maximum(offsets[1:] - latest, offsets[:-1])
        offsets, items = gather_windows(items, start, offsets[1:])
        self.category = shared(self.labels, offsets, items)
        self.brand = shared(*self._of_department(catalogue, offsets, items))
        self.word = shared(title_words(catalogue), offsets, items)
        self.last = self.labels.gather(items[offsets[1:] - 1])
        follow = followers(self.labels, train)
        joined = (
            self.last.alias("label").to_frame().join(follow, on="label", how="left", maintain_order="left")
        )
        self.then = joined["then"]

    def _of_department(
        self, catalogue: Catalogue, offsets: Int64, items: Int32
    ) -> tuple[pl.Series, Int64, Int32]:
        """Brands, and the items of each history whose department is that of its shared category: a user may like one
        brand of tents and another one of pots."""
        department = catalogue.labels.select(pl.col("names").list.first().fill_null(""))["names"]
        if (department == "").all():
            return catalogue.fields[c.BRAND], offsets, items
        of_label = dict(zip(self.labels, department, strict=True))
        wanted = self.category["value"].replace_strict(of_label, default="", return_dtype=pl.String)
        lengths = np.diff(offsets)
        row = np.repeat(np.arange(len(lengths)), lengths)
        same = (department.gather(items) == wanted.gather(row)).to_numpy()
        counts = np.bincount(row[same], minlength=len(lengths))
        return (
            catalogue.fields[c.BRAND],
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            items[same],
        )


def label_of(catalogue: Catalogue) -> pl.Series:
    """What kind of thing each item is, in a word or two: the last name of its category path, or its brand where the
    whole catalogue has no categories."""
    leaf = catalogue.fields["leaf"]
    return catalogue.fields[c.BRAND] if (leaf == "").all() else leaf
