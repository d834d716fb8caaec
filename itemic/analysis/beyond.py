"""What a ranking is like beyond being right: what it shows, to whom, and whether all are served alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.analysis.evidence import Evidence, Int64
from itemic.evaluate.report import LENGTH_EDGES
from itemic.metrics import (
    atkinson,
    calibration,
    coverage,
    entropy,
    exposure,
    gap,
    gini,
    group_means,
    intra_list_distance,
    ndcg,
    novelty,
    popularity,
    serendipity,
)

CHUNK = 100_000  # requests whose labels are counted at once
LEAST = 100  # requests that a group needs to be compared with others

Float64 = npt.NDArray[np.float64]


def beyond(evidence: Evidence) -> dict[str, float]:
    """Figures beyond accuracy of the first k places, see :mod:`itemic.metrics` for what each is.

    Returns:
        ``coverage@k``, ``gini@k``, ``entropy@k`` of what is shown; means over the requests of ``popularity@k``,
        ``novelty@k`` (bits) and ``serendipity@k``; where items have labels, of ``diversity@k`` (distance by labels) and
        ``calibration@k`` (nats, 0 is best), over the requests that have such; and how equally requests are served,
        ``ndcg@k gap by …``, ``ndcg@k Atkinson by …`` and ``ndcg@k Gini by …`` of history length and of the target's
        category, over the groups with at least 100 requests, where there are two. Figures that nothing has are left
        out.
    """
    k, items = evidence.k, evidence.top
    catalogue = len(evidence.dataset.item_ids)
    shown = exposure(items, catalogue, k)
    means = {
        "popularity": popularity(items, k, evidence.counts),
        "novelty": novelty(items, k, _users(evidence), max(len(evidence.dataset.train), 1)),
        "serendipity": serendipity(items, evidence.requests.targets, k, evidence.counts),
        **_by_labels(evidence),
    }
    found = {f"coverage@{k}": coverage(shown), f"gini@{k}": gini(shown), f"entropy@{k}": entropy(shown)}
    for name, values in means.items():
        known = values[~np.isnan(values)]
        if len(known):
            found[f"{name}@{k}"] = float(known.mean())
    return found | _fairness(evidence)


def _users(evidence: Evidence) -> Int64:
    """How many different users had each item in training: int64 ``[n]``."""
    train, n = evidence.dataset.train, len(evidence.dataset.item_ids)
    user = np.repeat(np.arange(len(train), dtype=np.int64), np.diff(train.offsets))
    pairs = np.sort(user * n + train.items)  # np.unique is ten times slower on millions
    fresh = np.concatenate([[True], pairs[1:] != pairs[:-1]])[: len(pairs)]
    return np.bincount(pairs[fresh] % n, minlength=n).astype(np.int64)


def _by_labels(evidence: Evidence) -> dict[str, Float64]:
    labels = evidence.labels
    if labels is None:
        return {}
    k, apart, far = evidence.k, [], []
    for start in range(0, len(evidence), CHUNK):
        items = evidence.top[start : start + CHUNK]
        apart.append(intra_list_distance(items, k, labels))
        far.append(calibration(evidence.history[start : start + CHUNK], items, k, labels))
    return {"diversity": np.concatenate(apart), "calibration": np.concatenate(far)}


def _fairness(evidence: Evidence) -> dict[str, float]:
    quality, k, found = ndcg(evidence.ranks, evidence.k), evidence.k, {}
    groups = {"history length": (quality, np.searchsorted(LENGTH_EDGES, evidence.lengths, "right"))}
    if evidence.labels is not None:
        wanted = evidence.labels[evidence.requests.targets]
        groups["category"] = (np.repeat(quality, np.diff(wanted.indptr)), wanted.indices)
    for name, (values, group) in groups.items():
        means, sizes = group_means(values, group)
        means = means[sizes >= LEAST]
        if len(means) > 1:
            found[f"ndcg@{k} gap by {name}"] = gap(means)
            found[f"ndcg@{k} Atkinson by {name}"] = atkinson(means)
            found[f"ndcg@{k} Gini by {name}"] = gini(means)  # type: ignore[arg-type]
    return found
