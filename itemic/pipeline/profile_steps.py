"""The steps of profiles, in order: writer → writer.taught → embedder → turns → profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from itemic.pipeline import profiles
from itemic.pipeline.step import Step
from itemic.recipe import Recipe
from itemic.recipe.profile import ProfilePart
from itemic.settings import settings_json

PACKAGES = ("torch", "transformers")
SPEED = ("batch_size",)  # keys that no vector depends on


def profile_steps(recipe: Recipe) -> list[Step]:
    """Those that the section ``profile`` asks for."""
    part = recipe.profile
    if part is None:
        return []
    return [
        _writer(part),
        *([] if part.writer.taught is None else [_taught(part)]),
        _embedder(part),
        *([] if part.turns is None else [_turns(part)]),
        *([] if part.evaluate is None else [_profiles(recipe, part)]),
    ]


def last_profile_steps(part: ProfilePart) -> tuple[str, ...]:
    """The steps that the report tells of."""
    return (_models(part)[0],) if part.evaluate is None else (profiles.PROFILES,)


def _models(part: ProfilePart) -> tuple[str, ...]:
    """The steps whose folders hold writers and embedders."""
    turns = () if part.turns is None else (profiles.TURNS,)
    return (*turns, profiles.first_writer(part), profiles.EMBEDDER)


def _told(part: ProfilePart) -> dict[str, Any]:
    """What decides what a writer is told."""
    return {"sessions": settings_json(part.sessions), "words": settings_json(part.words)}


def _writer(part: ProfilePart) -> Step:
    writer = part.writer
    config: dict[str, Any] = {"taught": writer.taught is not None}
    files: dict[str, str] = {}
    if writer.base is None:
        keys = ("preset", "vocab_size", "max_length", "overrides")
        config |= {key: getattr(writer, key) for key in keys} | _told(part)
    else:
        config["revision"] = writer.revision
        _model_file(writer.base, "base", config, files)
    return Step(profiles.WRITER, config, ("data",), profiles.make_writer, files, packages=PACKAGES)


def _model_file(name: str, key: str, config: dict[str, Any], files: dict[str, str]) -> None:
    """A model as a file that a step reads, or by its name elsewhere."""
    if Path(name).expanduser().is_dir():
        files[key] = name
    else:
        config[key] = name


def _taught(part: ProfilePart) -> Step:
    assert part.writer.taught is not None
    config = part.writer.taught.decisive() | _told(part)
    needs = ("data", profiles.WRITER)
    return Step(
        profiles.TAUGHT,
        config,
        needs,
        profiles.teach_writer,
        resumes=True,
        together=True,
        packages=PACKAGES,
    )


def _embedder(part: ProfilePart) -> Step:
    config = {
        key: value
        for key, value in settings_json(part.embedder).items()
        if key not in ("model", "fields", *SPEED)
    }
    files: dict[str, str] = {}
    _model_file(part.embedder.model, "model", config, files)
    return Step(profiles.EMBEDDER, config, (), profiles.make_embedder, files, packages=PACKAGES)


def _turns(part: ProfilePart) -> Step:
    turns = part.turns
    assert turns is not None
    keys = ("iterations", "reference", "keep", "count", "rewards")
    config = {key: getattr(turns, key) for key in keys} | _told(part)
    config |= {"fields": list(part.embedder.fields), "drawing": settings_json(turns.drawing)}
    config |= {"embedder": turns.embedder.decisive(), "writer": turns.writer.decisive()}
    needs = ("data", profiles.first_writer(part), profiles.EMBEDDER)
    return Step(
        profiles.TURNS,
        config,
        needs,
        profiles.take_turns_of,
        resumes=True,
        grows="iterations",
        together=True,
        packages=PACKAGES,
    )


def _profiles(recipe: Recipe, part: ProfilePart) -> Step:
    papers = [paper.model_dump(mode="json") for paper in recipe.evaluate.published]
    config = _told(part) | {"fields": list(part.embedder.fields), "tests": settings_json(part.evaluate)}
    config |= {"split": recipe.evaluate.split, "published": papers}
    teacher = () if recipe.teacher is None else ("teacher",)
    needs = ("data", *teacher, *_models(part))
    return Step(
        profiles.PROFILES,
        config,
        needs,
        profiles.make_profiles,
        resumes=True,
        packages=PACKAGES,
    )
