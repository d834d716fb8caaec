"""Task A: from a semantic ID to text. Title, description, category and all of it together: four rows an item.

Where the catalogue lacks a field the row still comes, as long as there is something true to say: an empty
title is answered with brand and category, an empty description with a sentence made of name, brand and
category. Only a question that nothing answers (no category at all) is left out, and where items go by their titles the
one for the title.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.data.sequences import Sequences
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.task import OfKinds, last_items


@dataclass(frozen=True)
class SidToText(OfKinds):
    """What does the catalogue say of this item?"""

    name: ClassVar[str] = "A"
    least_items: ClassVar[int] = 1
    leads: ClassVar[dict[str, tuple[str, ...]]] = {
        "title": (
            "What is the title of this item? ",
            "Give the name under which this item is sold: ",
            "Which product hides behind this semantic ID? Answer with its title. ",
            "State the title of the following item. ",
        ),
        "description": (
            "Describe this item: ",
            "What would a shopper want to know about this item? ",
            "Write a short description of the following item. ",
            "Tell me about the product with this semantic ID: ",
        ),
        "category": (
            "Which category does this item belong to? ",
            "Where in the catalogue does this item stand? ",
            "Name the category path of the following item, from general to specific. ",
            "On which shelf would a shopper find this item? ",
        ),
        "context": (
            "List everything the catalogue knows about this item: ",
            "Show the full catalogue entry of the following item. ",
            "Give the complete record behind this semantic ID: ",
            "Print the product sheet of this item: ",
        ),
    }

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        n = len(catalogue)
        answers = _answers(catalogue)
        said = np.stack([(text != "").to_numpy() for text in answers], axis=1)
        if catalogue.index.kind == "title":
            said[:, list(self.leads).index("title")] = False  # that would be the question itself
        item, kind = np.nonzero(self.only(said))
        return pl.DataFrame(
            {"kind": kind.astype(np.int32), "item": item.astype(np.int32), "group": kind * n + item}
        )

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        kinds = pl.Series(list(self.leads)).gather(plan["kind"])
        table = pl.concat(_answers(catalogue))
        return pl.DataFrame(
            {
                "value": catalogue.sids.gather(plan["item"]),
                "answer": table.gather(plan["kind"].cast(pl.Int64) * len(catalogue) + plan["item"]),
                "group": "item:" + catalogue.ids.gather(plan["item"]) + ":" + kinds,
                "target": pl.Series([None], dtype=pl.List(pl.Int32)).new_from_index(0, len(plan)),
            }
        )

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        return catalogue.sids.gather(last_items(offsets, items))


def _answers(catalogue: Catalogue) -> list[pl.Series]:
    """By kind, the answer for every item; empty where there is none."""
    return [catalogue.names, catalogue.abouts, catalogue.fields["path"], catalogue.contexts]
