"""The requests of the validation split on which something is chosen."""

from __future__ import annotations

import numpy as np

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError


def known_requests(dataset: Dataset, count: int, seed: int, what: str, remedy: str) -> Requests:
    """At most ``count`` of the validation split's requests whose target is known.

    Args:
        dataset: whose ``valid`` is asked.
        count: how many.
        seed: chooses them.
        what: is to be chosen, for errors.
        remedy: what to do where there are none.

    Raises:
        ConfigError: there are none.
    """
    try:
        requests = dataset.split(c.VALID)
    except DataError as error:
        raise ConfigError(f"{what} is chosen on the validation split: {error}", remedy) from error
    known = np.flatnonzero(requests.targets >= 0)
    if not len(known):
        raise ConfigError(
            f"{what} is chosen on the validation split, the targets of which are unknown", remedy
        )
    if len(known) > count:
        known = np.sort(np.random.default_rng([seed, count]).choice(known, count, replace=False))
    return requests.take(known)
