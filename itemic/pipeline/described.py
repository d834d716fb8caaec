"""One question to a finished run that describes users in words: what is this user like, and what if they were not?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from itemic.errors import ConfigError, DataError
from itemic.pipeline.known import item_rows, user_place

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from itemic.data.dataset import Dataset
    from itemic.profile.session_settings import SessionSettings
    from itemic.profile.sessions import Sessions
    from itemic.profile.telling import Teller
    from itemic.profile.told import Described, Edited, Shown, Told
    from itemic.profile.turn_settings import Drawing
    from itemic.profile.words import ProfileWords
    from itemic.profile.writer import Writer

FOLDER, VECTORS = "profile", "vectors"  # in a run's folder: what questions keep for the next one


@dataclass(frozen=True)
class Parts:
    """What a run has for questions about profiles. Models are loaded when something needs them: a user who isn't there
    is told before, and nobody waits for the writer who brings a profile along.

    Attributes:
        dataset: knows the users.
        sessions: any of the dataset's.
        rule: what a session shows.
        words: make the prompts.
        item_texts: of the catalogue, as the embedder reads them.
        writer: the writer's folder.
        embedder: the embedder's.
        drawing: how the writer writes.
        vectors: a folder where the catalogue's vectors are kept; None keeps nothing.
        batch_size: texts per forward pass of the embedder.
        seed: of what is drawn where nobody gives another.
    """

    dataset: Dataset
    sessions: Sessions
    rule: SessionSettings
    words: ProfileWords
    item_texts: Sequence[str]
    writer: Path
    embedder: Path
    drawing: Drawing
    vectors: Path | None = None
    batch_size: int = 32
    seed: int = 0

    @cached_property
    def speaker(self) -> Writer:
        """The writer."""
        from itemic.profile.writer import Writer
        from itemic.training.ranks import joined

        with joined() as ranks:
            return Writer.load(self.writer, ranks.device)

    @cached_property
    def teller(self) -> Teller:
        """The embedder, with the catalogue's vectors."""
        from itemic.profile.embedder import Embedder, item_vectors
        from itemic.profile.telling import Teller
        from itemic.training.ranks import joined

        with joined() as ranks:
            embedder = Embedder.load(self.embedder, device=ranks.device)
        found = item_vectors(embedder, self.item_texts, self.vectors, batch_size=self.batch_size)
        return Teller(self.dataset.item_ids, self.words.facts, embedder, found, self.batch_size)


def write_profile(
    folder: str | Path,
    *,
    user: str | None = None,
    items: Sequence[str] | None = None,
    samples: int | None = None,
    first: bool = False,
    k: int = 10,
    seed: int | None = None,
) -> Described:
    """Let a run's writer describe a user, and see what its embedder finds by that.

    A user is described by their latest items that pass the run's length filters, as many as its sessions show.

    Args:
        folder: of the run.
        user: an id of the dataset.
        items: item ids, oldest first, instead of a user; nobody rated them.
        samples: how many profiles are drawn; None for the most probable one.
        first: describe the user by the first items that a session shows, and not by the latest.
        k: how many items are found.
        seed: of the drawing; None for the recipe's.

    Returns:
        the profiles with their items. A writer that writes nothing, or doesn't end, is told in the profile's notes.

    Raises:
        ConfigError: neither or both of ``user`` and ``items``.
        ArtifactError: the folder is no run with profiles, or the run isn't finished.
        DataError: an unknown user or item, or a user without history.
    """
    return describe(parts_of(folder), user=user, items=items, samples=samples, first=first, k=k, seed=seed)


def edit_profile(
    folder: str | Path,
    *,
    text: str,
    sentence: int | None = None,
    profile: str | None = None,
    user: str | None = None,
    items: Sequence[str] | None = None,
    first: bool = False,
    k: int = 10,
) -> Edited:
    """See what changes with another profile.

    Text is read as plain words: HTML and what looks like a chat marker goes, other scripts and emoji stay.

    Args:
        folder: of the run.
        text: the new profile; with ``sentence`` what stands in its place, nothing to take it out.
        sentence: the number of the one that is replaced, from 1 on.
        profile: as it was; None for the most probable one of the run's writer, which is asked for nothing else.
        user: an id of the dataset, whose items aren't found; with ``profile`` there need be none.
        items: item ids instead of a user.
        first: describe the user by their first items, as in :func:`write_profile`.
        k: how many items the lists have.

    Raises:
        ConfigError: what is missing; no such sentence; or a profile that finds nothing.
        ArtifactError, DataError: as for :func:`write_profile`.
    """
    return edit(
        parts_of(folder),
        text=text,
        sentence=sentence,
        profile=profile,
        user=user,
        items=items,
        first=first,
        k=k,
    )


def parts_of(folder: str | Path) -> Parts:
    """A finished run, ready to be asked about profiles.

    The catalogue's vectors are kept in ``profile/vectors`` of its folder, where that may be written.

    Raises:
        ArtifactError: the folder is no run with profiles, or the run isn't finished.
    """
    from itemic.pipeline.profiles import Told, described_job, models_of
    from itemic.profile.turn_settings import Drawing

    job = described_job(folder)
    root, part = Path(folder), job.recipe.profile
    assert part is not None
    writers, embedders = models_of(job)
    told = Told.of(job)
    return Parts(
        told.dataset,
        told.sessions,
        part.sessions,
        told.words,
        told.item_texts,
        next(iter(writers.values())),
        next(iter(embedders.values())),
        Drawing() if part.turns is None else part.turns.writer.rollout,
        root / FOLDER / VECTORS if os.access(root, os.W_OK) else None,
        part.embedder.batch_size,
        job.recipe.seed,
    )


