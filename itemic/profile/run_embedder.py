"""``train_embedder``: an embedder taught by profiles and the items that were right for them, to a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from itemic.artifact import digest_of, locked, versions, write_json
from itemic.errors import ArtifactError, ConfigError
from itemic.profile.contrastive import InfoNCE
from itemic.profile.embedder import Embedder, item_vectors
from itemic.profile.find import Bool, Int64
from itemic.profile.pairs import Pairs, PairSteps, Written, hard_negatives
from itemic.profile.rewards import reward
from itemic.profile.settings import EMBEDDER, EmbedderSettings, EmbedderStage
from itemic.progress import log
from itemic.teacher.rows import ItemRows
from itemic.trackers import check_trackers
from itemic.training.distribution import Distribution
from itemic.training.loop import Trainer
from itemic.training.memory import keep_buffers
from itemic.training.place import Place
from itemic.training.ranks import Ranks, joined
from itemic.training.record import RECORD, compare_threads, finished


def train_embedder(
    embedder: Embedder,
    written: Written,
    item_texts: Sequence[str],
    *,
    settings: EmbedderStage | Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    valid: Written | None = None,
    distribution: Distribution | Mapping[str, Any] | None = None,
) -> Embedder:
    """Teach an embedder, in place.

    With ``output`` a run that was killed goes on from its last checkpoint and ends, on CPU with the same number of
    threads, with the very weights of a run that wasn't; a finished one is loaded. The folder becomes an embedder's, one
    of sentence-transformers, with ``training.json`` and ``log.jsonl`` beside.

    Under ``torchrun`` every process calls this with the same arguments and an ``output`` that all of them see.

    Args:
        embedder: what it begins with.
        written: profiles, their targets and what they were written from.
        item_texts: of the whole catalogue, in its order.
        settings: how it learns.
        output: the folder; None keeps nothing.
        seed: decides order and dropout.
        valid: profiles whose targets are ranked on the way; needed where the settings validate.
        distribution: how several processes share the work.

    Raises:
        ConfigError: settings that can't be, nothing to learn, or rows of other items.
        ArtifactError: the folder holds another run, is in use, or the disk is full.
        KeyboardInterrupt: after a checkpoint; the same call goes on from it.
    """
    told, shared = EmbedderStage.of(settings), Distribution.of(distribution)
    if told.validation.every is not None and valid is None:
        raise ConfigError(
            "validation.every is set, and there are no profiles to validate", "Give valid, or null."
        )
    if valid is not None:
        valid.check(len(item_texts))
    if output is not None:
        for line in check_trackers(told.logs.trackers):
            log.info("%s", line)
    keep_buffers()
    folder = None if output is None else Path(output)
    with joined() as ranks, ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        torch.manual_seed(seed)
        identity = _identity(embedder, written, item_texts, told, seed, valid)
        if folder is not None:
            if ranks.share(ranks.main and finished(folder, identity, EMBEDDER)):
                log.info("%s: already trained, in %s", EMBEDDER, folder)
                _take(embedder, folder)
                return embedder
            if ranks.main:
                stack.enter_context(locked(folder / "checkpoints"))
                compare_threads(folder)
                _record(folder, identity, told, ranks)
        embedder.to(ranks.device)
        pairs = Pairs.of(embedder, written, item_texts, _negatives(embedder, written, item_texts, told))
        trainer = Trainer(
            InfoNCE(embedder, told.objective, ranks),
            PairSteps(pairs, told, seed),
            told,
            seed=seed,
            folder=folder,
            identity=digest_of(identity),
            validate=None if valid is None else lambda: measured(embedder, valid, item_texts, ranks),
            ranks=ranks,
            distribution=shared,
        )
        torch.manual_seed(seed + ranks.rank)  # dropout differs from rank to rank
        place = trainer.run()
        embedder.eval()
        if folder is not None and ranks.main:
            _finish(embedder, folder, identity, told, ranks, place)
        ranks.wait()
    return embedder


class OfSessions(Protocol):
    """Profiles of sessions: the session of each, its text, and whether it can be learned from."""

    @property
    def sessions(self) -> Int64: ...
    @property
    def texts(self) -> Sequence[str]: ...
    @property
    def usable(self) -> Bool: ...


@dataclass(frozen=True)
class Sought:
    """What profiles of sessions are for.

    Attributes:
        targets: int ``[S]``, of each session the row of its item.
        seen: of each session the items that its profiles are written from.
    """

    targets: npt.NDArray[np.integer]
    seen: ItemRows

    def written(self, profiles: OfSessions) -> Written:
        """Those of some profiles that are usable, with what they are for."""
        rows = profiles.sessions[profiles.usable]
        texts = [text for text, usable in zip(profiles.texts, profiles.usable, strict=True) if usable]
        return Written(texts, self.targets[rows], self.seen.take(rows))


@dataclass(frozen=True)
class EmbedderLearner:
    """One phase of an embedder, from folder to folder.

    Attributes:
        item_texts: of the whole catalogue.
        sought: what the profiles of the training split are for.
        held: what those of the validation split are for.
        stage: how the embedder learns.
        encoder: how it is used; ``model`` is the folder that a phase begins with.
        distribution: how several processes share the work.
    """

    item_texts: Sequence[str]
    sought: Sought
    held: Sought | None = None
    stage: EmbedderStage = field(default_factory=EmbedderStage)
    encoder: EmbedderSettings = field(default_factory=EmbedderSettings)
    distribution: Distribution | None = None

    def __call__(
        self, begin: Path, written: OfSessions, held: OfSessions | None, output: Path, seed: int
    ) -> None:
        """Train the embedder of the folder ``begin`` on profiles, to the folder ``output``; go on where it was
        stopped."""
        valid = self.held.written(held) if self.held is not None and held is not None else None
        train_embedder(
            Embedder.load(replace(self.encoder, model=str(begin))),
            self.sought.written(written),
            self.item_texts,
            settings=self.stage,
            output=output,
            seed=seed,
            valid=valid,
            distribution=self.distribution,
        )


def measured(embedder: Embedder, valid: Written, item_texts: Sequence[str], ranks: Ranks) -> dict[str, float]:
    """How well profiles bring up their targets: ``ndcg@10``, ``mrr`` and ``recall@10``; rank 0's work."""
    if not ranks.main:
        return {}
    items = item_vectors(embedder, item_texts)
    vectors = embedder.encode(valid.texts, "profile")
    found = items.find(vectors, targets=valid.targets, seen=valid.seen, device=embedder.device)
    which = vectors.any(axis=1)
    return {
        name: float(np.where(which, reward(name, found.ranks, found.similarity), 0.0).mean())
        for name in ("ndcg@10", "mrr", "recall@10")
    }


