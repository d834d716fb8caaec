"""An embedder as small as can be, trained by the one loop: a text is the sum of its letters' vectors."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from itemic.artifact import digest_of
from itemic.profile.learn import Users
from itemic.profile.turns import SessionProfiles
from itemic.profile.writer import Writer
from itemic.training.loop import Trainer
from itemic.training.objective import Cost, Objective
from itemic.training.settings import (
    CheckpointSettings,
    EngineSettings,
    LogSettings,
    OptimizerSettings,
    ScheduleSettings,
    ValidationSettings,
)
from itemic.training.steps import Ahead, Sizes, Step
from tests.profile.writers import COLOURS, prompts

WEIGHTS = "bag.pt"


class Told:
    """What the loop asks of a stage."""

    name, weights, epochs, learning_rate = "bag", None, None, 0.05
    optimizer, schedule = OptimizerSettings(weight_decay=0.0), ScheduleSettings()
    engine = EngineSettings(precision="float32")
    validation = ValidationSettings(every=None)
    checkpoints, logs = CheckpointSettings(every=1), LogSettings(every=1)
    steps = 6

    def flat(self) -> dict[str, Any]:
        return {}


class Bag(Objective):
    """Colours by similarity, and what it costs not to find a session's own."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.letters = nn.Parameter(torch.randn(256, 8, generator=draw))

    def vectors(self, texts: Sequence[str]) -> Tensor:
        found = [
            self.letters[list(text.encode())].sum(0) if text else self.letters[:1].sum(0) for text in texts
        ]
        return nn.functional.normalize(torch.stack(found), dim=-1)

    def scores(self, texts: Sequence[str]) -> Tensor:
        return self.vectors(texts) @ self.vectors(COLOURS).T

    def forward(self, block: tuple[Sequence[str], Sequence[int]]) -> Cost:
        texts, sessions = block
        targets = torch.tensor([session % len(COLOURS) for session in sessions])
        total = nn.functional.cross_entropy(self.scores(texts) / 0.1, targets, reduction="sum")
        return Cost(total, float(len(texts)))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.letters.detach().clone(), folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> Bag:
        found = cls()
        found.letters.data.copy_(torch.load(folder / WEIGHTS))
        return found


class Pairs:
    """The usable profiles of a phase, eight a step."""

    def __init__(self, written: SessionProfiles, steps: int, seed: int) -> None:
        self.written, self.count, self.seed = written, steps, seed

    def total_steps(self) -> int:
        return self.count

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        at = int((state or {"at": 0})["at"])
        usable = np.flatnonzero(self.written.usable)
        while True:
            own = np.random.default_rng([self.seed, at]).choice(usable, 8)
            block = (
                [self.written.texts[number] for number in own],
                [int(self.written.sessions[number]) for number in own],
            )
            at += 1
            yield Step((block,), Sizes(8.0, 1), {"at": at}, Ahead(0, at / self.count))

    def merged(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return states[0]


def learn_bag(begin: Path, written: SessionProfiles, held: Any, output: Path, seed: int) -> None:
    """Train one, unless it is done."""
    if (output / "done.json").exists():
        return
    bag = Bag.load(begin)
    identity = digest_of([written.digest, bag.letters.tolist(), seed])
    told: Any = Told()
    Trainer(bag, Pairs(written, told.steps, seed), told, seed=seed, folder=output, identity=identity).run()
    bag.save(output)
    (output / "done.json").write_text(json.dumps(identity))


def users_of(writer: Writer, count: int = 20) -> Any:
    """By an embedder's folder: what profiles are worth is how high they rank their session's colour."""
    asked = prompts(writer, count)

    def found(folder: Path) -> tuple[Users, Users | None]:
        bag = Bag.load(folder)

        def scorer(texts: Sequence[str], sessions: Any) -> Any:
            with torch.no_grad():
                scores = bag.scores(texts)
            own = scores[torch.arange(len(texts)), torch.from_numpy(sessions % len(COLOURS))]
            rank = 1 + (scores > own[:, None]).sum(1)
            return (1 / torch.log2(rank + 1.0)).double().numpy()

        return Users(asked, scorer, digest_of(bag.letters.tolist())), None

    return found
