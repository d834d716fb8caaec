"""The steps of a recipe as artifacts: planned, run, skipped when up to date. Rooms are imported when a step
runs."""

from __future__ import annotations

from itemic.pipeline.plan import KEPT, Planned
from itemic.pipeline.run import Run
from itemic.pipeline.step import Job, Step
from itemic.pipeline.steps import steps_of
from itemic.pipeline.verify import Held, verify_folder

__all__ = ["KEPT", "Held", "Job", "Planned", "Run", "Step", "steps_of", "verify_folder"]