def describe(
    parts: Parts,
    *,
    user: str | None = None,
    items: Sequence[str] | None = None,
    samples: int | None = None,
    first: bool = False,
    k: int = 10,
    seed: int | None = None,
) -> Described:
    """As :func:`write_profile`, of parts."""
    from itemic.profile.told import Described

    if (user is None) == (items is None):
        raise ConfigError("a profile is of a user or of a history", "Give one of --user and --history.")
    who = _who(parts, user, items, first)
    profiles, notes = _written(parts, who, samples, parts.seed if seed is None else seed, k)
    return Described(user, who.shown, profiles, [*who.notes, *notes])


def edit(
    parts: Parts,
    *,
    text: str,
    sentence: int | None = None,
    profile: str | None = None,
    user: str | None = None,
    items: Sequence[str] | None = None,
    first: bool = False,
    k: int = 10,
) -> Edited:
    """As :func:`edit_profile`, of parts."""
    from itemic.profile.telling import cleaned, worded
    from itemic.profile.words import edited

    if user is not None and items is not None:
        raise ConfigError("a profile is of a user or of a history", "Give one of --user and --history.")
    if user is None and items is None and profile is None:
        raise ConfigError(
            "nothing says which profile is edited",
            "Give --user or --history, or the profile itself by --profile.",
        )
    new = (
        None if sentence is not None else worded(cleaned(text))
    )  # what can't be is said before anything is loaded
    old = None if profile is None else worded(cleaned(profile))
    who = _who(parts, user, items, first)
    notes = who.notes
    if old is None:
        told, more = _written(parts, who, None, parts.seed, k)
        before, notes = told[0], [*notes, *more]
    else:
        before = parts.teller.tell(old, who.rows, k, had=who.had)
    if sentence is not None:
        new = worded(edited(before.text, sentence - 1, cleaned(text)))
    assert new is not None
    return parts.teller.edit(before, new, who.rows, k, had=who.had, user=user, shown=who.shown, notes=notes)


@dataclass(frozen=True)
class _Who:
    """Whom a profile is of: a session alone, all items that they have had, and what is told of it."""

    session: Sessions
    had: npt.NDArray[np.int32] | None
    shown: list[Shown]
    notes: list[str]

    @property
    def rows(self) -> npt.NDArray[np.int32]:
        return self.session.items


def _who(parts: Parts, user: str | None, items: Sequence[str] | None, first: bool) -> _Who:
    if user is None:
        if first:
            raise ConfigError("the first items are a user's", "Give --user, or leave --first out.")
        if items is not None and not len(items):
            raise DataError("the history is empty", "Name items that the person had, oldest first.")
        session = parts.sessions.of_items(item_rows(parts.dataset.item_ids, items or []))
        return _Who(session, None, _shown(parts, session), [])
    place = user_place(parts.dataset, user)
    session = parts.sessions.of_user(parts.dataset, place, parts.rule, first)
    count, notes = len(session.items), []
    if count < parts.rule.inputs:
        notes = [
            f"This run's writer learnt from {parts.rule.inputs} items of each user, and here are {count}."
        ]
    return _Who(session, parts.dataset.sequences[place], _shown(parts, session), notes)


def _shown(parts: Parts, session: Sessions) -> list[Shown]:
    from itemic.profile.telling import shown_items

    return shown_items(parts.dataset.item_ids, parts.words.facts, session.items, session.ratings)


def _written(parts: Parts, who: _Who, samples: int | None, seed: int, k: int) -> tuple[list[Told], list[str]]:
    """Profiles of somebody, the most probable one alone where ``samples`` are None; and what was cut of the prompt."""
    from itemic.profile.turn_settings import Drawing

    own = parts.drawing
    drawing = Drawing(
        samples=1 if samples is None else samples,
        max_new_tokens=own.max_new_tokens,
        temperature=own.temperature,
        top_k=own.top_k,
        top_p=own.top_p,
        batch_tokens=own.batch_tokens,
    )
    prompts = parts.words.prompts(who.session, parts.speaker.chat)
    notes = []
    if (cut := int(prompts.cut[0])) >= 0 and {"description", "review"} & set(parts.words.rule.fields):
        how = f"cut to {cut} characters each" if cut else "left out"
        notes.append(f"Descriptions and reviews were {how}, to fit the prompt.")
    if left := int(prompts.left_out[0]):
        notes.append(f"The prompt had no room for the {left} oldest of these items.")
    written = parts.speaker.write(prompts.tokens, drawing, seed, greedy=samples is None)
    rows = zip(written.texts, written.ended.tolist(), written.tokens.lengths.tolist(), strict=True)
    told = [
        parts.teller.tell(text, who.rows, k, had=who.had, ended=ended, tokens=tokens)
        for text, ended, tokens in rows
    ]
    return told, notes
