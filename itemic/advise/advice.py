"""Advice: what a strategy would change in a recipe, what it saw, why, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from itemic.advise.facts import Facts
from itemic.advise.look import Look
from itemic.advise.patch import Change, patched, plain, possible
from itemic.advise.rules import RULES, Rule
from itemic.errors import ConfigError
from itemic.recipe import Recipe
from itemic.settings import KeyPath, meant

if TYPE_CHECKING:
    from itemic.analysis.analysis import Analysis, Cause

SEARCH = "hyperparameter"


@dataclass(frozen=True)
class Advice:
    """What one strategy proposes.

    Attributes:
        strategy: its name.
        title: what it is about.
        evidence: what was seen, a sentence each.
        why: how the changes are meant to help.
        cost: what they cost.
        changes: of the recipe.
        left_out: changes that aren't possible in this recipe, and why.
        stake: of all that the strategy reads the most that is at stake, as a share of the bad cases.
    """

    strategy: str
    title: str
    evidence: list[str]
    why: str
    cost: str
    changes: list[Change]
    left_out: list[str] = field(default_factory=list)
    stake: float = 0.0

    def __repr__(self) -> str:
        return f"<Advice {self.strategy!r}: {'; '.join(change.words for change in self.changes)}>"

    def to_json(self) -> dict[str, Any]:
        about = {"strategy": self.strategy, "title": self.title, "stake": round(self.stake, 4)}
        told = {"evidence": self.evidence, "why": self.why, "cost": self.cost}
        changes = {"changes": [change.to_json() for change in self.changes], "left_out": self.left_out}
        return about | told | changes


Decide = Callable[[Advice, Recipe], Advice | None]


def advice(
    analysis: Analysis | None,
    recipe: Recipe,
    *,
    facts: Facts | None = None,
    strategies: Sequence[str] | None = None,
    without: Collection[str] = (),
) -> list[Advice]:
    """What to change in a recipe, most at stake first; each is made for the recipe as those before it leave it.

    Args:
        analysis: of a run of it; None where nobody looked: then only what the run itself tells counts.
        recipe: what was run.
        facts: of the run.
        strategies: names of :data:`itemic.advise.rules.RULES` that a person asks for, whatever the report says; None
            for what the report calls for.
        without: names of strategies that are not to be asked.

    Raises:
        ConfigError: there is no such strategy, or the recipe has no model that names items.
    """
    every = list(RULES) if strategies is None else check_names(strategies)
    asked = [name for name in every if name not in without]
    return consider(
        analysis,
        recipe,
        lambda each, _: each if each.strategy in asked else None,
        facts=facts,
        strategies=None if strategies is None else asked,
    )


def consider(
    analysis: Analysis | None,
    recipe: Recipe,
    decide: Decide,
    *,
    facts: Facts | None = None,
    strategies: Sequence[str] | None = None,
) -> list[Advice]:
    """As :func:`advice`, where somebody decides of each: what isn't taken isn't there for those after it.

    Args:
        analysis: as there.
        recipe: as there.
        decide: hands back what is to be done of an advice to a recipe, or None to pass it over.
        facts: as there.
        strategies: as there.
    """
    recipe.item_model  # noqa: B018 - all rules are about it
    known = facts or Facts()
    taken: list[Advice] = []
    settled: set[KeyPath] = set()  # keys that were decided on already
    values = plain(recipe)
    for rule in _in_order(analysis, recipe, known, strategies):
        look = Look(analysis, recipe, known, asked=strategies is not None)
        found = _advise(rule, look, values, settled)
        if found is None:
            continue
        decided = decide(found, recipe)
        settled |= {change.path for change in found.changes if change.path[-1] != "+"}
        if decided is None:
            continue
        taken.append(decided)
        values = patched(values, decided.changes)
        recipe = _believed(values, recipe)
    return taken


def _believed(values: dict[str, Any], before: Recipe) -> Recipe:
    """The recipe of these values; that files have moved since is no matter."""
    try:
        return Recipe.model_validate(values)
    except ValidationError:
        return before


def _advise(rule: Rule, look: Look, values: dict[str, Any], settled: Iterable[KeyPath]) -> Advice | None:
    """What a rule proposes of what is possible; None where that is nothing."""
    wanted = [change for change in rule.find(look) if not _touches(change.path, settled)]
    changes, impossible = possible(values, wanted)
    if not changes:
        return None
    return Advice(
        rule.name,
        rule.title,
        evidence_of(rule, look),
        rule.why,
        rule.costs,
        changes,
        impossible,
        max((look.stake(name) for name in rule.reads), default=0.0),
    )


def _touches(path: KeyPath, settled: Iterable[KeyPath]) -> bool:
    """Whether a key, one around it or one within it was decided on already."""
    return any(path[: len(known)] == known or known[: len(path)] == path for known in settled)


def _in_order(
    analysis: Analysis | None, recipe: Recipe, facts: Facts, strategies: Sequence[str] | None
) -> list[Rule]:
    if strategies is not None:
        return [RULES[name] for name in check_names(strategies)]
    look = Look(analysis, recipe, facts)
    return sorted(RULES.values(), key=lambda rule: look.weight(*rule.reads), reverse=True)


def check_names(strategies: Iterable[str]) -> list[str]:
    """The names of strategies, once each.

    Raises:
        ConfigError: there is no such strategy.
    """
    names = list(dict.fromkeys(strategies))
    for name in names:
        if name not in RULES:
            raise ConfigError(
                f"there is no strategy {name!r}{meant(name, RULES)}", f"Use {', '.join(RULES)}."
            )
    return names


def evidence_of(rule: Rule, look: Look) -> list[str]:
    """What the report says of the patterns that a rule reads, and the run of itself."""
    analysis, told = look.analysis, []
    for name in rule.reads:
        cause = look.cause(name)
        if cause is not None:
            told.append(_of_cause(cause, look))
        elif analysis is not None and name in analysis.absent:
            told.append(f"{name}: nobody looked ({analysis.absent[name]})")
    if rule.name == "sid_quality" and look.depth:
        shares = [f"{look.first_wrong(level):.0%} at level {level}" for level in range(1, look.depth + 1)]
        told.append(f"of the bad cases {', '.join(shares)} of the semantic ID is the first that goes wrong")
    if rule.name == SEARCH:
        stage = look.recipe.stages[look.stage]
        curve = look.facts.curves.get(stage.name)
        told.append(f"stage {stage.name}: " + (curve.words if curve is not None else "no validations"))
    return told


def _of_cause(cause: Cause, look: Look) -> str:
    analysis = look.analysis
    assert analysis is not None  # else there is no cause
    shares = f"{cause.share_bad:.1%} of the bad cases"
    if cause.verdict == "kind" or cause.lift is None or cause.hr is None or cause.hr_rest is None:
        return f"{cause.title}: {shares}"
    at = f"HR@{analysis.k} {cause.hr.value:.3f} with it, {cause.hr_rest:.3f} without"
    lift = f"lift {cause.lift.value:.2f} [{cause.lift.low:.2f}, {cause.lift.high:.2f}]"
    return f"{cause.title}: {shares}, {cause.share_good:.1%} of the good ones, {lift}: {cause.verdict}; {at}"
