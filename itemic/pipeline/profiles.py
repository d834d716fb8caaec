"""What the steps of profiles do. Every function imports its room when it is called, as in ``work``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from itemic.artifact import Manifest, merge_notes
from itemic.errors import ArtifactError
from itemic.pipeline.step import Job
from itemic.pipeline.work import load_dataset
from itemic.progress import log
from itemic.recipe.profile import ProfilePart

if TYPE_CHECKING:
    import torch

    from itemic.data.dataset import Dataset
    from itemic.model import Model
    from itemic.profile.evaluation import ProfileAsking
    from itemic.profile.evaluation_settings import ProfileTests
    from itemic.profile.phases import Ground
    from itemic.profile.results import ProfileResults
    from itemic.profile.sessions import Sessions
    from itemic.profile.turn_settings import Drawing
    from itemic.profile.words import ProfileWords

WRITER, TAUGHT, EMBEDDER, TURNS = "writer", "writer.taught", "embedder", "turns"
DRAWN = ("max_new_tokens", "temperature", "top_k", "top_p", "batch_tokens")
PROFILES, RESULTS = "profiles", "results"  # the step that tests them, and its table


@dataclass(frozen=True)
class Told:
    """What profiles are written of, as a run has it.

    Attributes:
        dataset: whose users they are.
        part: the recipe's section.
    """

    dataset: Dataset
    part: ProfilePart

    @classmethod
    def of(cls, job: Job) -> Told:
        """Of a run whose data is there."""
        assert job.recipe.profile is not None  # else there is no such step
        return cls(load_dataset(job), job.recipe.profile)

    @cached_property
    def sessions(self) -> Sessions:
        """All of them, of every split."""
        from itemic.profile.sessions import Sessions

        found = Sessions.of(self.dataset, self.part.sessions)
        log.info("%s", found.told())
        return found

    @cached_property
    def words(self) -> ProfileWords:
        """Makes prompts."""
        from itemic.profile.words import ProfileWords
        from itemic.tasks.facts import ItemFacts

        return ProfileWords(ItemFacts.of(self.dataset, self.sessions.training), self.part.words)

    @property
    def item_texts(self) -> list[str]:
        """What the embedder reads of each item."""
        from itemic.sid.text import item_texts

        return item_texts(self.dataset.items, self.part.embedder.fields)

    def ground(self, split: str, writer: Path) -> Ground:
        """The sessions of a split with the prompts of a writer."""
        from itemic.model.chat import ChatRenderer
        from itemic.model.folder import load_tokenizer
        from itemic.profile.phases import Ground

        sessions = self.sessions.split(split)
        prompts = self.words.prompts(sessions, ChatRenderer(load_tokenizer(writer)))
        log.info("%s: %s", split, prompts.told())
        return Ground(sessions, prompts.tokens)


def make_writer(job: Job) -> None:
    """A new writer, or a base as it is; one that is to be taught is a model that names items by their titles."""
    from itemic.profile.writer import Writer
    from itemic.sid.encoders.huggingface import find_model

    told = Told.of(job)
    part = told.part.writer
    if part.base is not None and part.taught is None:
        made = Writer.load(find_model(part.base, part.revision))
        made.save(job.output)
        lm, tokenizer = made.lm, made.tokenizer
    else:
        model = _model(told, job.recipe.seed)
        model.save(job.output)
        lm, tokenizer = model.lm, model.tokenizer
    parameters = lm.num_parameters()
    merge_notes(job.manifest, {"parameters": parameters, "vocabulary": len(tokenizer)})
    log.info("a writer of %s parameters, %s tokens", f"{parameters:,}", f"{len(tokenizer):,}")


def _model(told: Told, seed: int) -> Model:
    from itemic.model.build import new_model
    from itemic.model.expand import expand
    from itemic.profile.templated import templated_profiles
    from itemic.sid.titles import TitleNames

    part = told.part.writer
    names = TitleNames.of(told.dataset)
    if part.base is not None:
        return expand(part.base, names, seed=seed, revision=part.revision)
    sessions = told.sessions.split("train")
    texts = [told.words.text(sessions, number) for number in range(len(sessions))]
    return new_model(
        str(part.preset),
        names,
        seed=seed,
        vocab_size=part.vocab_size,
        max_length=part.max_length,
        corpus=[*texts, *templated_profiles(sessions, told.words.facts, seed)],
        **part.overrides,
    )


def teach_writer(job: Job) -> None:
    """A stage of training on templated profiles of the training sessions, behind the very prompts that will ask."""
    from itemic.model import Model
    from itemic.profile.templated import templated_conversations
    from itemic.training.language.run import train
    from itemic.training.ranks import joined

    told = Told.of(job)
    stage = told.part.writer.taught
    assert stage is not None  # else there is no such step
    with joined() as ranks:
        model = Model.load(job.made(WRITER), device=ranks.device_for(job.recipe.distribution))
    sessions = told.sessions.split("train")
    prompts = told.words.prompts(sessions, model.chat)
    log.info("%s", prompts.told())
    rows = templated_conversations(sessions, told.words, prompts.texts, seed=job.recipe.seed)
    train(
        model,
        rows,
        stage=stage,
        output=job.output,
        seed=job.recipe.seed,
        distribution=job.recipe.distribution,
    )


def make_embedder(job: Job) -> None:
    """The embedder as it begins."""
    from itemic.profile.embedder import Embedder

    told = Told.of(job)
    made = Embedder.load(told.part.embedder)
    made.save(job.output)
    parameters = sum(weight.numel() for weight in made.parameters())
    merge_notes(job.manifest, {"parameters": parameters, "width": made.width})
    log.info("an embedder of %s parameters, vectors of %d numbers", f"{parameters:,}", made.width)


def take_turns_of(job: Job) -> None:
    """Writer and embedder learn in turns."""
    from itemic.profile.phases import phases_of
    from itemic.profile.settings import RewardSettings
    from itemic.profile.turns import take_turns

    told = Told.of(job)
    turns = told.part.turns
    assert turns is not None  # else there is no such step
    writer = job.made(first_writer(told.part))
    validates = any(
        stage.validation.every is not None or getattr(stage.validation, "samples", 0)
        for stage in (turns.embedder, turns.writer)
    )
    phases = phases_of(
        told.ground("train", writer),
        told.item_texts,
        embedder=turns.embedder,
        writer=turns.writer,
        held=told.ground("valid", writer) if validates else None,
        rewards=RewardSettings(weights=turns.rewards),
        turns=turns.settings,
        drawing=turns.drawing,
        count=turns.count,
        distribution=job.recipe.distribution,
    )
    start = {"writer": writer, "embedder": job.made(EMBEDDER)}
    take_turns(phases, start, job.output, settings=turns.settings, seed=job.recipe.seed)


def first_writer(part: ProfilePart) -> str:
    """The step whose writer the turns begin with."""
    return WRITER if part.writer.taught is None else TAUGHT


def make_profiles(job: Job) -> None:
    """The test of profiles that the recipe asks for."""
    part = job.recipe.profile
    assert part is not None
    assert part.evaluate is not None  # else there is no such step
    asking_of(job, part.evaluate, job.output).evaluate().save(job.output, RESULTS)


def asking_of(
    job: Job, settings: ProfileTests, output: Path, split: str | None = None, seed: int | None = None
) -> ProfileAsking:
    """A finished run's writer and embedder, and those that its turns began with, ready to be tested.

    Args:
        job: of the run.
        settings: what is asked.
        output: where answers go.
        split: whose sessions; None for what the recipe evaluates.
        seed: of what is drawn; None for the recipe's.
    """
    from itemic.evaluate.compare import Published
    from itemic.profile.evaluation import ProfileAsking

    told, recipe = Told.of(job), job.recipe
    writers, embedders = models_of(job)
    teacher = job.made("teacher") if recipe.teacher is not None else None
    papers = [Published(paper.name, dict(paper.metrics), paper.source) for paper in recipe.evaluate.published]
    chosen = split or recipe.evaluate.split
    return ProfileAsking(
        told.dataset,
        told.sessions,
        told.words,
        told.item_texts,
        writers,
        embedders,
        output,
        teacher=teacher,
        settings=settings if settings.drawing else replace(settings, drawing=_drawing(told.part)),
        split=chosen,
        seed=recipe.seed if seed is None else seed,
        published=papers,
        title=f"{recipe.name}, {chosen}",
        device=_device(job),
    )


def _drawing(part: ProfilePart) -> Drawing:
    """As the writer's rollouts draw; two of each session, which are held against each other."""
    from itemic.profile.turn_settings import Drawing

    if part.turns is None:
        return Drawing()
    own = part.turns.writer.rollout
    return Drawing(samples=2, **{name: getattr(own, name) for name in DRAWN})


