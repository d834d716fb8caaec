"""A recipe under the real launchers, on two processes: the run of one, also when a process is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.runs import RECIPE, made, write_recipe
from tests.runs import STEPS as STEPS_OF_A_RUN

pytestmark = pytest.mark.slow
STEPS = [
    *("-s", "stages.0.data.block_tokens=256", "-s", "stages.0.engine.precision=float32"),
    *("-s", "stages.1.data.block_tokens=128", "-s", "stages.1.engine.precision=float32"),
    *("-s", "stages.1.learning_rate=2e-4", "-s", "stages.1.checkpoints.every=10"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "itemic"]


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONUNBUFFERED": "1"}
    out = (folder / "out.txt").open("a")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out, text=True)


def finish(command: list[str], folder: Path) -> str:
    child = start(command, folder)
    try:
        status = child.wait(300)
    finally:
        child.kill()
    text = (folder / "out.txt").read_text()
    assert status == 0, text[-3000:]
    return text


def port() -> list[str]:
    from tests.training.processes import free_port

    return ["--master-port", str(free_port())]


def torchrun(*arguments: str) -> list[str]:
    return [*TORCHRUN[:3], *port(), *TORCHRUN[3:], *arguments]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that one process ends with."""
    folder = tmp_path_factory.mktemp("alone")
    recipe = write_recipe(folder)
    finish([sys.executable, "-m", "itemic", "run", str(recipe), "-o", "run", *STEPS], folder)
    return load_file(folder / "run" / "train.all" / "model.safetensors")


def assert_same(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    found = load_file(folder / "run" / "train.all" / "model.safetensors")
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=2e-4, rtol=0)
    assert json.loads((folder / "run" / "train.all" / "training.json").read_text())["finished"]
    assert list(made(folder / "run")) == STEPS_OF_A_RUN
    assert (folder / "run" / "report" / "comparison.json").is_file()


def test_torchrun_goes_on_after_one_of_two_was_killed(tmp_path: Path, alone: dict[str, torch.Tensor]) -> None:
    recipe = write_recipe(tmp_path)
    arguments = ["run", str(recipe), "-o", "run", *STEPS, "-s", "distribution.strategy=fsdp"]
    child = start(torchrun(*arguments), tmp_path)
    checkpoints = tmp_path / "run" / "train.all.partial" / "checkpoints"
    try:
        deadline = time.monotonic() + 240
        while not list(checkpoints.glob("step-*")):
            assert child.poll() is None, (tmp_path / "out.txt").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(_process_of(rank=1), signal.SIGKILL)
        assert child.wait(120) != 0  # and doesn't hang
    finally:
        child.kill()
    text = finish(torchrun(*arguments), tmp_path)
    assert "goes on where it stopped" in text
    assert_same(tmp_path, alone)


def _process_of(rank: int) -> int:
    """The worker of a rank, by the variables that its launcher gave it."""
    for process in Path("/proc").iterdir():
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
        except (OSError, NotADirectoryError):
            continue
        if f"RANK={rank}".encode() in environment and b"itemic" in command and b"WORLD_SIZE=2" in environment:
            return int(process.name)
    raise AssertionError(f"no process of rank {rank}")


def test_deepspeeds_launcher(tmp_path: Path, alone: dict[str, torch.Tensor]) -> None:
    pytest.importorskip("deepspeed", reason="needs DeepSpeed")
    recipe = write_recipe(tmp_path, RECIPE + "distribution: {strategy: deepspeed, config: zero.json}\n")
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 2}}')
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2", *port()]
    launcher = [part.replace("--master-port", "--master_port") for part in launcher]
    finish([*launcher, "--module", "itemic", "run", str(recipe), "-o", "run", *STEPS], tmp_path)
    assert_same(tmp_path, alone)


def test_an_error_of_the_first_rank_ends_all(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, RECIPE.replace("levels: [8, 8]", "levels: [2, 2]")
    )  # too few for the items
    child = start(torchrun("run", str(recipe), "-o", "run"), tmp_path)
    try:
        assert child.wait(120) != 0
    finally:
        child.kill()
    text = (tmp_path / "out.txt").read_text()
    assert "40 items don't fit in the 4 semantic IDs" in text
    assert "rank      : 0" in text.partition("Root Cause")[2]
