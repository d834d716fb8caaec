"""An objective that is no language model: matrix factorisation of ratings, in blocks of rows of a table."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from itemic.training.objective import Cost, Objective
from itemic.training.steps import Ahead, Sizes, Step
from tests.stages import stage_of

USERS, ITEMS, WIDTH = 12, 9, 4
STAGE = stage_of(
    {
        "steps": 10,
        "learning_rate": 5e-2,
        "schedule.warmup": 0,
        "objective.dropout": 0.0,
        "engine.precision": "float32",
        "logs.every": 1,
        "checkpoints.every": 3,
        "checkpoints.keep": 10,
        "logs.trackers": (),
    }
)


class Factors(Objective):
    """Squared errors of ``user · item + bias``; reports the absolute ones, and those of every tenth user."""

    names = ("error", "error/tenth")
    totals = ("ratings",)

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, WIDTH), nn.Embedding(ITEMS, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.zeros(ITEMS))

    def forward(self, block: Tensor) -> Cost:
        """Of ``[n, 3]`` users, items and ratings."""
        user, item = block[:, 0].long(), block[:, 1].long()
        found = (self.mix(self.users(user)) * self.items(item)).sum(1) + self.bias[item]
        error = found - block[:, 2]
        tenth = user == 10
        own = error.detach().abs()
        numbers: dict[str, tuple[Tensor | float, float]] = {"error": (own.sum(), float(len(block)))}
        if tenth.any():
            numbers["error/tenth"] = (float(own[tenth].sum()), float(tenth.sum()))
        return Cost(error.square().sum(), float(len(block)), numbers)

    def nothing(self) -> Tensor:
        return torch.zeros(0, 3)

    def shards(self) -> Sequence[nn.Module]:
        return [self.mix]


@dataclass(frozen=True)
class Ratings:
    """Steps of blocks of a table, shuffled anew each epoch."""

    table: Tensor
    blocks: int = 3
    rows: int = 7

    @classmethod
    def made(cls) -> Ratings:
        rng = np.random.default_rng(0)
        pairs = np.stack(np.meshgrid(np.arange(USERS), np.arange(ITEMS)), -1).reshape(-1, 2)
        ratings = 1 + (pairs[:, :1] * 3 + pairs[:, 1:] * 5) % 5 / 2 + rng.normal(0, 0.1, (len(pairs), 1))
        return cls(torch.from_numpy(np.hstack([pairs, ratings]).astype(np.float32)))

    def total_steps(self) -> int:
        return 10

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        epoch, at = (0, 0) if state is None else (state["epoch"], state["at"])
        while True:
            order = np.random.default_rng([5, epoch]).permutation(len(self.table))
            while at < len(order):
                step = order[at : at + self.blocks * self.rows]
                blocks = [self.table[step[k : k + self.rows]] for k in range(0, len(step), self.rows)]
                at += len(step)
                over = at >= len(order)
                own = tuple(blocks[rank::size])
                count = sum(map(len, own))
                after = {"epoch": epoch + over, "at": 0 if over else at}
                ahead = Ahead(epoch + over, epoch + at / len(order))
                yield Step(own, Sizes(float(count), len(own), {"ratings": count}), after, ahead)
            epoch, at = epoch + 1, 0

    def merged(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return states[0]


def factors() -> Factors:
    torch.manual_seed(0)
    return Factors()


def reference(count: int) -> tuple[list[float], list[float], dict[str, Tensor]]:
    """Losses, mean absolute errors and weights of a plain loop over the same tables with torch's own optimizer: the
    first ``count`` of ten steps."""
    from itemic.training.schedule import learning_rate

    model = factors()
    optimizer = torch.optim.AdamW(
        [
            {"params": [model.mix.weight], "weight_decay": STAGE.optimizer.weight_decay},
            {
                "params": [model.users.weight, model.items.weight, model.mix.bias, model.bias],
                "weight_decay": 0.0,
            },
        ],
        betas=STAGE.optimizer.betas,
        foreach=False,
    )
    losses, errors = [], []
    source = Ratings.made().steps()
    for number in range(count):
        rows = torch.cat(next(source).blocks)
        user, item = rows[:, 0].long(), rows[:, 1].long()
        found = (model.mix(model.users(user)) * model.items(item)).sum(1) + model.bias[item]
        loss = torch.nn.functional.mse_loss(found, rows[:, 2])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(STAGE, number, 10)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), STAGE.optimizer.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
        errors.append(float((found - rows[:, 2]).abs().mean().detach()))
    return losses, errors, {name: weight.detach() for name, weight in model.named_parameters()}
