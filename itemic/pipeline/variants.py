"""The rows of a table that are the model in another form: with memory, in a blend, in a blend with memory; without
thoughts in the other way than its own, and with thoughts of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from itemic.pipeline.step import Job
from itemic.recipe.schema import EvaluatePart

if TYPE_CHECKING:
    from itemic.evaluate.ranking import Ranking
    from itemic.evaluate.report import Report

REMEMBERED, BLENDED, BOTH = "memory", "blend", "blend-memory"  # folders of rankings, and names of reports
NAMES = {REMEMBERED: "model with memory", BLENDED: "blend", BOTH: "blend with memory"}
# how each was chosen, beside its ranking; what is gone on with is weighed alike
CHOICES = {name: f"{name}.json" for name in NAMES}

# without a think block, with an empty one, with thoughts of the model's own
NO_BLOCK, EMPTY, OWN = "no-think", "empty", "thoughts"
THINKING_NAMES = {
    NO_BLOCK: "model without block",
    EMPTY: "model with empty block",
    OWN: "model with thoughts",
}
UNTHINKING = {"no_think": EMPTY, "empty": NO_BLOCK}  # how the model's row is asked, and the other way


def thinking_of(part: EvaluatePart, way: str) -> list[str]:
    """The rows about thoughts that stand beside the model's own.

    Args:
        part: the evaluation.
        way: how the model's own row is asked, ``no_think`` or ``empty``.
    """
    return [] if part.thoughts is None else [UNTHINKING[way], OWN]


def variants_of(part: EvaluatePart) -> list[str]:
    """Those that an evaluation asks for, in the order of their rows."""
    remembers, blends = part.memory is not None, part.blend is not None
    asked = {REMEMBERED: remembers, BLENDED: blends, BOTH: remembers and blends}
    return [name for name, wanted in asked.items() if wanted]


def about(name: str, report: Report, job: Job) -> str:
    """How a variant was put together, and who said so."""
    from itemic.evaluate.blend import words_of
    from itemic.evaluate.settings import MemorySettings

    if name in THINKING_NAMES:
        return _about_thoughts(name, report, job)
    if name == BLENDED:
        said = f"{report.name}: {words_of(report.config['blend'])}"
    else:
        said = f"{report.name}: {MemorySettings(**report.config['memory']).words}"
    file = job.made("evaluate") / CHOICES[name]
    if not file.is_file():
        return f"{said}, as the recipe has it"
    same = ", the very split of this table" if job.recipe.evaluate.split == "valid" else ""
    return f"{said}, {_found(name, file.read_text(encoding='utf-8'))}{same}"


def _about_thoughts(name: str, report: Report, job: Job) -> str:
    from itemic.evaluate.settings import ThinkingSettings
    from itemic.evaluate.thinking import read_thoughts, thoughts_note

    if name != OWN:
        own = "behind an empty think block" if name == NO_BLOCK else "without a think block"
        return f"model is asked {own}; it, {report.name} and {THINKING_NAMES[OWN]} read the same histories"
    settings = ThinkingSettings(**report.config["thoughts"])
    return thoughts_note(report.name, settings, read_thoughts(job.made("evaluate") / OWN))


def worth_of_thoughts(
    names: list[str], rankings: Mapping[str, Ranking], reports: Mapping[str, Report], seed: int
) -> list[str]:
    """How the model's own thoughts stand against each way without them, request by request.

    Args:
        names: the rows to compare, own thoughts first.
        rankings: by name.
        reports: by name.
        seed: of the bootstrap.
    """
    from itemic.evaluate.compare import compare

    found = compare([reports[name] for name in names], rankings=[rankings[name] for name in names], seed=seed)
    return [each.words for each in found.differences]


def _found(name: str, text: str) -> str:
    from itemic.evaluate.blend_choice import BlendChoice
    from itemic.evaluate.memory_choice import Choice

    choice = json.loads(text)["choice"]
    return BlendChoice.from_json(choice).words if name == BLENDED else Choice.from_json(choice).words
