"""Rounds of improvement: look for what fails, change the recipe, run it, compare; on validation, never on the test.

A folder holds ``round-0`` (the run as it was, ranked on validation), ``round-1`` and so on, each a run's folder like
any other, and ``rounds.json``. The same call finds what is there and computes the rest, so a killed one goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic.advise.advice import Advice, advice
from itemic.advise.facts import facts_of
from itemic.advise.patch import Values, patched, plain, try_values
from itemic.advise.read import list_of, look_at, ranking_of, run_recipe
from itemic.advise.reuse import link_steps
from itemic.advise.write import write_improved
from itemic.artifact import locked, write_json
from itemic.errors import ArtifactError, ItemicError
from itemic.pipeline import Run
from itemic.pipeline.variants import CHOICES
from itemic.progress import log
from itemic.recipe import Recipe, RecipeError
from itemic.screen import Table
from itemic.screen import plain as plain_text

if TYPE_CHECKING:
    from itemic.evaluate.report import Measure

ROUNDS, IMPROVED, ANALYSIS = "rounds.json", "improved.yaml", "analysis.json"
ASKED = 500  # bad cases of which the model is asked whether the search lost the target
CHOSEN = "; how its parts are weighed was chosen on these very requests, so the gain is flattered"
NO_ADVICE, NO_GAIN, FAILED = "no advice is left", "the last round shows no gain", "the last round failed"


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        number: from 0, which is the run as it was.
        strategies: whose advice it follows.
        changes: of the recipe, in words.
        listed: which of the run's lists is measured.
        value: its NDCG on the validation split, with its interval; None where the round failed.
        gain: how far it is above the best round before it, paired by request; None of the first.
        against: that round's number.
        kept: whether the gain's interval lies above 0: the next round begins here.
        words: the comparison in a sentence, and what is to be said against it.
        linked: steps that were taken from the round before.
    """

    number: int
    strategies: list[str]
    changes: list[str]
    listed: str
    value: Measure | None
    gain: Measure | None = None
    against: int | None = None
    kept: bool = True
    words: str = ""
    linked: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Improvement:
    """All rounds.

    Attributes:
        metric: what is compared, such as ``ndcg@10``.
        rounds: in their order.
        best: the number of the round that ends best.
        ended: why there is no further one.
        recipe: the file of the best round's recipe, with its own split again; None where that is the run as it was.
    """

    metric: str
    rounds: list[Round]
    best: int
    ended: str
    recipe: Path | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"recipe": None if self.recipe is None else str(self.recipe)}

    def table(self) -> Table:
        """For the console."""
        from itemic.evaluate.tables import interval

        notes = [one.words for one in self.rounds if one.words]
        notes += [f"{self.ended}; all of this on the validation split, whose requests every round has seen"]
        below = "\n".join(notes)
        table = Table(title="rounds", title_justify="left", caption=below, caption_justify="left")
        for name in ("round", "follows", "changes", self.metric.upper(), "above the best before", ""):
            table.add_column(name)
        for one in self.rounds:
            value = "" if one.value is None else interval(one.value)
            gain = "" if one.gain is None else interval(one.gain)
            verdict = "gain" if one.kept else "failed" if one.value is None else "no gain shown"
            follows = ", ".join(one.strategies) or "the run as it was"
            changes = plain_text("\n".join(one.changes))
            table.add_row(str(one.number), follows, changes, value, gain, verdict if one.number else "")
        return table


@dataclass(frozen=True)
class _Standing:
    """A round that was run."""

    number: int
    recipe: Recipe
    root: Path


def improve(
    run: str | Path,
    output: str | Path | None = None,
    *,
    rounds: int = 3,
    strategies: Sequence[str] | None = None,
    one_by_one: bool = False,
    command: str = "(from Python)",
) -> Improvement:
    """Improve a run's recipe, as long as validation shows a gain.

    Args:
        run: the folder of a finished run.
        output: the folder of the rounds; ``<run>-improve`` beside it unless told otherwise.
        rounds: how many at most.
        strategies: that are asked, whatever the report says; None for what it calls for.
        one_by_one: follow one strategy a round, the one with most at stake first, so that the comparison is about it
            alone; one that brought nothing isn't tried again. Else a round follows all advice, and one without a gain
            is the last.
        command: for the runs' logs.

    Raises:
        ArtifactError: it is no finished run, or the folder holds rounds of another one.
        RecipeError: a file that the recipe names has gone.
        KeyboardInterrupt: as it came; the same call goes on from there.
    """
    source = Path(run)
    recipe = run_recipe(source)
    folder = Path(output) if output else source.with_name(f"{source.name}-improve")
    with locked(folder):
        work = _Work(source, recipe, folder, command)
        return work.improve(rounds, strategies, one_by_one)


