"""The section ``profile`` of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator

from itemic.model.presets import PRESETS
from itemic.profile.evaluation_settings import ProfileTests
from itemic.profile.session_settings import SessionSettings
from itemic.profile.settings import EmbedderSettings, EmbedderStage, Mixture
from itemic.profile.turn_settings import Drawing, TurnSettings, WriterStage
from itemic.profile.word_settings import WordsSettings
from itemic.recipe.part import Part, Shape, switched
from itemic.settings import Count, KeyPath, Text, meant
from itemic.training.language.stage import Stage


class WriterPart(Part):
    """Who writes profiles: a ``preset`` with random weights, or a ``base``, any causal language model with a chat
    template.

    Attributes:
        preset: the size of a writer from scratch.
        vocab_size: of a preset: tokens of its vocabulary, which is learnt from the catalogue, the prompts and templated
            profiles.
        max_length: of a preset: the longest row that it is meant for, in tokens, prompt and profile together.
        overrides: settings of the preset that are to be others.
        base: a Hugging Face folder, or a name on the hub; it is taken as it is.
        revision: branch, tag or commit of a ``base`` on the hub.
        taught: a stage of training on templated profiles, which say by rule what a history shows; for a writer that
            can't write yet. ``true`` or a section; null for none.
    """

    preset: Text | None = None
    vocab_size: Count = 4096
    max_length: Count = 1024
    overrides: Shape = {}
    base: Text | None = None
    revision: Text | None = None
    taught: Annotated[Stage | None, BeforeValidator(switched)] = None


class TurnsPart(Part):
    """How the embedder and the writer learn in turns.

    Attributes:
        iterations: how often each of them learns.
        reference: whom a writer is kept near to: the ``first`` writer, or the one that its ``phase`` begins with.
        keep: ``all`` turns' models, or the ``last`` ones.
        count: sessions that an embedder's phase learns from, drawn anew for each; None for all.
        rewards: what a profile is worth: rewards and their weights.
        drawing: how the profiles are drawn that the embedder learns from; None for as the writer's are.
        embedder: how the embedder learns.
        writer: how the writer learns.
    """

    iterations: Count = 5
    reference: Literal["first", "phase"] = "first"
    keep: Literal["all", "last"] = "last"
    count: Count | None = None
    rewards: Mixture = {"ndcg": 1.0}
    drawing: Drawing | None = None
    embedder: EmbedderStage = EmbedderStage()
    writer: WriterStage = WriterStage()

    @property
    def settings(self) -> TurnSettings:
        """What :func:`itemic.profile.turns.take_turns` asks for."""
        return TurnSettings(iterations=self.iterations, reference=self.reference, keep=self.keep)


class ProfilePart(Part):
    """Users described in words: who writes profiles, who finds items by them, and how both learn.

    Attributes:
        sessions: what a profile is written of, and what it is to bring up.
        words: how a history is told to the writer.
        writer: who writes.
        embedder: who finds.
        turns: how the two learn in turns; null takes both as they are.
        evaluate: how profiles are tested, on the sessions of the split that the recipe evaluates; null tests nothing.
    """

    sessions: SessionSettings = SessionSettings()
    words: WordsSettings = WordsSettings()
    writer: WriterPart
    embedder: EmbedderSettings = EmbedderSettings()
    turns: Annotated[TurnsPart | None, BeforeValidator(switched)] = TurnsPart()
    evaluate: Annotated[ProfileTests | None, BeforeValidator(switched)] = ProfileTests()

    @property
    def trained(self) -> list[str]:
        """Names of all that is trained: stages, and phases of a turn."""
        taught = [] if self.writer.taught is None else [f"writer ({self.writer.taught.name})"]
        return [*taught, *([] if self.turns is None else ["embedder and writer in turns"])]


def profile_faults(part: ProfilePart | None, given: set[str]) -> Iterator[tuple[KeyPath, str]]:
    """Parts of the section that must fit each other and the recipe."""
    if part is None:
        return
    if "data" not in given:
        yield ("profile",), "needs data, whose users are described"
    yield from _writer_faults(part.writer)
    room = part.writer.max_length - part.words.max_tokens
    if part.turns is not None and part.writer.base is None:
        longest = max(each.max_new_tokens for each in (part.turns.writer.rollout, part.turns.drawing) if each)
        if longest > room:
            yield (
                ("profile", "writer", "max_length"),
                f"{part.writer.max_length} has no room for words.max_tokens ({part.words.max_tokens}) and a "
                f"profile of {longest} tokens",
            )


def _writer_faults(writer: WriterPart) -> Iterator[tuple[KeyPath, str]]:
    at = ("profile", "writer")
    if (writer.preset is None) == (writer.base is None):
        yield at, "needs one of preset (random weights) and base (a model that can write)"
        return
    if writer.preset is not None and writer.preset not in PRESETS:
        yield (*at, "preset"), f"unknown preset {writer.preset!r}" + meant(writer.preset, PRESETS)
    vain = ("vocab_size", "max_length", "overrides") if writer.base else ("revision",)
    for key in vain:
        if key in writer.model_fields_set:
            yield (*at, key), f"has no meaning beside {'base' if writer.base else 'preset'}"
    if writer.preset is not None and writer.taught is None:
        yield (*at, "taught"), "is missing: a new writer has to be taught to write; true will do"
    if writer.taught is not None:
        told = writer.taught.validation
        for key in ("every", "samples", "task"):
            if getattr(told, key):
                yield (*at, "taught", "validation", key), "is about models that name items; leave it out"
        if writer.taught.train.what == "embeddings":
            yield (
                (*at, "taught", "train"),
                "'embeddings' teaches tokens of items alone, and a writer has none",
            )
