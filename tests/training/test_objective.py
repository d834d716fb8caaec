"""The loop on an objective that is no language model, against a plain one."""

from __future__ import annotations

import json
import signal
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from itemic.errors import ItemicError
from itemic.training.distribution import Distribution
from itemic.training.loop import Trainer
from itemic.training.ranks import joined
from itemic.training.steps import Sizes, Step
from tests.stages import with_keys
from tests.training import processes
from tests.training.factors import STAGE, Factors, Ratings, factors, reference
from tests.training.test_distribution import Dying


def work(folder: str, strategy: str, die_at: int = 0) -> None:
    """One rank: trains and leaves its weights as ``final-N.safetensors``."""
    with joined() as ranks:
        objective, root = factors(), Path(folder)
        trainer = Dying(
            objective, Ratings.made(), STAGE, folder=root, ranks=ranks, distribution=Distribution(strategy)
        )
        trainer.die_at = die_at
        trainer.run()
        state = {name: weight.detach().clone() for name, weight in objective.named_parameters()}
        save_file(state, root / f"final-{ranks.rank}.safetensors")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def assert_trained(folder: Path, ranks: int) -> None:
    """As the plain loop does it: losses, what is reported beside them, counts and weights."""
    losses, errors, weights = reference(10)
    found = lines(folder)
    assert [line["loss"] for line in found] == pytest.approx(losses, abs=1e-5)
    assert [line["error"] for line in found] == pytest.approx(errors, abs=1e-5)
    assert all(line.get("error/tenth", 1) > 0 for line in found)
    assert [line["ratings"] for line in found[:6]] == [21, 42, 63, 84, 105, 108]  # then a new epoch begins
    assert all("teraflops" not in line and line["ratings_per_second"] > 0 for line in found)
    for rank in range(ranks):
        state = load_file(folder / f"final-{rank}.safetensors")
        assert set(state) == set(weights)
        for name, weight in weights.items():
            torch.testing.assert_close(state[name], weight, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("strategy", "size", "die_at", "after"),
    [
        ("ddp", 1, 0, 0),
        ("ddp", 2, 0, 0),
        ("fsdp", 2, 0, 0),
        ("ddp", 1, 5, 2),
        ("ddp", 2, 5, 2),
        ("ddp", 2, 7, 1),
    ],
)
def test_trained_as_by_a_plain_loop(
    strategy: str, size: int, die_at: int, after: int, tmp_path: Path
) -> None:
    """Also when it is killed and goes on; the last step of an epoch has a block for one rank only."""
    if die_at:
        begun = processes.begin(work, size, str(tmp_path), strategy, die_at, folder=tmp_path)
        with processes.ended(begun) as children:
            for child in children:
                child.join(120)
            assert children[-1].exitcode == -signal.SIGKILL
        size = after
    processes.run(work, size, str(tmp_path), strategy, folder=tmp_path)
    assert_trained(tmp_path, size)


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Averages and early stopping included, in one process."""
    stage = with_keys(
        STAGE,
        {"optimizer.ema": 0.5, "validation.every": 2, "validation.patience": 3, "validation.metric": "minus"},
    )

    def run(folder: Path, until: int | None) -> dict[str, torch.Tensor]:
        objective = factors()

        def validate() -> dict[str, float]:
            if until is not None and trainer.place.step == until:
                signal.raise_signal(signal.SIGINT)
            return {"minus": -float(objective(Ratings.made().table).sum.detach())}

        trainer = Trainer(objective, Ratings.made(), stage, folder=folder, validate=validate)
        trainer.run()
        return {name: weight.detach().clone() for name, weight in objective.named_parameters()}

    straight = run(tmp_path / "straight", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 4)
    again = run(tmp_path / "cut", None)
    assert all(torch.equal(again[name], weight) for name, weight in straight.items())


class Wrong(Ratings):
    """Says that a step weighs twice as much as it does."""

    def steps(self, state: Any = None, rank: int = 0, size: int = 1) -> Any:
        for step in super().steps(state, rank, size):
            yield replace(step, sizes=Sizes(2 * step.sizes.weight, step.sizes.blocks, step.sizes.counts))


class Empty(Ratings):
    """Steps without blocks."""

    def steps(self, state: Any = None, rank: int = 0, size: int = 1) -> Any:
        for step in super().steps(state, rank, size):
            yield Step((), Sizes(counts={"ratings": 0}), step.state, step.after)


@pytest.mark.parametrize(
    ("source", "text"),
    [(Wrong, "the blocks of step 1 weigh 21, the step says 42"), (Empty, "nothing to learn from")],
)
def test_a_source_that_is_wrong_is_told(source: type[Ratings], text: str) -> None:
    with pytest.raises(ItemicError, match=text):
        Trainer(factors(), source(Ratings.made().table), STAGE).run()


class Asking(Ratings):
    """Notes the weights of the moment when a step is asked for."""

    seen: list[torch.Tensor]
    objective: Factors

    def steps(self, state: Any = None, rank: int = 0, size: int = 1) -> Any:
        source = super().steps(state, rank, size)
        while True:
            self.seen.append(self.objective.bias.detach().clone())
            yield next(source)


def test_a_source_may_use_the_weights_of_the_moment() -> None:
    objective = factors()
    source = Asking(Ratings.made().table)
    object.__setattr__(source, "seen", [])
    object.__setattr__(source, "objective", objective)
    Trainer(objective, source, replace(STAGE, steps=3)).run()
    _, _, after = reference(2)
    torch.testing.assert_close(source.seen[2], after["bias"], atol=2e-5, rtol=0)
    assert not torch.equal(source.seen[1], source.seen[2])


def test_all_of_the_loop_is_kept_from_language_models() -> None:
    """The linter's contract names every module of the room; a new one belongs into it, or into ``language``."""
    root = Path(__file__).parents[2]
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (each for each in contracts if "The loop" in each["name"])
    modules = {f"itemic.training.{file.stem}" for file in (root / "itemic" / "training").glob("*.py")}
    assert set(contract["source_modules"]) == modules - {"itemic.training.__init__"}
