"""What lists are worth: named functions of what was asked for and what was written. A new one is a row here.

Each takes :class:`itemic.control.answers.Answers` and gives a number for each entry, float64 ``[B, K]``, or for each
list, ``[B]``. Entries' numbers stand on the tokens that end them, lists' on the last one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.control.answers import Answers
from itemic.control.metrics import correct_count
from itemic.control.rewards import item_rewards, list_rewards
from itemic.errors import ConfigError, DataError

Float64 = npt.NDArray[np.float64]
Worth = Callable[[Answers], Float64]


def count_rewards(answers: Answers) -> Float64:
    """1 for a list with as many entries as were asked for, else 0; float64 ``[B]``. It is our own: RecLM-gen's rewards
    hardly tell a list of eleven from one of twelve.

    Example:
        Twelve asked for, eleven written: 0.
    """
    return correct_count(answers.lengths, answers.counts)


LIST_REWARDS: dict[str, Worth] = {
    "items": item_rewards,
    "list": list_rewards,
    "count": count_rewards,
}


class ListRewards:
    """A weighted sum of rewards of lists.

    Args:
        parts: name to weight, or to ``{"weight": …}``; a name is one of :data:`LIST_REWARDS`, or one's own as
            ``module:name``.

    Raises:
        ConfigError: one can't be made.
    """

    def __init__(self, parts: Mapping[str, float | Mapping[str, Any]]) -> None:
        self.parts: dict[str, tuple[float, Worth]] = {}
        for name, given in parts.items():
            options = dict(given) if isinstance(given, Mapping) else {"weight": given}
            weight = float(options.pop("weight", 1.0))
            if options:
                raise ConfigError(
                    f"the reward {name!r} of lists takes no {', '.join(options)}", "Give its weight alone."
                )
            self.parts[name] = weight, _worth(name)

    def __call__(self, answers: Answers) -> tuple[Float64, Float64, dict[str, Float64]]:
        """What entries are worth, ``[B, K]``, what lists are beside that, ``[B]``, weighed; and each reward by itself,
        of entries the sum over a list's, ``[B]``.

        Raises:
            DataError: one fails, has another shape, or is no finite number.
        """
        entries, lists = np.zeros(answers.items.shape), np.zeros(len(answers.items))
        apart: dict[str, Float64] = {}
        there = np.arange(answers.items.shape[1]) < answers.lengths[:, None]
        for name, (weight, worth) in self.parts.items():
            found = self._one(name, worth, answers)
            if found.ndim == 2:
                found = np.where(there, found, 0.0)
                entries += weight * found
                apart[name] = found.sum(1)
            else:
                lists += weight * found
                apart[name] = found
        return entries, lists, apart

    def _one(self, name: str, worth: Worth, answers: Answers) -> Float64:
        try:
            found = np.asarray(worth(answers), np.float64)
        except (ConfigError, DataError):
            raise
        except Exception as error:
            raise DataError(
                f"the reward {name!r} fails: {type(error).__name__}: {error}", "Mend the function."
            ) from error
        if found.shape not in (answers.items.shape, answers.items.shape[:1]):
            raise DataError(
                f"the reward {name!r} has shape {found.shape} for {len(answers.items)} lists of up to "
                f"{answers.items.shape[1]} entries",
                "Give one number for each list, or for each entry.",
            )
        if not np.isfinite(found).all():
            raise DataError(f"the reward {name!r} is no finite number", "Give finite numbers.")
        return found


def _worth(name: str) -> Worth:
    if name in LIST_REWARDS:
        return LIST_REWARDS[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ConfigError(
            f"there is no reward {name!r} of lists",
            f"Use one of {', '.join(LIST_REWARDS)}, or your own as module:name.",
        )
    try:
        found: Worth = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the reward {name!r} can't be imported: {error}", "Give module:name as Python would import it."
        ) from error
    return found
