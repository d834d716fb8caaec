"""What the training of a run took: tokens, seconds, parameters."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

from itemic.analysis.comparison.versus import Cost
from itemic.artifact import read_manifest
from itemic.errors import ItemicError


def cost_of(run: Path) -> Cost:
    """Of a run's training stages together, as far as their folders tell.

    Args:
        run: its folder.

    Returns:
        forest tokens computed (of the logs), seconds of the stages (of their manifests), and parameters of the model
        that came last.
    """
    from itemic.training.curves import read_logs

    made = [
        (folder, found)
        for folder in sorted(run.glob("train.*"))
        if (found := read_manifest(folder)) is not None
    ]
    if not made:
        return Cost()
    try:
        tokens = sum(stage.tokens for stage in read_logs(run)) or None
    except ItemicError:
        tokens = None
    last = max(made, key=lambda one: one[1].created)[0]
    return Cost(tokens, sum(found.seconds for _, found in made), _parameters(last))


def _parameters(folder: Path) -> int | None:
    """How many numbers the weights of a model's folder hold; None where there are none."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:  # 8 bytes say how long the JSON is that names the tensors
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        total += sum(prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    return total or None
