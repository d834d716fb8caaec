"""The launch files are sound: shells read them, JSON is JSON, and the commands in them are ours."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from itemic.cli.app import app
from itemic.recipe.shipped import SHIPPED

LAUNCH = SHIPPED / "launch"
SHELLS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


def test_all_files_are_there() -> None:
    names = {"torchrun.sh", "torchrun-nodes.sh", "deepspeed.sh", "slurm.sbatch"}
    assert names | {"hostfile.example", "zero2.json", "zero3.json"} == {
        file.name for file in LAUNCH.iterdir()
    }


@pytest.mark.parametrize("file", SHELLS, ids=lambda path: path.name)
def test_the_shell_reads_it(file: Path) -> None:
    done = subprocess.run(["bash", "-n", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", SHELLS, ids=lambda path: path.name)
def test_it_starts_what_it_says(file: Path, tmp_path: Path) -> None:
    """The launchers are replaced by one that prints its arguments; after them stands a command of ours."""
    for name in ("torchrun", "deepspeed", "srun", "scontrol"):
        fake = tmp_path / name
        heads = {"srun": 'shift; exec "$@"', "scontrol": "echo node0"}
        fake.write_text("#!/usr/bin/env bash\n" + heads.get(name, 'printf "%q " "$0" "$@"') + "\n")
        fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NODES": "2", "HEAD": "node0"}
    environment |= {"SLURM_JOB_NODELIST": "node[0-1]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    line = ["bash", str(file), "my recipes/some recipe.yaml", "-s", "seed=3"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    words = shlex.split(done.stdout)
    start = words.index("run") - 1
    assert words[start] == "itemic"
    assert words[start - 1] in ("-m", "--module")
    command: Any = typer.main.get_command(app)
    context = command.make_context("itemic", words[start + 1 :])
    _, run, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    values = run.make_context("run", rest, parent=context).params
    assert str(values["recipe"]) == "my recipes/some recipe.yaml"
    strategy = "deepspeed" if file.name == "deepspeed.sh" else "fsdp"
    assert values["override"][0] == f"distribution.strategy={strategy}"
    assert values["override"][-1] == "seed=3"
    if strategy == "deepspeed":
        config = values["override"][1].removeprefix("distribution.config=")
        assert Path(config).resolve() == LAUNCH / "zero2.json"


@pytest.mark.parametrize("file", SHELLS, ids=lambda path: path.name)
def test_without_a_recipe_it_says_how_it_is_used(file: Path) -> None:
    done = subprocess.run(["bash", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage: " in done.stderr


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeeds_settings(name: str, stage: int) -> None:
    found = json.loads((LAUNCH / f"{name}.json").read_text(encoding="utf-8"))
    assert found["zero_optimization"]["stage"] == stage
    assert found["zero_allow_untested_optimizer"] is True
    assert (found["train_micro_batch_size_per_gpu"], found["gradient_accumulation_steps"]) == (1, 1)
    assert not {"optimizer", "scheduler", "gradient_clipping"} & set(found)  # these are a stage's


def test_no_company_and_no_machine_is_named() -> None:
    for file in LAUNCH.iterdir():
        assert not re.search(r"/(etc|mnt|opt|share|code)/|mpirun|NCCL_", file.read_text(encoding="utf-8")), (
            file
        )
