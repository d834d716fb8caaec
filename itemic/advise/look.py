"""What a rule looks at: the analysis, the recipe as it stands, and what the run's folder tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from itemic.advise.facts import Facts
from itemic.advise.patch import Change, value_at
from itemic.recipe import Recipe
from itemic.settings import KeyPath

if TYPE_CHECKING:
    from itemic.analysis.analysis import Analysis, Cause

LEAST = 0.02  # of the bad cases: what is at stake below that isn't worth a change
SPEAKING = ("cause", "kind")
WORDLESS = 0.5  # share of items with text below which there is nothing to learn from words


@dataclass(frozen=True)
class Look:
    """What a rule is given.

    Attributes:
        analysis: why rankings fail; None where nobody looked.
        recipe: with the changes that were made already.
        facts: of the run.
        asked: whether a person asked for this strategy, whatever the report says.
    """

    analysis: Analysis | None
    recipe: Recipe
    facts: Facts = field(default_factory=Facts)
    asked: bool = False

    # ------------------------------------------------------------------ what the report says

    def cause(self, name: str) -> Cause | None:
        return None if self.analysis is None else self.analysis.cause(name)

    def stake(self, name: str) -> float:
        """What is at stake in a pattern that goes with failure, as a share of the bad cases (of those that could show
        it, for one that only they can); 0 where it doesn't."""
        found = self.cause(name)
        if found is None or self.analysis is None or found.verdict not in SPEAKING:
            return 0.0
        if found.verdict == "kind":
            return found.share_bad
        return max(found.at_stake, 0.0) / max(self.analysis.bad, 1)

    def weight(self, *names: str) -> tuple[float, float]:
        """What is at stake in causes among these patterns, and in others, by which strategies are ordered: a pattern
        that only bad cases can show sorts them, and says little of what would help."""
        causes, kinds = [0.0], [0.0]
        for name in names:
            found = self.cause(name)
            (kinds if found is not None and found.verdict == "kind" else causes).append(self.stake(name))
        return max(causes), max(kinds)

    def says(self, *names: str, least: float = LEAST) -> bool:
        """Whether the report finds one of these patterns, with enough at stake; or a person asked all the same."""
        return self.asked or any(self.stake(name) >= least for name in names)

    def first_wrong(self, *levels: int) -> float:
        """Share of the bad cases that first go wrong at these levels of the semantic ID."""
        if self.analysis is None:
            return 0.0
        found = sum(level.first_wrong for level in self.analysis.levels if level.level in levels)
        return found / max(self.analysis.bad, 1)

    @property
    def depth(self) -> int:
        """Levels of the semantic ID, as far as the report has them."""
        return 0 if self.analysis is None else len(self.analysis.levels)

    # ------------------------------------------------------------------ what the recipe says

    def now(self, *path: str | int) -> Any:
        return value_at(self.recipe, path)

    def change(self, path: KeyPath, value: Any, reason: str, bundle: str = "") -> list[Change]:
        """The change, or none where it is so already."""
        before = value_at(self.recipe, path)
        return [] if before == value else [Change(path, value, before, reason, bundle)]

    @property
    def stage(self) -> int:
        """The number of the stage that teaches the model: the last one that trains more than new rows."""
        wide = [i for i, stage in enumerate(self.recipe.stages) if stage.train.what != "embeddings"]
        return wide[-1] if wide else len(self.recipe.stages) - 1

    @property
    def by_codes(self) -> bool:
        """Whether items have semantic IDs, rather than titles."""
        return self.recipe.index.names == "sid"

    @property
    def built(self) -> bool:
        """Whether the semantic IDs are built here, rather than imported."""
        return self.by_codes and self.recipe.index.published is None and self.recipe.data is not None

    @property
    def textual(self) -> bool:
        """Whether items have words, as far as anybody knows."""
        return self.facts.text is None or self.facts.text >= WORDLESS

    def tasks(self, name: str) -> list[int]:
        """The numbers of the entries of a task."""
        return [i for i, task in enumerate(self.recipe.tasks) if task.task == name]

    def add_task(self, entry: dict[str, Any], share: float, reason: str) -> list[Change]:
        """A further entry of the mixture, of which an epoch of each stage sees a share."""
        name = str(entry.get("source", entry["task"]))
        bundle = f"task {name}"
        found = [Change(("tasks", "+"), entry, None, reason, bundle)]
        told = f"an epoch sees {share:.0%} of these conversations, so that they stay beside the others"
        for i in range(len(self.recipe.stages)):
            found += self.change(("stages", i, "data", "sources", name), share, told, bundle)
        return found


def levels_of(recipe: Recipe) -> Sequence[int]:
    """Codes per level."""
    return recipe.index.levels or (256,) * 4
