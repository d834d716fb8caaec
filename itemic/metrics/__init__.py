"""Metrics as pure functions on arrays: accuracy at item and SID level, intervals, and what is beyond accuracy."""

from __future__ import annotations

from itemic.metrics.accuracy import hit_rate, mrr, ndcg, recall
from itemic.metrics.agreement import overlap, rbo
from itemic.metrics.calibration import calibration
from itemic.metrics.diversity import intra_list_distance
from itemic.metrics.exposure import coverage, entropy, exposure, gini, validity
from itemic.metrics.fairness import atkinson, gap, group_means
from itemic.metrics.intervals import bootstrap
from itemic.metrics.ranks import ranks_of, sid_numbers, sid_ranks_of
from itemic.metrics.surprise import novelty, popularity, serendipity

__all__ = [
    "atkinson",
    "bootstrap",
    "calibration",
    "coverage",
    "entropy",
    "exposure",
    "gap",
    "gini",
    "group_means",
    "hit_rate",
    "intra_list_distance",
    "mrr",
    "ndcg",
    "novelty",
    "overlap",
    "popularity",
    "ranks_of",
    "rbo",
    "recall",
    "serendipity",
    "sid_numbers",
    "sid_ranks_of",
    "validity",
]