def _negatives(
    embedder: Embedder, written: Written, item_texts: Sequence[str], settings: EmbedderStage
) -> np.ndarray[Any, np.dtype[np.int32]] | None:
    """By the weights that the training begins with, also where it goes on."""
    count = settings.objective.hard_negatives
    if not count:
        return None
    written.check(len(item_texts))
    vectors = embedder.encode(written.texts, "profile")
    return hard_negatives(item_vectors(embedder, item_texts), vectors, written, count)


def _identity(
    embedder: Embedder,
    written: Written,
    item_texts: Sequence[str],
    settings: EmbedderStage,
    seed: int,
    valid: Written | None,
) -> dict[str, Any]:
    """All that decides the weights at the end."""
    found = settings.decisive() | {
        "seed": seed,
        "base": embedder.identity,
        "profiles": _digest(written),
        "items": digest_of(list(item_texts)),
        "valid": None if valid is None else _digest(valid),
    }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def _digest(written: Written) -> str:
    rows = [each.tolist() for each in (written.targets, written.seen.items, written.seen.offsets)]
    return digest_of([list(written.texts), *rows])


def _take(embedder: Embedder, folder: Path) -> None:
    """The weights of a finished training."""
    done = Embedder.load(str(folder))
    embedder.lm.load_state_dict(done.lm.state_dict())
    embedder.eval()


def _record(
    folder: Path, identity: dict[str, Any], settings: EmbedderStage, ranks: Ranks, place: Place | None = None
) -> None:
    record = {
        "finished": place is not None,
        "identity": identity,
        "settings": settings.to_json(),
        "threads": torch.get_num_threads(),
        "ranks": ranks.size,
        "versions": versions("torch", "transformers"),
        "place": None if place is None else asdict(place),
    }
    write_json(folder / RECORD, record)


def _finish(
    embedder: Embedder,
    folder: Path,
    identity: dict[str, Any],
    settings: EmbedderStage,
    ranks: Ranks,
    place: Place,
) -> None:
    """Write what was made, and tell of it."""
    try:
        embedder.save(folder)
    except OSError as error:
        raise ArtifactError(
            f"can't write the embedder to {folder}: {error}",
            "Free some space and start the same command again: it goes on from the last checkpoint.",
        ) from error
    _record(folder, identity, settings, ranks, place)
    metric = settings.validation.metric
    best = "" if place.best is None else f", best {metric} {place.best:.4f} at step {place.best_step}"
    log.info("%s: %d steps%s", EMBEDDER, place.step, best)
    if settings.checkpoints.keep is None:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
