"""Writes docs/reference.md: every key of a recipe and every option of its parts, as the code itself describes them.

python docs/tools/reference.py
"""

from __future__ import annotations

import html
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from commands import commands
from meanings import Setting, introduction, meanings, options_of, settings_of, summary, written

from itemic.control.tests import ListTests
from itemic.data.readers import READERS, read
from itemic.data.settings import FilterRule, SimulatorConfig, SplitRule
from itemic.evaluate.baselines import BASELINES
from itemic.evaluate.settings import BlendSettings, MemorySettings, ThinkingSettings
from itemic.model.presets import PRESETS, Preset
from itemic.profile.evaluation_settings import ProfileTests
from itemic.profile.session_settings import SessionSettings
from itemic.profile.settings import (
    EmbedderData,
    EmbedderEngine,
    EmbedderOptimizer,
    EmbedderSettings,
    EmbedderStage,
    EmbedderValidation,
    InfoNCESettings,
)
from itemic.profile.turn_settings import Drawing, WriterRollout, WriterStage, WriterValidation
from itemic.profile.word_settings import WordsSettings
from itemic.recipe import schema
from itemic.recipe.profile import ProfilePart, TurnsPart, WriterPart
from itemic.recipe.tasks import TaskOptions
from itemic.rl.settings import (
    Asks,
    GroupData,
    GroupSettings,
    ListSettings,
    PPOSettings,
    RebelSettings,
    RLEngine,
    RLOptimizer,
    RLStage,
    RLValidation,
    RolloutSettings,
    ThoughtSettings,
)
from itemic.sid.collisions import COLLISIONS
from itemic.sid.encoders import ENCODERS
from itemic.sid.format import TOKEN_FORMATS
from itemic.sid.item_encoder import COLLABORATIVE, ItemEncoder
from itemic.sid.quantizers import QUANTIZERS
from itemic.tasks import TASKS, Task
from itemic.teacher.settings import (
    ItemSoftmaxSettings,
    SASRecSettings,
    TeacherData,
    TeacherEngine,
    TeacherOptimizer,
    TeacherSchedule,
    TeacherSettings,
    TeacherValidation,
)
from itemic.trackers import TRACKERS
from itemic.training.distribution import Distribution
from itemic.training.language.stage import (
    Balance,
    ItemWeights,
    Learns,
    NextTokenSettings,
    Stage,
    StageData,
    Unlikelihood,
)
from itemic.training.settings import (
    CheckpointSettings,
    EngineSettings,
    LogSettings,
    OptimizerSettings,
    ScheduleSettings,
    ValidationSettings,
)

