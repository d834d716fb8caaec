"""The table of quantizers: a new one is a class and a row, and passes ``tests/sid/quantizers/test_quantizers.py``."""

from __future__ import annotations

from itemic.sid.quantizers.base import Quantizer
from itemic.sid.quantizers.rqkmeans import RQKMeans

__all__ = ["QUANTIZERS", "Quantizer"]

QUANTIZERS: dict[str, type[Quantizer]] = {
    "rqkmeans": RQKMeans,
}
