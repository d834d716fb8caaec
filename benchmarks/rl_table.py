"""Reinforcement learning on Amazon Scientific: what each objective and reward makes of the same supervised models.

The supervised models are those of runs of the recipe ``scientific-rl``, one for each seed. Each row of the table is one
call of ``itemic.train_rl`` from each of them, with the same steps, prompts and answers, and ends with the weights after
the last step: nothing is chosen by validation. Requests of the validation split are ranked then by the language model
alone, and with the memory of counts on top, whose settings were chosen once, on the supervised model.

A row's figures are means over the seeds. Differences are to the supervised models, request by request, the seeds of a
request averaged; the interval is over requests, and says nothing about other seeds than these.

    itemic run scientific-rl -o runs/rl0 -s seed=0           # and so on
    python benchmarks/rl_table.py runs/rl0 runs/rl1 runs/rl2 -o runs/rl-table [--rows grpo,dapo]

What is done stands in the folder and isn't done again. ``--quick`` makes one small run for itself.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import machine, shared_data

import itemic
from itemic.artifact import write_json
from itemic.evaluate import Memory, ModelRanker
from itemic.evaluate.memory_choice import GRID, choose_memory
from itemic.evaluate.mixture import Mixtures
from itemic.evaluate.report import Measure
from itemic.evaluate.settings import MemorySettings
from itemic.evaluate.tables import interval, short
from itemic.metrics import bootstrap, hit_rate, ndcg, ranks_of
from itemic.model import Model
from itemic.pipeline.run import Run
from itemic.recipe import load_recipe
from itemic.rl.run import Knows
from itemic.sid.build import encode_items
from itemic.teacher.teacher import Teacher
from itemic.training.language.validation import sample_requests

K = 10
HITS = {"hit": 1.0, "ranking": 1.0}
NEAR = {"name": "expected", "kl": 1.0}  # the best policy is the product of the model and what the reward says
SUPERVISED = "supervised"


@dataclass(frozen=True)
class Case:
    """A row.

    Attributes:
        name: for the table and for ``--rows``.
        objective: what is learned.
        rewards: what answers are worth.
        places: which places are asked about.
        rate: the peak of the learning rate.
        rollout: what is special about how answers are drawn.
        longer: how many times as many steps as other rows have.
    """

    name: str
    objective: str | dict[str, Any]
    rewards: Mapping[str, Any]
    places: str = "known"
    rate: float = 1e-4
    rollout: Mapping[str, Any] = field(default_factory=dict)
    longer: float = 1.0

    def stage(self, steps: int, prompts: int) -> dict[str, Any]:
        """As ``train_rl`` takes it."""
        steps = round(steps * self.longer)
        return {
            "steps": steps,
            "learning_rate": self.rate,
            "asks": {"places": self.places},
            "rollout": {"answers": 16, "normalize": "level", "exclude_history": True, **self.rollout},
            "rewards": dict(self.rewards),
            "objective": self.objective,
            "data": {"prompts_per_step": prompts},
            "validation": {"every": None},
            "logs": {"every": 1},
            "checkpoints": {"every": steps},
            "examples": 0,
        }


def opinion(**rankers: float) -> dict[str, Any]:
    """The logarithm of what rankers say of an answer."""
    return {"blend": {"weight": 1.0, "log": True, "rankers": rankers}}


BLEND = opinion(teacher=0.3, ridge=0.7)  # as the recipe has it
SUGGESTED = {"answers": 32, "suggest": {"ridge": 12}}
LONGER = 2.5  # 150 steps, the recipe's

OBJECTIVES = (
    Case("grpo", "grpo", HITS),
    Case("grpo at ten times the rate", "grpo", HITS, rate=1e-3),
    Case("dr-grpo", "dr-grpo", HITS),
    Case("dapo", "dapo", HITS),
    Case("gspo", "gspo", HITS),
    Case("cispo", "cispo", HITS),
    Case("rloo by drawing", "rloo", HITS, rollout={"how": "sample"}),
    Case("reinforce++", "reinforce++", HITS),
    Case("expected", "expected", HITS),
    Case("s-dpo with the target", "s-dpo", HITS, rollout={"add_target": True}),
)
REWARDS = (
    Case("hit", "grpo", {"hit": 1.0}),
    Case("prefix", "grpo", {"prefix": 1.0}),
    Case("semantic", "grpo", {"semantic": 1.0}),
    Case("teacher longer", NEAR, opinion(teacher=1.0), "ends", 1e-3, longer=LONGER),
    Case("memory longer", NEAR, opinion(memory=1.0), "ends", 1e-3, longer=LONGER),
    Case("blend of own answers longer", NEAR, BLEND, "ends", 1e-3, longer=LONGER),
    Case("blend of teacher and ridge", NEAR, BLEND, "ends", 1e-3, SUGGESTED),
    Case("blend of teacher and ridge longer", NEAR, BLEND, "ends", 1e-3, SUGGESTED, LONGER),
)
CASES = (*OBJECTIVES, *REWARDS)


@dataclass(frozen=True)
class Asking:
    """How much is done.

    Attributes:
        steps: of each training.
        prompts: of each step.
        requests: of the validation split, the same for all seeds.
        beams: of the search.
    """

    steps: int = 60
    prompts: int = 32
    requests: int = 4000
    beams: int = 20


@dataclass(frozen=True)
class Found:
    """What one training came to.

    Attributes:
        alone: int64 ``[R]``, ranks of the targets by the language model, 0 beyond ten.
        memory: the same with counts on top.
        silent: the share of groups without a signal; None without training.
        seconds: of this process's CPU time that the training took.
    """

    alone: list[int]
    memory: list[int]
    silent: float | None
    seconds: float


class Shop:
    """One seed's run: data, supervised model, and what rewards may ask.

    Args:
        run: the run's folder.
        asking: how much is done.
    """

    def __init__(self, run: Path, asking: Asking) -> None:
        self.run, self.asking = run, asking
        self.dataset = itemic.Dataset.load(run / "data")
        self.requests = sample_requests(self.dataset.split("valid"), asking.requests, 0)
        self._knows: Knows | None = None

    @property
    def model(self) -> Model:
        """The supervised model, anew."""
        return Model.load(self.run / "train.all")

    @property
    def knows(self) -> Knows:
        """What rewards may ask."""
        if self._knows is None:
            vectors, _ = encode_items(self.dataset, "lsa", seed=0, options={"collaborative_weight": 0.35})
            self._knows = Knows(Teacher.load(self.run / "teacher"), vectors)
        return self._knows

    def ranker(self, model: Model) -> ModelRanker:
        """The model as it is asked."""
        return ModelRanker(model, beams=self.asking.beams, normalize="level", dataset=self.dataset)

    def memory(self, file: Path, tried: int) -> MemorySettings:
        """The memory's settings: chosen on the supervised model, then read."""
        if not file.is_file():
            chosen = choose_memory(
                self.dataset, self.ranker(self.model), exclude_history=True, grid=GRID[:tried]
            )
            write_json(file, asdict(chosen.settings))
        return MemorySettings(**json.loads(file.read_text(encoding="utf-8")))

    def ranks(self, model: Model, memory: MemorySettings) -> tuple[list[int], list[int]]:
        """Ranks of the targets alone and with memory."""
        prior = self.ranker(model)
        mixed = Memory(self.dataset, prior, memory).mixture
        engine = Mixtures(prior, [], [mixed], len(self.dataset.item_ids))
        alone, (together,) = engine.rank(self.requests, K, True)
        return tuple(ranks_of(items, self.requests.targets).tolist() for items, _ in (alone, together))


