"""Rationales that a language model writes: it sees a training history, what came next, and like histories of others.

Everything that an endpoint is shown comes from the catalogue and the training sequences: the targets are items of
training, and the like histories are other users' up to an item of training. So nothing of validation or test is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.sequences import Sequences
from itemic.endpoint import Endpoint, ask_all
from itemic.errors import ConfigError
from itemic.progress import log
from itemic.sid.names import ItemNames
from itemic.tasks.alike import similar_places
from itemic.tasks.build import Built, Taught, write_built
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.conversation import ROWS_PER_PART, Message
from itemic.tasks.rationale import Rationale
from itemic.tasks.table import make_task, task_options

SHOWN = 10  # the latest items of a history that an endpoint is shown
OWN_THOUGHTS = r"(?s)^.*</think>"  # of a model that thinks aloud before it answers
ASKED = (
    "You explain what customers of a shop choose next. Answer with the explanation alone: two or three plain "
    "sentences, no lists, no headings."
)
TOLD = (
    "Which taste or need leads from this history to the next choice? Reason from the history, and from the others' "
    "where they help. Write as if the next choice were not known yet, and end with the kind of item to look for; "
    "don't quote its title."
)


def write_rationales(
    dataset: Dataset,
    index: ItemNames,
    endpoint: Endpoint | Mapping[str, Any],
    *,
    answers: str | Path,
    limit: int | None = 1000,
    similar: int = 3,
    seed: int = 0,
    output: str | Path | None = None,
    source: str = "rationale",
    **options: Any,
) -> Built:
    """Conversations of the task ``rationale`` whose thoughts an endpoint writes.

    Args:
        dataset: its catalogue and its training sequences are used, nothing else.
        index: names the items.
        endpoint: where to ask.
        answers: the file that keeps what was answered; the same call goes on from it.
        limit: the most conversations, at random; None for one of every item of a training sequence but the first.
        similar: how many other users' histories are shown beside one; 0 for none.
        seed: of what is chosen.
        output: as of :func:`itemic.tasks.build_conversations`.
        source: the name that the conversations carry.
        options: the task's, but ``latest`` and ``says``, which are about thoughts by rule.

    Raises:
        ConfigError: options that can't work, or the package ``httpx`` is missing.
        EndpointError: the endpoint refuses; what was written is kept.
        IndexMismatchError: the index belongs to another dataset.
    """
    of_rules = [name for name in ("latest", "says") if name in options]
    if of_rules or similar < 0:
        told = f"{of_rules[0]} is about thoughts by rule" if of_rules else f"similar is {similar}"
        raise ConfigError(f"written rationales: {told}", "Leave it out." if of_rules else "Give 0 or more.")
    settings = endpoint if isinstance(endpoint, Endpoint) else Endpoint(**endpoint)
    task = make_task("rationale", **options)
    task.check_names(index)
    index.check_dataset(dataset)
    catalogue, train = Catalogue(index, dataset.items, dataset.users), dataset.train
    plan = task.planned(catalogue, train, seed, limit)
    texts = ask_all(settings, _requests(plan, catalogue, train, similar), answers)
    thoughts = clean_thoughts(pl.Series(texts, dtype=pl.String), catalogue)
    plan = plan.with_columns(thought=thoughts).filter(pl.col("thought") != "")
    if len(plan) < len(texts):
        log.warning(
            "%d of %d answers were empty or cut off, and are left out", len(texts) - len(plan), len(texts)
        )
    written = _Written(**{field.name: getattr(task, field.name) for field in fields(task)})
    frame = written.rendered(plan, catalogue, train, source=source, seed=seed)
    taught = Taught([task_options(task)], index.digest)
    counts = {source: len(frame)}
    if output is None:
        return Built(frame, counts, taught, None)
    return write_built([(source, iter([frame]))], counts, taught, Path(output), ROWS_PER_PART)


class _Written(Rationale):
    """The same task, with thoughts that stand in the plan."""

    def thoughts(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.Series:
        return plan["thought"]


def clean_thoughts(texts: pl.Series, catalogue: Catalogue) -> pl.Series:
    """An endpoint's words as they may stand in a think block: what it thought before it answered is left out, and so is
    whatever looks like an item or a role; empty where nothing is left."""
    return pl.DataFrame({"text": texts.fill_null("")}).select(
        catalogue.clean(pl.col("text").str.replace(OWN_THOUGHTS, ""))
    )["text"]


def _requests(
    plan: pl.DataFrame, catalogue: Catalogue, train: Sequences, similar: int
) -> list[list[Message]]:
    """What is asked about each line of a plan."""
    places = plan["target"].to_numpy()
    alike: list[list[int]] = [[] for _ in places]
    if similar:
        alike = similar_places(train, places, len(catalogue), latest=SHOWN, k=similar)
    names = _shown(catalogue).to_list()
    user = np.repeat(np.arange(len(train)), np.diff(train.offsets))

    def history(place: int) -> str:
        start = max(int(train.offsets[user[place]]), place - SHOWN)
        return "; ".join(names[item] for item in train.items[start:place])

    found: list[list[Message]] = []
    for place, others in zip(places.tolist(), alike, strict=True):
        lines = []
        if others:
            lines.append("What other customers with like histories chose next:")
            lines += [f"- {history(other)} → {names[train.items[other]]}" for other in others]
        lines.append(f"A customer chose, oldest first: {history(place)}")
        lines += [f"The next choice: {names[train.items[place]]}", TOLD]
        found.append([{"role": "system", "content": ASKED}, {"role": "user", "content": "\n".join(lines)}])
    return found


def _shown(catalogue: Catalogue) -> pl.Series:
    """How an item is shown to an endpoint: its title, and where it stands."""
    titles, _ = catalogue.lines("title")
    path = catalogue.fields["path"]
    table = pl.DataFrame({"title": titles, "path": path, "brand": catalogue.fields[c.BRAND]})
    beside = pl.concat_str(
        [pl.when(pl.col(name) != "").then(name) for name in ("path", "brand")],
        separator=", ",
        ignore_nulls=True,
    )
    return table.select(
        text=pl.when(beside == "").then("title").otherwise(pl.format("{} ({})", "title", beside))
    )["text"]