def models_of(job: Job) -> tuple[dict[str, Path], dict[str, Path]]:
    """Folders of the writers and of the embedders: the trained ones first, and those that the turns began with."""
    from itemic.profile.turns import latest

    part = job.recipe.profile
    assert part is not None  # else there are none
    writer, embedder = {"untrained": job.made(first_writer(part))}, {"untrained": job.made(EMBEDDER)}
    if part.turns is None:
        return writer, embedder
    trained = latest(job.made(TURNS))
    return {"trained": trained["writer"]} | writer, {"trained": trained["embedder"]} | embedder


def _device(job: Job) -> torch.device:
    from itemic.training.ranks import joined

    with joined() as ranks:
        return ranks.device_for(job.recipe.distribution) or ranks.device


def evaluate_profiles(
    folder: str | Path,
    settings: ProfileTests | None = None,
    *,
    split: str | None = None,
    seed: int | None = None,
    output: str | Path | None = None,
) -> ProfileResults:
    """Test the profiles of a finished run, and write table and answers beside it.

    Whoever is interrupted and asks again goes on from the answers that are there.

    Args:
        folder: of the run.
        settings: what is asked; None for what the recipe asks, or the usual.
        split: ``valid`` or ``test``; None for what the recipe evaluates.
        seed: of whom is asked and of what is drawn; None for the recipe's.
        output: where it goes; None for ``profile`` in the run's folder.

    Raises:
        ArtifactError: the folder is no run with profiles, or the run isn't finished.
    """
    from itemic.profile.evaluation_settings import ProfileTests

    job = described_job(folder)
    part = job.recipe.profile
    assert part is not None
    chosen = split or job.recipe.evaluate.split
    root = Path(folder) / "profile" / chosen if output is None else Path(output)
    found = asking_of(job, settings or part.evaluate or ProfileTests(), root, split, seed).evaluate()
    found.save(root, RESULTS)
    log.info("%s holds tables and answers", root)
    return found


def described_job(folder: str | Path) -> Job:
    """A finished run that describes users.

    Raises:
        ArtifactError: the folder is no run with profiles, or the run isn't finished.
    """
    from itemic.pipeline.run import RECIPE
    from itemic.recipe import read_resolved

    root = Path(folder)
    if not (root / RECIPE).is_file():
        raise ArtifactError(f"{root} is not the folder of a run", "Make one with `itemic run RECIPE`.")
    recipe = read_resolved(root / RECIPE)
    part = recipe.profile
    if part is None:
        raise ArtifactError(
            f"{root} describes nobody in words: its recipe has no section profile",
            "Ask a run whose recipe has one.",
        )
    for name in ("data", first_writer(part), EMBEDDER, *([] if part.turns is None else [TURNS])):
        if not (root / name).is_dir():
            raise ArtifactError(f"{root} isn't finished: {name} is missing", "Finish the run first.")
    return Job(recipe, root, root, Manifest("question", {}, {}))


def profile_results(root: Path) -> ProfileResults | None:
    """What the step ``profiles`` told; None where there is none."""
    from itemic.profile.results import ProfileResults

    file = root / PROFILES / f"{RESULTS}.json"
    return ProfileResults.load(file) if file.is_file() else None
