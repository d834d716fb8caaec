"""What each step does. Every function imports its room when it is called, so that planning needs none of
them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from itemic.artifact import merge_notes, write_json, write_text
from itemic.pipeline.step import Job
from itemic.pipeline.variants import OWN, about, thinking_of, variants_of, worth_of_thoughts
from itemic.pipeline.watch import publish
from itemic.progress import log
from itemic.recipe.control import ASK_TEACHER, CONTROL_OPTIONS, control_columns

if TYPE_CHECKING:
    from pathlib import Path

    from itemic.control.results import Results
    from itemic.data.dataset import Dataset
    from itemic.model import Model
    from itemic.recipe.schema import DataPart
    from itemic.rl.run import Knows
    from itemic.rl.settings import RLStage
    from itemic.sid.names import ItemNames
    from itemic.teacher.settings import TeacherSettings
    from itemic.training.distribution import Distribution
    from itemic.training.language.stage import Stage

PAGE, COMPARISON, DESCRIPTION = "report.html", "comparison.json", "description.json"
LISTS, RESULTS, PRICE = "lists", "results", "price"  # the step of test tasks of control, and its tables
TRAINED = "model"  # the folder of the model's own ranking, and the name of its report
TAUGHT = "teacher"  # the same of the teacher


def make_data(job: Job) -> None:
    """Read or simulate, filter, split."""
    from itemic.data.filters import apply_filters
    from itemic.data.simulator import simulate
    from itemic.data.split import choose_split
    from itemic.data.statistics import describe

    part = _data_part(job)
    dataset = _read(job) if part.simulate is None else simulate(part.simulate, job.recipe.seed).dataset
    if part.filters is not None:
        dataset = apply_filters(dataset, part.filters)
    dataset = dataset.with_split(choose_split(dataset.rule, **part.split))
    dataset.split(job.recipe.evaluate.split)  # an empty split is told now, and not after the training
    dataset.save(job.output)
    description = describe(dataset)
    write_json(job.output / DESCRIPTION, description)
    merge_notes(job.manifest, {"dataset": dataset.notes})
    log.info(
        "%s: %s users, %s items, %s interactions",
        description["name"],
        *(f"{description[key]:,}" for key in ("users", "items", "interactions")),
    )


def _data_part(job: Job) -> DataPart:
    assert job.recipe.data is not None  # else there is no such step
    return job.recipe.data


def _read(job: Job) -> Dataset:
    from itemic.data import read

    part = _data_part(job)
    return read(
        str(part.format),
        str(part.path),
        on_bad_row=part.on_bad_row,
        missing_text=part.missing_text,
        limit_users=part.limit_users,
        limit_items=part.limit_items,
        limit_rows=part.limit_rows,
        seed=job.recipe.seed,
        **part.options,
    )


def make_teacher(settings: TeacherSettings, job: Job) -> None:
    """A sequential model of the training split."""
    from itemic.teacher.run import train_teacher

    teacher = train_teacher(
        load_dataset(job),
        settings=settings,
        output=job.output,
        seed=job.recipe.seed,
        distribution=job.recipe.distribution,
    )
    parameters = sum(weight.numel() for weight in teacher.model.parameters())
    merge_notes(job.manifest, {"parameters": parameters})


def make_index(job: Job) -> None:
    """Build semantic IDs, or match published ones to the items; without items, the codes alone."""
    from itemic.sid.build import build_tokenizer
    from itemic.sid.index import ItemIndex
    from itemic.sid.published import import_index

    part, dataset = job.recipe.index, find_dataset(job)
    if part.published is not None:
        index = import_index(
            dataset,
            part.published,
            format=part.format,
            sizes=part.levels,
            collisions=part.collisions or "keep",
            unknown=part.unknown,
        )
        index.save(job.output)
    elif dataset is None:
        index = ItemIndex.of_codes(part.levels or (), part.format)
        index.save(job.output)
    else:
        tokenizer = build_tokenizer(
            dataset,
            encoder=part.encoder,
            quantizer=part.quantizer,
            levels=part.levels or (256,) * 4,
            collisions=part.collisions or "reassign",
            duplicates=part.duplicates,
            format=part.format,
            seed=job.recipe.seed,
            encoder_options=part.encoder_options,
            quantizer_options=part.quantizer_options,
        )
        tokenizer.save(job.output)
        index = tokenizer.index
    stats = index.collisions
    merge_notes(job.manifest, {"digest": index.digest, "items": stats.items, "sids": stats.sids})


def make_titles(job: Job) -> None:
    """Name items by their titles, cut by the tokenizer of the model that is to come."""
    from itemic.model.folder import load_tokenizer
    from itemic.model.tokenizer import train_tokenizer
    from itemic.sid.encoders.huggingface import find_model
    from itemic.sid.titles import TitleNames

    part, model, dataset = job.recipe.index, job.recipe.item_model, load_dataset(job)
    tokenizer: Any = None
    if part.max_tokens is not None and model.base is not None:
        tokenizer = load_tokenizer(find_model(model.base, model.revision))
    elif part.max_tokens is not None:
        tokenizer = train_tokenizer(_corpus(job, dataset), vocab_size=model.vocab_size)
    names = TitleNames.of(dataset, column=part.column, max_tokens=part.max_tokens, tokenizer=tokenizer)
    names.save(job.output)
    counts = {key: names.origin[key] for key in ("no_text", "cut", "numbered")}
    merge_notes(job.manifest, {"digest": names.digest, "items": len(names), **counts})
    log.info(
        "%s items go by their %s: %s without text by their id, %s cut, %s numbered",
        f"{len(names):,}",
        part.column,
        *(f"{count:,}" for count in counts.values()),
    )


def _corpus(job: Job, dataset: Dataset | None) -> list[str]:
    """What the tokenizer of a new model learns from."""
    from itemic.sid.text import item_texts

    texts = item_texts(dataset.items) if dataset is not None else []
    return [*texts, *_words(job, dataset)]


def _words(job: Job, dataset: Dataset | None) -> list[str]:
    """The words of prompts; those of control, and of the labels that are asked for, where a task speaks them."""
    from itemic.tasks import prompt_words

    words, spoken = prompt_words(job.recipe.system), control_columns(job.recipe.tasks)
    if spoken:
        from itemic.control.labels import Labels
        from itemic.control.words import control_words

        words += control_words(
            [Labels.of(dataset, columns) for columns in spoken] if dataset is not None else []
        )
    return words


def make_conversations(tasks: list[dict[str, Any]], times: bool, held_out: float, job: Job) -> None:
    """Build the mixture of all tasks, with the ``times`` of interactions where a stage weighs by them, and without
    users who are ``held_out``."""
    from itemic.tasks import build_conversations

    shutil.rmtree(job.made("conversations.tokens"), ignore_errors=True)  # rows of what is replaced here
    dataset = load_dataset(job)
    if any(task["task"] in CONTROL_OPTIONS for task in tasks):
        tasks = _with_control(tasks, dataset, job)
    built = build_conversations(
        dataset,
        load_index(job),
        tasks,
        seed=job.recipe.seed,
        held_out=held_out,
        output=job.output,
        times=times,
    )
    merge_notes(job.manifest, {"rows": built.counts})
    each = ", ".join(f"{source} {count:,}" for source, count in built.counts.items())
    log.info("%s conversations: %s", f"{sum(built.counts.values()):,}", each)


def _with_control(tasks: list[dict[str, Any]], dataset: Dataset, job: Job) -> list[dict[str, Any]]:
    """Tasks of control with what they know, the teacher where one asks it."""
    from itemic.control.tasks.table import with_control
    from itemic.teacher.teacher import Teacher

    asks = any(task["task"] in ASK_TEACHER for task in tasks)
    return with_control(tasks, dataset, Teacher.load(job.made("teacher")) if asks else None)


def make_model(job: Job) -> None:
    """A new model, or a base model with a token for every code."""
    from itemic.model.build import new_model
    from itemic.model.expand import expand
    from itemic.sid.text import item_texts

    part, dataset, index = job.recipe.item_model, find_dataset(job), load_index(job)
    if part.base is not None:
        model = expand(
            part.base,
            index,
            init=part.init or "moments",
            pad_to=part.pad_to,
            tie=part.tie,
            dataset=dataset,
            seed=job.recipe.seed,
            revision=part.revision,
        )
    else:
        init = part.init or "normal"
        model = new_model(
            str(part.preset),
            index,
            item_texts(dataset.items) if dataset is not None else (),
            seed=job.recipe.seed,
            vocab_size=part.vocab_size,
            max_length=part.max_length,
            init=init,
            vectors=_vectors(job, dataset) if init == "vectors" and dataset is not None else None,
            corpus=_words(job, dataset),
            **part.overrides,
        )
    model.save(job.output)
    parameters, tokens = model.lm.num_parameters(), len(model.tokenizer)
    merge_notes(job.manifest, {"parameters": parameters, "vocabulary": tokens})
    log.info("%s parameters, %s tokens", f"{parameters:,}", f"{tokens:,}")


def _vectors(job: Job, dataset: Dataset) -> Any:
    from itemic.sid.build import encode_items

    part = job.recipe.index
    vectors, _ = encode_items(dataset, part.encoder, seed=job.recipe.seed, options=part.encoder_options)
    return vectors


def train_stage(stage: Stage, before: str, asked: dict[str, Any] | None, job: Job) -> None:
    """One stage of training, from the model that the step before left, on what the tasks built and on the files that
    others made."""
    from itemic.training.language.run import train

    recipe = job.recipe
    built = job.made("conversations")
    given = [] if recipe.conversations is None else recipe.conversations.files
    train(
        load_model(job, before, job.recipe.distribution),
        [*([built] if recipe.tasks else []), *given] if given else built,
        stage=stage,
        dataset=find_dataset(job),
        output=job.output,
        seed=job.recipe.seed,
        distribution=job.recipe.distribution,
        asked=asked,
    )


def train_rl_stage(stage: RLStage, before: str, asked: dict[str, Any] | None, job: Job) -> None:
    """One stage of reinforcement learning, from the model that the step before left."""
    from itemic.rl.run import train_rl
    from itemic.tasks.asking import remember_asked
    from itemic.tasks.table import task_of

    recipe, dataset = job.recipe, load_dataset(job)
    model = load_model(job, before, recipe.distribution)
    if asked is not None:
        remember_asked(model, task_of(asked))
    train_rl(
        model,
        dataset,
        stage=stage,
        output=job.output,
        seed=recipe.seed,
        knows=knows_of(stage, job),
        distribution=recipe.distribution,
    )


def knows_of(stage: RLStage, job: Job) -> Knows:
    """What a stage's rewards ask beside answers and data."""
    from itemic.rl.run import Knows

    teacher = None
    if stage.asks_teacher:
        from itemic.teacher.teacher import Teacher

        teacher = Teacher.load(job.made("teacher"))
    wanted = {"semantic", "diversity"} & set(stage.rewards)
    return Knows(teacher, _vectors(job, load_dataset(job)) if wanted else None)


