"""PPO and the group objectives on lists under control: the same model, requests, rewards and budget of written tokens.

Begins with the supervised model of a run that has a teacher (``itemic run control-simulated``), and lets each objective
learn from as many rollouts: prompts of RecLM-gen's tasks, the same in the same order, some lists of each, the first of
them greedy. Group objectives learn from a rollout once, PPO as often as its own limit lets it. *Reward* is the mean of
the greedy list's whole reward (RecLM-gen's, the list's and its items' together) for requests after histories of the
validation split, before and after, paired by request; CPU seconds are those of the whole stage.

    itemic run control-simulated -o runs/control
    python benchmarks/control_rl.py runs/control [--objectives ppo rloo] [--rollouts 20] [--train lora] [-o out.json]

``--quick`` makes one small run for itself.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import machine

import itemic
from itemic.control.metrics import correct_count
from itemic.control.rewards import legal, task_worth
from itemic.metrics import bootstrap
from itemic.model import Model
from itemic.pipeline.run import Run
from itemic.pipeline.steps import last_stage
from itemic.recipe import load_recipe
from itemic.rl.lists.asks import ListBook
from itemic.rl.lists.validation import ListValidation
from itemic.rl.lists.worth import ListRewards
from itemic.rl.run import Knows, train_rl
from itemic.rl.settings import RLStage
from itemic.teacher.teacher import Teacher

OBJECTIVES = ("ppo", "grpo", "dr-grpo", "rloo", "reinforce++")
TASKS = (
    {"task": "RLSeqRec", "share": 0.2},
    {"task": "RLPersonalControlRec", "share": 0.3},
    {"task": "RLPersonalCategoryRate", "share": 0.35},
    {"task": "RLItemCount", "share": 0.15},
)


@dataclass(frozen=True)
class Outcome:
    """What an objective came to.

    Attributes:
        name: of the objective, and what learns.
        seconds: of CPU.
        steps: of the optimizer.
        tokens: written in rollouts.
        before, after: mean rewards of greedy lists.
        gain: the paired difference, and the limits of its 95 % interval.
        kept: how well wants are kept to, before and after.
        count: how often the count is right, before and after.
        legal: share of legal entries, before and after.
    """

    name: str
    seconds: float
    steps: int
    tokens: int
    before: float
    after: float
    gain: tuple[float, float, float]
    kept: tuple[float, float]
    count: tuple[float, float]
    legal: tuple[float, float]


def objective_of(name: str) -> dict[str, Any]:
    """``ppo``, or ``ppo:kl=0.05`` with what belongs to PPO."""
    kind, _, options = name.partition(":")
    pairs = (option.split("=") for option in options.split(",") if option)
    return {"name": kind, "ppo": {key: json.loads(value) for key, value in pairs}}


def stage_of(name: str, flags: argparse.Namespace) -> RLStage:
    """As many rollouts for each objective."""
    words = {} if flags.templates is None else {"templates": flags.templates}
    return RLStage.of(
        {
            "name": "rl",
            "train": flags.train,
            "epochs": 1,
            "learning_rate": flags.rate,
            "asks": {"tasks": [task | words for task in TASKS], "requests": flags.rollouts * flags.prompts},
            "rollout": {"normalize": "legal", "lists": {"mode": "soft", "samples": flags.samples}},
            "objective": objective_of(name),
            "data": {"prompts_per_step": flags.prompts, "block_tokens": 8192},
            "schedule": {"name": "constant", "warmup": 0},
            "validation": {"every": None, "first": False, "full": False, "requests": flags.requests},
            "checkpoints": {"every": 0},
            "logs": {"every": 1},
            "examples": 0,
        }
    )


class Asked:
    """Greedy lists for the same requests of the validation split."""

    def __init__(self, model: Model, dataset: itemic.Dataset, teacher: Teacher, stage: RLStage) -> None:
        self.rewards = ListRewards(stage.rewards)
        book = ListBook(model, dataset, stage.asks, 0, teacher)
        self.validation = ListValidation(model, dataset, book, self.rewards, stage, 0)

    def __call__(self, model: Model) -> dict[str, npt.NDArray[np.float64]]:
        """Of each request the reward, how well it is kept to, whether the count is right; and legal entries."""
        answers = self.validation.written(model).answers
        entries, lists, _ = self.rewards(answers)
        share = legal(answers).sum(1) / np.maximum(answers.lengths, 1)
        shares = ~answers.of_kind("none")[:, 0]
        return {
            "reward": entries.sum(1) + lists,
            "kept": task_worth(answers)[shares],
            "count": correct_count(answers.lengths, answers.counts),
            "legal": share,
        }


def measure(run: Path, model: str, name: str, flags: argparse.Namespace, folder: Path) -> Outcome:
    """One objective, from the run's supervised model."""
    dataset, teacher = itemic.Dataset.load(run / "data"), Teacher.load(run / "teacher")
    stage, begun = stage_of(name, flags), Model.load(run / model, dtype="float32")
    asked = Asked(begun, dataset, teacher, stage)
    before = asked(begun)
    started = time.process_time()
    trained = train_rl(begun, dataset, stage=stage, output=folder, seed=0, knows=Knows(teacher))
    seconds = time.process_time() - started
    after = asked(trained)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    steps = [line for line in log if "loss" in line]
    each = flags.prompts * flags.samples
    gap = after["reward"] - before["reward"]

    def pair(key: str) -> tuple[float, float]:
        return float(before[key].mean()), float(after[key].mean())

    return Outcome(
        f"{name}, {flags.train}",
        seconds,
        len(steps),
        round(sum(each * line["list_tokens"] for line in steps if "list_tokens" in line)),
        *pair("reward"),
        (float(gap.mean()), *bootstrap(gap)),
        pair("kept"),
        pair("count"),
        pair("legal"),
    )