class _Work:
    def __init__(self, source: Path, recipe: Recipe, folder: Path, command: str) -> None:
        from itemic.evaluate.tables import main_k

        self.source, self.recipe, self.folder, self.command = source, recipe, folder, command
        self.k = main_k(recipe.evaluate.k)
        self.metric = f"ndcg@{self.k}"
        self.rounds: list[Round] = []

    def improve(self, rounds: int, strategies: Sequence[str] | None, one_by_one: bool) -> Improvement:
        best = self._standing(0, judged(self.recipe))
        linked = self._run(best, self.source)
        self.rounds.append(Round(0, [], [], list_of(best.recipe), self._value(best), linked=linked))
        followed: list[Advice] = []
        tried: set[str] = set()
        ended = f"{rounds} round{'s' * (rounds != 1)} as asked"
        for number in range(1, rounds + 1):
            found = self._advice(best, strategies, tried)[: 1 if one_by_one else None]
            if not found:
                ended = NO_ADVICE
                break
            changes = [change for one in found for change in one.changes]
            names = [one.strategy for one in found]
            log.info("round %d follows %s", number, ", ".join(names))
            new = self._standing(number, patched(plain(best.recipe), changes))
            told = [change.words for change in changes]
            self.rounds.append(self._round(new, best, names, told))
            self._save(best.number, "going on", None)
            if self.rounds[-1].kept:
                best = new
                followed += found
            elif one_by_one:
                tried |= set(names)
            else:
                ended = FAILED if self.rounds[-1].value is None else NO_GAIN
                break
        return self._save(best.number, ended, self._write(followed))

    def _round(self, new: _Standing, best: _Standing, names: list[str], changes: list[str]) -> Round:
        """Run a round and compare it; one whose recipe can't run after all says why."""
        listed = list_of(new.recipe)
        try:
            linked = self._run(new, best.root)
        except ArtifactError:  # somebody works there, or the disk can't be read: no fault of the recipe
            raise
        except ItemicError as error:
            log.warning("round %d failed: %s", new.number, error)
            words = f"round {new.number} failed: {error.message}"
            return Round(new.number, names, changes, listed, None, None, best.number, False, words)
        words, gain = self._compare(new, best)
        value = self._value(new)
        return Round(
            new.number, names, changes, listed, value, gain, best.number, gain.low > 0, words, linked
        )

    def _standing(self, number: int, values: Values) -> _Standing:
        values = values | {"name": f"{self.recipe.name}-round-{number}"}
        recipe, faults = try_values(values)
        if recipe is None:
            raise RecipeError(f"the recipe of round {number}", faults)
        return _Standing(number, recipe, self.folder / f"round-{number}")

    def _run(self, standing: _Standing, before: Path) -> list[str]:
        """Run a round; the steps that it took from another one."""
        run = Run.of(standing.recipe, standing.root)
        linked = link_steps(run, before)
        run.execute(command=self.command)
        return linked

    def _advice(self, best: _Standing, strategies: Sequence[str] | None, tried: set[str]) -> list[Advice]:
        found = look_at(best.root, best.recipe, ask_model=ASKED)
        if found.split != "valid":
            raise ArtifactError(
                f"{best.root} was ranked on {found.split}", "Remove the folder and start again."
            )
        found.save(best.root / ANALYSIS)
        facts = facts_of(best.root, best.recipe)
        return advice(found, best.recipe, facts=facts, strategies=strategies, without=tried)

    def _value(self, standing: _Standing) -> Measure:
        from itemic.evaluate.report import Report

        return Report.load(standing.root / "report" / f"{list_of(standing.recipe)}.json").item[self.metric]

    def _compare(self, new: _Standing, best: _Standing) -> tuple[str, Measure]:
        from itemic.evaluate.paired import differences

        rankings = [ranking_of(one.root, one.recipe) for one in (new, best)]
        names = [f"round {one.number}" for one in (new, best)]
        columns = [f"hr@{self.k}", self.metric]
        (found,) = differences(rankings, names, columns, seed=self.recipe.seed)
        words = found.words
        if (new.root / "evaluate" / CHOICES.get(list_of(new.recipe), "none")).is_file():
            words += CHOSEN
        log.info("%s", words)
        return words, found.metrics[self.metric]

    def _write(self, followed: list[Advice]) -> Path | None:
        if not followed:
            return None
        gains = [
            f"round {one.number}: {one.words}, on validation" for one in self.rounds if one.gain and one.kept
        ]
        about = {"run": str(self.source), "rounds": "; ".join(gains)}
        write_improved(self.folder / IMPROVED, self.recipe, followed, about=about, force=True)
        return self.folder / IMPROVED

    def _save(self, best: int, ended: str, recipe: Path | None) -> Improvement:
        found = Improvement(self.metric, list(self.rounds), best, ended, recipe)
        write_json(self.folder / ROUNDS, found.to_json())
        return found


def judged(recipe: Recipe) -> Values:
    """The recipe as rounds run it: validation is asked, the test split never; others' rows and figures, which say
    nothing of a change, are left out."""
    values: Mapping[str, Any] = plain(recipe)
    asked = dict(values.get("evaluate") or {}) | {"split": "valid", "baselines": []}
    asked.pop("published", None)
    return dict(values) | {"evaluate": asked}
