"""What profiles are worth: how well each brings up its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError
from itemic.metrics import mrr, ndcg, recall
from itemic.profile.embedder import Embedder
from itemic.profile.find import Bool, Float64, Int64, ItemVectors
from itemic.profile.settings import REWARD, FindSettings, RewardSettings
from itemic.teacher.rows import ItemRows

METRICS = {"ndcg": ndcg, "mrr": mrr, "recall": recall}
WHOLE = int(np.iinfo(np.int64).max)  # a k behind every rank


@dataclass(frozen=True)
class Worth:
    """What each of ``m`` profiles is worth.

    Attributes:
        rewards: float64 ``[m]``, the weighted sum; 0 where a profile doesn't count.
        parts: of each reward of the mixture its own values, float64 ``[m]``, likewise.
        ranks: int64 ``[m]``, the target's rank; 0 where it can't be found.
        similarity: float64 ``[m]``, of profile and target.
        counted: bool ``[m]``: profiles that ended and have words; others are worth 0.
    """

    rewards: Float64
    parts: Mapping[str, Float64]
    ranks: Int64
    similarity: Float64
    counted: Bool


def reward(name: str, ranks: Int64, similarity: Float64) -> Float64:
    """One reward of each profile, float64 ``[m]``.

    Args:
        name: ``ndcg``, ``mrr``, ``ndcg@k``, ``mrr@k``, ``recall@k`` or ``similarity``. Ranks ``[1, 3, 0]`` give
            ``ndcg`` ``[1, .5, 0]`` (``1 / log2(rank + 1)``), ``mrr`` ``[1, 1/3, 0]`` and ``recall@2`` ``[1, 0, 0]``.
        ranks: the targets', 0 for not found.
        similarity: of profile and target.

    Raises:
        ConfigError: there is no such reward.
    """
    found = REWARD.fullmatch(name)
    if found is None or name == "recall":
        raise ConfigError(
            f"there is no reward {name!r}", "Use ndcg, mrr, recall@10, ndcg@10, mrr@10 or similarity."
        )
    if found[1] is None:
        return np.asarray(similarity, np.float64)
    return METRICS[found[1]](ranks, int(found[2]) if found[2] else WHOLE)


def worth(
    ranks: npt.NDArray[np.integer],
    similarity: npt.NDArray[np.floating],
    counted: npt.NDArray[np.bool_],
    settings: RewardSettings | None = None,
) -> Worth:
    """The mixture's value of each profile.

    Ranks ``[1, 3]``, similarities ``[.8, .4]`` and weights ``{ndcg: 1, similarity: .5}`` give
    ``[1 + .4, .5 + .2] = [1.4, .7]``; where the second didn't end, ``[1.4, 0]``.

    Args:
        ranks: int64 ``[m]``, as :meth:`itemic.profile.find.ItemVectors.find` has them.
        similarity: float64 ``[m]``, likewise.
        counted: bool ``[m]``.
        settings: the mixture; None for NDCG alone.
    """
    told, which = settings or RewardSettings(), np.asarray(counted, np.bool_)
    places, near = np.asarray(ranks, np.int64), np.asarray(similarity, np.float64)
    parts = {name: np.where(which, reward(name, places, near), 0.0) for name in told.weights}
    total = np.zeros(len(places))
    for name, weight in told.weights.items():
        total += weight * parts[name]
    return Worth(total, parts, places, near, which)


@dataclass(frozen=True)
class Scorer:
    """Texts to rewards: profiles are encoded, and their targets ranked in the whole catalogue.

    Attributes:
        embedder: encodes profiles.
        items: the catalogue's vectors, by the same embedder.
        rewards: the mixture.
        find: how large the search's blocks are; None for the usual ones.
        batch_size: texts per forward pass.
    """

    embedder: Embedder
    items: ItemVectors
    rewards: RewardSettings
    find: FindSettings | None = None
    batch_size: int = 32

    def __call__(
        self,
        texts: Sequence[str],
        targets: npt.NDArray[np.integer],
        seen: ItemRows,
        ended: npt.NDArray[np.bool_] | None = None,
    ) -> Worth:
        """What each profile is worth.

        Args:
            texts: the profiles.
            targets: of each the row of its item.
            seen: of each the items that it was written from, which are not to be found.
            ended: whether its writer came to an end; None for all.

        Raises:
            ConfigError: vectors of another width than the embedder's, or targets that can't be.
        """
        vectors = self.embedder.encode(texts, "profile", batch_size=self.batch_size)
        found = self.items.find(
            vectors, targets=targets, seen=seen, settings=self.find, device=self.embedder.device
        )
        counted = np.asarray(vectors.any(axis=1))
        if ended is not None:
            counted = counted & np.asarray(ended, np.bool_)
        return worth(found.ranks, found.similarity, counted, self.rewards)


@dataclass(frozen=True)
class SessionScorer:
    """The same for profiles of sessions, which are named by their numbers.

    Attributes:
        scorer: says what texts are worth.
        targets: int ``[S]``, of each session the row of its item.
        seen: of each session the items that its profiles were written from.
    """

    scorer: Scorer
    targets: npt.NDArray[np.integer]
    seen: ItemRows

    def __call__(self, texts: Sequence[str], sessions: npt.NDArray[np.integer]) -> Float64:
        """A finite number for each profile, float64 ``[N]``.

        Args:
            texts: profiles that ended.
            sessions: int ``[N]``, the session that each was written for.
        """
        rows = np.asarray(sessions, np.int64)
        return self.scorer(texts, self.targets[rows], self.seen.take(rows)).rewards
