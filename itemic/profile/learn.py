"""``train_writer``: a writer learns from the worth of its own profiles, by the one loop, to a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from itemic.artifact import digest_of, locked, versions, write_json
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.profile.rollout import (
    FREE,
    ProfileBook,
    ProfileSteps,
    Scorer,
    WriterPolicy,
    told_of_profiles,
    worth_of,
)
from itemic.profile.turn_settings import WriterStage
from itemic.profile.writer import Writer
from itemic.progress import log
from itemic.rl.groups import Float32, Groups
from itemic.rl.objective import GroupObjective
from itemic.rl.rebel import objective_class
from itemic.rl.reference import Meet, OwnWeights, Reference, at_once
from itemic.trackers import check_trackers
from itemic.training.distribution import Distribution
from itemic.training.language.learning import ADAPTER, Learning, learning
from itemic.training.language.run import float32_weights, keeps_half, weights_digest
from itemic.training.language.saving import save, with_weights_of
from itemic.training.loop import Trainer
from itemic.training.memory import keep_buffers
from itemic.training.parallel import Strategy
from itemic.training.place import Place
from itemic.training.precision import compute_dtype
from itemic.training.ranks import Ranks, joined
from itemic.training.record import RECORD, compare_threads, finished

PROFILES = "profiles.jsonl"  # profiles to be read
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Users:
    """Whom profiles are written about, and what these are worth.

    Attributes:
        prompts: one row for each session.
        scorer: what a profile of a session is worth.
        digest: names what the worth depends on beside the profile: the sessions, the embedder, the reward; a training
            that goes on must have the same.
        sessions: those that are meant; None for all.
    """

    prompts: TokenRows
    scorer: Scorer
    digest: str = ""
    sessions: Int64 | None = None

    @property
    def own(self) -> Int64:
        """int64: the sessions that are meant."""
        return np.arange(len(self.prompts)) if self.sessions is None else np.asarray(self.sessions, np.int64)

    @cached_property
    def identity(self) -> str:
        """Digest of all that is asked."""
        rows = self.prompts
        return digest_of([rows.tokens.tolist(), rows.offsets.tolist(), self.own.tolist(), self.digest])


def train_writer(
    writer: Writer,
    users: Users,
    *,
    stage: WriterStage | Mapping[str, Any] | None = None,
    held: Users | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    distribution: Distribution | Mapping[str, Any] | None = None,
) -> Writer:
    """Train ``writer`` in place on the worth of its own profiles, and hand it back.

    With ``output`` a run that was killed, in a rollout or in a step, goes on from its last checkpoint and ends, on CPU
    in one process with the same number of threads, with the very weights of a run that wasn't; a finished one is
    loaded. The folder becomes a plain Hugging Face folder with ``training.json``, ``log.jsonl`` and
    ``profiles.jsonl``, profiles to be read.

    Under ``torchrun`` every process calls this with the same arguments and an ``output`` that all of them see.

    Args:
        writer: who learns.
        users: of the training split, with the rewards of their profiles.
        stage: what to do.
        held: of the validation split; needed where the stage validates.
        output: the folder; None keeps nothing.
        seed: decides who is asked about when, what is drawn, and the validation sample.
        distribution: how several processes share the work.

    Raises:
        ConfigError: the stage asks for what can't be, or no reward ever differs.
        DataError: a reward is no finite number, or a prompt is too long.
        ArtifactError: the folder holds another run, is in use, or the disk is full.
        KeyboardInterrupt: after a checkpoint; the same call goes on from it.
    """
    told, shared = WriterStage.of(stage), Distribution.of(distribution)
    if output is not None:
        for line in check_trackers(told.logs.trackers):
            log.info("%s", line)
    keep_buffers()
    with joined() as ranks:
        return _Run(writer, users, held, told, output, seed, ranks, shared).train()


class _Run:
    """One training."""

    def __init__(
        self,
        writer: Writer,
        users: Users,
        held: Users | None,
        stage: WriterStage,
        output: str | Path | None,
        seed: int,
        ranks: Ranks,
        distribution: Distribution,
    ) -> None:
        self.writer, self.users, self.held, self.stage, self.seed = writer, users, held, stage, seed
        self.folder = None if output is None else Path(output)
        self.ranks, self.distribution = ranks, distribution
        self.book = ProfileBook(users.prompts, users.sessions, seed)
        if held is None and (stage.validation.every is not None or stage.validation.samples):
            raise ConfigError(
                f"stage {stage.name!r} validates but has nobody to validate on",
                "Give the users of the validation split, or set validation.every to null and validation.samples to 0.",
            )
        if ranks.size > 1 and distribution.strategy == "deepspeed" and distribution.shards_weights:
            raise ConfigError(
                f"stage {stage.name!r} under stage 3 of ZeRO: rollouts need the weights",
                "Use strategy ddp, fsdp, or deepspeed with zero_optimization.stage 1 or 2.",
            )

    def train(self) -> Writer:
        writer, stage, ranks, folder = self.writer, self.stage, self.ranks, self.folder
        with ExitStack() as stack:
            identity: dict[str, Any] = {}
            if folder is not None:
                identity = ranks.share(self._identity() if ranks.main else {})
                if ranks.share(ranks.main and finished(folder, identity)):
                    log.info("%s: already trained, in %s", stage.name, folder)
                    return Writer.load(folder, device=writer.lm.device, dtype=writer.lm.dtype)
                if ranks.main:
                    stack.enter_context(locked(folder / "checkpoints"))
                    compare_threads(folder)
                    self._record(identity)
            other = self._other()  # before anything of the writer is changed
            half = keeps_half(writer.lm, stage, ranks, self.distribution)
            stack.enter_context(float32_weights(writer.lm, half))
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(self.seed)  # the same for all: adapters begin alike
            adapter = folder / ADAPTER if folder is not None and ranks.main else None
            learns = stack.enter_context(learning(writer.lm, stage, range(0), adapter=adapter))
            place, strategy = self._learn(learns, identity, other)
        if folder is not None:
            save(writer, folder, strategy, learns, ranks)
        if folder is not None and ranks.main:
            self._record(identity, place)
            if stage.checkpoints.keep is None:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        best = "" if place.best is None else f", best {stage.validation.metric} {place.best:.4f}"
        log.info("%s: %d steps%s", stage.name, place.step, best)
        ranks.wait()
        return writer

    def _learn(
        self, learns: Learning, identity: dict[str, Any], other: Reference | None
    ) -> tuple[Place, Strategy]:
        writer, stage, ranks = self.writer, self.stage, self.ranks
        objective = objective_class(stage.objective)(
            writer.lm,
            FREE,
            learns,
            settings=stage.objective,
            engine=stage.engine,
            max_tokens=stage.rollout.max_new_tokens,
            told=told_of_profiles(),
        )
        examples = None if self.folder is None else self.folder / PROFILES
        source = ProfileSteps(self.book, stage, self.users.scorer, self.seed, ranks, examples)
        trainer = Trainer(
            objective,
            source,
            stage,
            seed=self.seed,
            folder=self.folder,
            identity=digest_of(identity),
            validate=None if stage.validation.every is None else (lambda: self._measured(seen, strategy)),
            samples=None if not stage.validation.samples else (lambda: self._samples(seen, strategy)),
            ranks=ranks,
            distribution=self.distribution,
        )
        strategy = trainer.strategy
        seen = with_weights_of(writer, strategy.evaluated)
        assert isinstance(strategy.evaluated, GroupObjective)
        reference = other
        if reference is None and stage.objective.compares:
            moves = stage.objective.sync_every if stage.objective.reference == "synced" else None
            reference = OwnWeights(strategy.evaluated, moves)
        meet: Meet = lambda work: strategy.evaluate(lambda: strategy.together(work))  # noqa: E731
        source.begin(WriterPolicy(seen, strategy.evaluated, meet), reference)
        torch.manual_seed(self.seed + ranks.rank)
        return trainer.run(), strategy

    def _other(self) -> Reference | None:
        folder = self.stage.objective.other
        if folder is None or not self.stage.objective.compares:
            return None
        return OtherWriter(folder, self.writer, self.ranks.device)

    # ------------------------------------------------------------------------------- validation

    @cached_property
    def _asked(self) -> Int64:
        """The sessions of the validation split that are asked about, the same each time."""
        assert self.held is not None
        own, most = self.held.own, self.stage.validation.requests
        if len(own) <= most:
            return own
        return np.sort(np.random.default_rng([self.seed, 9]).choice(own, most, replace=False))

    def _measured(self, writer: Writer, strategy: Strategy) -> dict[str, float]:
        found: dict[str, float] = strategy.together(lambda: self._numbers(writer) if self.ranks.main else {})
        return self.ranks.share(found)

    def _numbers(self, writer: Writer) -> dict[str, float]:
        """The worth of the most probable profiles, how many are cut off or empty, and their length."""
        assert self.held is not None
        asked = self._asked
        profiles = writer.write(self.held.prompts.take(asked), self.stage.rollout, greedy=True)
        worth = worth_of(profiles, asked, self.held.scorer)
        return {
            "reward": float(worth.mean()),
            "cut": float((~profiles.ended).mean()),
            "empty": float(profiles.empty.mean()),
            "profile_tokens": float(profiles.tokens.lengths.mean()),
            "requests": float(len(asked)),
        }

    def _samples(self, writer: Writer, strategy: Strategy) -> list[dict[str, str]]:
        def shown() -> list[dict[str, str]]:
            assert self.held is not None
            prompts = self.held.prompts.take(self._asked[: self.stage.validation.samples])
            profiles = writer.write(prompts, self.stage.rollout, greedy=True)
            return [
                {"prompt": str(writer.tokenizer.decode(prompts[row].tolist())), "answer": text}
                for row, text in enumerate(profiles.texts)
            ]

        found: list[dict[str, str]] = strategy.together(lambda: shown() if self.ranks.main else [])
        return found

    # ----------------------------------------------------------------------------------- record

    def _identity(self) -> dict[str, Any]:
        """All that decides the weights at the end."""
        found = {f"stage.{key}": value for key, value in self.stage.decisive().items()}
        found |= {"seed": self.seed, "users": self.users.identity, "weights": weights_digest(self.writer.lm)}
        if self.held is not None:
            found["held"] = self.held.identity
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]

    def _record(self, identity: dict[str, Any], place: Place | None = None) -> None:
        assert self.folder is not None
        stage, lm = self.stage, self.writer.lm
        device = self.ranks.device if lm.device.type == "meta" else lm.device
        record = {
            "finished": place is not None,
            "identity": identity,
            "stage": stage.to_json(),
            "rows": {"asked": len(self.book)},
            "device": str(device),
            "threads": torch.get_num_threads(),
            "ranks": self.ranks.size,
            "distribution": self.distribution.to_json() if self.ranks.size > 1 else None,
            "precision": str(compute_dtype(stage.engine.precision, device)).removeprefix("torch."),
            "versions": versions("torch", "transformers"),
            "place": None if place is None else asdict(place),
        }
        write_json(self.folder / RECORD, record)


class OtherWriter:
    """A reference that is a writer of its own, which never moves.

    Args:
        folder: of the writer.
        writer: who is kept near to it.
        device: where it computes; None for where the writer does.

    Raises:
        ConfigError: it has another vocabulary.
    """

    def __init__(self, folder: str | Path, writer: Writer, device: torch.device | None = None) -> None:
        self.since = 0
        other = Writer.load(folder, device=device or writer.lm.device, dtype=torch.float32)
        if other.tokenizer.get_vocab() != writer.tokenizer.get_vocab():
            raise ConfigError(
                f"objective.reference: {folder} has another vocabulary than the writer",
                "Give a model that began as the same one, such as an earlier turn's.",
            )
        other.lm.requires_grad_(False)
        self.objective = GroupObjective(other.lm, FREE)

    def follow(self, step: int) -> None:
        """It stays."""

    def score(self, groups: Groups, max_tokens: int, meet: Meet = at_once) -> Float32:
        """As :meth:`itemic.rl.reference.Reference.score`; every rank has all of it."""
        found: Float32 = self.objective.score_all(groups, max_tokens)
        return found
