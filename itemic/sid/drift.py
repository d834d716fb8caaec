"""How well new items fit frozen codebooks, against the items that the codebooks were made from.

An item's *misfit* is the relative squared error of its nearest codes, ``|x - x̂|² / |x|²`` in the vectors' own space.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from itemic.sid.codebooks import Codebooks
from itemic.sid.vectors import Float32

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LATE = 0.95  # quantile of the training items beyond which a new item counts as far


@dataclass(frozen=True)
class Drift:
    """Misfits of new items against those of the training items.

    Attributes:
        items: how many new items.
        training, new: mean misfit of either.
        training_quantiles, new_quantiles: at 5, 25, 50, 75 and 95 %.
        far: share of the new items beyond the training items' 95 % quantile; .05 where nothing has drifted.
        statistic, p_value: of the two-sample Kolmogorov-Smirnov test.
        farthest: ids and misfits of the items that fit worst, at most ten.
    """

    items: int
    training: float
    new: float
    training_quantiles: list[float]
    new_quantiles: list[float]
    far: float
    statistic: float
    p_value: float
    farthest: list[tuple[str, float]]

    @property
    def line(self) -> str:
        """One line for a log."""
        return (
            f"misfit {self.new:.3f} (training items {self.training:.3f}), {self.far:.0%} of the new items are farther "
            f"from the codebooks than 95% of the training items"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def misfit(codebooks: Codebooks, vectors: Float32, codes: np.ndarray[Any, np.dtype[np.int32]]) -> Float32:
    """float32 ``[n]``; 0 for a vector of zeros that is rebuilt as one."""
    error = ((vectors - codebooks.rebuild(codes)) ** 2).sum(axis=1)
    length = (vectors**2).sum(axis=1)
    return np.asarray(np.where(error > 0, error / np.maximum(length, 1e-12), 0), np.float32)


def measure_drift(training: Float32, new: Float32, ids: list[str]) -> Drift:
    """Compare the misfits of training items (at least one) and new items (likewise, with their ids)."""
    from scipy.stats import ks_2samp

    test = ks_2samp(training, new)
    worst = np.argsort(-new, kind="stable")[:10]
    return Drift(
        len(new),
        float(training.mean()),
        float(new.mean()),
        np.quantile(training, QUANTILES).round(6).tolist(),
        np.quantile(new, QUANTILES).round(6).tolist(),
        float((new > np.quantile(training, LATE)).mean()),
        float(test.statistic),
        float(test.pvalue),
        [(ids[row], round(float(new[row]), 6)) for row in worst.tolist()],
    )
