"""From a ranking to a report: accuracy with intervals at item and SID level, exposure, validity, slices."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic import schema as c
from itemic.artifact import write_json
from itemic.data.dataset import Dataset
from itemic.data.sequences import catalogue_digest
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.evaluate.ranking import OddRequests, Ranking, digest_requests, unanswered
from itemic.evaluate.tables import main_k, report_table, short
from itemic.metrics import (
    bootstrap,
    coverage,
    entropy,
    exposure,
    gini,
    hit_rate,
    mrr,
    ndcg,
    ranks_of,
    sid_ranks_of,
    validity,
)
from itemic.screen import rendered

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

# With one target a request, recall is the hit rate; papers use either name.
METRICS: dict[str, Callable[[Int64, int], npt.NDArray[np.float64]]] = {
    "hr": hit_rate,
    "ndcg": ndcg,
    "mrr": mrr,
}
LENGTH_EDGES = (1, 5, 10, 20)
POPULARITY_EDGES = (0, 1, 5, 20, 100)
UNLABELLED = (
    "The targets of this split are unknown: predictions are written, and there is nothing to measure."
)


@dataclass(frozen=True)
class Measure:
    """A mean over requests and its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Slice:
    """The item-level means of some of the requests."""

    name: str
    requests: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What a ranking is worth.

    Attributes:
        name: of the ranker.
        split: ``valid``, ``test``, or None where the requests are neither (or no dataset was given).
        requests: how many were ranked.
        scored: how many of them have a known target; the means are over these.
        k: the cuts.
        level: of the intervals.
        item: ``hr@k``, ``ndcg@k``, ``mrr@k`` where the very item counts.
        sid: the same where any item with the target's semantic ID counts; empty without an index.
        exposure: ``coverage@k``, ``gini@k``, ``entropy@k`` of what is shown, and ``validity``, the share of
            the list's places that hold a real item.
        slices: the item level by length of the history and by popularity of the target in training.
        best: what a ranker that knows the simulator's true next-item distribution would reach, for simulated
            data.
        config: how the ranker was asked.
        notes: what a reader has to know.
        asked: digest of the requests; reports are compared where it is the same.
    """

    name: str
    split: str | None
    requests: int
    scored: int
    k: list[int]
    level: float
    item: dict[str, Measure] = field(default_factory=dict)
    sid: dict[str, Measure] = field(default_factory=dict)
    exposure: dict[str, float] = field(default_factory=dict)
    slices: dict[str, list[Slice]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    asked: str = ""

    def __repr__(self) -> str:
        main = main_k(self.k)
        shown = (f"hr@{main}", f"ndcg@{main}") if self.item else ()
        found = [f"{name.upper()} {short(self.item[name].value)}" for name in shown]
        split = f"{self.split} " if self.split else ""
        return f"<Report {self.name!r}: {', '.join([f'{self.requests:,} {split}requests', *found])}>"

    def __str__(self) -> str:
        """A table of metrics and cuts, with intervals."""
        return rendered(report_table(self))

    def save(self, file: str | Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_json(Path(file), asdict(self))

    @classmethod
    def load(cls, file: str | Path) -> Report:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file is missing or is no report.
        """
        try:
            value = json.loads(Path(file).read_text(encoding="utf-8"))
            measures = {
                level: {m: Measure(**x) for m, x in value[level].items()} for level in ("item", "sid")
            }
            slices = {kind: [Slice(**part) for part in parts] for kind, parts in value["slices"].items()}
            return cls(**(value | measures | {"slices": slices}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file} is not a report: {error}", "Score the ranking again.") from error


@dataclass
class _Tally:
    """What is kept of a ranking while its parts go by: a few numbers a request, and counts per item."""

    catalogue: int
    k: list[int]
    requests: int = 0
    valid: float = 0.0
    known: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    ranks: list[Int64] = field(default_factory=list)
    sid_ranks: list[Int64] = field(default_factory=list)
    targets: list[Int32] = field(default_factory=list)
    lengths: list[Int32] = field(default_factory=list)
    shown: dict[int, Int64] = field(default_factory=dict)
    odd: OddRequests = field(default_factory=OddRequests)


def score(
    ranking: Ranking,
    dataset: Dataset | None = None,
    *,
    k: Sequence[int] = (1, 5, 10, 20),
    seed: int = 0,
    draws: int = 1000,
    level: float = 0.95,
) -> Report:
    """Score a finished ranking, part by part.

    Args:
        ranking: with or without known targets.
        dataset: whose requests were ranked; it adds the name of the split, the slices by the target's
            popularity and, for simulated data, the best that can be reached.
        k: the cuts, none longer than the lists.
        seed: of the bootstrap.
        draws: resamples; whole users are resampled where a user asks more than once.
        level: of the intervals.

    Raises:
        ConfigError: a cut is below 1 or beyond the lists.
        ArtifactError: the ranking is unfinished.
        IndexMismatchError: the dataset has other items.
    """
    cuts = sorted(set(k))
    width = ranking.head.k
    if not cuts or cuts[0] < 1 or cuts[-1] > width:
        raise ConfigError(
            f"metrics at k = {list(k)} of a ranking with {width} items a request",
            f"Choose k between 1 and {width}, or rank more items.",
        )
    if dataset is not None and dataset.item_ids != ranking.catalogue[c.ITEM_ID].to_list():
        theirs = catalogue_digest(ranking.catalogue[c.ITEM_ID].to_list())
        raise IndexMismatchError(
            f"the ranking in {ranking.folder} is of catalogue {theirs}, "
            f"dataset {dataset.name!r} of {dataset.catalogue}",
            "Give the dataset that was ranked.",
        )
    tally = _tally(ranking, cuts)
    split = _split_of(ranking, dataset) if dataset else None
    scored = sum(len(ranks) for ranks in tally.ranks)
    report = Report(
        ranking.head.name,
        split,
        tally.requests,
        scored,
        cuts,
        level,
        exposure=_exposure(tally, width),
        config=ranking.head.config,
        asked=ranking.head.digest,
        notes=tally.odd.notes,
    )
    if not scored:
        report.notes.append(UNLABELLED)
        return report
    if scored < tally.requests:
        report.notes.append(f"{tally.requests - scored} requests have no known target and are not counted.")
    users = ranking.users()[np.concatenate(tally.known)]
    groups = users if len(np.unique(users)) < len(users) else None

    def measures(parts: list[Int64]) -> dict[str, Measure]:
        per_request = _per_request(np.concatenate(parts), cuts)
        return {
            name: Measure(float(values.mean()), *bootstrap(values, seed, draws, level, groups))
            for name, values in per_request.items()
        }

    report.item.update(measures(tally.ranks))
    if tally.sid_ranks:
        report.sid.update(measures(tally.sid_ranks))
    report.slices.update(_slices(tally, cuts, dataset))
    report.best.update(_best(dataset, split, tally.requests) if dataset else {})
    return report


def _tally(ranking: Ranking, cuts: list[int]) -> _Tally:
    tally = _Tally(len(ranking.catalogue), cuts)
    texts = ranking.catalogue[c.RANKED_SIDS]
    sids = None if texts.null_count() else texts.rank("dense").to_numpy().astype(np.int32)
    for number, part in enumerate(ranking.arrays()):
        known = part.targets >= 0
        if unanswered(part.items).any() or part.shortened.any():
            tally.odd.add(part.items, part.shortened, ranking.table(number)[c.USER_ID])
        items, targets = part.items[known], part.targets[known]
        tally.requests += len(known)
        tally.known.append(known)
        tally.ranks.append(ranks_of(items, targets))
        if sids is not None:
            tally.sid_ranks.append(sid_ranks_of(items, targets, sids))
        tally.targets.append(targets)
        tally.lengths.append(part.history_lengths[known])
        tally.valid += float(validity(part.items, tally.catalogue).sum())
        for k in cuts:
            counts = exposure(part.items, tally.catalogue, k)
            tally.shown[k] = tally.shown.get(k, 0) + counts
    return tally


def _exposure(tally: _Tally, width: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for k, counts in tally.shown.items():
        figures |= {
            f"coverage@{k}": coverage(counts),
            f"gini@{k}": gini(counts),
            f"entropy@{k}": entropy(counts),
        }
    return figures | {f"validity@{width}": tally.valid / max(tally.requests, 1)}


def _per_request(ranks: Int64, cuts: list[int]) -> dict[str, npt.NDArray[np.float64]]:
    return {f"{name}@{k}": metric(ranks, k) for name, metric in METRICS.items() for k in cuts}


def _slices(tally: _Tally, cuts: list[int], dataset: Dataset | None) -> dict[str, list[Slice]]:
    values = _per_request(np.concatenate(tally.ranks), cuts)
    slices = {"history length": _cut(np.concatenate(tally.lengths), LENGTH_EDGES, values)}
    if dataset is not None:
        seen = np.bincount(dataset.train.items, minlength=tally.catalogue)
        slices["target popularity"] = _cut(seen[np.concatenate(tally.targets)], POPULARITY_EDGES, values)
    return slices


def _cut(
    sizes: npt.NDArray[np.integer], edges: tuple[int, ...], values: dict[str, npt.NDArray[np.float64]]
) -> list[Slice]:
    """Slices ``edge ≤ size < next edge``; empty ones are left out."""
    slices = []
    for low, high in zip(edges, (*edges[1:], None), strict=True):
        inside = (sizes >= low) & (sizes < high) if high is not None else sizes >= low
        if not inside.any():
            continue
        name = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}–{high - 1}"
        means = {metric: float(each[inside].mean()) for metric, each in values.items()}
        slices.append(Slice(name, int(inside.sum()), means))
    return slices


def _split_of(ranking: Ranking, dataset: Dataset) -> str | None:
    for name in (c.VALID, c.TEST):
        try:
            if digest_requests(dataset.split(name), dataset.catalogue) == ranking.head.digest:
                return name
        except DataError:  # this split is empty
            continue
    return None


def _best(dataset: Dataset, split: str | None, requests: int) -> dict[str, float]:
    """What the simulator says of this split, unless the data was filtered since."""
    stored = dataset.notes.get("simulation", {}).get("best", {}).get(dataset.rule.method, {}).get(split, {})
    return dict(stored.get("metrics", {})) if stored.get("requests") == requests else {}
