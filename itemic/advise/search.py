"""A search of hyperparameters: Optuna's TPE, with trials that validation ends early, in a database that survives kills.

A trial is a run of the recipe with other values, up to the stage that they are about; steps that they don't concern
are the run's own. Only validation is looked at.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic.advise.advice import SEARCH, Advice
from itemic.advise.facts import facts_of
from itemic.advise.look import Look
from itemic.advise.patch import Change, patched, plain, try_values, value_at
from itemic.advise.read import list_of
from itemic.advise.reuse import link_steps
from itemic.advise.rounds import judged
from itemic.advise.rules import RULES
from itemic.advise.spaces import Space, as_it_is
from itemic.artifact import digest_of, locked, write_json
from itemic.errors import ConfigError, ItemicError, missing_extra
from itemic.pipeline import Run
from itemic.progress import log
from itemic.recipe import Recipe, RecipeError
from itemic.training.journal import listening

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

FOLDER, DATABASE, RESULT = "search", "study.db", "search.json"  # in the run's folder
STARTUP = 4  # finished trials before any is ended early
WARMUP = 2  # tenths of the way that every trial gets
TENTHS = 10


class Pruned(ItemicError):
    """A trial that is behind the median of the others at the same share of its way."""


@dataclass(frozen=True)
class Tried:
    """A trial that is done: its values, its figure (None where it failed or was ended early), and its state."""

    number: int
    values: dict[str, Any]
    figure: float | None
    state: str


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        metric: of validation.
        requests: how it was asked.
        tried: all trials, the recipe as it is first where its values lie within the ranges.
        best: the best of those that came to their end; None where none did.
        own: the figure of the recipe as it is; None where that wasn't tried.
        changes: of the recipe to the best trial's.
    """

    metric: str
    requests: str
    tried: list[Tried]
    best: Tried | None
    own: float | None
    changes: list[Change]

    def advice(self) -> Advice | None:
        """The best trial's values; None where the recipe as it is was not beaten."""
        if not self.changes or self.best is None or self.best.figure is None:
            return None
        ended = sum(one.state == "pruned" for one in self.tried)
        own = "" if self.own is None else f"; the recipe as it is has {self.own:.4f}"
        evidence = [
            f"trial {self.best.number} of {len(self.tried)} ({ended} ended early): {self.metric} "
            f"{self.best.figure:.4f} {self.requests}{own}",
            "the best of several trials is flattered by chance; a comparison says what is left of it",
        ]
        rule = RULES[SEARCH]
        return Advice(
            SEARCH, rule.title, evidence, rule.why, "As long as the stage then takes.", self.changes
        )

    def to_json(self) -> dict[str, Any]:
        best = None if self.best is None else self.best.number
        tried = [vars(one) for one in self.tried]
        return {"metric": self.metric, "own": self.own, "best": best, "trials": tried}


def search(
    run: str | Path,
    recipe: Recipe,
    spaces: Sequence[Space],
    *,
    trials: int = 20,
    minutes: float | None = None,
    seed: int | None = None,
    command: str = "(from Python)",
) -> Searched:
    """Look for better values.

    Args:
        run: the folder of a run of the recipe; the search stands in its folder ``search``.
        recipe: what was run.
        spaces: the keys and their ranges.
        trials: how many in all, those of earlier calls included.
        minutes: no trial begins after so many; None for no bound.
        seed: of the sampler; None for the recipe's.
        command: for the trials' logs.

    Raises:
        ConfigError: Optuna isn't installed.
        ArtifactError: another search works in the folder.
        KeyboardInterrupt: as it came; the same call goes on with the trial that was interrupted.
    """
    if not trials >= 1:
        raise ConfigError(f"a search of {trials} trials", "Give at least one.")
    root = Path(run)
    with locked(root / FOLDER):
        found = _Search(root, recipe, list(spaces), recipe.seed if seed is None else seed, command)
        found.go(trials, minutes)
        result = found.result()
        write_json(root / FOLDER / RESULT, result.to_json())
    return result