def once(shop: Shop, case: Case | None, memory: MemorySettings, file: Path) -> Found:
    """One training, or the supervised model where there is no case; read where it is there."""
    asking = shop.asking
    stage = None if case is None else case.stage(asking.steps, asking.prompts)
    identity = json.loads(json.dumps({"stage": stage, "asking": asdict(asking), "memory": asdict(memory)}))
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["identity"] == identity:
            return Found(**kept["found"])
    model, knows, silent = shop.model, None if stage is None else shop.knows, None
    started = time.process_time()
    if stage is not None:
        with TemporaryDirectory() as folder:
            itemic.train_rl(model, shop.dataset, stage=stage, output=folder, seed=0, knows=knows)
            silent = silent_share(Path(folder) / "log.jsonl")
    seconds = time.process_time() - started
    found = Found(*shop.ranks(model, memory), silent, seconds)
    write_json(file, {"identity": identity, "found": asdict(found)})
    return found


def silent_share(file: Path) -> float:
    """The mean of ``without_signal`` over all steps."""
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return float(np.mean([line["without_signal"] for line in lines if "without_signal" in line]))


# -------------------------------------------------------------------------------------------- table

COLUMNS = (
    "HR@1",
    "HR@10",
    "NDCG@10",
    "HR@1 gains",
    "HR@10 gains",
    "NDCG@10 gains",
    "with memory: HR@10",
    "NDCG@10",
    "NDCG@10 gains",
    "silent",
    "CPU s",
)


