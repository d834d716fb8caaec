"""How often items of a real catalogue share a semantic ID, by quantizer, before anything is done about it.

MiniOneRec's Industrial & Scientific (3,686 items) by LSA, from the folder that ITEMIC_SHARED names; three levels of
256, collisions kept, usual options, seeds 0, 1 and 2. The collision rate is the share of items beyond the first of
each semantic ID; the error is what the codes leave of the vectors' variance.
"""

from __future__ import annotations

import numpy as np
from common import Row, main, shared_data

NAMES = ("rqkmeans", "balanced", "rqkmeans+")
LEVELS = (256, 256, 256)


def measure(quick: bool) -> list[Row]:
    import itemic
    from itemic.sid.build import encode_items
    from itemic.sid.quantizers import QUANTIZERS

    vectors, _ = encode_items(itemic.read("minionerec", shared_data() / "minionerec"))
    rows = []
    for name in NAMES[:2] if quick else NAMES:
        rates, errors = [], []
        for seed in range(1 if quick else 3):
            quantizer = QUANTIZERS[name](seed=seed)
            codes, _ = quantizer.fit(vectors, LEVELS)
            rates.append(1 - len(np.unique(codes, axis=0)) / len(codes))
            errors.append(quantizer.notes["relative_error"][-1])
        each = ", ".join(f"{rate:.2%}" for rate in rates)
        rows.append(
            Row(f"{name}: collision rate ({each})", 100 * float(np.mean(rates)), None, "%", None, None, None)
        )
        rows.append(Row("  relative error", float(np.mean(errors)), None, "", None, None, None))
    return rows


if __name__ == "__main__":
    main("Collisions of quantizers on Industrial & Scientific", measure, __doc__)
