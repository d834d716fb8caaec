"""What the step ``evaluate`` does: rank every request by the model, by what it is put together with, and by others.

The model is searched once for each request, whatever is made of its beams.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from itemic.artifact import write_json
from itemic.pipeline.step import Job
from itemic.pipeline.variants import (
    BLENDED,
    CHOICES,
    NAMES,
    OWN,
    REMEMBERED,
    THINKING_NAMES,
    thinking_of,
    variants_of,
)
from itemic.pipeline.watch import watching
from itemic.pipeline.work import TAUGHT, TRAINED, load_dataset, load_model
from itemic.progress import log

if TYPE_CHECKING:
    from itemic.data.dataset import Dataset
    from itemic.data.sequences import Requests
    from itemic.evaluate.blend import Blend
    from itemic.evaluate.memory import Memory
    from itemic.evaluate.mixture import Prior, Scorer
    from itemic.evaluate.ranking import Ranking
    from itemic.evaluate.recommend import ModelRanker
    from itemic.evaluate.settings import MemorySettings
    from itemic.evaluate.stream import Answered, Watch
    from itemic.evaluate.thinking import ThinkingRanker
    from itemic.teacher.teacher import Teacher


def rank(step: str, task: dict[str, Any], job: Job) -> None:
    """Rank every request of the split by the trained model and its variants, by the teacher and by the baselines."""
    from itemic.evaluate.stream import rank_all
    from itemic.evaluate.thinking import ThinkingRanker

    part, dataset = job.recipe.evaluate, load_dataset(job)
    requests, rankers = dataset.split(part.split), Rankers(step, task, job, dataset)
    thinking = _thinking(rankers, job)  # before anything is ranked: what can't be asked ends the step at once
    variants = _variants(rankers, job)
    with watching(job, dataset, requests) as watched:
        ranking = _rank_model(rankers.model, variants, requests, job, watched.watch)
        watched.samples(ranking)
    for name, each in thinking.items():
        index, folder = rankers.model.model.index, job.output / name
        rank_all(
            each,
            requests,
            index.item_ids,
            k=max(part.k),
            exclude_history=part.exclude_history,
            sids=index.texts,
            output=folder,
            config=each.config,
            beside=each.keeping(folder) if isinstance(each, ThinkingRanker) else None,
        )
    names = [*([TAUGHT] if job.recipe.teacher is not None else []), *part.baselines]
    for name in names:
        ranker = rankers.other(name)
        rank_all(
            ranker,
            requests,
            dataset.item_ids,
            k=max(part.k),
            exclude_history=part.exclude_history,
            output=job.output / name,
            config=ranker.config if name == TAUGHT else None,
        )


def _thinking(rankers: Rankers, job: Job) -> dict[str, ModelRanker | ThinkingRanker]:
    """The model asked in the other way without thoughts, and with thoughts of its own. In its own row, and in these, it
    reads the same histories."""
    from itemic.evaluate.thinking import ThinkingRanker
    from itemic.tasks.asking import ask_alike

    model, told = rankers.model, job.recipe.evaluate.thoughts
    if told is None:
        return {}
    other, own = thinking_of(job.recipe.evaluate, model.way)
    name = THINKING_NAMES[OWN]
    found: dict[str, ModelRanker | ThinkingRanker] = {
        other: model.asking("empty" if model.way == "no_think" else "no_think", THINKING_NAMES[other]),
        own: ThinkingRanker(model, told, seed=job.recipe.seed, name=name),
    }
    ask_alike([model.asker, *(each.asker for each in found.values())])
    return found


class Rankers:
    """The rankers of an evaluation by their names in a recipe, each made when it is first asked for."""

    def __init__(self, step: str, task: dict[str, Any], job: Job, dataset: Dataset) -> None:
        self._step, self._task, self.job, self.dataset = step, task, job, dataset
        self._model: ModelRanker | None = None
        self._others: dict[str, Scorer] = {}

    @property
    def model(self) -> ModelRanker:
        """The trained model."""
        from itemic.evaluate.recommend import ModelRanker

        part = self.job.recipe.evaluate
        if self._model is None:
            self._model = ModelRanker(
                load_model(self.job, self._step),
                task=self._task,
                beams=part.beams,
                normalize=part.normalize,
                thinking=part.thinking,
                batch_size=part.batch_size,
                tf32=part.tf32,
                dataset=self.dataset,
            )
        return self._model

    def other(self, name: str) -> Any:
        """The teacher, or a baseline."""
        from itemic.evaluate.baselines import BASELINES

        if name not in self._others:
            made = load_teacher(self.job) if name == TAUGHT else BASELINES[name](self.dataset)
            self._others[name] = made
        return self._others[name]

    def named(self, name: str) -> Any:
        """Any of them."""
        return self.model if name == TRAINED else self.other(name)


def load_teacher(job: Job) -> Teacher:
    """What the step ``teacher`` made, on this process's GPU where there is one."""
    from itemic.teacher.teacher import Teacher
    from itemic.training.ranks import joined

    with joined() as ranks:
        return Teacher.load(job.made("teacher"), ranks.device)