def gain(ranks: npt.NDArray[np.int64], before: npt.NDArray[np.int64], metric: str) -> Measure:
    """By how much a metric is better on average, with its paired interval; ranks are ``[S, R]``."""
    measure = {
        "hr@1": lambda r: hit_rate(r, 1),
        "hr@10": lambda r: hit_rate(r, K),
        "ndcg": lambda r: ndcg(r, K),
    }
    each = np.mean(
        [measure[metric](a) - measure[metric](b) for a, b in zip(ranks, before, strict=True)], axis=0
    )
    return Measure(float(each.mean()), *bootstrap(each))


def line(name: str, found: Sequence[Found], before: Sequence[Found]) -> str:
    """A row in Markdown."""
    alone, memory = (np.array([getattr(one, key) for one in found]) for key in ("alone", "memory"))
    was, knew = (np.array([getattr(one, key) for one in before]) for key in ("alone", "memory"))
    cells = [short(float(np.mean(each))) for each in (hit_rate(alone.ravel(), 1), hit_rate(alone.ravel(), K))]
    cells.append(short(float(ndcg(alone.ravel(), K).mean())))
    trained = found[0].silent is not None
    cells += [interval(gain(alone, was, each)) if trained else "" for each in ("hr@1", "hr@10", "ndcg")]
    cells += [short(float(hit_rate(memory.ravel(), K).mean())), short(float(ndcg(memory.ravel(), K).mean()))]
    cells.append(interval(gain(memory, knew, "ndcg")) if trained else "")
    silent = np.mean([one.silent for one in found]) if trained else None
    cells += ["" if silent is None else f"{100 * silent:.0f} %"]
    cells += [f"{np.mean([one.seconds for one in found]):.0f}" if trained else ""]
    return f"| {name} | {' | '.join(cells)} |"


def table(found: Mapping[str, Sequence[Found]], seeds: int) -> str:
    """What documents show: a row for each case that is done under all seeds."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    before = found[SUPERVISED]
    done = [name for name, each in found.items() if len(each) == seeds]
    return "\n".join([*lines, *(line(name, found[name], before) for name in done)])


def small_run(folder: Path) -> Path:
    """A run with hardly any training."""
    recipe = load_recipe(
        "scientific-rl",
        [
            f"data.path={shared_data() / 'scientific'}",
            "teacher.epochs=1",
            "teacher.validation.every=null",
            "stages.0.epochs=null",
            "stages.0.steps=10",
            "stages.0.validation.every=null",
        ],
    )
    Run.of(recipe, folder).execute(until="train.all")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "runs", nargs="*", type=Path, help="folders of `itemic run scientific-rl`, one a seed"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("runs/rl-table"), help="where results are kept"
    )
    parser.add_argument("--rows", help="names of the rows, with commas between; all unless given")
    parser.add_argument("--quick", action="store_true", help="one small run, two steps a row")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [case for case in CASES if flags.rows is None or case.name in flags.rows.split(",")]
    asking, tried = Asking(), len(GRID)
    with TemporaryDirectory() as folder:
        if flags.quick:
            flags.runs, flags.output = [small_run(Path(folder) / "run")], Path(folder) / "table"
            asking, tried = Asking(2, 8, 64, 20), 4
        if not flags.runs:
            parser.error("name the folders of runs, or --quick")
        found = measure(flags.runs, flags.output, wanted, asking, tried)
    print(table(found, len(flags.runs)))
    print(machine())


def measure(
    runs: Sequence[Path], output: Path, cases: Sequence[Case], asking: Asking, tried: int
) -> dict[str, list[Found]]:
    """All rows of all seeds, row by row, so that rows are whole as early as can be."""
    output.mkdir(parents=True, exist_ok=True)
    shops = [Shop(run, asking) for run in runs]
    memories = [shop.memory(output / f"{n}-memory.json", tried) for n, shop in enumerate(shops)]
    found: dict[str, list[Found]] = {}
    for case in (None, *cases):
        name = SUPERVISED if case is None else case.name
        found[name] = []
        for number, (shop, memory) in enumerate(zip(shops, memories, strict=True)):
            file = output / f"{number}-{name.replace(' ', '-')}.json"
            found[name].append(once(shop, case, memory, file))
        print(line(name, found[name], found[SUPERVISED]), flush=True)
    return found


if __name__ == "__main__":
    main()
