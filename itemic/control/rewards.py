"""What a list is worth that was asked for under control, item by item and as a whole, as RecLM-gen defines it.

Pure functions of arrays (:class:`itemic.control.answers.Answers`). Entries of a list count from 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.control.answers import Answers

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

LEAST = (
    -1.0
)  # what an entry is worth that isn't in the catalogue, comes again, is in the history or is one too many


def legal(answers: Answers) -> Bool:
    """bool ``[B, K]``: entries that are there, within the count, known, new to the list and to the history."""
    at = np.arange(answers.items.shape[1])
    there = (at < answers.lengths[:, None]) & (at < answers.counts[:, None]) & (answers.items >= 0)
    return there & ~repeated(answers.items, answers.lengths) & ~answers.history


def repeated(items: Int32, lengths: Int64) -> Bool:
    """bool ``[B, K]``: entries that name an item which an earlier one of their list names.

    Example:
        ``[[5, 5, -1, -1, 5]]`` of length 5 → ``[[False, True, False, False, True]]``.
    """
    at = np.arange(items.shape[1])
    there = (at < lengths[:, None]) & (items >= 0)
    same = (items[:, :, None] == items[:, None, :]) & there[:, :, None] & there[:, None, :]
    return np.asarray((same & (at[None, :] < at[:, None])).any(-1))


def rank_values(answers: Answers) -> Float64:
    """What entries are worth by themselves, float64 ``[B, K]``.

    1 for the target, ``1 / log2(r + 3)`` for the item at the teacher's 0-based place ``r``, 0 for any other and for
    entries that aren't :func:`legal`.

    Example:
        The teacher's first item is worth ``1 / log2(3) = .631``, its second ``1 / log2(4) = .5``.
    """
    by_place = np.where(answers.places >= 0, 1 / np.log2(np.maximum(answers.places, 0) + 3.0), 0.0)
    value = np.where(answers.items == answers.targets[:, None], 1.0, by_place)
    return np.where(legal(answers), value, 0.0)


def task_values(answers: Answers) -> Float64:
    """How well entries do what was asked, float64 ``[B, K]``; 0 for entries that aren't :func:`legal`.

    - ``with`` 1 in the label and 0 out of it, ``without`` the other way round;
    - ``at most``: 1 out of the label, ½ in it as long as no more than the quota are, then 0;
    - ``at least``: 1 in the label, ½ out of it as long as no more than the rest of the list are, then 0;
    - ``about``: before the quota is full 1 in the label and ½ out of it, then 0 and 1;
    - ``none``: as :func:`rank_values`, which is all that was asked.

    Example:
        Of 4 items at most 1 in the label, answered in, in, out, out: ``[.5, 0, 1, 1]``. At least 3: ``[1, 1, .5, 0]``.
        About 1: ``[1, 0, 1, 1]``; about 3: ``[1, 1, .5, .5]``.
    """
    fine = legal(answers)
    inside, outside = fine & answers.inside, fine & ~answers.inside
    before: Int64 = np.cumsum(inside, axis=1) - inside  # entries with the label before each
    beside = np.cumsum(outside, axis=1)  # without it, up to each
    quota, rest = answers.quotas[:, None], (answers.counts - answers.quotas)[:, None]
    some = {
        "with": inside * 1.0,
        "without": outside * 1.0,
        "at most": outside + 0.5 * (inside & (before < quota)),
        "at least": inside + 0.5 * (outside & (beside <= rest)),
        "about": np.where(before < quota, inside + 0.5 * outside, outside),
    }
    found = rank_values(answers)
    for kind, value in some.items():
        found = np.where(answers.of_kind(kind), value, found)  # type: ignore[arg-type]
    return found


def item_rewards(answers: Answers) -> Float64:
    """The reward of each entry, float64 ``[B, K]``.

    Half of what it is worth and half of how well it does what was asked; -1 for entries that aren't :func:`legal`, 0
    behind the end.

    Example:
        With a label, the target in it: ``.5 · 1 + .5 · 1 = 1``; an item out of it that the teacher has second:
        ``.5 · .5 + .5 · 0 = .25``.
    """
    value = 0.5 * rank_values(answers) + 0.5 * task_values(answers)
    there = np.arange(answers.items.shape[1]) < answers.lengths[:, None]
    return np.where(there, np.where(legal(answers), value, LEAST), 0.0)


def list_rewards(answers: Answers) -> Float64:
    """The reward of each list, float64 ``[B]``: ``10 · (.5 · Σ_i rank_i / log2(i + 2) ÷ best + .5 · T)``.

    ``best`` is that sum for the target and behind it the teacher's list in order (the teacher's list alone, where
    nobody knows the target). ``T`` is :func:`task_worth`.

    Example:
        Two items asked for, without control, answered target and teacher's first: ``rank = [1, .631]``; the sum is
        ``1 + .631 / log2(3) = 1.398``, and so is the best; ``T = 1 / log2(2) = 1``; the reward is 10.
    """
    discount = 1 / np.log2(np.arange(answers.items.shape[1]) + 2.0)
    got = (rank_values(answers) * discount).sum(1)
    most = int(answers.counts.max(initial=0))
    at = np.arange(most)
    with_target = np.where(at == 0, 1.0, 1 / np.log2(np.maximum(at - 1, 0) + 3.0))
    alone = 1 / np.log2(at + 3.0)
    ideal = np.where((answers.targets >= 0)[:, None], with_target, alone) / np.log2(at + 2.0)
    best = np.where(at < answers.counts[:, None], ideal, 0.0).sum(1)
    return np.asarray(10 * (0.5 * got / np.maximum(best, 1e-12) + 0.5 * task_worth(answers)))


def task_worth(answers: Answers) -> Float64:
    """How well each list does what was asked, from 0 to 1, float64 ``[B]``.

    - ``none``: ``1 / log2(p + 2)`` with the target at the 0-based place ``p``; 0 without it;
    - ``with`` and ``without``: ``1 / (count - compliant + 1)``;
    - shares: 1 where they are met, else ``1 / (|have - quota| + 1)``.

    Example:
        Ten items of a label asked for, eight of them right: 1/3. At most 2 of ten, 4 had: 1/3; 1 had: 1.
    """
    fine = legal(answers)
    inside = (fine & answers.inside).sum(1)
    outside = (fine & ~answers.inside).sum(1)
    hit = fine & (answers.items == answers.targets[:, None])
    found = np.where(hit.any(1), 1 / np.log2(hit.argmax(1) + 2.0), 0.0)
    off = np.abs(inside - answers.quotas)
    short = {
        "with": answers.counts - inside,
        "without": answers.counts - outside,
        "at most": np.where(inside <= answers.quotas, 0, off),
        "at least": np.where(inside >= answers.quotas, 0, off),
        "about": off,
    }
    for kind, missing in short.items():
        found = np.where(answers.of_kind(kind)[:, 0], 1 / (missing + 1.0), found)  # type: ignore[arg-type]
    # an answer without a single item keeps to every upper limit, and does nothing that was asked
    return np.where(fine.any(1), found, 0.0)


def placed(
    item_rewards: Float64, list_rewards: Float64, ends: Int64, lengths: Int64, tokens: Int64
) -> Float64:
    """Rewards on the tokens of answers, float64 ``[B, T]``.

    An entry's stands on the token that ends it, the list's on the last one.

    Args:
        item_rewards: ``[B, K]``.
        list_rewards: ``[B]``.
        ends: int64 ``[B, K]``, the token that ends each entry.
        lengths: int64 ``[B]``, entries of each.
        tokens: int64 ``[B]``, tokens of each answer, one or more; ``T`` is the most.

    Example:
        Entries worth .5 and 1 that end at tokens 1 and 3, a list worth 8, five tokens: ``[0, .5, 0, 1, 8]``.
    """
    found = np.zeros((len(tokens), int(tokens.max(initial=0))))
    row, entry = np.nonzero(np.arange(item_rewards.shape[1]) < lengths[:, None])
    np.add.at(found, (row, ends[row, entry]), item_rewards[row, entry])
    np.add.at(found, (np.arange(len(tokens)), tokens - 1), list_rewards)
    return found
