"""Task B: from text to a semantic ID. Up to six rows an item.

A text that fits several items (upper and lower case aside) can't be answered with one of them, so it is left
out; a part of a title is left out where it is also the part or the whole of another item's title. The one
exception is the bare category: it is meant as "any item of", and every item of it is an answer of the same
prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.sequences import Sequences
from itemic.tasks.catalogue import Catalogue, clip
from itemic.tasks.task import OfKinds, last_items

SNIPPET = 160
MIN_WORDS = 4  # a shorter title is asked for as a whole only
MIDDLE = 128  # which part of a title evaluation shows, where it is asked for parts


@dataclass(frozen=True)
class TextToSid(OfKinds):
    """Which item is this?"""

    name: ClassVar[str] = "B"
    finds_items: ClassVar[bool] = True
    least_items: ClassVar[int] = 1
    codes: ClassVar[str | None] = "it asks for the semantic ID of a text, and a title is its own answer"
    leads: ClassVar[dict[str, tuple[str, ...]]] = {
        "title": (
            "Which item has this title? Answer with its semantic ID.\n",
            "Find the semantic ID of the product named as follows.\n",
            "Look up this product in the catalogue and give its semantic ID.\n",
            "Translate this title into a semantic ID.\n",
        ),
        "title part": (
            "A shopper remembers only a part of a title. Which item is meant?\n",
            "Find the semantic ID of the item whose title contains these words.\n",
            "Complete the search: which item goes by a name with these words in it?\n",
        ),
        "title and category": (
            "Which item has this title and stands in this category?\n",
            "Give the semantic ID of the product with this name and category.\n",
            "Identify the item from its name and its place in the catalogue.\n",
        ),
        "description": (
            "Which item does this description belong to? Answer with its semantic ID.\n",
            "Find the product that is described like this.\n",
            "Read this excerpt and name the item it is about.\n",
        ),
        "category": (
            "Name an item of this category by its semantic ID.\n",
            "Show me something from this part of the catalogue.\n",
            "Pick any product that belongs here.\n",
        ),
        "context": (
            "Here is a full catalogue entry. Which semantic ID does it have?\n",
            "Give the semantic ID that belongs to this record.\n",
            "Match this product sheet with its item.\n",
        ),
    }

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        n = len(catalogue)
        share = np.stack([np.floor(rng.random(n) * 256), np.floor(rng.random(n) * 256)]).astype(np.uint8)
        table = _questions(catalogue, share[0], share[1])
        usable = np.stack([usable.to_numpy() for _, usable in table.values()], axis=1)
        item, kind = np.nonzero(self.only(usable))
        group = kind.astype(np.int64) * n + item
        any_of = kind == list(table).index("category")
        group[any_of] = 6 * n + catalogue.fields["path"].rank("dense").to_numpy()[item[any_of]]
        columns = {"kind": kind.astype(np.int32), "item": item.astype(np.int32), "group": group}
        return pl.DataFrame(columns | {"from": share[0][item], "words": share[1][item]})

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        kinds = pl.Series(list(self.leads)).gather(plan["kind"])
        item = plan["item"]
        texts = {kind: _texts(kind, catalogue, item, plan["from"], plan["words"]) for kind in self.leads}
        value = pl.DataFrame({"kind": kinds, **texts}).select(
            value=pl.coalesce(pl.when(pl.col("kind") == kind).then(pl.col(kind)) for kind in self.leads)
        )
        any_of = pl.when(pl.col("kind") == "category").then(pl.format("category:{}", "path"))
        own = pl.format("item:{}:{}", "id", "kind")
        table = pl.DataFrame(
            {"kind": kinds, "id": catalogue.ids.gather(item), "path": catalogue.fields["path"].gather(item)}
        )
        return pl.DataFrame(
            {
                "value": value["value"],
                "answer": catalogue.sids.gather(item),
                "group": table.select(group=any_of.otherwise(own))["group"],
                "target": item.to_frame("t").select(pl.concat_list("t"))["t"],
            }
        )

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        item = pl.Series(last_items(offsets, items))
        middle = pl.Series([MIDDLE]).new_from_index(0, len(item))
        return _texts(self.asked_kind, catalogue, item, middle, middle)


def _texts(kind: str, catalogue: Catalogue, item: pl.Series, start: pl.Series, words: pl.Series) -> pl.Series:
    """What a kind shows of some items; ``start`` and ``words`` choose the part of a title, see :func:`title_parts`."""
    names = catalogue.names.gather(item)
    if kind == "title":
        return names
    if kind == "title part":
        return title_parts(names, start, words)
    if kind == "title and category":
        return _titled(names, catalogue.fields["path"].gather(item))
    if kind == "description":
        return _snippets(catalogue).gather(item)
    return (catalogue.fields["path"] if kind == "category" else catalogue.contexts).gather(item)


def title_parts(titles: pl.Series, start: pl.Series, words: pl.Series) -> pl.Series:
    """A run of words out of the middle of each title: a half to three quarters of them, at least two.

    Args:
        titles: the titles.
        start: where, UInt8: 0 the first possible place, 255 the last.
        words: how many, UInt8: 0 the fewest, 255 the most.
    """
    table = pl.DataFrame({"word": titles.str.split(" "), "start": start, "share": words})
    count = pl.col("word").list.len()
    length = (count * (0.5 + pl.col("share") / 1024)).floor().cast(pl.Int64).clip(2)
    first = ((count - length + 1) * pl.col("start") / 256).floor().cast(pl.Int64).clip(0)
    return table.select(part=pl.col("word").list.slice(first, length).list.join(" "))["part"]


def _questions(
    catalogue: Catalogue, start: npt.NDArray[np.uint8], words: npt.NDArray[np.uint8]
) -> dict[str, tuple[pl.Series, pl.Series]]:
    """By kind, the text of every item and whether it may be asked, in the order of ``TextToSid.leads``."""
    names, path = catalogue.names, catalogue.fields["path"]
    parts = title_parts(names, pl.Series(start), pl.Series(words))
    titled, snippets, contexts = _titled(names, path), _snippets(catalogue), catalogue.contexts
    long_enough = names.str.split(" ").list.len() >= MIN_WORDS
    apart = ~parts.str.to_lowercase().is_in(names.str.to_lowercase().unique().implode())
    return {
        "title": (names, _tells(names)),
        "title part": (parts, _tells(parts) & long_enough & apart),
        "title and category": (titled, _tells(titled) & (path != "") & (names != "")),
        "description": (snippets, _tells(snippets)),
        "category": (path, path != ""),
        "context": (contexts, _tells(contexts)),
    }


def _tells(texts: pl.Series) -> pl.Series:
    """Where a text is there and is one item's alone."""
    return texts.str.to_lowercase().is_unique() & (texts != "")


def _titled(names: pl.Series, path: pl.Series) -> pl.Series:
    return names + "\nCategory: " + path


def _snippets(catalogue: Catalogue) -> pl.Series:
    return catalogue.fields.select(clip(pl.col(c.DESCRIPTION), SNIPPET))[c.DESCRIPTION]
