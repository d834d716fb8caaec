"""Two models that learn in turns: an embedder from the profiles of the writer, the writer by what the embedder finds.

A phase is a training of its own, in a folder of its own: ``turn-000/embedder``, ``turn-000/writer``, ``turn-001/…``,
each with its own optimizer and schedule, which begin anew. Every phase reads the models that it needs from the folders
that earlier phases left, also where nothing was interrupted; so a run that was killed, in whatever phase, goes on in
that phase, by its own checkpoints, with the very models that a run that wasn't would have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from itemic.artifact import digest_of, locked, write_json
from itemic.errors import ArtifactError
from itemic.forest.rows import TokenRows
from itemic.profile.learn import Users, train_writer
from itemic.profile.lines import add_lines, kept_lines
from itemic.profile.turn_settings import Drawing, TurnSettings, WriterStage
from itemic.profile.writer import Writer
from itemic.progress import log
from itemic.rl.steps import hash_of
from itemic.training.distribution import Distribution
from itemic.training.language.run import weights_digest
from itemic.training.ranks import ALONE, Ranks, joined

TURNS = "turns.json"  # which phases are done
PROFILES = "profiles.jsonl"  # the profiles that an embedder's phase learns from
HELD = "profiles-valid.jsonl"  # those that it is validated on
OTHERS = "profiles of another writer, or of other sessions"
CHUNK = 256  # profiles that are written between two looks at the disk
EMBEDDER, WRITER = "embedder", "writer"
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Models:
    """The folders of the models at some moment, by the name of the phase that trains them.

    Attributes:
        now: those to go on with.
        first: those that all began with.
    """

    now: Mapping[str, Path]
    first: Mapping[str, Path]


class Phase(Protocol):
    """One of the trainings that take turns."""

    @property
    def name(self) -> str:
        """Of its folders, and of the model that learns."""

    def identity(self) -> Mapping[str, Any]:
        """Plain JSON: what decides what it does, beside the models and the seed."""

    def train(self, folder: Path, models: Models, seed: int, ranks: Ranks) -> None:
        """Leave in ``folder`` the model ``models.now[self.name]``, trained; go on where it was stopped before."""


def take_turns(
    phases: Sequence[Phase],
    start: Mapping[str, str | Path],
    output: str | Path,
    *,
    settings: TurnSettings | None = None,
    seed: int = 0,
) -> Mapping[str, Path]:
    """Train some models in turns.

    A run that was killed goes on with the same call. One that has ended goes on where ``iterations`` are raised.

    Args:
        phases: in the order of a turn.
        start: folders of the models that all begins with, by the phases' names.
        output: the folder.
        settings: how many turns, and what is kept.
        seed: each phase of each turn has one of its own made of it.

    Returns:
        Folders of the trained models, by the phases' names.

    Raises:
        ArtifactError: the folder holds other turns, or is in use.
    """
    told, root = settings or TurnSettings(), Path(output)
    first = {name: Path(folder) for name, folder in start.items()}
    identity = json.loads(
        json.dumps({"seed": seed, "phases": {each.name: each.identity() for each in phases}})
    )
    with joined() as ranks:
        if not ranks.main:
            return _turns(phases, first, root, told, seed, ranks, identity)
        with locked(root):
            return _turns(phases, first, root, told, seed, ranks, identity)


def _turns(
    phases: Sequence[Phase],
    first: Mapping[str, Path],
    root: Path,
    settings: TurnSettings,
    seed: int,
    ranks: Ranks,
    identity: Mapping[str, Any],
) -> Mapping[str, Path]:
    done: list[str] = ranks.share(_done(root, identity) if ranks.main else [])
    now = dict(first)
    for turn in range(settings.iterations):
        for place, phase in enumerate(phases):
            name = f"turn-{turn:03}/{phase.name}"
            if name not in done:
                log.info("%s begins", name)
                phase.train(root / name, Models(dict(now), first), hash_of(seed, turn, place), ranks)
                done.append(name)
                ranks.wait()
                if ranks.main:
                    write_json(root / TURNS, {"identity": identity, "done": done})
            before, now[phase.name] = now[phase.name], root / name
            if settings.keep == "last" and turn and ranks.main:
                forget(before)
    return now


def _done(root: Path, identity: Mapping[str, Any]) -> list[str]:
    """The phases that a folder has already."""
    try:
        record = json.loads((root / TURNS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    if record["identity"] != identity:
        raise ArtifactError(
            f"{root} holds turns of other settings", "Give another output folder, or remove this one."
        )
    return list(record["done"])


def latest(folder: str | Path) -> dict[str, Path]:
    """The models that turns have trained so far: of each phase's name the folder of the last one that is done.

    Args:
        folder: of the turns.

    Raises:
        ArtifactError: no turns were taken there, none of their phases is done, or their record is damaged.
    """
    root = Path(folder)
    try:
        record = json.loads((root / TURNS).read_text(encoding="utf-8"))
        done = [str(name) for name in record["done"]]
    except FileNotFoundError:
        done = []
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{root / TURNS} is damaged: {error}",
            "Restore it from where it was copied, or take the turns again.",
        ) from None
    if not done:
        raise ArtifactError(f"{root} has no model that was trained in turns", "Let a phase end first.")
    return {name.rpartition("/")[2]: root / name for name in done}


def forget(folder: Path) -> None:
    """Take a model's weights out of its folder; its record, log and profiles stay. It is no model then, and says so:
    the configuration goes first."""
    for file in [*folder.glob("config.json"), *folder.rglob("*.safetensors")]:
        file.unlink()


# ------------------------------------------------------------------------- the writer's phase


@dataclass(frozen=True)
class WriterPhase:
    """A writer learns by what an embedder finds with its profiles.

    Attributes:
        stage: how it learns.
        users: from the embedder's folder to the users of training and of validation, with what profiles are worth.
        settings: whom the writer is kept near to.
        distribution: how several processes share the work.
    """

    stage: WriterStage
    users: Callable[[Path], tuple[Users, Users | None]]
    settings: TurnSettings = field(default_factory=TurnSettings)
    distribution: Distribution | None = None

    @property
    def name(self) -> str:
        """Of its folders, and of the model that learns."""
        return WRITER

    def identity(self) -> Mapping[str, Any]:
        """What decides what it does."""
        return {**self.stage.decisive(), "turns.reference": self.settings.reference}

    def train(self, folder: Path, models: Models, seed: int, ranks: Ranks = ALONE) -> None:
        """Train it, in ``folder``."""
        shared = Distribution.of(self.distribution)
        stage = self.stage
        own = stage.objective
        later = models.now[WRITER] != models.first[WRITER]  # at first it is what the stage finds
        if later and self.settings.reference == "first" and own.reference == "start":
            stage = replace(stage, objective=replace(own, reference=str(models.first[WRITER])))
        users, held = self.users(models.now[EMBEDDER])
        writer = Writer.load(models.now[WRITER], device=ranks.device_for(shared))
        train_writer(writer, users, stage=stage, held=held, output=folder, seed=seed, distribution=shared)


# ----------------------------------------------------------------------- the embedder's phase


@dataclass(frozen=True)
class SessionProfiles:
    """Profiles of sessions, one of each.

    Attributes:
        sessions: int64 ``[N]``.
        texts: ``N`` profiles.
        usable: bool ``[N]``, whether a profile ended and says something.
    """

    sessions: Int64
    texts: tuple[str, ...]
    usable: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """Names all of it."""
        return digest_of([self.sessions.tolist(), list(self.texts), self.usable.tolist()])


class LearnsEmbedder(Protocol):
    """What trains an embedder."""

    def __call__(
        self, begin: Path, written: SessionProfiles, held: SessionProfiles | None, output: Path, seed: int
    ) -> None:
        """Train the embedder of the folder ``begin`` on profiles, to the folder ``output``; go on where it was
        stopped. Profiles that aren't usable teach nothing. ``held`` are of the validation split, where it is asked."""