PAGE = Path(__file__).resolve().parents[1] / "reference.md"
INTRODUCTION = """# Reference

Every key of a recipe, and every option of what a recipe can name. This page is written by `make reference` from the
code; the [guide](guide.md) says what is good for what. Keys may be given on the command line as well: `itemic run
RECIPE -s stages.0.epochs=3`. A default of *none* means that the key may be left out or be `null`."""
SECTIONS: Mapping[
    str, tuple[type[Any], type[Any] | None, str]
] = {  # keys, who else explains them, what is added
    "Recipe": (schema.Recipe, None, ""),
    "data": (schema.DataPart, None, ""),
    "data.filters": (FilterRule, None, ""),
    "data.split": (
        SplitRule,
        None,
        "What isn't given is as the source's own split has it, where it has one.",
    ),
    "data.simulate": (SimulatorConfig, None, ""),
    "teacher": (TeacherSettings, None, "Or `true`, for what is usual."),
    "teacher.model": (SASRecSettings, None, "A bare word is `name`."),
    "teacher.data": (TeacherData, None, ""),
    "teacher.objective": (ItemSoftmaxSettings, None, "A bare word is `name`."),
    "teacher.optimizer": (TeacherOptimizer, None, "A bare word is `name`."),
    "teacher.schedule": (TeacherSchedule, None, "A bare word is `name`."),
    "teacher.engine": (TeacherEngine, None, ""),
    "teacher.validation": (TeacherValidation, None, ""),
    "index": (schema.IndexPart, None, ""),
    "model": (schema.ModelPart, None, ""),
    "model.overrides": (Preset, None, "The preset's own value counts where none is given."),
    "tasks": (TaskOptions, Task, "A list; a task's [own options](#task-options) come on top."),
    "conversations": (schema.ConversationsPart, None, ""),
    "stages": (Stage, None, "A list; each stage goes on with the model that the one before it left."),
    "stages.train": (Learns, None, "A bare word is `what`."),
    "stages.data": (StageData, None, ""),
    "stages.data.balance": (Balance, None, ""),
    "stages.optimizer": (OptimizerSettings, None, "A bare word is `name`."),
    "stages.schedule": (ScheduleSettings, None, "A bare word is `name`."),
    "stages.objective": (NextTokenSettings, None, "A bare word is `name`."),
    "stages.objective.weights": (ItemWeights, None, ""),
    "stages.objective.unlikelihood": (Unlikelihood, None, ""),
    "stages.engine": (EngineSettings, None, ""),
    "stages.validation": (ValidationSettings, None, ""),
    "stages.checkpoints": (CheckpointSettings, None, ""),
    "stages.logs": (LogSettings, None, ""),
    "rl": (RLStage, None, "A list, or one alone; each goes on with the model that the stage before it left."),
    "rl.asks": (Asks, None, ""),
    "rl.rollout": (RolloutSettings, None, ""),
    "rl.rollout.thoughts": (ThoughtSettings, None, ""),
    "rl.rollout.lists": (ListSettings, None, ""),
    "rl.objective": (GroupSettings, None, "A bare word is `name`."),
    "rl.objective.ppo": (PPOSettings, None, ""),
    "rl.objective.rebel": (RebelSettings, None, ""),
    "rl.data": (GroupData, None, ""),
    "rl.optimizer": (RLOptimizer, None, "A bare word is `name`."),
    "rl.engine": (RLEngine, None, ""),
    "rl.validation": (RLValidation, None, ""),
    "profile": (ProfilePart, None, ""),
    "profile.sessions": (SessionSettings, None, ""),
    "profile.words": (WordsSettings, None, ""),
    "profile.writer": (WriterPart, None, ""),
    "profile.embedder": (EmbedderSettings, None, ""),
    "profile.turns": (TurnsPart, None, "Or `true`, for what is usual."),
    "profile.turns.drawing": (Drawing, None, ""),
    "profile.turns.embedder": (EmbedderStage, None, ""),
    "profile.turns.embedder.data": (EmbedderData, None, ""),
    "profile.turns.embedder.objective": (InfoNCESettings, None, "A bare word is `name`."),
    "profile.turns.embedder.optimizer": (EmbedderOptimizer, None, "A bare word is `name`."),
    "profile.turns.embedder.engine": (EmbedderEngine, None, ""),
    "profile.turns.embedder.validation": (EmbedderValidation, None, ""),
    "profile.turns.writer": (WriterStage, None, ""),
    "profile.turns.writer.rollout": (WriterRollout, None, ""),
    "profile.turns.writer.validation": (WriterValidation, None, ""),
    "profile.evaluate": (ProfileTests, None, "Or `true`, for what is usual."),
    "evaluate": (schema.EvaluatePart, None, ""),
    "evaluate.memory": (MemorySettings, None, "Or `true`, for all of it chosen; so is what isn't given."),
    "evaluate.blend": (BlendSettings, None, "Or `true`, for what is usual."),
    "evaluate.thoughts": (ThinkingSettings, None, "Or `true`, for what is usual."),
    "evaluate.control": (ListTests, None, "Or `true`, for what is usual."),
    "evaluate.published": (schema.PublishedPart, None, "A list."),
    "distribution": (Distribution, None, ""),
}
NAMED = {  # keys whose values are names of parts that this page lists
    "data": {
        "format": "`auto` or a [reader](#readers)",
        "options": "the reader's options",
        "simulate": "[section](#datasimulate) or none",
        "filters": "[section](#datafilters) or none",
        "split": "[section](#datasplit)",
    },
    "index": {
        "encoder": "an [encoder](#encoders)",
        "encoder_options": "the encoder's options",
        "quantizer": "a [quantizer](#quantizers)",
        "quantizer_options": "the quantizer's options",
        "collisions": "a [policy](#collisions) or none",
        "format": "a [token format](#token-formats)",
    },
    "model": {"preset": "a [preset](#presets) or none", "overrides": "[section](#modeloverrides)"},
    "tasks": {"task": "a [task](#task-options)"},
    "stages": {
        "train": "a word or a [section](#stagestrain)",
        **{key: f"a word or a [section](#stages{key})" for key in ("optimizer", "schedule", "objective")},
        **{
            key: f"[section](#stages{key})" for key in ("data", "engine", "validation", "checkpoints", "logs")
        },
    },
    "teacher": {
        **{
            key: f"a word or a [section](#teacher{key})"
            for key in ("model", "objective", "optimizer", "schedule")
        },
        **{key: f"[section](#teacher{key})" for key in ("data", "engine", "validation")},
        **{key: f"[section](#stages{key})" for key in ("checkpoints", "logs")},
    },
    "stages.data": {"balance": "[section](#stagesdatabalance) or none"},
    "stages.objective": {"weights": "[section](#stagesobjectiveweights) or none"},
    "stages.logs": {"trackers": "list of " + ", ".join(f"`{name}`" for name in TRACKERS)},
    "evaluate": {
        "task": "a [task](#task-options)",
        "baselines": "list of [baselines](#baselines)",
        "memory": "`true`, a [section](#evaluatememory) or none",
        "blend": "`true`, a [section](#evaluateblend) or none",
        "thoughts": "`true`, a [section](#evaluatethoughts) or none",
        "control": "`true`, a [section](#evaluatecontrol) or none",
        "published": "[list](#evaluatepublished)",
    },
    "profile": {
        **{key: f"[section](#profile{key})" for key in ("sessions", "words", "writer", "embedder")},
        **{key: f"`true`, a [section](#profile{key}) or none" for key in ("turns", "evaluate")},
    },
    "profile.writer": {
        "preset": "a [preset](#presets) or none",
        "overrides": "[section](#modeloverrides)",
        "taught": "`true`, a [section](#stages) or none",
    },
    "profile.turns": {
        **{key: f"[section](#profileturns{key})" for key in ("embedder", "writer")},
        "drawing": "[section](#profileturnsdrawing) or none",
    },
    "profile.turns.embedder": {
        **{key: f"a word or a [section](#profileturnsembedder{key})" for key in ("objective", "optimizer")},
        **{key: f"[section](#profileturnsembedder{key})" for key in ("data", "engine", "validation")},
        "schedule": "a word or a [section](#stagesschedule)",
        **{key: f"[section](#stages{key})" for key in ("checkpoints", "logs")},
    },
    "profile.turns.writer": {
        "train": "a word or a [section](#stagestrain)",
        **{key: f"[section](#profileturnswriter{key})" for key in ("rollout", "validation")},
        **{key: f"a word or a [section](#rl{key})" for key in ("objective", "optimizer")},
        **{key: f"[section](#rl{key})" for key in ("data", "engine")},
        "schedule": "a word or a [section](#stagesschedule)",
        **{key: f"[section](#stages{key})" for key in ("checkpoints", "logs")},
    },
    "profile.evaluate": {"drawing": "[section](#profileturnsdrawing)"},
    "Recipe": {
        **{
            key: f"[section](#{key})"
            for key in ("data", "index", "model", "conversations", "evaluate", "distribution")
        },
        "teacher": "`true`, a [section](#teacher) or none",
        "profile": "[section](#profile) or none",
        "tasks": "[list](#tasks)",
        "stages": "[list](#stages)",
    },
}


