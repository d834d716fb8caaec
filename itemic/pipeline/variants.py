"""The rows of a table that are the model and others put together: with memory, in a blend, in a blend with memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from itemic.pipeline.step import Job
from itemic.recipe.schema import EvaluatePart

if TYPE_CHECKING:
    from itemic.evaluate.report import Report

REMEMBERED, BLENDED, BOTH = "memory", "blend", "blend-memory"  # folders of rankings, and names of reports
NAMES = {REMEMBERED: "model with memory", BLENDED: "blend", BOTH: "blend with memory"}
# how each was chosen, beside its ranking; what is gone on with is weighed alike
CHOICES = {name: f"{name}.json" for name in NAMES}


def variants_of(part: EvaluatePart) -> list[str]:
    """Those that an evaluation asks for, in the order of their rows."""
    remembers, blends = part.memory is not None, part.blend is not None
    asked = {REMEMBERED: remembers, BLENDED: blends, BOTH: remembers and blends}
    return [name for name, wanted in asked.items() if wanted]


def about(name: str, report: Report, job: Job) -> str:
    """How a variant was put together, and who said so."""
    from itemic.evaluate.blend import words_of
    from itemic.evaluate.settings import MemorySettings

    if name == BLENDED:
        said = f"{report.name}: {words_of(report.config['blend'])}"
    else:
        said = f"{report.name}: {MemorySettings(**report.config['memory']).words}"
    file = job.made("evaluate") / CHOICES[name]
    if not file.is_file():
        return f"{said}, as the recipe has it"
    same = ", the very split of this table" if job.recipe.evaluate.split == "valid" else ""
    return f"{said}, {_found(name, file.read_text(encoding='utf-8'))}{same}"


def _found(name: str, text: str) -> str:
    from itemic.evaluate.blend_choice import BlendChoice
    from itemic.evaluate.memory_choice import Choice

    choice = json.loads(text)["choice"]
    return BlendChoice.from_json(choice).words if name == BLENDED else Choice.from_json(choice).words