@dataclass(frozen=True)
class EmbedderPhase:
    """An embedder learns from profiles that the writer of the moment writes anew.

    Attributes:
        learn: trains it.
        about: plain JSON: what decides what ``learn`` does.
        prompts: one row for each session of the training split.
        held: the same of the validation split, for phases that validate.
        drawing: how profiles are drawn; one of each session.
        count: sessions that a phase learns from, drawn anew for each; None for all.
        distribution: how several processes share the work.
    """

    learn: LearnsEmbedder
    about: Mapping[str, Any]
    prompts: TokenRows
    held: TokenRows | None = None
    drawing: Drawing = field(default_factory=Drawing)
    count: int | None = None
    distribution: Distribution | None = None

    @property
    def name(self) -> str:
        """Of its folders, and of the model that learns."""
        return EMBEDDER

    def identity(self) -> Mapping[str, Any]:
        """What decides what it does."""
        rows = self.prompts
        drawing = {
            name: getattr(self.drawing, name) for name in ("max_new_tokens", "temperature", "top_k", "top_p")
        }
        asked = digest_of([rows.tokens.tolist(), rows.offsets.tolist()])
        told = {**self.about, "drawing": drawing, "count": self.count, "prompts": asked}
        if self.held is not None:
            told["held"] = digest_of([self.held.tokens.tolist(), self.held.offsets.tolist()])
        return told

    def train(self, folder: Path, models: Models, seed: int, ranks: Ranks = ALONE) -> None:
        """Write the profiles, then learn from them, in ``folder``."""
        sessions = np.random.default_rng([seed, 1]).permutation(len(self.prompts))[: self.count]
        writer, held = Writer.load(models.now[WRITER], device=ranks.device), None
        written = write_profiles(
            writer, self.prompts, sessions, self.drawing, seed, folder / PROFILES, ranks=ranks
        )
        if self.held is not None:
            every = np.arange(len(self.held))
            held = write_profiles(writer, self.held, every, self.drawing, seed, folder / HELD, ranks=ranks)
        del writer
        self.learn(models.now[EMBEDDER], written, held, folder, seed)


