"""The table of quantizers: a new one is a class and a row, and passes ``tests/sid/test_quantizers.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from itemic.sid.rqkmeans import RQKMeans
from itemic.sid.vectors import Float32


class Quantizer(Protocol):
    """Turns vectors into codes. Options are keyword arguments of the constructor, ``seed`` among them.

    Attributes:
        name: the key in :data:`QUANTIZERS`.
        notes: what the last fit found worth telling (JSON).
    """

    name: str
    notes: dict[str, Any]

    def fit(
        self, vectors: npt.NDArray[np.floating], levels: Sequence[int]
    ) -> tuple[npt.NDArray[np.int32], list[Float32]]:
        """Codes int32 ``[n, L]`` and codebooks float32 ``[levels[l], d]``."""
        ...

    def assign(
        self, vectors: npt.NDArray[np.floating], codebooks: Sequence[Float32]
    ) -> npt.NDArray[np.int32]:
        """Codes int32 ``[n, L]`` under frozen codebooks."""
        ...


QUANTIZERS: dict[str, type[Quantizer]] = {
    "rqkmeans": RQKMeans,
}