def _rank_model(
    model: ModelRanker, variants: dict[str, Memory | Blend], requests: Requests, job: Job, watch: Watch
) -> Ranking:
    """The ranking by the model alone; those of its variants are made beside it."""
    from itemic.evaluate.blend import Blend
    from itemic.evaluate.mixture import Mixtures
    from itemic.evaluate.stream import Kept, rank_together

    part, index = job.recipe.evaluate, model.model.index
    k, exclude = max(part.k), part.exclude_history
    blend = variants.get(BLENDED)
    scorers = blend.scorers if isinstance(blend, Blend) else []
    mixed = [each.mixture() if isinstance(each, Blend) else each.mixture for each in variants.values()]
    mixtures = Mixtures(model, scorers, mixed, len(index))

    def answer(asked: Requests) -> list[Answered]:
        if not variants:
            return [(*model.rank(asked, k, exclude), model.shortened(asked))]
        alone, others = mixtures.rank(asked, k, exclude)
        found = [(*alone, model.shortened(asked))]
        for ranker, lists in zip(variants.values(), others, strict=True):
            found.append((*lists, ranker.shortened(asked)))
        return found

    kept = [Kept(TRAINED, job.output / TRAINED, model.config, watch)]
    kept += [Kept(NAMES[name], job.output / name, each.config) for name, each in variants.items()]
    return rank_together(
        answer,
        kept,
        requests,
        index.item_ids,
        k=k,
        exclude_history=exclude,
        sids=index.texts,
    )[0]


def _variants(rankers: Rankers, job: Job) -> dict[str, Memory | Blend]:
    """Rankers of the model and others, weighed as the recipe says or as validation has it."""
    from itemic.evaluate.memory import Memory

    found: dict[str, Memory | Blend] = {}
    for name in variants_of(job.recipe.evaluate):
        if name == BLENDED:
            found[name] = _blend(rankers, job)
            continue
        prior: Any = rankers.model if name == REMEMBERED else found[BLENDED]
        weighed = _memory_settings(name, job, prior, rankers.dataset)
        found[name] = Memory(rankers.dataset, prior, weighed, name=NAMES[name])
    return found


def _blend(rankers: Rankers, job: Job) -> Blend:
    from itemic.evaluate.blend import Blend, words_of
    from itemic.evaluate.blend_choice import BlendChoice, choose_blend

    recipe = job.recipe
    told = recipe.evaluate.blend
    assert told is not None  # else there is no such variant
    names = told.named(recipe.teacher is not None)
    parts = [rankers.named(name) for name in names]
    if told.weights is not None:
        return Blend(parts, [told.weights[name] for name in names], name=NAMES[BLENDED])
    asked = {part.name: part.config for part in parts}

    def choose() -> dict[str, Any]:
        choice = choose_blend(
            rankers.dataset, parts, exclude_history=recipe.evaluate.exclude_history, seed=recipe.seed
        )
        log.info("blend: %s; %s", words_of(choice.weights), choice.words)
        return choice.to_json()

    choice = BlendChoice.from_json(_chosen(BLENDED, job, asked, choose))
    return Blend(parts, [choice.weights[part.name] for part in parts], name=NAMES[BLENDED])


def _memory_settings(name: str, job: Job, prior: Prior | Blend, dataset: Dataset) -> MemorySettings:
    """How counts are weighed against a prior."""
    from itemic.evaluate.memory_choice import Choice, choose_memory, grid_with

    part = job.recipe.evaluate
    grid = grid_with(**(part.memory or {}))
    if len(grid) == 1:
        return grid[0]

    def choose() -> dict[str, Any]:
        choice = choose_memory(
            dataset, prior, exclude_history=part.exclude_history, grid=grid, seed=job.recipe.seed
        )
        log.info("%s: %s; %s", name, choice.settings.words, choice.words)
        return choice.to_json()

    return Choice.from_json(_chosen(name, job, prior.config, choose)).settings


def _chosen(name: str, job: Job, asked: object, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A choice. What was chosen before an interruption for the very same rankers stands."""
    file, plain = job.output / CHOICES[name], json.loads(json.dumps(asked, default=str))
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["prior"] == plain:
            return found["choice"]  # type: ignore[no-any-return]
    choice = choose()
    write_json(file, {"prior": plain, "choice": choice})
    return choice
