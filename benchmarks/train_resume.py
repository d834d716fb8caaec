"""A training process that is killed and started again, and what its checkpoints cost.

One process trains to its end; another kills itself (SIGKILL) two thirds of the way, is started again and goes on from
its last checkpoint. Their weights must be the same, bit for bit. So with two ranks, the model shared out by FSDP2: the
first of them kills itself, and the other ends with an error. A checkpoint's cost is what a run with one after every
step takes longer by the clock than a run with none, by step.

    python benchmarks/train.py        runs it
"""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from common import Row
from safetensors.torch import load_file

import itemic
from itemic.model import Model

STEPS, EVERY = 6, 2
STAGE: dict[str, Any] = {
    "steps": STEPS,
    "data": {"tokens_per_step": 512},
    "engine": {"precision": "float32"},
    "logs": {"every": STEPS},
}


def child(folder: Path, output: str, dies: bool) -> dict[str, int]:
    """Train the model in ``folder/start`` on the conversations beside it, or die on the way; the largest checkpoint."""
    torch.set_num_threads(1)
    sizes, validations = [0], 0

    def validate(model: Model) -> dict[str, float]:
        nonlocal validations
        validations += 1
        found = [checkpoint.rglob("*") for checkpoint in (folder / output / "checkpoints").iterdir()]
        sizes.extend(sum(f.stat().st_size for f in files if f.is_file()) for files in found)
        if dies and validations * EVERY >= STEPS * 2 / 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"ndcg@10": time.time()}  # the last weights are the best

    itemic.train(
        Model.load(folder / "start"),
        folder / "conversations.parquet",
        stage=STAGE | {"validation": {"every": EVERY}, "checkpoints": {"every": EVERY}},
        output=folder / output,
        validate=validate,
        distribution={"strategy": "fsdp"},
    )
    return {"bytes": max(sizes)}


def run(arguments: list[str], ranks: int, dies: bool) -> int:
    """A training in processes of its own; the bytes of its largest checkpoint.

    Raises:
        RuntimeError: it ended otherwise than it should have.
    """
    with socket.socket() as box:
        box.bind(("127.0.0.1", 0))
        port = box.getsockname()[1]
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments, "dies" if dies else "lives"],
            env=os.environ | (shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    told = [process.communicate() for process in started]
    expected = [-signal.SIGKILL, *[1] * (ranks - 1)] if dies else [0] * ranks
    codes = [process.returncode for process in started]
    if codes != expected:
        raise RuntimeError(f"processes ended with {codes}, not with {expected}:\n{told}")
    return 0 if dies else int(json.loads(told[0][0].splitlines()[-1])["bytes"])


def resumes(model: Model, table: pl.DataFrame, ranks: int) -> tuple[bool, int]:
    """Whether a killed run ends with the weights of one that wasn't, and the bytes of a checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / "start")
        table.write_parquet(folder / "conversations.parquet")
        size = run([name, "whole"], ranks, dies=False)
        run([name, "killed"], ranks, dies=True)
        run([name, "killed"], ranks, dies=False)
        whole, killed = (load_file(folder / run / "model.safetensors") for run in ("whole", "killed"))
    same = whole.keys() == killed.keys() and all(torch.equal(whole[key], killed[key]) for key in whole)
    return same, size


def blocking_seconds(model: Model, table: pl.DataFrame, repeats: int) -> float:
    """The median of what a checkpoint holds training up."""
    start = copy.deepcopy(model.lm.state_dict())
    extra = []
    for _ in range(repeats):
        taken = []
        for every in (1, 0):
            model.lm.load_state_dict(start)
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                itemic.train(model, table, stage=STAGE | {"checkpoints": {"every": every}}, output=folder)
                taken.append(time.perf_counter() - started)
        extra.append((taken[0] - taken[1]) / STEPS)
    model.lm.load_state_dict(start)
    return statistics.median(extra)


def measure(model: Model, table: pl.DataFrame, quick: bool) -> list[Row]:
    same, size = resumes(model, table, 1)
    both, _ = resumes(model, table, 2)
    seconds = blocking_seconds(model, table, 1 if quick else 5)
    parameters = sum(weight.numel() for weight in model.lm.parameters()) / 1e6
    return [
        Row(
            "killed and resumed: weights that are bit for bit the same",
            float(same),
            None,
            "share",
            None,
            "= 1",
            same,
        ),
        Row(
            "the same on two ranks (FSDP2)",
            float(both),
            None,
            "share",
            None,
            "= 1",
            both,
        ),
        Row(
            f"checkpoint of {parameters:.1f} M parameters: training waits",
            seconds,
            None,
            "s",
            None,
            None,
            None,
        ),
        Row(f"checkpoint of {parameters:.1f} M parameters: size", size / 2**20, None, "MB", None, None, None),
    ]


if __name__ == "__main__":
    print(json.dumps(child(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "dies")))
