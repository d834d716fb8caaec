"""From the rewards of a group's answers to their advantages."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

FLAT = 1e-6  # rewards that differ by less are the same


def normalized(rewards: Float64) -> Float64:
    """GRPO's: each reward less its group's mean, over its group's standard deviation (Shao et al. 2024, section 4.1.2).

    Args:
        rewards: ``[G, K]``; NaN where a group has fewer answers.

    Returns:
        ``[G, K]``; 0 in a group whose rewards are all the same.
    """
    gap, spread = centred(rewards), np.nanstd(rewards, axis=1, keepdims=True)
    return np.where(spread > FLAT, gap / np.maximum(spread, FLAT), 0.0 * gap)


def centred(rewards: Float64) -> Float64:
    """Dr. GRPO's: each reward less its group's mean, and no division (Liu et al. 2025)."""
    return np.asarray(rewards - np.nanmean(rewards, axis=1, keepdims=True))


def left_out(rewards: Float64) -> Float64:
    """RLOO's: each reward less the mean of the others of its group (Kool et al. 2019); 0 for an only answer."""
    count = (~np.isnan(rewards)).sum(axis=1, keepdims=True)
    return np.where(count > 1, centred(rewards) * count / np.maximum(count - 1, 1), 0.0 * rewards)


def over_step(rewards: Float64, every: Float64 | None = None) -> Float64:
    """REINFORCE++'s: each reward less the mean of all of a step's, over their deviation (Hu 2025).

    Args:
        rewards: ``[G, K]``.
        every: the rewards of the whole step, of any shape; None where these are all.
    """
    known = rewards if every is None else every
    known = known[~np.isnan(known)]
    if not known.size or (spread := float(known.std())) <= FLAT:
        return np.asarray(0.0 * rewards)
    return np.asarray((rewards - known.mean()) / spread)


ADVANTAGES = {
    "group": normalized,
    "centred": centred,
    "leave-one-out": left_out,
    "step": over_step,
}


def signal(rewards: Float64) -> Bool:
    """bool ``[G]``: whether a group's rewards differ at all; without that it says nothing about better answers."""
    return np.asarray(np.nanmax(rewards, axis=1) - np.nanmin(rewards, axis=1) > FLAT)
