"""What a stage of reinforcement learning of a run would learn from now: some prompts with their groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from itemic.errors import ConfigError
from itemic.pipeline.recommend import open_run
from itemic.pipeline.steps import rl_stages

if TYPE_CHECKING:
    from rich.console import RenderableType


def preview_groups(
    folder: str | Path, n: int = 5, *, stage: str | None = None, seed: int = 0, trained: bool = False
) -> tuple[list[dict[str, Any]], list[RenderableType]]:
    """Groups of a run's model before a stage, or after it: plain JSON, and parts for a screen.

    Args:
        folder: of the run, whose recipe has such a stage.
        n: how many prompts.
        stage: the stage's name; None for the first.
        seed: of which prompts, and of what is drawn.
        trained: ask the model that the stage made, rather than the one that it begins with.

    Raises:
        ConfigError: the recipe has no such stage.
        ArtifactError: the folder is no run, or the model isn't there yet.
    """
    from itemic.data.names import names_of
    from itemic.pipeline.work import knows_of, load_dataset, load_model
    from itemic.rl.objective import GroupObjective
    from itemic.rl.preview import lines_of, shown
    from itemic.rl.rolled import Policy
    from itemic.rl.run import book_of, rewards_of
    from itemic.rl.scoring import Legal
    from itemic.rl.source import roll, roller_of
    from itemic.sid.trie import Trie

    job = open_run(folder)
    stages = rl_stages(job.recipe)
    names = [found.name for found, _ in stages]
    if not stages or (stage is not None and stage not in names):
        raise ConfigError(
            f"the recipe of {folder} has no stage of reinforcement learning{'' if stage is None else f' {stage!r}'}",
            f"It has: {', '.join(names)}." if names else "Give its recipe a section rl.",
        )
    told, before = stages[names.index(stage) if stage is not None else 0]
    dataset = load_dataset(job)
    model = load_model(job, f"train.{told.name}" if trained else before)
    knows = knows_of(told, job)
    book, rewards = book_of(model, dataset, told, seed, knows), rewards_of(model, dataset, told, knows)
    legal = Legal(Trie.build(model.item_rows), told.rollout.normalize)
    policy = Policy(model, GroupObjective(model.lm, legal))
    roller = roller_of(policy, told, rewards, legal, book)
    place, task = book.order(0)
    asked = book.ask(place[:n], task[:n])
    rolled = roll(roller, asked, [seed * 1_000_003 + int(row) for row in np.arange(len(asked.prompts))])
    lines = list(lines_of(rolled, model, 0, n))
    titles = dict(zip(dataset.item_ids, names_of(dataset.items), strict=True))
    return lines, [part for line in lines for part in (*shown(line, titles), "")]