ELSEWHERE = {"model.overrides": "the preset's", "evaluate.memory": "chosen"}  # who says what isn't given
WITHOUT = {"model.overrides": ("parameters",)}  # what a preset says and nobody can ask for


def sections() -> Iterator[tuple[str, str, list[Setting]]]:
    """Title, what stands above, and the settings, of everything that can be set."""
    for title, (table, mirrored, more) in SECTIONS.items():
        named = NAMED.get(title, {})
        hidden = WITHOUT.get(title, ())
        rows = [replace(row, kind=named.get(row.name, row.kind)) for row in settings_of(table, mirrored)]
        rows = [
            replace(row, default=ELSEWHERE.get(title, row.default)) for row in rows if row.name not in hidden
        ]
        above = " ".join(filter(None, [introduction(table), more]))
        yield f"## `{title}`" if title != "Recipe" else "## Recipe", above, rows
    yield "## Readers", "What `data.format` can be, with the keys of `data.options`.", []
    common = options_of(read, without=(*schema.DataPart.model_fields, "seed"))
    if common:
        yield "### Any reader", "", common
    for name, reader in READERS.items():
        yield f"### `{name}`", f"Looks for {reader.looks_for}.", options_of(reader.read)
    yield "## Encoders", "What `index.encoder` can be, with the keys of `index.encoder_options`.", []
    both = [row for row in settings_of_encoders() if row.name in COLLABORATIVE]
    yield "### Any encoder", "Behaviour beside the text: what the training split's users took together.", both
    yield from parts(ENCODERS)
    yield "## Quantizers", "What `index.quantizer` can be, with the keys of `index.quantizer_options`.", []
    yield from parts(QUANTIZERS)
    yield "## Task options", "What `tasks` can name, with the options of each.", []
    every = settings_of(Task)
    for name, task in TASKS.items():
        own = [row for row in settings_of(type(task)) if row not in every]
        yield f"### `{name}`", summary(inspect.getmodule(type(task))), own


