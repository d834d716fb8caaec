"""Rankings by several rankers at once, against the beams of the language model alone.

The model is that of the recipe ``scientific``, trained for some steps on Amazon Industrial & Scientific, so that its
probabilities are a trained model's. Validation requests are ranked by the beams alone; with memory (the model's own
ranking included, as in a run); by a blend with the ridge; and by a blend with memory. Seconds are process CPU seconds
on one thread, all sides in turn, medians of three.

    python benchmarks/rank.py [--quick] [--json FILE]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common import Row, main, shared_data

import itemic
from itemic.evaluate import Blend, Memory, ModelRanker
from itemic.evaluate.linear import Ridge
from itemic.evaluate.mixture import Mixture, Mixtures
from itemic.model import Model
from itemic.pipeline.run import Run
from itemic.recipe import load_recipe

K = 20


def trained(steps: int, folder: Path) -> tuple[Model, itemic.Dataset]:
    """The recipe's model after so many steps, and its data."""
    recipe = load_recipe(
        "scientific",
        [
            f"data.path={shared_data() / 'scientific'}",
            "stages.0.epochs=null",
            f"stages.0.steps={steps}",
            "stages.0.validation.every=null",
            "teacher=null",
            "evaluate.blend=null",
        ],
    )
    run = Run.of(recipe, folder / "run")
    run.execute(until="train.all")
    return Model.load(folder / "run" / "train.all"), itemic.Dataset.load(folder / "run" / "data")


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        model, dataset = trained(20 if quick else 300, Path(folder))
    requests = dataset.split("valid")[: 64 if quick else 2000]
    prior = ModelRanker(
        model, task={"task": "sequence", "max_items": 50}, beams=50, normalize="level", dataset=dataset
    )
    ridge = Ridge(dataset)
    blend = Blend([prior, ridge], [0.3, 0.7])
    memory, both = Memory(dataset, prior), Memory(dataset, blend)
    alone = Mixture(others=(0.0,), counts=memory.counts)

    def together(*mixtures: Mixture) -> Callable[[], object]:
        engine = Mixtures(prior, [ridge], mixtures, len(dataset.item_ids))
        return lambda: engine.rank(requests, K, True)

    sides: dict[str, Callable[[], object]] = {
        "beams alone": lambda: prior.rank(requests, K, True),
        "and with memory": together(alone),
        "and in a blend with the ridge": together(blend.mixture()),
        "and in the blend, with memory and without": together(blend.mixture(), both.mixture),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    prior.rank(requests[:32], K, True)  # once for the caches
    for _ in range(1 if quick else 3):
        for name, run in sides.items():
            started = time.process_time()
            run()
            found[name].append(time.process_time() - started)
    seconds = {name: statistics.median(times) for name, times in found.items()}
    base = seconds.pop("beams alone")
    return [
        Row(
            f"beams of {len(requests):,} requests, {name}, against the beams alone",
            value,
            base,
            "CPU s",
            value / base,
            "≤ 1.15 ×",
            value / base <= 1.15,
        )
        for name, value in seconds.items()
    ]


if __name__ == "__main__":
    main("Rankings by several rankers, CPU", measure, __doc__)
