"""What every quantizer keeps to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from itemic.sid.codebooks import Codebooks


class Quantizer(Protocol):
    """Turns vectors into codes. Options are keyword arguments of the constructor, ``seed`` among them.

    Attributes:
        name: the key in :data:`itemic.sid.quantizers.QUANTIZERS`.
        notes: what the last fit found worth telling (JSON): at least ``codes_used`` and ``relative_error`` per level.
    """

    name: str
    notes: dict[str, Any]

    def fit(
        self, vectors: npt.NDArray[np.floating], levels: Sequence[int]
    ) -> tuple[npt.NDArray[np.int32], Codebooks]:
        """Codes int32 ``[n, L]`` and what new vectors are quantized by.

        The codes are those of :meth:`Codebooks.assign`, unless the quantizer says otherwise (a balanced one).

        Raises:
            DataError: the vectors are empty or have NaN or infinite values.
            ConfigError: no levels, a level without codes, or levels that this quantizer can't have.
        """
        ...
