"""Task E: hops from item to item. What comes after X, what came before it, what follows out of category Y.

The hops are those between neighbours in the training sequences, every distinct one once, the most frequent up
to a number per item (ties go to the lower row).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.task import Task, last_items

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Transitions(Task):
    """Where do users go from here?

    Attributes:
        per_item: the most successors, and the most predecessors, of an item.
    """

    per_item: int = 30

    name: ClassVar[str] = "E"
    least_items: ClassVar[int] = 1
    leads: ClassVar[dict[str, tuple[str, ...]]] = {
        "next": (
            "Users take this item. Which one do they take right after it? ",
            "What usually follows this item? ",
            "Someone has just chosen this item. Name what comes next. ",
        ),
        "before": (
            "Users end up at this item. Which one do they take right before it? ",
            "What usually precedes this item? ",
            "Someone has just chosen this item. Name what was chosen before. ",
        ),
        "next of category": (
            "After the first item below, which item of the category do users take next? ",
            "Name what follows this item, out of the given category only. ",
            "Someone has just chosen this item and now looks into a category. What is picked there? ",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_item < 1:
            raise ConfigError(f"task E: per_item is {self.per_item}", "Give 1 or more.")

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        n = len(catalogue)
        first, second, count = count_transitions(train, n)
        after = most_frequent(first, second, count, self.per_item)
        before = most_frequent(second, first, count, self.per_item)
        path = catalogue.fields["path"]
        categorised = after[(path != "").to_numpy()[second[after]]]
        item = np.concatenate([first[after], second[before], first[categorised]])
        answer = np.concatenate([second[after], first[before], second[categorised]])
        kind = np.repeat(np.arange(3), [len(after), len(before), len(categorised)])
        category = path.rank("dense").to_numpy().astype(np.int64)
        key = (kind * n + item) * (n + 1) + np.where(kind == 2, category[answer], 0)
        group = np.unique(key, return_inverse=True)[1]
        columns = {
            "kind": kind.astype(np.int32),
            "item": item.astype(np.int32),
            "answer": answer.astype(np.int32),
        }
        return pl.DataFrame(columns | {"group": group}).sort("group", maintain_order=True)

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        sid = catalogue.sids.gather(plan["item"])
        table = pl.DataFrame(
            {
                "kind": pl.Series(list(self.leads)).gather(plan["kind"]),
                "sid": sid,
                "id": catalogue.ids.gather(plan["item"]),
                "path": catalogue.fields["path"].gather(plan["answer"]),
            }
        )
        of_category = pl.col("kind") == "next of category"
        own = pl.format("item:{}:{}", "id", "kind")
        texts = table.select(
            value=pl.when(of_category).then(pl.format("{}\nCategory: {}", "sid", "path")).otherwise("sid"),
            group=pl.when(of_category).then(pl.format("{}:{}", own, "path")).otherwise(own),
        )
        answer = catalogue.sids.gather(plan["answer"]).alias("answer")
        target = plan.select(target=pl.concat_list("answer"))["target"]
        return texts.with_columns(answer, target)

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        return catalogue.sids.gather(last_items(offsets, items))


def count_transitions(train: Sequences, items: int) -> tuple[Int64, Int64, Int64]:
    """The distinct pairs of neighbours in the sequences, and how often each occurs: three int64 arrays."""
    inside = np.ones(len(train.items), bool)
    inside[train.offsets[1:][np.diff(train.offsets) > 0] - 1] = False  # a user's last item leads nowhere
    here = np.flatnonzero(inside)
    key = train.items[here].astype(np.int64) * items + train.items[here + 1]
    pair, count = np.unique(key, return_counts=True)
    return pair // items, pair % items, count.astype(np.int64)


def most_frequent(owner: Int64, other: Int64, count: Int64, most: int) -> Int64:
    """Which pairs are among the ``most`` most frequent of their owner, as positions, owner by owner."""
    order = np.lexsort((other, -count, owner))
    _, start, size = np.unique(owner[order], return_index=True, return_counts=True)
    return order[np.arange(len(order)) - np.repeat(start, size) < most]
