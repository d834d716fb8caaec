"""The table of quantizers: a new one is a class and a row, and passes ``tests/sid/quantizers/test_quantizers.py``."""

from __future__ import annotations

from itemic.sid.quantizers.balanced import Balanced
from itemic.sid.quantizers.base import Quantizer
from itemic.sid.quantizers.opq import OPQ, OPQResidual
from itemic.sid.quantizers.rfsq import RFSQ
from itemic.sid.quantizers.rqkmeans import RQKMeans
from itemic.sid.quantizers.rqvae import RQVAE, RQKMeansPlus

__all__ = ["QUANTIZERS", "Quantizer"]

QUANTIZERS: dict[str, type[Quantizer]] = {
    "rqkmeans": RQKMeans,
    "balanced": Balanced,
    "constrained": Balanced,  # MiniOneRec's name of it
    "rqkmeans+": RQKMeansPlus,
    "rqvae": RQVAE,
    "rfsq": RFSQ,
    "opq": OPQ,
    "opq-residual": OPQResidual,
}
