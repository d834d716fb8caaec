"""Metrics as pure functions on arrays: accuracy at item and SID level, intervals, coverage, validity."""

from __future__ import annotations

from itemic.metrics.accuracy import hit_rate, mrr, ndcg, recall
from itemic.metrics.exposure import coverage, entropy, exposure, gini, validity
from itemic.metrics.intervals import bootstrap
from itemic.metrics.ranks import ranks_of, sid_numbers, sid_ranks_of

__all__ = [
    "bootstrap",
    "coverage",
    "entropy",
    "exposure",
    "gini",
    "hit_rate",
    "mrr",
    "ndcg",
    "ranks_of",
    "recall",
    "sid_numbers",
    "sid_ranks_of",
    "validity",
]
