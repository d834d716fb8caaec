"""What the catalogue says of its items, as clean text, by row. The only place where tasks read item texts.

Catalogue text is not trusted: whatever looks like a token of the index or a chat marker is taken out of it,
so that a text can't speak as an item or as a role. Long texts are cut at a word.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.errors import ConfigError
from itemic.sid.kinds import need_sids
from itemic.sid.names import CONTROL, ItemNames

Int64 = npt.NDArray[np.int64]
MAX_TITLE = 300
MAX_DESCRIPTION = 1000
HISTORY_TITLE = 120
USER_VALUE = 60


class Catalogue:
    """Texts of all items as polars Series of ``n`` strings, made when first asked for.

    Args:
        index: names the items.
        items: ``Dataset.items``; None where only names are needed.
        users: ``Dataset.users``; None where nothing is known of them.
    """

    def __init__(
        self, index: ItemNames, items: pl.DataFrame | None = None, users: pl.DataFrame | None = None
    ) -> None:
        self.index = index
        self._items = items
        self.users = users
        self._user_texts: dict[tuple[str, ...] | None, pl.DataFrame] = {}

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def ids(self) -> pl.Series:
        return pl.Series(self.index.item_ids, dtype=pl.String)

    @cached_property
    def sids(self) -> pl.Series:
        """What items are called in conversations: their semantic IDs, or their titles between marks."""
        return pl.Series(self.index.texts, dtype=pl.String)

    @cached_property
    def fields(self) -> pl.DataFrame:
        """``title``, ``description``, ``brand``, ``path``, ``leaf`` and ``tags``, cleaned; empty where there is none.

        Tags stand for the path, and for its leaf, of an item that has no path (``Comedy, Horror``); ``tags`` are those
        beside a path.

        Raises:
            ConfigError: there is no item table.
        """
        texts = self._table.select(
            self.clean(pl.col(name).fill_null("")) for name in (c.TITLE, c.DESCRIPTION, c.BRAND)
        )
        path, tags = pl.col("names").list.join(" > "), pl.col("tags").list.join(", ")
        alone = pl.col("names").list.len() == 0
        joined = self.labels.select(
            path=pl.when(alone).then(tags).otherwise(path),
            leaf=pl.when(alone).then(tags).otherwise(pl.col("names").list.last()),
            tags=pl.when(alone).then(pl.lit("")).otherwise(tags),
        )
        return texts.hstack(joined).with_columns(
            clip(pl.col(c.TITLE), MAX_TITLE), clip(pl.col(c.DESCRIPTION), MAX_DESCRIPTION)
        )

    @cached_property
    def labels(self) -> pl.DataFrame:
        """``names``, the category path from general to specific, and ``tags``: lists of cleaned texts, maybe empty."""
        tags = pl.col(c.TAGS) if c.TAGS in self._table.columns else pl.lit(None, pl.List(pl.String))
        filled = pl.element().filter(pl.element() != "")
        lists = self._table.select(names=pl.col(c.CATEGORIES), tags=tags).with_columns(pl.all().fill_null([]))
        cleaned = lists.with_columns(pl.all().list.eval(self.clean(pl.element())))
        return cleaned.with_columns(pl.all().list.eval(filled))

    @property
    def _table(self) -> pl.DataFrame:
        if self._items is None:
            raise ConfigError("this prompt shows item texts, and none are at hand", "Pass the dataset along.")
        return self._items

    def clean(self, text: pl.Expr) -> pl.Expr:
        """Text in which nothing looks like a token of the index or a chat marker, blanks made one."""
        for _ in range(2):  # taking a marker out may make another one from what stood around it
            text = text.str.replace_all(f"{self.index.patterns.token}|{CONTROL}", " ")
        return text.str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()

    @cached_property
    def names(self) -> pl.Series:
        """The title; without one the brand and the last category, else the beginning of the description."""
        label = pl.concat_str([c.BRAND, "leaf"], separator=" ").str.strip_chars()
        start = clip(pl.col(c.DESCRIPTION), 80)
        return self.fields.select(_first(pl.col(c.TITLE), label, start))["text"]

    @cached_property
    def abouts(self) -> pl.Series:
        """The description; without one a sentence from name, brand and category."""
        brand = pl.when(pl.col(c.BRAND) != "").then(pl.format(", by {}", c.BRAND)).otherwise(pl.lit(""))
        path = pl.when(pl.col("path") != "").then(pl.format(", in {}", "path")).otherwise(pl.lit(""))
        named = self.fields.with_columns(name=self.names)
        line = (
            pl.when(pl.col("name") != "")
            .then(pl.concat_str(["name", brand, path, pl.lit(".")]))
            .otherwise(pl.lit(""))
        )
        return named.select(_first(pl.col(c.DESCRIPTION), line))["text"]

    @cached_property
    def contexts(self) -> pl.Series:
        """All that is known, a line a field."""
        labels = {"Title": c.TITLE, "Brand": c.BRAND, "Category": "path", "Tags": "tags"}
        labels |= {"Description": c.DESCRIPTION}
        lines = [
            pl.when(pl.col(name) != "").then(pl.format(f"{label}: {{}}", pl.col(name)))
            for label, name in labels.items()
        ]
        return self.fields.select(text=pl.concat_str(lines, separator="\n", ignore_nulls=True))["text"]

    def lines(self, kind: str) -> tuple[pl.Series, str]:
        """How an item stands in a history (``sid``, ``sid+title``, ``title``), and what is between two.

        An item without a name goes by its id.
        """
        if kind == "sid":
            return self.sids, ""
        table = pl.DataFrame({"name": self.names, "id": self.ids})
        shown = table.select(_first(pl.col("name"), self.clean(pl.col("id")), pl.lit("(untitled)")))
        short = shown.select(clip(pl.col("text"), HISTORY_TITLE))["text"]
        return (short if kind == "title" else self.sids + " " + short), "\n"

    def user_texts(self, ids: pl.Series, columns: tuple[str, ...] | None = None) -> pl.Series:
        """What is known of users as a line of their prompts: ``(user: gender F; age 25)`` and a line end; empty for
        users of whom nothing is known.

        Args:
            ids: of the users.
            columns: which columns of the users' table; None for all.

        Raises:
            ConfigError: the table has no such column.
        """
        if self.users is None:
            return pl.Series([""], dtype=pl.String).new_from_index(0, len(ids))
        if columns not in self._user_texts:
            self._user_texts[columns] = self._told_of_users(self.users, columns)
        wanted = pl.DataFrame({c.USER_ID: ids.cast(pl.String)})
        found = wanted.join(self._user_texts[columns], on=c.USER_ID, how="left", maintain_order="left")
        return found["text"].fill_null("")

    def _told_of_users(self, users: pl.DataFrame, columns: tuple[str, ...] | None) -> pl.DataFrame:
        known = [name for name in users.columns if name != c.USER_ID]
        if unknown := [name for name in columns or () if name not in known]:
            raise ConfigError(
                f"user_text names {', '.join(unknown)}, which the data don't know of users",
                f"Name some of {', '.join(known)}, or give true for all.",
            )
        parts = []
        for name in columns or known:
            label = users.select(self.clean(pl.lit(name.replace("_", " ")))).item()
            value = pl.Series("v", [_user_value(each) for each in users[name].to_list()], dtype=pl.String)
            text = value.to_frame().select(clip(self.clean(pl.col("v")), USER_VALUE))["v"]
            shown = pl.DataFrame({"v": text}).select(
                pl.when(pl.col("v").fill_null("") != "").then(pl.concat_str(pl.lit(f"{label} "), "v"))
            )
            parts.append(shown.to_series().alias(name))
        told = pl.DataFrame(parts).select(
            pl.concat_str(pl.all(), separator="; ", ignore_nulls=True).alias("text")
        )
        line = pl.when(pl.col("text") != "").then(pl.format("(user: {})\n", "text")).otherwise(pl.lit(""))
        return pl.DataFrame({c.USER_ID: users[c.USER_ID], "text": told.select(line.alias("text"))["text"]})

    def prefixes(self, depth: int) -> pl.Series:
        """The first ``depth`` codes of every item's semantic ID, as text.

        Raises:
            ConfigError: items go by titles.
        """
        index = need_sids(self.index, "a prefix")
        form = index.token_format
        tables = form.level_tokens(index.sizes)
        text = pl.Series([form.begin or ""]).new_from_index(0, len(index))
        for level in range(depth):
            text = text + pl.Series(tables[level]).gather(index.codes[:, level])
        return text

    def shared_category(self, groups: Int64) -> pl.DataFrame:
        """For each group of items, the deepest category that more than half of them stand in.

        Tags are categories beside each other, and the most frequent one counts. Items without any don't count.

        Args:
            groups: int64 ``[n]``, the group of each item.

        Returns:
            ``group`` and ``category`` (the path as text); groups without such a category are missing.
        """
        members = self.labels.with_columns(group=pl.Series(groups)).filter(
            (pl.col("names").list.len() > 0) | (pl.col("tags").list.len() > 0)
        )
        paths = members.filter(pl.col("names").list.len() > 0)
        steps = paths.with_columns(depth=pl.int_ranges(1, pl.col("names").list.len() + 1)).explode("depth")
        heads = steps.select(
            "group", "depth", category=pl.col("names").list.head(pl.col("depth")).list.join(" > ")
        )
        alone = members.filter(pl.col("names").list.len() == 0).explode("tags")
        heads = heads.vstack(alone.select("group", depth=pl.lit(1, pl.Int64), category="tags"))
        counts = heads.group_by("group", "depth", "category").len()
        sizes = members.group_by("group").agg(of=pl.len())
        common = counts.join(sizes, on="group").filter(pl.col("len") * 2 > pl.col("of"))
        return (
            common.sort("group", "depth", "len", "category", descending=[False, False, False, True])
            .group_by("group", maintain_order=True)
            .last()
            .select("group", "category")
        )


def clip(text: pl.Expr, length: int) -> pl.Expr:
    """At most ``length`` characters, cut between words where there is a gap."""
    cut = text.str.slice(0, length + 1).str.replace(r"\s+\S*$", "").str.slice(0, length)
    return pl.when(text.str.len_chars() > length).then(cut).otherwise(text)


def join_rows(values: pl.Series, offsets: Int64, items: npt.NDArray[np.integer], separator: str) -> pl.Series:
    """Row ``r`` is ``separator.join(values[items[offsets[r]:offsets[r + 1]]])``; without items, empty."""
    lengths = np.diff(offsets)
    if (lengths == 1).all():
        return values.gather(items)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    table = pl.DataFrame({"row": rows, "text": values.gather(items)})
    joined = table.group_by("row", maintain_order=True).agg(pl.col("text").str.join(separator))
    if len(joined) == len(lengths):
        return joined["text"]
    every = pl.DataFrame({"row": np.arange(len(lengths))})
    return every.join(joined, on="row", how="left", maintain_order="left")["text"].fill_null("")


def _user_value(value: Any) -> str | None:
    """A value of a user's column as text: whole numbers without a point, lists with commas; None for nothing."""
    if value is None or value == [] or value != value:
        return None
    if isinstance(value, list):
        return ", ".join(str(text) for each in value if (text := _user_value(each)) is not None) or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def _first(*choices: pl.Expr) -> pl.Expr:
    """The first that isn't empty."""
    return pl.coalesce(*(pl.when(choice != "").then(choice) for choice in choices), pl.lit("")).alias("text")
