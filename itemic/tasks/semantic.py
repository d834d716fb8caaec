"""Task D: what the codes mean. Prefix → category, prefix → example items, item → items under the same prefix.

The prefixes asked about are those of the first two levels that name at least two items (a prefix with one
item is that item); the neighbours of an item are those that share all codes but the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.sid.kinds import need_sids
from itemic.tasks.catalogue import Catalogue, join_rows
from itemic.tasks.task import Task, last_items

Int64 = npt.NDArray[np.int64]
DEPTHS = (1, 2)
PLAN: dict[str, pl.DataType | type[pl.DataType]] = {
    "kind": pl.Int32,
    "item": pl.Int32,
    "depth": pl.Int32,
    "group": pl.Int64,
    "answer": pl.String,
    "others": pl.List(pl.Int32),
}


@dataclass(frozen=True)
class Semantics(Task):
    """What do items have in common whose semantic IDs begin alike?

    Attributes:
        examples: the most items of an answer.
    """

    examples: int = 5

    name: ClassVar[str] = "D"
    least_items: ClassVar[int] = 1
    codes: ClassVar[str | None] = "it teaches what the codes of semantic IDs mean, and titles have none"
    leads: ClassVar[dict[str, tuple[str, ...]]] = {
        "similar": (
            "Which items are most like this one? Answer with their semantic IDs. ",
            "Name the closest neighbours of this item. ",
            "A shopper likes the following item and asks for alternatives. ",
        ),
        "category": (
            "Which category do items share whose semantic ID begins like this? ",
            "What kind of products does this beginning of a semantic ID stand for? ",
            "Name the category that most items under this prefix belong to. ",
        ),
        "examples": (
            "Give examples of items whose semantic ID begins like this. ",
            "Which items stand under this prefix? Name a few. ",
            "Complete this prefix to the semantic IDs of real items. ",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples < 1:
            raise ConfigError(f"task D: examples is {self.examples}", "Give 1 or more.")

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        index = need_sids(catalogue.index, "task D")
        parts = []
        if index.levels >= 2:
            groups = index.prefixes.groups[:, index.levels - 2]
            offsets, others = neighbours(groups, self.examples, rng)
            parts.append(self._part("similar", np.arange(len(index)), 0, others=(offsets, others)))
        for depth in (depth for depth in DEPTHS if depth < index.levels):
            groups = index.prefixes.groups[:, depth - 1]
            _, first, size = np.unique(groups, return_index=True, return_counts=True)
            crowd = np.flatnonzero(size >= 2)
            found = catalogue.shared_category(groups)
            named = pl.DataFrame({"group": crowd}).join(found, on="group", how="inner", maintain_order="left")
            parts.append(
                self._part("category", first[named["group"].to_numpy()], depth, answer=named["category"])
            )
            members = members_of(groups, crowd, self.examples, rng)
            parts.append(self._part("examples", first[crowd], depth, others=members))
        plan = pl.concat(parts) if parts else pl.DataFrame(schema=PLAN)
        told = plan.filter((pl.col("answer") != "") | (pl.col("others").list.len() > 0))
        return told.with_columns(group=pl.int_range(pl.len()))

    def _part(
        self,
        kind: str,
        item: npt.NDArray[np.integer],
        depth: int,
        *,
        answer: pl.Series | None = None,
        others: tuple[Int64, npt.NDArray[np.int32]] | None = None,
    ) -> pl.DataFrame:
        table = pl.DataFrame({"item": item}).with_columns(
            kind=pl.lit(list(self.leads).index(kind)), depth=pl.lit(depth), group=pl.lit(0), answer=pl.lit("")
        )
        lists = [] if others is None else [part.tolist() for part in np.split(others[1], others[0][1:-1])]
        table = table.with_columns(others=pl.Series(lists or [[]] * len(table), dtype=pl.List(pl.Int32)))
        if answer is not None:
            table = table.with_columns(answer=answer)
        return table.select(pl.col(name).cast(dtype) for name, dtype in PLAN.items())

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        kinds = pl.Series(list(self.leads)).gather(plan["kind"])
        item, depth = plan["item"], plan["depth"].to_numpy()
        value = catalogue.sids.gather(item)
        for level in DEPTHS:
            at = pl.Series(depth == level)
            if at.any():
                value = catalogue.prefixes(level).gather(item).zip_with(at, value)
        lengths = plan["others"].list.len().to_numpy().astype(np.int64)
        flat = plan["others"].explode(empty_as_null=False).to_numpy()
        listed = join_rows(catalogue.sids, np.concatenate([[0], np.cumsum(lengths)]), flat, "\n")
        listing = pl.Series(lengths > 0)
        own = pl.DataFrame({"value": value, "kind": kinds, "depth": depth, "id": catalogue.ids.gather(item)})
        prefix = pl.format("prefix:{}:{}", "value", "kind")
        group = pl.when(pl.col("depth") > 0).then(prefix).otherwise(pl.format("item:{}:{}", "id", "kind"))
        targets = pl.DataFrame({"t": plan["others"]}).select(pl.when(pl.col("t").list.len() > 0).then("t"))[
            "t"
        ]
        return pl.DataFrame(
            {
                "value": value,
                "answer": listed.zip_with(listing, plan["answer"]),
                "group": own.select(group=group)["group"],
                "target": targets,
            }
        )

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        return catalogue.sids.gather(last_items(offsets, items))


def neighbours(groups: Int64, most: int, rng: np.random.Generator) -> tuple[Int64, npt.NDArray[np.int32]]:
    """For every item up to ``most`` random others of its group: offsets ``[n + 1]`` and item rows.

    The members of a group stand on a circle in random order, and each takes those that come next.
    """
    order = np.lexsort((rng.random(len(groups)), groups))
    _, start, size = np.unique(groups[order], return_index=True, return_counts=True)
    start, size = np.repeat(start, size), np.repeat(size, size)
    count = np.minimum(size - 1, most)
    place = np.arange(len(order)) - start
    step = np.concatenate([np.arange(1, k + 1) for k in count]) if len(count) else np.zeros(0, np.int64)
    at = np.repeat(start, count) + (np.repeat(place, count) + step) % np.repeat(size, count)
    owner = np.repeat(order, count)
    by_item = np.argsort(owner, kind="stable")
    lengths = np.bincount(owner, minlength=len(groups))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return offsets, order[at[by_item]].astype(np.int32)


def members_of(
    groups: Int64, wanted: Int64, most: int, rng: np.random.Generator
) -> tuple[Int64, npt.NDArray[np.int32]]:
    """Up to ``most`` random members of each wanted group: offsets and item rows."""
    order = np.lexsort((rng.random(len(groups)), groups))
    start = np.searchsorted(groups[order], wanted, "left")
    count = np.minimum(np.searchsorted(groups[order], wanted, "right") - start, most)
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], count)
    return offsets, order[at].astype(np.int32)
