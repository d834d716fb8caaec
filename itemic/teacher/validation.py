"""HR@10 and NDCG@10 of a teacher on a sample of the validation split, over the whole catalogue."""

from __future__ import annotations

import numpy as np

from itemic.data.dataset import Dataset
from itemic.evaluate.sample import known_requests
from itemic.metrics import hit_rate, ndcg
from itemic.teacher.settings import TeacherValidation
from itemic.teacher.teacher import Teacher, mask_history

K = 10


class Validation:
    """Asks a teacher; the same requests each time.

    Args:
        dataset: its validation split is asked.
        settings: how many, and what is left out.
        seed: chooses them.

    Raises:
        ConfigError: there is no validation split, or its targets are unknown.
    """

    def __init__(self, dataset: Dataset, settings: TeacherValidation, seed: int) -> None:
        remedy = "Set teacher.validation.every to null, or split the data so that there is one."
        self.requests = known_requests(dataset, settings.requests, seed, "the best checkpoint", remedy)
        self.exclude_history = bool(settings.exclude_history)

    def __call__(self, teacher: Teacher) -> dict[str, float]:
        """``hr@10``, ``ndcg@10`` and ``requests``, how many were asked."""
        ranks = np.zeros(len(self.requests), np.int64)
        for part, scores in teacher.score_batches(self.requests):
            targets = self.requests.targets[part].astype(np.int64)
            if self.exclude_history:
                mask_history(scores, self.requests[part])
            own = scores[np.arange(len(targets)), targets][:, None]
            before = (scores > own).sum(axis=1)
            before += ((scores == own) & (np.arange(scores.shape[1]) < targets[:, None])).sum(axis=1)
            ranks[part] = np.where(np.isfinite(own[:, 0]), before + 1, 0)
        return {
            f"hr@{K}": float(hit_rate(ranks, K).mean()),
            f"ndcg@{K}": float(ndcg(ranks, K).mean()),
            "requests": float(len(ranks)),
        }
