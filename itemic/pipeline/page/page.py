"""The page of a run, of whatever its folder has so far."""

from __future__ import annotations

from pathlib import Path

from itemic.errors import ArtifactError
from itemic.page import render
from itemic.pipeline.page.parts import (
    comparison_part,
    data_part,
    index_part,
    lists_parts,
    profiles_parts,
    tiles,
)
from itemic.pipeline.page.samples import samples_part
from itemic.pipeline.page.steps import made_steps, steps_grid, used_versions
from itemic.pipeline.run import RECIPE
from itemic.recipe import dump_recipe, read_resolved

TEMPLATE = Path(__file__).parent / "templates" / "run.html"


def run_page(root: str | Path, report: Path | None = None) -> str:
    """One page that needs nothing else: no scripts, fonts or pictures from elsewhere.

    Args:
        root: the run's folder, finished or not; what isn't there yet is left out.
        report: the folder of its report, ``root / "report"`` unless it is being made elsewhere.

    Raises:
        ArtifactError: it is not the folder of a run, or nothing is there to show.
    """
    from itemic.pipeline.page.curves import curves_part

    folder = Path(root)
    if not (folder / RECIPE).is_file():
        raise ArtifactError(f"{folder} is not the folder of a run", "Make one with `itemic run RECIPE`.")
    recipe = read_resolved(folder / RECIPE)
    made = made_steps(folder, recipe)
    if report is not None:  # an older one may still stand where the new one will
        made.pop(folder / "report", None)
    if not made:
        raise ArtifactError(f"{folder} has no finished step yet", "Run its recipe first.")
    results = report or folder / "report"
    return render(
        TEMPLATE,
        title=recipe.name,
        recipe=recipe,
        tiles=tiles(folder, results, made),
        comparison=comparison_part(results),
        lists=lists_parts(folder),
        profiles=profiles_parts(folder),
        samples=samples_part(folder, recipe) if (folder / "evaluate").is_dir() else [],
        curves=curves_part(folder),
        index=index_part(folder, recipe) if (folder / "index").is_dir() else None,
        data=data_part(folder) if (folder / "data").is_dir() else None,
        steps=steps_grid(made),
        versions=used_versions(made),
        yaml=dump_recipe(recipe),
    )
