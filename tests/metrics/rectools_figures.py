"""Writes ``rectools_figures.json``: small lists, and what RecTools makes of them.

RecTools asks for an older NumPy than ours, so it runs in an environment of its own:

    python -m venv /tmp/rectools && /tmp/rectools/bin/pip install rectools==0.19.0
    /tmp/rectools/bin/python tests/metrics/rectools_figures.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
USERS, ITEMS, K, LABELS = 12, 9, 4, 3


def main() -> None:
    import pandas as pd
    from rectools.metrics import (
        AvgRecPopularity,
        IntraListDiversity,
        MeanInvUserFreq,
        PairwiseHammingDistanceCalculator,
        Serendipity,
    )
    from rectools.metrics.distances import PairwiseDistanceCalculator

    rng = np.random.default_rng(7)
    seen = [sorted({int(i) for i in rng.zipf(1.6, 4) - 1 if i < ITEMS - 1} | {0}) for _ in range(USERS)]
    lists = [rng.permutation(ITEMS)[: K - user % 3].tolist() for user in range(USERS)]
    targets = [one[int(rng.integers(len(one)))] if rng.random() < 0.7 else 5 for one in lists]
    label = rng.integers(0, LABELS, ITEMS).tolist()
    vectors = rng.integers(0, 2, (ITEMS, 4))
    vectors[:, 0] = 1

    class Cosine(PairwiseDistanceCalculator):
        def _get_distances_for_item_pairs(self, items_0, items_1):  # type: ignore[no-untyped-def]
            a, b = vectors[list(items_0)], vectors[list(items_1)]
            return 1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    reco = pd.DataFrame(
        [(user, item, rank) for user, one in enumerate(lists) for rank, item in enumerate(one, 1)],
        columns=["user_id", "item_id", "rank"],
    )
    before = pd.DataFrame(
        [(user, item) for user, one in enumerate(seen) for item in one], columns=["user_id", "item_id"]
    )
    after = pd.DataFrame(list(enumerate(targets)), columns=["user_id", "item_id"])
    hot = pd.get_dummies(pd.Series(label)).reindex(range(ITEMS)).astype(int)
    found = {
        "novelty": MeanInvUserFreq(k=K).calc_per_user(reco, before),
        "popularity": AvgRecPopularity(k=K).calc_per_user(reco, before),
        "serendipity": Serendipity(k=K).calc_per_user(reco, after, before, list(range(ITEMS))),
        "hamming": IntraListDiversity(
            k=K, distance_calculator=PairwiseHammingDistanceCalculator(hot)
        ).calc_per_user(reco),
        "cosine": IntraListDiversity(k=K, distance_calculator=Cosine()).calc_per_user(reco),
    }
    figures = {
        name: [round(float(x), 12) for x in values.reindex(range(USERS))] for name, values in found.items()
    }
    given = {"seen": seen, "lists": lists, "targets": targets, "label": label, "vectors": vectors.tolist()}
    text = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in (given | figures).items())
    FILE.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
