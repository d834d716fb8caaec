"""Why a run's rankings fail, from the file that says so or from the rankings themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from itemic.errors import ArtifactError
from itemic.pipeline.run import RECIPE
from itemic.pipeline.variants import variants_of
from itemic.pipeline.work import TRAINED
from itemic.progress import log
from itemic.recipe import Recipe, read_resolved

if TYPE_CHECKING:
    from itemic.analysis.analysis import Analysis
    from itemic.evaluate.ranking import Ranking

REPORT = "badcase_report.json"
PLACES = (Path("analysis") / REPORT, Path(REPORT))  # in a run's folder
K = 10


def run_recipe(root: Path) -> Recipe:
    """The recipe that a run's folder keeps.

    Raises:
        ArtifactError: it is no run, or one without data, whose answers nobody knows.
    """
    if not (root / RECIPE).is_file():
        raise ArtifactError(f"{root} has no {RECIPE}", "Give the folder of a run, such as runs/quickstart.")
    recipe = read_resolved(root / RECIPE)
    if recipe.data is None:
        raise ArtifactError(f"the run in {root} has no data, so nothing was ranked", "Give a run with data.")
    return recipe


def list_of(recipe: Recipe) -> str:
    """The folder of the list that a run is for: the model's, or what it is put together with, the last such row."""
    return (variants_of(recipe.evaluate) or [TRAINED])[-1]


def find_analysis(root: Path, recipe: Recipe, file: Path | None = None) -> Analysis:
    """What is known of a run's failures.

    Args:
        root: the run's folder.
        recipe: what was run.
        file: what ``itemic analyze`` wrote; None for the file in the run's folder, or for looking now.

    Raises:
        DataError: the file is no analysis.
        ArtifactError: nothing was ranked yet.
    """
    from itemic.analysis.analysis import Analysis

    there = file or next((root / place for place in PLACES if (root / place).is_file()), None)
    if there is not None:
        log.info("read %s", there)
        return Analysis.load(there)
    log.info("%s has no %s: looking for patterns of failure now", root, REPORT)
    return look_at(root, recipe)


def look_at(root: Path, recipe: Recipe, ask_model: int = 0) -> Analysis:
    """Analyse the list that a run is for.

    Args:
        root: the run's folder.
        recipe: what was run.
        ask_model: for how many bad cases the model is asked about the target itself, where the list is its own.

    Raises:
        ArtifactError: nothing was ranked yet.
    """
    from itemic.pipeline.analyze import analyze_source, source_of

    listed, k = list_of(recipe), min(K, ranking_of(root, recipe).head.k)
    asked = ask_model if listed == TRAINED else 0
    return analyze_source(source_of(root, ranker=listed), k=k, ask_model=asked, seed=recipe.seed)[1]


def ranking_of(root: Path, recipe: Recipe) -> Ranking:
    """The list that a run is for.

    Raises:
        ArtifactError: it isn't there.
    """
    from itemic.evaluate.ranking import HEAD, Ranking

    folder = root / "evaluate" / list_of(recipe)
    if not (folder / HEAD).is_file():
        raise ArtifactError(
            f"nothing was ranked in {root} yet", f"Finish it: itemic run {root / RECIPE} -o {root}."
        )
    return Ranking.load(folder)
