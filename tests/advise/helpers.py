"""Analyses made by hand, and recipes to advise about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from itemic.analysis.analysis import Analysis, Cause, Level, Verdict
from itemic.evaluate.report import Measure
from itemic.recipe import Recipe, load_recipe
from tests.runs import RECIPE

BAD, REQUESTS = 800, 1000


def cause(name: str, share: float = 0.3, verdict: Verdict = "cause") -> Cause:
    """A pattern with this share of the bad cases at stake."""
    kind = verdict == "kind"
    lift = None if kind else Measure(2.0, 1.5, 2.5) if verdict == "cause" else Measure(1.0, 0.9, 1.1)
    half = Measure(0.1, 0.08, 0.12)
    shown = (int(0.5 * BAD), 0 if kind else 50)
    about = "kind" if kind else "request"
    shares = (share, 0.0) if kind else (0.5, 0.25)
    return Cause(
        name,
        f"The pattern {name}",
        "as it is",
        "",
        about,
        REQUESTS,
        *shown,
        *shares,
        lift,
        None,
        verdict,
        half,
        half,
        0.3,
        0.2,
        share * BAD,
    )


def report(*causes: Cause, first_wrong: tuple[int, ...] = ()) -> Analysis:
    """An analysis of 1,000 requests, 800 of them bad."""
    levels = [Level(i, REQUESTS, 500, wrong, 0.1) for i, wrong in enumerate(first_wrong, 1)]
    return Analysis("model", "shop", "valid", REQUESTS, BAD, 10, 0.95, {}, [], list(causes), levels=levels)


def recipe_of(folder: Path, changes: dict[str, Any] | None = None, *overrides: str) -> Recipe:
    """The tiny recipe with other sections."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(RECIPE) | (changes or {})), encoding="utf-8")
    return load_recipe(file, overrides)
