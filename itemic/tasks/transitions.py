"""Task E: hops from item to item. What comes after X, what came before it, what follows out of category Y; and, where
it is asked for, what users have together with X, in whatever order.

The hops are those between neighbours in the training sequences, every distinct one once, the most frequent up
to a number per item (ties go to the lower row). What goes together is counted by the users who have both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.task import OfKinds, last_items

Int64 = npt.NDArray[np.int64]
AT_ONCE = 1024  # items whose companions are counted at once: bounds the memory


@dataclass(frozen=True)
class Transitions(OfKinds):
    """Where do users go from here?

    Attributes:
        kinds: those that are made, of ``next``, ``before``, ``next of category`` and ``together``; None for all but
            the last. Evaluation asks the first one named.
        per_item: the most successors, the most predecessors, and the most companions, of an item.
    """

    per_item: int = 30

    name: ClassVar[str] = "E"
    beside: ClassVar[tuple[str, ...]] = ("together",)
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
        "together": (
            "Users who have this item have another one as well. Which one? ",
            "What goes together with this item, sooner or later? ",
            "Someone owns this item. Name another one that such a person has. ",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_item < 1:
            raise ConfigError(f"task E: per_item is {self.per_item}", "Give 1 or more.")

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        n = len(catalogue)
        path = catalogue.fields["path"]
        hops = self._hops(train, n, (path != "").to_numpy())
        made = [(number, *hops[kind]) for number, kind in enumerate(self.leads) if kind in self.made_kinds]
        kind = np.repeat([number for number, _, _ in made], [len(items) for _, items, _ in made])
        item = np.concatenate([items for _, items, _ in made])
        answer = np.concatenate([answers for _, _, answers in made])
        category = path.rank("dense").to_numpy().astype(np.int64)
        of_category = kind == list(self.leads).index("next of category")
        key = (kind * n + item) * (n + 1) + np.where(of_category, category[answer], 0)
        group = np.unique(key, return_inverse=True)[1]
        columns = {
            "kind": kind.astype(np.int32),
            "item": item.astype(np.int32),
            "answer": answer.astype(np.int32),
        }
        return pl.DataFrame(columns | {"group": group}).sort("group", maintain_order=True)

    def _hops(
        self, train: Sequences, items: int, categorised: npt.NDArray[np.bool_]
    ) -> dict[str, tuple[Int64, Int64]]:
        """By kind the items that are asked about, and the answers."""
        first, second, count = count_transitions(train, items)
        after = most_frequent(first, second, count, self.per_item)
        before = most_frequent(second, first, count, self.per_item)
        known = after[categorised[second[after]]]
        hops = {
            "next": (first[after], second[after]),
            "before": (second[before], first[before]),
            "next of category": (first[known], second[known]),
        }
        if "together" in self.made_kinds:
            hops["together"] = companions(train, items, self.per_item)
        return hops

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


def companions(train: Sequences, items: int, most: int) -> tuple[Int64, Int64]:
    """Which items users have together, in whatever order: of each item the ``most`` others that the most of its users
    have, ties to the lower row. Two int64 arrays: the item, and the other one."""
    user = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    shape = (len(train), items)
    had = sparse.csr_array((np.ones(len(user), np.int64), (user, train.items)), shape=shape)
    had.data[:] = 1  # having an item twice is having it
    by_item = had.T.tocsr()
    found: list[tuple[Int64, Int64]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for start in range(0, items, AT_ONCE):
        counts = (by_item[start : start + AT_ONCE] @ had).tocoo()
        first, second = counts.row.astype(np.int64) + start, counts.col.astype(np.int64)
        others = first != second
        first, second, count = first[others], second[others], counts.data[others].astype(np.int64)
        kept = most_frequent(first, second, count, most)
        found.append((first[kept], second[kept]))
    return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])
