from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from itemic.errors import ConfigError
from itemic.metrics import hit_rate, mrr, ndcg, ranks_of, recall

METRICS = [hit_rate, recall, ndcg, mrr]
ranks_lists = st.lists(st.integers(0, 30), min_size=1, max_size=30).map(lambda x: np.array(x, np.int64))


@pytest.mark.parametrize("k", [1, 2, 5, 10, 20])
def test_ndcg_equals_scikit_learn(k: int) -> None:
    rng = np.random.default_rng(k)
    scores = rng.normal(size=(40, 25))
    targets = rng.integers(0, 25, 40)
    relevance = np.eye(25)[targets]
    ranked = np.argsort(-scores, axis=1).astype(np.int32)
    mine = ndcg(ranks_of(ranked, targets.astype(np.int32)), k).mean()
    assert mine == pytest.approx(ndcg_score(relevance, scores, k=k), abs=1e-12)


def test_hand_computed() -> None:
    ranks = np.array([1, 2, 3, 11, 0])
    assert hit_rate(ranks, 2).tolist() == [1, 1, 0, 0, 0]
    assert recall(ranks, 10).tolist() == [1, 1, 1, 0, 0]
    assert mrr(ranks, 10).tolist() == pytest.approx([1, 0.5, 1 / 3, 0, 0])
    assert ndcg(ranks, 3).tolist() == pytest.approx([1, 0.6309297535714575, 0.5, 0, 0])


@given(ranks_lists, st.integers(1, 30))
@settings(deadline=None)
def test_invariants(ranks: np.ndarray, k: int) -> None:
    hits, gain, reciprocal = hit_rate(ranks, k), ndcg(ranks, k), mrr(ranks, k)
    assert (reciprocal <= gain).all()
    assert (gain <= hits).all()
    for metric in METRICS:
        values = metric(ranks, k)
        assert values.shape == ranks.shape
        assert values.dtype == np.float64
        assert (metric(ranks, k + 1) >= values).all()
        assert (values[ranks == 1] == 1).all()
        assert (values[ranks == 0] == 0).all()


@given(st.integers(1, 29), st.integers(1, 30))
@settings(deadline=None)
def test_a_better_rank_never_scores_less(rank: int, k: int) -> None:
    for metric in METRICS:
        better, worse = metric(np.array([rank, rank + 1]), k)
        assert better >= worse


@pytest.mark.parametrize("metric", METRICS)
def test_k_below_one_is_refused(metric: object) -> None:
    with pytest.raises(ConfigError):
        metric(np.array([1]), 0)  # type: ignore[operator]
