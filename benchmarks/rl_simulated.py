"""Reinforcement learning where hits are news: the simulated marketplace, and the same supervised stage gone on with.

Runs of the recipe ``simulated-rl``, one for each seed (each has a marketplace of its own): supervised on a part of
the users, then reinforcement learning, which is told of the others what their answers are worth. The control learns
from the same others what a supervised stage can: their histories themselves, from the same weights, for as many steps
as given. All are asked the whole test split by the same beams; differences are to the supervised model, request by
request, over all runs together.

    itemic run simulated-rl -o runs/sim0 -s seed=0           # and so on
    python benchmarks/rl_simulated.py runs/sim0 runs/sim1 runs/sim2 [--steps 72] [--split valid]

``--quick`` makes one small run for itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
from common import machine

import itemic
from itemic.data.held_out import held_out
from itemic.evaluate import ModelRanker
from itemic.evaluate.report import Measure
from itemic.evaluate.tables import interval, short
from itemic.metrics import bootstrap, hit_rate, ndcg, ranks_of
from itemic.model import Model
from itemic.pipeline.run import Run
from itemic.recipe import Recipe, load_recipe, read_resolved

K = 10
BEAMS = 20
METRICS: dict[str, Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]] = {
    "HR@1": lambda places: hit_rate(places, 1),
    "HR@10": lambda places: hit_rate(places, K),
    "NDCG@10": lambda places: ndcg(places, K),
}
SUPERVISED, THEN, CONTROL = (
    "supervised",
    "then reinforcement learning",
    "control: then supervised on the others",
)


def control(run: Path, recipe: Recipe, dataset: itemic.Dataset, steps: int) -> Model:
    """The supervised model after further steps on the histories that were held out, at its best on validation."""
    stage, share = recipe.stages[0], recipe.rl[0].asks.held_out
    assert share is not None
    model = Model.load(run / "train.all")
    task = {"task": "sequence", **recipe.tasks[0].arguments}
    built = itemic.build_conversations(dataset, model.index, [task], seed=recipe.seed).read()
    others = [f"user:{user}" for user in dataset.train.users[held_out(dataset.train.users, share)]]
    told = built.filter(built["metadata"].str.json_path_match("$.group").is_in(others))
    further = replace(
        stage,
        name="control",
        epochs=None,
        steps=steps,
        learning_rate=stage.learning_rate * 0.4,
        validation=replace(stage.validation, every=max(1, steps // 4)),
    )
    return itemic.train(
        model, told, stage=further, dataset=dataset, output=run / "control", seed=recipe.seed, asked=task
    )


def ranks(model: Model, dataset: itemic.Dataset, split: str) -> npt.NDArray[np.int64]:
    """Of the targets; 0 beyond ten."""
    requests = dataset.split(split)
    items, _ = ModelRanker(model, beams=BEAMS, normalize="level", dataset=dataset).rank(requests, K)
    return ranks_of(items, requests.targets)


def measure(runs: list[Path], split: str, steps: int) -> dict[str, list[npt.NDArray[np.int64]]]:
    """Ranks of each model in each run; trains the controls."""
    found: dict[str, list[npt.NDArray[np.int64]]] = {SUPERVISED: [], THEN: [], CONTROL: []}
    for run in runs:
        recipe, dataset = read_resolved(run / "recipe.yaml"), itemic.Dataset.load(run / "data")
        started = time.process_time()
        further = control(run, recipe, dataset, steps)
        print(f"{run}: control {time.process_time() - started:.0f} CPU s", flush=True)
        models = (Model.load(run / "train.all"), Model.load(run / "train.rl"), further)
        for name, model in zip(found, models, strict=True):
            found[name].append(ranks(model, dataset, split))
    return found


def gain(after: list[npt.NDArray[np.int64]], before: list[npt.NDArray[np.int64]], metric: str) -> Measure:
    """The paired difference over all requests of all runs, with its interval."""
    each = METRICS[metric](np.concatenate(after)) - METRICS[metric](np.concatenate(before))
    return Measure(float(each.mean()), *bootstrap(each))


def table(found: dict[str, list[npt.NDArray[np.int64]]]) -> str:
    """What documents show."""
    lines = ["| | " + " | ".join(f"{metric}, by run | mean | gain" for metric in METRICS) + " |"]
    lines.append("|---" * (1 + 3 * len(METRICS)) + "|")
    for name, each in found.items():
        cells = []
        for metric, measured in METRICS.items():
            cells.append(", ".join(short(float(measured(one).mean())) for one in each))
            cells.append(short(float(measured(np.concatenate(each)).mean())))
            cells.append("" if name == SUPERVISED else interval(gain(each, found[SUPERVISED], metric)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def small_run(folder: Path) -> Path:
    """A run with hardly any training."""
    said = ["data.simulate={users: 120, items: 60, categories: 6, brands: 6}", "index.levels=[16, 16]"]
    said += ["teacher.epochs=1", "stages.0.steps=4", "stages.0.validation.every=2", "rl.steps=2"]
    said += ["rl.data.prompts_per_step=4", "rl.validation.every=1"]
    Run.of(load_recipe("simulated-rl", said), folder).execute(until="train.rl")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of `itemic run simulated-rl`, one a seed")
    parser.add_argument("--split", default="test", choices=["valid", "test"], help="what is asked")
    parser.add_argument("--steps", type=int, default=72, help="of the control")
    parser.add_argument("--quick", action="store_true", help="one small run")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    if not flags.runs and not flags.quick:
        parser.error("name the folders of runs, or --quick")
    with TemporaryDirectory() as folder:
        runs = [small_run(Path(folder))] if flags.quick else flags.runs
        print(table(measure(runs, flags.split, 4 if flags.quick else flags.steps)))
    print(machine())


if __name__ == "__main__":
    main()