def report(job: Job) -> None:
    """Score all rankings, put them side by side, and write the page of the run."""
    from itemic.pipeline.page import run_page
    from itemic.pipeline.profiles import profile_results

    lists = [results.markdown() for results in list_results(job.root)]
    table = [] if job.recipe.model is None else [_compared(job)]
    profiles = profile_results(job.root)
    told = [] if profiles is None else [profiles.markdown()]
    write_text(job.output / "comparison.md", "\n".join([*table, *lists, *told]))
    write_text(job.output / PAGE, run_page(job.root, job.output))


def _compared(job: Job) -> str:
    """The rankings of the model of items and of its baselines, side by side."""
    from itemic.evaluate.compare import Published, compare
    from itemic.evaluate.ranking import Ranking
    from itemic.evaluate.recommend import way_of
    from itemic.evaluate.report import score

    dataset, part, seed = load_dataset(job), job.recipe.evaluate, job.recipe.seed
    first = Ranking.load(job.made("evaluate") / TRAINED)
    thinking = thinking_of(part, way_of(first.head.config["thinking"]))
    variants = [*thinking, *variants_of(part)]
    others = [*([TAUGHT] if job.recipe.teacher is not None else []), *part.baselines]
    ranked = (TRAINED, *variants, *others)
    rankings = {name: Ranking.load(job.made("evaluate") / name) for name in ranked}
    reports = {name: score(found, dataset, k=part.k, seed=seed) for name, found in rankings.items()}
    for name in variants:
        reports[name].notes.append(about(name, reports[name], job))
    for name, found in reports.items():
        found.save(job.output / f"{name}.json")
    papers = [Published(paper.name, dict(paper.metrics), paper.source) for paper in part.published]
    table = compare(
        list(reports.values()),
        papers,
        title=f"{job.recipe.name}, {part.split}",
        rankings=list(rankings.values()),
        variants=[reports[name].name for name in variants],
        seed=seed,
    )
    notes = [*table.notes, *_left_out(job)]
    for name in reversed(variants):
        beside = [name, *others]
        own = compare(
            [reports[each] for each in beside], rankings=[rankings[each] for each in beside], seed=seed
        )
        notes = [*([own.rival.words] if own.rival else []), *notes]
    if thinking:
        unthinking = [name for name in thinking if name != OWN]
        notes = [*worth_of_thoughts([OWN, TRAINED, *unthinking], rankings, reports, seed), *notes]
    table = replace(table, notes=notes)
    table.save(job.output / COMPARISON)
    publish(job, list(reports.values()), table)
    return table.markdown()