class _Search:
    def __init__(self, root: Path, recipe: Recipe, spaces: list[Space], seed: int, command: str) -> None:
        self.root, self.recipe, self.spaces, self.command = root, recipe, spaces, command
        self.folder = root / FOLDER
        self.stage = self._stage()
        self.evaluates = any(space.path[0] == "evaluate" for space in spaces)
        self.study = self._study(seed)

    # ------------------------------------------------------------------------------ what is tried

    def _stage(self) -> Any:
        """The last training that the keys are about, whose validation is the figure."""
        touched = [
            (len(self.recipe.stages) if space.path[0] == "rl" else 0) + int(space.path[1])
            for space in self.spaces
            if space.path[0] in ("stages", "rl") and len(space.path) > 1
        ]
        usual = Look(None, self.recipe).stage
        return self.recipe.trainings[max(touched, default=usual)]

    @property
    def metric(self) -> str:
        from itemic.evaluate.tables import main_k

        return f"ndcg@{main_k(self.recipe.evaluate.k)}" if self.evaluates else self.stage.validation.metric

    def _values(self, drawn: Mapping[str, float]) -> dict[str, Any]:
        """The recipe of a trial."""
        changes = self._changes(drawn)
        values = patched(plain(self.recipe), changes)
        number = self.recipe.trainings.index(self.stage)
        section, at = (
            ("stages", number)
            if number < len(self.recipe.stages)
            else ("rl", number - len(self.recipe.stages))
        )
        if self.stage.validation.every is None:
            values = patched(values, [Change((section, at, "validation", "every"), "epoch", None, "")])
        return judged_values(values) if self.evaluates else values

    def _changes(self, drawn: Mapping[str, float]) -> list[Change]:
        found = []
        for space in self.spaces:
            value, before = space.value(drawn[space.key]), value_at(self.recipe, space.path)
            if value != before:
                found.append(Change(space.path, value, before, "the best trial of the search has it"))
        return found

    # ------------------------------------------------------------------------------ Optuna

    def _study(self, seed: int) -> Study:
        try:
            import optuna
        except ImportError as error:
            raise missing_extra("a search of hyperparameters", "optuna", "search") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        about = [plain(self.recipe) | {"name": ""}, [vars(space) for space in self.spaces]]
        study = optuna.create_study(
            storage=f"sqlite:///{self.folder / DATABASE}",
            study_name=digest_of(about),
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARMUP),
        )
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
        own = as_it_is(self.recipe, self.spaces)
        if own is not None and not study.trials:
            study.enqueue_trial(own, user_attrs={"own": True})
        return study

    def go(self, trials: int, minutes: float | None) -> None:
        """Try until the budget is spent."""
        stop = time.monotonic() + minutes * 60 if minutes is not None else None
        self._take_up()
        while len(self._done()) < trials:
            if stop is not None and time.monotonic() > stop:
                log.info("%g minutes are over after %d trials", minutes, len(self._done()))
                return
            self._try(self.study.ask())

    def _take_up(self) -> None:
        """A trial that was killed is tried on, with the same values in the same folder: its training goes on."""
        from optuna.trial import TrialState

        known = self.study.trials
        taken = {one.user_attrs.get("goes_on") for one in known}
        for one in known:
            if one.state == TrialState.RUNNING:
                if one.number not in taken and len(one.params) == len(self.spaces):
                    about = {
                        "goes_on": one.number,
                        "folder": _folder_of(one),
                        "own": one.user_attrs.get("own"),
                    }
                    self.study.enqueue_trial(one.params, user_attrs=about)
                self.study.tell(one.number, state=TrialState.FAIL)

    def _done(self) -> list[Any]:
        """Trials that ended by themselves."""
        taken_up = {one.user_attrs.get("goes_on") for one in self.study.trials}
        return [one for one in self.study.trials if one.state.is_finished() and one.number not in taken_up]

    def _try(self, trial: Trial) -> None:
        from optuna.trial import TrialState

        drawn = {space.key: _draw(trial, space) for space in self.spaces}
        told = ", ".join(f"{key} {value:g}" for key, value in drawn.items())
        log.info("trial %d: %s", trial.number, told)
        folder = self.folder / _folder_of(trial)
        try:
            figure = self._figure(trial, drawn, folder)
        except Pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            log.info("trial %d: ended early, behind the median", trial.number)
        except ItemicError as error:
            if type(error) not in (ItemicError, RecipeError):  # the disk, the data: no trial's own fault
                raise
            self.study.tell(trial, state=TrialState.FAIL)
            log.warning("trial %d failed: %s", trial.number, error)
        else:
            self.study.tell(trial, figure)
            log.info(
                "trial %d: %s %.4f; the best so far %.4f", trial.number, self.metric, figure, self._best()
            )
        self._tidy()

    def _figure(self, trial: Trial, drawn: Mapping[str, float], folder: Path) -> float:
        """Run a trial; the best figure of its validation."""
        recipe, faults = try_values(self._values(drawn))
        if recipe is None:
            raise RecipeError(f"the recipe of trial {trial.number}", faults)
        run, seen = Run.of(recipe, folder), _Seen(self, trial)
        link_steps(run, self.root)
        until = "report" if self.evaluates else f"train.{self.stage.name}"
        with listening(seen):
            run.execute(until=until, command=self.command)
        if self.evaluates:
            from itemic.evaluate.report import Report

            report = Report.load(folder / "report" / f"{list_of(recipe)}.json")
            return report.item[self.metric].value
        curve = facts_of(folder, recipe).curves[self.stage.name]
        for share, value in zip(
            curve.at, curve.values, strict=True
        ):  # of a stage that was linked nothing was heard
            seen.note(share, value)
        return max(curve.values)

    def _best(self) -> float:
        return max(float(one.value) for one in self._done() if one.value is not None)

    def _tidy(self) -> None:
        """Models of trials that aren't the best go; their figures stay in the database."""
        ended = [one for one in self._done() if one.value is not None and one.state.name == "COMPLETE"]
        kept = {_folder_of(max(ended, key=lambda one: one.value))} if ended else set()
        kept |= {_folder_of(one) for one in self.study.trials if not one.state.is_finished()}
        for folder in self.folder.glob("trial-*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def result(self) -> Searched:
        tried = []
        for one in self._done():
            values = {space.key: space.value(one.params[space.key]) for space in self.spaces}
            whole = one.state.name == "COMPLETE"
            state = {"COMPLETE": "done", "PRUNED": "pruned"}.get(one.state.name, "failed")
            tried.append((one, Tried(one.number, values, one.value if whole else None, state)))
        ended = [(one, each) for one, each in tried if each.figure is not None]
        best = max(ended, key=lambda pair: pair[1].figure or 0.0, default=None)
        own = next((each.figure for one, each in ended if one.user_attrs.get("own")), None)
        beaten = best is not None and (own is None or (best[1].figure or 0.0) > own)
        changes = self._changes(best[0].params) if best is not None and beaten else []
        asked = self.stage.validation
        requests = (
            "on the validation split" if self.evaluates else f"on {asked.requests:,} validation requests"
        )
        return Searched(
            self.metric,
            requests,
            [each for _, each in tried],
            None if best is None else best[1],
            own,
            changes,
        )


class _Seen:
    """Hears the validations of a trial's stage, and ends the trial where it is behind."""

    def __init__(self, search: _Search, trial: Trial) -> None:
        self.name, self.metric = search.stage.name, f"valid/{search.stage.validation.metric}"
        self.trial = trial
        self.known: set[int] = set()

    def __call__(self, name: str, share: float, values: Mapping[str, Any]) -> None:
        if name != self.name or self.metric not in values:
            return
        if self.note(share, float(values[self.metric])) and self.trial.should_prune():
            raise Pruned(f"trial {self.trial.number} is behind")

    def note(self, share: float, value: float) -> bool:
        """Report a validation by the tenth of the way that it is in: trials of other lengths are compared at the same
        share. The first of a tenth counts."""
        tenth = int(share * TENTHS)
        if tenth in self.known:
            return False
        self.known.add(tenth)
        self.trial.report(value, tenth)
        return True


def judged_values(values: dict[str, Any]) -> dict[str, Any]:
    """A trial's recipe with validation asked."""
    return judged(Recipe.model_validate(values))


def _draw(trial: Trial, space: Space) -> float:
    if space.whole:
        return float(trial.suggest_int(space.key, int(space.low), int(space.high), log=space.log))
    return trial.suggest_float(space.key, space.low, space.high, log=space.log)


def _folder_of(trial: Any) -> str:
    return str(trial.user_attrs.get("folder") or f"trial-{trial.number:04d}")
