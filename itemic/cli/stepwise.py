"""A run step by step, with somebody at a terminal who says of each what becomes of it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from itemic.artifact import read_manifest
from itemic.cli.common import say
from itemic.errors import ConfigError
from itemic.pipeline import Planned, Run
from itemic.recipe import RecipeError, load_recipe

KEEP, RERUN, RUN, CHANGE, STOP = "keep", "rerun", "run", "change", "stop"
MEANT = {
    KEEP: "take it as it is and go on",
    RUN: "make it now",
    RERUN: "make it again",
    CHANGE: "a key of the recipe, checked at once",
    STOP: "end here; what is done stays",
}


def refuse(**given: Any) -> None:
    """Make sure that there is a terminal, and that nobody has said already what is asked here.

    Raises:
        ConfigError: naming what is wrong.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "--interactive has no terminal to ask on", "Start it on a terminal, or leave it out."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--interactive asks one process", "Leave it out where several train together.")
    if vain := [name for name, value in given.items() if value]:
        raise ConfigError(f"{vain[0]} has no meaning beside --interactive", "Leave one of them out.")


def step_by_step(file: Path, overrides: Sequence[str], run: Run, command: str) -> Run | None:
    """Go through a run's steps and ask, before each and after each that was made.

    Args:
        file: the recipe.
        overrides: of it, as the command line has them.
        run: of both.
        command: for the run's log.

    Returns:
        the run at the end, with what was changed; None where somebody stopped.
    """
    return _Walk(file, list(overrides), run, command).go()


@dataclass
class _Walk:
    file: Path
    overrides: list[str]
    run: Run
    command: str
    place: int = 0
    held: bool = False  # whether a step was kept although it isn't up to date: what follows is made from it

    def go(self) -> Run | None:
        while True:
            found = self._planned()
            if found is None:
                return self.run
            plan, planned = found
            name = planned.step.name
            answer = self._ask(
                f"{self.place + 1}/{len(plan)} {name}: {planned.reason}", self._choices(planned)
            )
            if answer == STOP:
                self._tell_how_to_go_on()
                return None
            if answer == CHANGE:
                self._change()
                continue
            if answer == KEEP:
                self.held = self.held or planned.run
                self.place += 1
                continue
            if not self._make(name, again=self.held or not planned.run):
                self._tell_how_to_go_on()
                return None

    def _planned(self) -> tuple[list[Planned], Planned] | None:
        """The plan, and the step that it is about now; None at the end."""
        plan = self.run.plan()
        if self.place >= len(plan):
            return None
        name = plan[self.place].step.name
        planned = self.run.plan(start=name, until=name)[-1] if self.held else plan[self.place]
        return plan, planned

    def _choices(self, planned: Planned) -> list[str]:
        """What can be done of it, the usual first."""
        if not planned.run:
            return [KEEP, RERUN, CHANGE, STOP]
        there = read_manifest(self.run.root / planned.step.name) is not None
        return [RUN, *([KEEP] if there else []), CHANGE, STOP]

    def _make(self, name: str, again: bool) -> bool:
        """Make a step, as often as somebody wants; false where they stop."""
        while True:
            self.run.execute(start=name if again else None, until=name, command=self.command)
            manifest = read_manifest(self.run.root / name)
            notes = "" if manifest is None else _notes(manifest.notes)
            seconds = 0.0 if manifest is None else manifest.seconds
            answer = self._ask(f"{name} is done in {seconds:,.1f} s{notes}", [KEEP, RERUN, CHANGE, STOP])
            if answer == RERUN:
                again = True
                continue
            if answer == CHANGE:
                self._change()
            elif answer == KEEP:
                self.place += 1
            return answer != STOP

    def _ask(self, about: str, choices: list[str]) -> str:
        say("")
        say(about)
        for choice in choices:
            say(f"  {choice:<7} {MEANT[choice]}")
        while True:
            answer = str(typer.prompt(", ".join(choices), choices[0])).strip().lower()
            found = [choice for choice in choices if answer and choice.startswith(answer)]
            if answer in choices or found:
                return answer if answer in choices else found[0]
            say(f"{answer!r} is none of these")

    def _change(self) -> None:
        """Ask for keys until they fit; go back to the first step that they concern."""
        while True:
            answer = str(typer.prompt("KEY=VALUE, or nothing", "", show_default=False)).strip()
            if not answer:
                return
            try:
                recipe = load_recipe(self.file, [*self.overrides, answer])
            except RecipeError as error:
                say("\n".join(str(fault) for fault in error.faults))
                continue
            break
        self.overrides.append(answer)
        self.run = Run.of(recipe, self.run.root)
        self.held = False
        plan = self.run.plan()
        first = next((i for i, planned in enumerate(plan) if planned.run), len(plan) - 1)
        self.place = min(self.place, first)
        say(f"{answer}: the first step that is to be made is {plan[first].step.name}")

    def _tell_how_to_go_on(self) -> None:
        words = ["itemic", "run", str(self.file), "-o", str(self.run.root)]
        for override in self.overrides:
            words += ["-s", override]
        say(f"stopped; go on with: {shlex.join([*words, '--interactive'])}")


def _notes(notes: dict[str, Any]) -> str:
    """What a step noted of itself: the numbers among it."""
    told = [f"{key} {value:,}" for key, value in notes.items() if isinstance(value, int | float)]
    return f": {', '.join(told)}" if told else ""
