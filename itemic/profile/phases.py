"""The two phases over sessions: what a profile of a session is worth, and what an embedder learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from itemic.artifact import digest_of
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.profile.embedder import Embedder, item_vectors
from itemic.profile.learn import Users
from itemic.profile.rewards import Scorer, SessionScorer
from itemic.profile.run_embedder import EmbedderLearner, Sought
from itemic.profile.sessions import Sessions
from itemic.profile.settings import EmbedderStage, RewardSettings
from itemic.profile.turn_settings import Drawing, TurnSettings, WriterStage
from itemic.profile.turns import EmbedderPhase, WriterPhase
from itemic.teacher.rows import ItemRows
from itemic.training.distribution import Distribution
from itemic.training.ranks import joined


@dataclass(frozen=True)
class Ground:
    """Sessions of a split with the prompts that the writer reads of them.

    Attributes:
        sessions: ``S`` of them, with targets.
        prompts: one row for each.
    """

    sessions: Sessions
    prompts: TokenRows

    def __post_init__(self) -> None:
        if len(self.sessions) != len(self.prompts):
            raise ConfigError(
                f"{len(self.prompts)} prompts for {len(self.sessions)} sessions", "Give one for each."
            )

    @cached_property
    def seen(self) -> ItemRows:
        """Of each session the items that it shows."""
        return ItemRows(self.sessions.items, self.sessions.offsets)

    @cached_property
    def digest(self) -> str:
        """Names items and targets."""
        return digest_of(
            [self.sessions.items.tolist(), self.sessions.offsets.tolist(), self.sessions.targets.tolist()]
        )

    @property
    def sought(self) -> Sought:
        """What profiles of the sessions are for."""
        return Sought(self.sessions.targets, self.seen)


def phases_of(
    ground: Ground,
    item_texts: Sequence[str],
    *,
    embedder: EmbedderStage | None = None,
    writer: WriterStage | None = None,
    held: Ground | None = None,
    rewards: RewardSettings | None = None,
    turns: TurnSettings | None = None,
    drawing: Drawing | None = None,
    count: int | None = None,
    distribution: Distribution | None = None,
) -> list[EmbedderPhase | WriterPhase]:
    """The two phases of a turn, for :func:`itemic.profile.turns.take_turns`.

    Args:
        ground: of the training split.
        item_texts: of the whole catalogue, in its order, as the embedder reads them.
        embedder: how it learns.
        writer: how it learns.
        held: of the validation split; needed where a phase validates.
        rewards: what profiles are worth.
        turns: whom a writer is kept near to.
        drawing: how the profiles that the embedder learns from are drawn; None for as the writer's are.
        count: sessions that an embedder's phase learns from; None for all.
        distribution: how several processes share the work.
    """
    stage, own, worth = embedder or EmbedderStage(), writer or WriterStage(), rewards or RewardSettings()
    shared = distribution or Distribution()
    validates = stage.validation.every is not None and held is not None

    def users(folder: Path) -> tuple[Users, Users | None]:
        with joined() as ranks:
            found = Embedder.load(folder, device=ranks.device)
        scorer = Scorer(found, item_vectors(found, item_texts), worth)

        def told(some: Ground) -> Users:
            what = digest_of([some.digest, scorer.embedder.identity, dict(worth.weights), list(item_texts)])
            return Users(some.prompts, SessionScorer(scorer, some.sessions.targets, some.seen), what)

        return told(ground), None if held is None else told(held)

    texts = digest_of(list(item_texts))
    return [
        EmbedderPhase(
            EmbedderLearner(
                item_texts,
                ground.sought,
                held.sought if held is not None and validates else None,
                stage,
                distribution=shared,
            ),
            {**stage.decisive(), "sessions": ground.digest, "items": texts},
            ground.prompts,
            held.prompts if held is not None and validates else None,
            drawing or own.rollout,
            count,
            shared,
        ),
        WriterPhase(own, users, turns or TurnSettings(), shared),
    ]