def table(found: list[Outcome]) -> str:
    """What documents show."""
    lines = [
        "| objective | CPU s | steps | tokens written | reward before | after | gain | wants kept to | count | legal |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for own in found:
        gain = f"{own.gain[0]:+.2f} [{own.gain[1]:+.2f}, {own.gain[2]:+.2f}]"
        pairs = (f"{low:.3f} → {high:.3f}" for low, high in (own.kept, own.count, own.legal))
        lines.append(
            f"| {own.name} | {own.seconds:.0f} | {own.steps} | {own.tokens:,} | {own.before:.2f} | {own.after:.2f} | "
            f"{gain} | {' | '.join(pairs)} |"
        )
    return "\n".join(lines)


def small_run(folder: Path) -> Path:
    """A run with hardly any training."""
    said = ["data.simulate={users: 120, items: 60, categories: 6, brands: 6}", "index.levels=[16, 16]"]
    said += ["teacher.epochs=1", "stages.0.epochs=null", "stages.0.steps=4"]
    recipe = load_recipe("control-simulated", said)
    recipe = recipe.model_copy(update={"stages": recipe.stages[:1], "rl": []})
    Run.of(recipe, folder).execute(until=last_stage(recipe))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of `itemic run control-simulated`")
    parser.add_argument("--model", default="train.control", help="the step that the model is of")
    parser.add_argument(
        "--objectives", nargs="+", default=list(OBJECTIVES), help='which; ppo:kl=0.05,whiten="rewards"'
    )
    parser.add_argument("--templates", type=int, help="1 where the run taught the first wordings alone")
    parser.add_argument("--train", default="all", help="what learns: all or lora")
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate")
    parser.add_argument("--rollouts", type=int, default=20, help="of each objective")
    parser.add_argument("--prompts", type=int, default=16, help="of a rollout")
    parser.add_argument("--samples", type=int, default=4, help="lists of a prompt")
    parser.add_argument("--requests", type=int, default=200, help="that are validated on")
    parser.add_argument("-o", "--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--quick", action="store_true", help="one small run")
    flags: Any = parser.parse_args()
    torch.set_num_threads(1)
    if flags.run is None and not flags.quick:
        parser.error("name the folder of a run, or --quick")
    found: list[Outcome] = []
    with TemporaryDirectory() as folder:
        run = flags.run
        if flags.quick:
            run, flags.model = small_run(Path(folder) / "run"), "train.lists"
            flags.rollouts, flags.prompts, flags.requests = 1, 4, 8
            flags.objectives = flags.objectives[:2]
        for name in flags.objectives:
            found.append(measure(run, flags.model, name, flags, Path(folder) / name))
            print(table(found[-1:]).splitlines()[-1], flush=True)
            if flags.output is not None:
                flags.output.write_text(json.dumps([asdict(own) for own in found], indent=1), "utf-8")
    print(table(found))
    print(machine())


if __name__ == "__main__":
    main()