def write_profiles(
    writer: Writer,
    prompts: TokenRows,
    sessions: Int64,
    drawing: Drawing,
    seed: int,
    file: Path,
    *,
    ranks: Ranks = ALONE,
) -> SessionProfiles:
    """One profile of each of some sessions, through a file of JSON lines that grows; what it has isn't written again.

    Args:
        writer: who writes.
        prompts: one row for each session there is.
        sessions: int64, those that are written about.
        drawing: how.
        seed: each session has one of its own made of it.
        file: where they are kept; its first line says whose they are.
        ranks: who shares the work.

    Raises:
        ArtifactError: the file holds profiles of another writer, or other sessions.
    """
    head = {
        "writer": weights_digest(writer.lm),
        "sessions": digest_of(sessions.tolist()),
        "drawing": [drawing.max_new_tokens, drawing.temperature, drawing.top_k, drawing.top_p],
        "seed": seed,
    }
    lines: list[dict[str, Any]] = ranks.share(kept_lines(file, head, OTHERS) if ranks.main else [])
    one = Drawing(
        samples=1,
        max_new_tokens=drawing.max_new_tokens,
        temperature=drawing.temperature,
        top_k=drawing.top_k,
        top_p=drawing.top_p,
        batch_tokens=drawing.batch_tokens,
    )
    for begin in range(len(lines), len(sessions), CHUNK):
        chunk = sessions[begin : begin + CHUNK]
        own = chunk[ranks.rank :: ranks.size]
        seeds = [hash_of(seed, int(session)) for session in own]
        profiles = writer.write(prompts.take(own), one, seeds)
        told = [
            {"session": int(session), "text": text, "usable": bool(usable)}
            for session, text, usable in zip(own, profiles.texts, profiles.usable, strict=True)
        ]
        parts = ranks.gather(told)
        found = [parts[at % ranks.size][at // ranks.size] for at in range(len(chunk))]
        if ranks.main:
            add_lines(file, found)
        lines += found
    return SessionProfiles(
        np.array([line["session"] for line in lines], np.int64),
        tuple(line["text"] for line in lines),
        np.array([line["usable"] for line in lines], np.bool_),
    )
