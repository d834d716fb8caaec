"""What a ranking answers, for people: samples with titles, requests as they are answered, plain files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.artifact import whole_file
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.report import Report
from itemic.metrics import ranks_of

SHOWN = 5  # items of a history, and of a ranking, where a person reads
SAMPLE_COLUMNS = ("user", "history", "target", "rank of the target", "recommended")


def sample_predictions(
    ranking: Ranking, requests: Requests, names: Sequence[str], count: int
) -> list[tuple[str, str, str, str, str]]:
    """Rows of :data:`SAMPLE_COLUMNS` for ``count`` requests, evenly spread, always the same ones."""
    rows = []
    for request in np.unique(
        np.linspace(0, len(requests) - 1, min(count, len(requests))).astype(int)
    ).tolist():
        part = ranking.part(request // ranking.head.part_size)
        best = part.items[request % ranking.head.part_size]
        target = int(requests.targets[request])
        place = int(ranks_of(best[None], np.array([target]))[0]) if target >= 0 else 0
        rows.append(
            (
                str(requests.users[request]),
                " → ".join(names[row] for row in requests.history(request)[-SHOWN:].tolist()),
                names[target] if target >= 0 else "unknown",
                str(place or "-"),
                " · ".join(names[row] for row in best[:SHOWN].tolist() if row >= 0),
            )
        )
    return rows


def answers(
    requests: Requests,
    items: npt.NDArray[np.int32],
    scores: npt.NDArray[np.float32],
    names: Sequence[str],
) -> Iterator[str]:
    """Each answered request as a few lines: the latest items of the history, the target, the best items."""
    ranks = ranks_of(items, requests.targets)
    for request, best in enumerate(items.tolist()):
        target = int(requests.targets[request])
        known = f"{names[target]} (place {int(ranks[request]) or '-'})" if target >= 0 else "unknown"
        history = " → ".join(names[row] for row in requests.history(request)[-SHOWN:].tolist())
        listed = [
            f"  {place}. {names[row]}  {scores[request, place - 1]:.3f}"
            for place, row in enumerate(best[:SHOWN], 1)
            if row >= 0
        ]
        head = [f"user {requests.users[request]}", f"  history: {history}", f"  target: {known}"]
        yield "\n".join([*head, *listed])


def prediction_table(table: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """A part of a ranking with a row for each place of each list.

    Args:
        table: with the columns ``schema.RANKING_COLUMNS``.
        items: columns ``item_id``, ``title``, ``semantic_id``.

    Returns:
        the columns request, user, rank, item, title, score, semantic_id, target, target_title, hit. ``hit`` is null
        where the target isn't known; a request whose list is empty has one row without an item.
    """
    about = items.select(pl.col(c.ITEM_ID).alias("item"), c.TITLE, "semantic_id")
    targets = items.select(pl.col(c.ITEM_ID).alias("target"), pl.col(c.TITLE).alias("target_title"))
    place = pl.int_ranges(1, pl.col(c.RANKED_ITEMS).list.len() + 1, dtype=pl.Int32)
    return (
        table.select(
            pl.col(c.REQUEST).alias("request"),
            pl.col(c.USER_ID).alias("user"),
            place.alias("rank"),
            pl.col(c.RANKED_ITEMS).alias("item"),
            pl.col(c.RANKED_SCORES).alias("score"),
            pl.col(c.TARGET_ID).alias("target"),
        )
        .explode("rank", "item", "score", empty_as_null=True)
        .join(about, on="item", how="left", maintain_order="left")
        .join(targets, on="target", how="left", maintain_order="left")
        .with_columns(hit=pl.col("item") == pl.col("target"))
        .select(
            "request",
            "user",
            "rank",
            "item",
            "title",
            "score",
            "semantic_id",
            "target",
            "target_title",
            "hit",
        )
    )


def export_csv(ranking: Ranking, dataset: Dataset | None, file: Path) -> None:
    """Write all predictions, one line for each place of each list; the file is whole or isn't there.

    Raises:
        ArtifactError: the ranking isn't finished.
    """
    items = _items(ranking, dataset)
    with whole_file(file) as out:
        for number, table in enumerate(ranking.tables()):
            out.write(prediction_table(table, items).write_csv(include_header=not number))


def export_json(ranking: Ranking, report: Report, dataset: Dataset | None, file: Path) -> None:
    """Write ``{"metrics": the report, "predictions": [{"user", …, "items": […]}, …]}``, a request a line.

    Raises:
        ArtifactError: the ranking isn't finished.
    """
    items = _items(ranking, dataset)
    with whole_file(file) as out:
        out.write(f'{{"metrics": {json.dumps(asdict(report), ensure_ascii=False)},\n"predictions": [')
        comma = "\n"
        for table in ranking.tables():
            for request in _requests(prediction_table(table, items)):
                out.write(comma + json.dumps(request, ensure_ascii=False))
                comma = ",\n"
        out.write("\n]}\n")


def export_metrics(report: Report, file: Path) -> None:
    """Write a report's numbers, one a line: level, metric, value, and the interval where there is one."""
    levels = (("item", report.item), ("sid", report.sid))
    measures = [(level, key, m.value, m.low, m.high) for level, found in levels for key, m in found.items()]
    shown = [("exposure", key, value, None, None) for key, value in report.exposure.items()]
    columns = {
        "level": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
    with whole_file(file) as out:
        out.write(pl.DataFrame([*measures, *shown], columns, orient="row").write_csv())


def _requests(table: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for _, places in table.group_by("request", maintain_order=True):
        first = places.row(0, named=True)
        listed = places.filter(pl.col("item").is_not_null())
        own = ("rank", "item", "title", "score", "semantic_id", "hit")
        about = {key: first[key] for key in ("request", "user", "target", "target_title")}
        yield about | {"items": listed.select(own).to_dicts()}


def _items(ranking: Ranking, dataset: Dataset | None) -> pl.DataFrame:
    """The ranking's catalogue with titles where a dataset has them."""
    items = ranking.catalogue.rename({c.RANKED_SIDS: "semantic_id"})
    if dataset is None:
        return items.with_columns(pl.lit(None, pl.String).alias(c.TITLE))
    return items.join(
        dataset.items.select(c.ITEM_ID, c.TITLE), on=c.ITEM_ID, how="left", maintain_order="left"
    )