def settings_of_encoders() -> list[Setting]:
    """What can be told to any encoder."""
    said = meanings(ItemEncoder, {})
    return [
        Setting(
            name, "number" if isinstance(default, float) else "whole number", written(default), said[name]
        )
        for name, default in COLLABORATIVE.items()
    ]


def parts(table: Mapping[str, type[Any]]) -> Iterator[tuple[str, str, list[Setting]]]:
    """A section for each part of a table; the seed is the recipe's and doesn't count."""
    for name, part in table.items():
        yield f"### `{name}`", introduction(part), options_of(part, table, without=("seed",))


def choices() -> Iterator[str]:
    """Tables of names that have no options."""
    yield "## Presets\n\nWhat `model.preset` can be; parameters are those of all but the embeddings."
    names = [name for name in Preset.__dataclass_fields__ if name not in ("dropout", "tie")]
    head = ["preset", *(name.replace("_", " ") for name in names)]
    yield table_of(head, [[f"`{key}`", *(f"{getattr(p, n):,}" for n in names)] for key, p in PRESETS.items()])
    for title, above, table in (
        ("Collisions", "What `index.collisions` can be.", COLLISIONS),
        ("Baselines", "What `evaluate.baselines` can name.", BASELINES),
    ):
        yield f"## {title}\n\n{above}"
        yield table_of(["name", "what it is"], [[f"`{name}`", summary(each)] for name, each in table.items()])
    yield "## Token formats\n\nWhat `index.format` can be."
    yield "\n".join(f"- `{name}`: {summary(type(each))}" for name, each in TOKEN_FORMATS.items())


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """A text whose bars part no columns, neither on the site nor elsewhere."""
    coded = re.sub(r"`([^`]*[|][^`]*)`", lambda found: f"<code>{html.escape(found[1])}</code>", text)
    return coded.replace("|", "&#124;")


def page() -> str:
    """The whole page."""
    blocks = [INTRODUCTION]
    for title, above, rows in sections():
        blocks += [title, *([above] if above else [])]
        if rows:
            cells = [[f"`{row.name}`", row.kind, row.default, row.meaning] for row in rows]
            blocks.append(table_of(["key", "value", "default", "meaning"], cells))
        elif title.startswith("### "):
            blocks.append("It has no options of its own.")
    blocks += [*choices(), *commands()]
    return "\n\n".join(blocks) + "\n"


def unexplained() -> list[str]:
    """Keys of which the code doesn't say what they mean."""
    return [
        f"{title.strip('# `')}: {row.name}"
        for title, _, rows in sections()
        for row in rows
        if not row.meaning
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE} written", *(f"nobody says what it means: {key}" for key in unexplained()), sep="\n")
