"""Items to look at: who shares a prefix with whom."""

from __future__ import annotations

import numpy as np

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.sid.index import ItemIndex
from itemic.sid.report.records import Example, ExampleStep
from itemic.sid.text import clean

EXAMPLES, TITLES = 4, 4


def find_examples(index: ItemIndex, dataset: Dataset, rng: np.random.Generator) -> list[Example]:
    """Some items, drawn among those that have company under the longest prefixes, and what shares each prefix.

    The titles under a prefix are drawn among the items that leave at the next code, as long as there are any: each
    step then shows others than the one below it.
    """
    groups = index.prefixes.groups
    crowds = np.stack([np.bincount(group)[group] for group in groups.T], axis=1)
    company = (crowds > 1).sum(axis=1)
    order = rng.permutation(len(index))
    drawn = order[np.argsort(-company[order], kind="stable")]
    _, first = np.unique(groups[drawn, 0], return_index=True)  # no two examples from one corner
    apart = drawn[np.sort(first)]
    chosen = apart[company[apart] > 0][:EXAMPLES]
    titles = dataset.items[c.TITLE].to_list()
    return [
        Example(
            item=index.item_ids[row],
            title=_title(titles[row], index.item_ids[row]),
            steps=[_step(index, titles, int(row), length, rng) for length in range(1, company[row] + 1)],
        )
        for row in chosen.tolist()
    ]


def crowded_sid(index: ItemIndex, dataset: Dataset | None) -> ExampleStep | None:
    """The semantic ID that most items share; None where none is shared."""
    crowd = np.bincount(index.sid_numbers)
    if crowd.max() == 1:
        return None
    rows = np.flatnonzero(index.sid_numbers == crowd.argmax())
    names = index.item_ids if dataset is None else dataset.items[c.TITLE].to_list()
    some = [_title(names[row], index.item_ids[row]) for row in rows[: 2 * TITLES].tolist()]
    return ExampleStep(index.text(int(rows[0])), len(rows), some)


def _step(
    index: ItemIndex, titles: list[str], row: int, length: int, rng: np.random.Generator
) -> ExampleStep:
    groups = index.prefixes.groups
    rows = np.flatnonzero(groups[:, length - 1] == groups[row, length - 1])
    others = rows[rows != row]
    if length < index.levels:
        leaving = others[groups[others, length] != groups[row, length]]
        others = leaving if len(leaving) else others
    some = np.sort(rng.permutation(others)[:TITLES])
    form = index.token_format
    codes = index.codes[row, :length].tolist()
    prefix = "".join(form.code(level, code, index.sizes) for level, code in enumerate(codes))
    return ExampleStep(prefix, len(rows), [_title(titles[i], index.item_ids[i]) for i in some.tolist()])


def _title(title: str | None, item: str) -> str:
    """The title as a reader wants it, the id where there is none."""
    return clean(title or "") or f"item {item}"