def list_results(root: Path) -> list[Results]:
    """What the step ``lists`` told: the test tasks, and the price of obedience where that was asked for."""
    from itemic.control.results import Results

    files = [root / LISTS / f"{name}.json" for name in (RESULTS, PRICE)]
    return [Results.load(file) for file in files if file.is_file()]


def _left_out(job: Job) -> list[str]:
    """For each stage what it had to cut or drop, in words."""
    from itemic.training.language.counts import lost_rows

    found = []
    for stage in job.recipe.stages:  # groups of answers are never cut
        record = json.loads((job.made(f"train.{stage.name}") / "training.json").read_text(encoding="utf-8"))
        if lost := lost_rows(record["rows"], record["stage"]["data"]["max_length"]):
            found.append(f"trained in {stage.name}: {lost}")
    return found


def load_dataset(job: Job) -> Dataset:
    """What the step ``data`` made."""
    from itemic.data import Dataset

    return Dataset.load(job.made("data"))


def find_dataset(job: Job) -> Dataset | None:
    """The same; None in a run without data."""
    return load_dataset(job) if job.recipe.data is not None else None


def load_index(job: Job) -> ItemNames:
    """What the step ``index`` made."""
    from itemic.sid.kinds import load_names

    return load_names(job.made("index"))


def load_model(job: Job, step: str, options: Distribution | None = None) -> Model:
    """What a step of training made, on this process's GPU where there is one; without its weights where they are shared
    out."""
    from itemic.model import Model
    from itemic.training.distribution import Distribution
    from itemic.training.ranks import joined

    with joined() as ranks:
        return Model.load(job.made(step), device=ranks.device_for(options or Distribution()))
