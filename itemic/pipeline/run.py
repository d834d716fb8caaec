"""Running a recipe: step after step, skipping what is up to date, resumable at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itemic.artifact import building, locked, recover, write_text
from itemic.errors import ItemicError
from itemic.pipeline.logbook import run_log
from itemic.pipeline.plan import Planned, make_plan
from itemic.pipeline.step import Job
from itemic.pipeline.steps import steps_of
from itemic.progress import log
from itemic.recipe import Recipe, dump_recipe
from itemic.recipe.control import CONTROL_OPTIONS
from itemic.recipe.trackers import trackers_of
from itemic.trackers import check_trackers
from itemic.training.ranks import Ranks, joined

RECIPE = "recipe.yaml"
RUNS = "runs"
AFTER_YOU = 5.0  # seconds that the others wait for the end of a rank 0 that failed
DONE, FAILED = "done", "failed"  # what rank 0 tells the others, or a step to take part in


@dataclass(frozen=True)
class Run:
    """A run and its folder.

    Attributes:
        recipe: what it does.
        root: where: ``runs/<name>`` unless told otherwise.
    """

    recipe: Recipe
    root: Path

    @classmethod
    def of(cls, recipe: Recipe, output: str | Path | None = None) -> Run:
        return cls(recipe, Path(output) if output else Path(RUNS) / recipe.name)

    def plan(
        self,
        *,
        start: str | None = None,
        until: str | None = None,
        force: bool = False,
        rebuild: bool = True,
    ) -> list[Planned]:
        """What would be done, see :func:`itemic.pipeline.plan.make_plan`."""
        steps = steps_of(self.recipe)
        return make_plan(
            steps, self.root, seed=self.recipe.seed, start=start, until=until, force=force, rebuild=rebuild
        )

    def execute(
        self,
        *,
        start: str | None = None,
        until: str | None = None,
        force: bool = False,
        rebuild: bool = True,
        command: str = "(from Python)",
    ) -> list[Planned]:
        """Do it; ``run.log`` in the run's folder keeps what was said, under the ``command`` that asked for it.

        Raises:
            ArtifactError: another process works on the folder, or a damaged step is not to be made again.
            ItemicError: whatever a step finds wrong; finished steps stay.
            KeyboardInterrupt: as it came; the same call goes on from there.
        """
        check_tasks(self.recipe)
        with joined() as ranks:
            if not ranks.main:
                return self._follow(ranks)
            with locked(self.root), run_log(self.root, self.recipe, command), _telling(ranks):
                for step in steps_of(self.recipe):
                    recover(self.root / step.name)
                plan = self.plan(start=start, until=until, force=force, rebuild=rebuild)
                for line in check_trackers(trackers_of(self.recipe, (p.step.name for p in plan if p.run))):
                    log.info("%s", line)
                write_text(self.root / RECIPE, dump_recipe(self.recipe))
                for number, planned in enumerate(plan, 1):
                    self._do(planned, f"{number}/{len(plan)} {planned.step.name}", ranks)
            return plan

    def _follow(self, ranks: Ranks) -> list[Planned]:
        """What the other ranks do: they wait until rank 0 comes to a step that all do, and take part in it.

        Raises:
            ItemicError: rank 0 ended with an error.
        """
        steps = {step.name: step for step in steps_of(self.recipe)}
        nothing: Any = None
        while (told := ranks.share(nothing)) != DONE:
            if told == FAILED:
                with suppress(RuntimeError):  # until it is gone: a launcher ends all when the first one ends
                    ranks.wait()
                time.sleep(
                    AFTER_YOU
                )  # its connection closes before its process ends; who ends first is blamed
                raise ItemicError("rank 0 ended with an error", "Its own last lines say why.")
            name, folder, manifest = told
            steps[name].work(Job(self.recipe, self.root, Path(folder), manifest))
        return []

    def job(self, planned: Planned, output: Path) -> Job:
        return Job(self.recipe, self.root, output, planned.manifest)

    def _do(self, planned: Planned, label: str, ranks: Ranks) -> None:
        name, begun = planned.step.name, time.monotonic()
        if not planned.run:
            log.info("%s: %s", label, planned.reason)
            return
        log.info("%s: starts (%s)", label, planned.reason)
        with (
            _told(name),
            building(
                self.root / name, planned.manifest, resume=planned.step.resumes, grows=planned.grows
            ) as folder,
        ):
            if planned.step.together:
                ranks.share((name, str(folder), planned.manifest))
            planned.step.work(self.job(planned, folder))
        log.info("%s: done in %s", label, f"{time.monotonic() - begun:,.1f} s")


@contextmanager
def _telling(ranks: Ranks) -> Iterator[None]:
    """Tell the other ranks, which wait for a word, how it ended."""
    try:
        yield
    except ItemicError:
        with suppress(RuntimeError):  # they may have met the same error and be gone
            ranks.share(FAILED)
        raise
    ranks.share(DONE)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        log.warning("interrupted in the step %s", name)
        raise


def check_tasks(recipe: Recipe) -> None:
    """What only the tasks' own room can see in the mixture.

    Raises:
        ConfigError: naming every entry that can't work.
    """
    if not recipe.tasks:
        return
    from itemic.tasks.build import read_entries

    entries = [{"task": task.task, **task.arguments} for task in recipe.tasks]
    if any(task.task in CONTROL_OPTIONS for task in recipe.tasks):
        from itemic.control.tasks.table import control_entries

        entries = control_entries(entries)
    read_entries(entries, recipe.seed)
