"""What the model itself thinks of targets that its search didn't find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from itemic.analysis.evidence import Evidence, Float32
from itemic.progress import progress_bar

if TYPE_CHECKING:
    from itemic.evaluate.recommend import ModelRanker

MOST = 2000
TOGETHER = 64  # requests that are asked at once


def force(ranker: ModelRanker, evidence: Evidence, most: int = MOST, seed: int = 0) -> Float32:
    """Score targets that no beam reached, by walking their names through the model.

    Args:
        ranker: that made the lists, asked as it was asked for them; its scores stand beside theirs.
        evidence: whose requests.
        most: requests that are asked; of more a random sample.
        seed: of the sample.

    Returns:
        float32 ``[R]``; NaN where the request wasn't asked or the target is left out with the history.
    """
    from itemic.decode.include import Include

    asked = np.flatnonzero(evidence.ranks == 0)
    if len(asked) > most:
        asked = np.sort(np.random.default_rng(seed).choice(asked, most, replace=False))
    scores = np.full(len(evidence), np.nan, np.float32)
    with progress_bar("targets by force", len(asked)) as bar:
        for start in range(0, len(asked), TOGETHER):
            rows = asked[start : start + TOGETHER]
            requests = evidence.requests.take(rows)
            include = Include([requests.targets[at : at + 1] for at in range(len(rows))])
            _, _, found = ranker.rank_including(requests, include, evidence.k, evidence.excluded)
            values = np.array([each[0] for each in found], np.float32)
            scores[rows] = np.where(np.isfinite(values), values, np.nan)
            bar.advance(len(rows))
    return scores
