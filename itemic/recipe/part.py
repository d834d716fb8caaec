"""What the sections of a recipe have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from itemic.model.presets import Preset
from itemic.settings import some_of

Shape = Annotated[dict[str, Any], some_of(Preset, "parameters")]


class Part(BaseModel):
    """A section of a recipe: unknown keys are faults, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def switched(value: Any) -> Any:
    """``true`` as a section that says nothing, ``false`` as none."""
    return ({} if value else None) if isinstance(value, bool) else value
