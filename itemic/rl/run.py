"""``train_rl``: a model learns from the worth of its own answers, by the one loop, to a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from itemic.artifact import digest_of, locked, versions, write_json
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.evaluate.baselines import BASELINES
from itemic.evaluate.mixture import Scorer
from itemic.model import Model
from itemic.progress import log
from itemic.rl.asks import Book
from itemic.rl.critic import critic_adapters, load_critic, save_critic, value_head
from itemic.rl.lists.asks import ListBook
from itemic.rl.lists.rollout import list_limit, list_names
from itemic.rl.lists.validation import ListValidation
from itemic.rl.lists.worth import ListRewards
from itemic.rl.objective import GroupObjective
from itemic.rl.ppo import PPOObjective
from itemic.rl.rebel import objective_class
from itemic.rl.reference import OtherModel, OwnWeights, Reference
from itemic.rl.rewards import Rewards, World
from itemic.rl.rolled import Policy
from itemic.rl.scoring import Legal
from itemic.rl.settings import RLStage
from itemic.rl.source import GroupSteps
from itemic.rl.told import told_names
from itemic.sid.index import ItemIndex
from itemic.sid.trie import Trie
from itemic.teacher.teacher import Teacher
from itemic.trackers import check_trackers
from itemic.training.distribution import Distribution
from itemic.training.language.learning import ADAPTER, Learning, learning
from itemic.training.language.run import (
    Answers,
    Together,
    float32_weights,
    keeps_half,
    weights_digest,
)
from itemic.training.language.saving import save, with_weights_of
from itemic.training.language.validation import Validation
from itemic.training.loop import Trainer
from itemic.training.memory import keep_buffers
from itemic.training.parallel import Strategy
from itemic.training.place import Place
from itemic.training.precision import compute_dtype
from itemic.training.ranks import Ranks, joined
from itemic.training.record import RECORD, compare_threads, finished

EXAMPLES = "groups.jsonl"  # groups to be read, see :mod:`itemic.rl.preview`
Vectors = npt.NDArray[np.floating]
Measure = Callable[[Model, Together], dict[str, float]]


@dataclass(frozen=True)
class Knows:
    """What rewards may ask beside answers and dataset.

    Attributes:
        teacher: a ranker that scores the whole catalogue, for the reward ``teacher``; for lists a
            :class:`itemic.teacher.teacher.Teacher`.
        vectors: of the items, ``[n, d]``, for ``semantic`` and ``diversity``.
        rankers: further rankers that score the whole catalogue, for rewards of one's own.
    """

    teacher: Scorer | None = None
    vectors: Vectors | None = None
    rankers: Mapping[str, Scorer] = field(default_factory=dict)


def train_rl(
    model: Model,
    dataset: Dataset,
    *,
    stage: RLStage | Mapping[str, Any],
    output: str | Path | None = None,
    seed: int = 0,
    knows: Knows | None = None,
    validate: Callable[[Model], dict[str, float]] | None = None,
    distribution: Distribution | Mapping[str, Any] | None = None,
) -> Model:
    """Train ``model`` in place on the worth of its own answers, and hand it back.

    What is asked are places of the training split; nothing of validation or test is looked at but by validations. The
    stage ends with the best weights validated, those that it began with included.

    With ``output`` a run that was killed, in a rollout or in a step, goes on from its last checkpoint and ends, on CPU
    in one process with the same number of threads, with the very weights of a run that wasn't; a finished one is
    loaded. The folder becomes a model folder with ``training.json``, ``log.jsonl`` and ``groups.jsonl``, groups to be
    read.

    Under ``torchrun`` every process calls this with the same arguments and an ``output`` that all of them see.

    Args:
        model: the policy; its folder says how it is asked where the stage doesn't.
        dataset: whose training split is asked about, and whose validation split is validated on.
        stage: what to do.
        output: the folder; None keeps nothing.
        seed: decides what is asked when, what is drawn, and the validation sample.
        knows: what rewards may ask.
        validate: measures the model in place of the stage's validation, on rank 0.
        distribution: how several processes share the work.

    Raises:
        ConfigError: the stage asks for what can't be, a reward can't be made, or no reward ever differs.
        DataError: a reward fails or gives no finite numbers.
        IndexMismatchError: the dataset is of another catalogue than the model.
        ArtifactError: the folder holds another run, is in use, or the disk is full.
        KeyboardInterrupt: after a checkpoint; the same call goes on from it.
    """
    told, shared = RLStage.of(stage), Distribution.of(distribution)
    model.index.check_dataset(dataset)
    if output is not None:
        for line in check_trackers(told.logs.trackers):
            log.info("%s", line)
    keep_buffers()
    with joined() as ranks:
        return _Run(model, dataset, told, output, seed, knows or Knows(), validate, ranks, shared).train()


class _Run:
    """One training."""

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        stage: RLStage,
        output: str | Path | None,
        seed: int,
        knows: Knows,
        validate: Callable[[Model], dict[str, float]] | None,
        ranks: Ranks,
        distribution: Distribution,
    ) -> None:
        if stage.validation.task is None and model.asked is not None:
            stage = replace(stage, validation=replace(stage.validation, task=model.asked["task"]))
        self.model, self.dataset, self.stage, self.seed = model, dataset, stage, seed
        self.folder = None if output is None else Path(output)
        self.ranks, self.distribution, self.validate = ranks, distribution, validate
        self.rewards = rewards_of(model, dataset, stage, knows)
        if isinstance(self.rewards, Rewards):
            self.rewards.world.gather = ranks.gather
        self.legal = Legal(Trie.build(model.item_rows), stage.rollout.normalize)
        self.book = book_of(model, dataset, stage, seed, knows)
        self.full: dict[str, Any] | None = None
        self.critic: dict[str, torch.Tensor] = {}
        self.other: OtherModel | None = None
        if stage.objective.other is not None and stage.objective.compares:
            device = ranks.device if model.lm.device.type == "meta" else model.lm.device
            self.other = OtherModel(stage.objective.other, model, self.legal, device)

    def train(self) -> Model:
        model, stage, ranks, folder = self.model, self.stage, self.ranks, self.folder
        with ExitStack() as stack:
            identity: dict[str, Any] = {}
            if folder is not None:
                identity = ranks.share(self._identity() if ranks.main else {})
                if ranks.share(ranks.main and finished(folder, identity)):
                    log.info("%s: already trained, in %s", stage.name, folder)
                    return Model.load(folder, device=model.lm.device, dtype=model.lm.dtype)
                if ranks.main:
                    stack.enter_context(locked(folder / "checkpoints"))
                    compare_threads(folder)
                    self._record(identity)
            half = keeps_half(model.lm, stage, ranks, self.distribution)
            stack.enter_context(float32_weights(model.lm, half))
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(self.seed)  # the same for all: adapters begin alike
            adapter = folder / ADAPTER if folder is not None and ranks.main else None
            learns = stack.enter_context(
                learning(model.lm, stage, range(*model.new_token_range), adapter=adapter)
            )
            place, strategy = self._learn(learns, identity)
        if folder is not None:
            save(model, folder, strategy, learns, ranks)
            if self.critic and ranks.main:
                save_critic(self.critic, folder)
        if folder is not None and ranks.main:
            self._record(identity, place)
            self._tell(place)
            if stage.checkpoints.keep is None:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        ranks.wait()
        return model

    def _without_weights(self) -> ConfigError:
        strategy = self.distribution.strategy
        return ConfigError(
            f"stage {self.stage.name!r} under strategy {strategy}"
            f"{' with stage 3 of ZeRO' if strategy == 'deepspeed' else ''}: rollouts need the weights",
            "Use strategy ddp, deepspeed with zero_optimization.stage 1 or 2, or fsdp with a model that all ranks have "
            "loaded on the device meta from a folder.",
        )

    def _learn(self, learns: Learning, identity: dict[str, Any]) -> tuple[Place, Strategy]:
        model, stage, ranks = self.model, self.stage, self.ranks
        if ranks.size > 1 and self.distribution.strategy == "deepspeed" and self.distribution.shards_weights:
            raise self._without_weights()
        objective = self._objective(learns)
        examples = None if self.folder is None else self.folder / EXAMPLES
        source = GroupSteps(self.book, stage, self.rewards, self.legal, self.seed, ranks, examples)
        measure, samples = self._measure(stage), self._samples()
        trainer = Trainer(
            objective,
            source,
            stage,
            seed=self.seed,
            folder=self.folder,
            identity=digest_of(identity),
            validate=None if measure is None else (lambda: measure(seen, strategy.together)),
            samples=None if samples is None else (lambda: samples(seen, strategy.together)),
            ranks=ranks,
            distribution=self.distribution,
        )
        strategy = trainer.strategy
        if strategy.module is not objective and not strategy.apart:
            raise self._without_weights()
        seen = with_weights_of(model, strategy.evaluated)
        assert isinstance(strategy.evaluated, GroupObjective)
        reference: Reference | None = self.other
        if reference is None and stage.objective.compares:
            moves = stage.objective.sync_every if stage.objective.reference == "synced" else None
            reference = OwnWeights(strategy.evaluated, moves)
        start = {name: weight.detach().clone() for name, weight in strategy.weights().items()}
        source.begin(Policy(seen, strategy.evaluated, lambda work: _meeting(strategy, work)), reference)
        torch.manual_seed(self.seed + ranks.rank)
        place = trainer.run()
        self._compare(strategy, seen, start, place)
        if isinstance(objective, PPOObjective):
            self.critic = {
                name: weight.detach().cpu().clone() for name, weight in objective.critic_weights().items()
            }
        return place, strategy

    def _objective(self, learns: Learning) -> GroupObjective:
        model, stage = self.model, self.stage
        rewards = list(self.rewards.parts)
        common: dict[str, Any] = {
            "settings": stage.objective,
            "engine": stage.engine,
            "max_tokens": self._longest(),
            "told": list_names(rewards) if stage.rollout.lists else told_names(stage.rollout, rewards),
        }
        if stage.objective.name != "ppo":
            return objective_class(stage.objective)(model.lm, self.legal, learns, **common)
        if self.ranks.size > 1 and self.distribution.strategy != "ddp":
            raise ConfigError(
                f"stage {stage.name!r}: ppo under strategy {self.distribution.strategy}, which knows no critic",
                "Use strategy ddp, or another objective.",
            )
        adapters = None
        if stage.train.what in ("lora", "qlora"):
            if stage.engine.gradient_checkpointing:
                raise ConfigError(
                    f"stage {stage.name!r}: layers that are computed again can't tell the policy's adapters from the "
                    "critic's",
                    "Leave engine.gradient_checkpointing out, or train all.",
                )
            adapters = critic_adapters(model.lm, stage.train)
        head = value_head(model.lm, stage.objective.ppo.hidden)
        found = PPOObjective(model.lm, self.legal, learns, head=head, adapters=adapters, **common)
        if stage.objective.ppo.critic is not None:
            load_critic(found.critic_weights(), Path(stage.objective.ppo.critic))
        return found

    def _longest(self) -> int:
        """Tokens of an answer at most."""
        rollout = self.stage.rollout
        if isinstance(self.book, ListBook):
            return list_limit(self.model, rollout, self.book)
        return int(self.legal.trie.depth.max()) if rollout.thoughts is None else rollout.thoughts.max_tokens

    # ------------------------------------------------------------------------------- validation

    def _measure(self, stage: RLStage) -> Measure | None:
        if stage.validation.every is None:
            return None
        if self.validate is not None:
            own, main = self.validate, self.ranks.main
            return lambda each, together: together(lambda: own(each) if main else {})
        return self._asks(stage)

    def _asks(self, stage: RLStage) -> Validation | ListValidation:
        """What asks the validation split: for items, or for lists."""
        if isinstance(self.book, ListBook) and isinstance(self.rewards, ListRewards):
            return ListValidation(
                self.model, self.dataset, self.book, self.rewards, stage, self.seed, self.ranks
            )
        return Validation(self.model, self.dataset, stage, self.seed, self.ranks)

    def _samples(self) -> Answers | None:
        if not self.stage.validation.samples:
            return None
        built, main = self._asks(self.stage), self.ranks.main
        return lambda each, together: together(lambda: built.answers(each) if main else [])

    @torch.no_grad()
    def _compare(self, strategy: Strategy, seen: Model, start: dict[str, torch.Tensor], place: Place) -> None:
        """Ask the whole validation split of the best weights and of those at the start; the better ones stay."""
        told = self.stage.validation
        if not told.full or told.every is None or self.validate is not None or place.best_step == 0:
            return
        count = len(self.dataset.split("valid"))
        stage = replace(self.stage, validation=replace(told, requests=count))
        whole = self._asks(stage)

        def asked() -> dict[str, float]:
            return strategy.evaluate(lambda: whole(seen, strategy.together))

        best = asked()
        kept = {name: weight.detach().clone() for name, weight in strategy.weights().items()}
        _put(strategy, start)
        before = asked()
        goes_back = before[told.metric] > best[told.metric]
        if not goes_back:
            _put(strategy, kept)
        self.full = {"start": before, "best": best, "kept": "start" if goes_back else "best"}
        if goes_back:
            log.warning(
                "%s: on the whole validation split the weights at the start have %s %.4f, the best ones %.4f; "
                "the start's stay",
                self.stage.name,
                told.metric,
                before[told.metric],
                best[told.metric],
            )

    # ----------------------------------------------------------------------------------- record

    def _identity(self) -> dict[str, Any]:
        """All that decides the weights at the end."""
        numbers = {f"stage.{key}": value for key, value in self.stage.decisive().items()}
        return json.loads(  # type: ignore[no-any-return]
            json.dumps(
                numbers
                | {
                    "seed": self.seed,
                    "catalogue": self.dataset.catalogue,
                    "asked": digest_of(
                        self.book.identity
                        if isinstance(self.book, ListBook)
                        else [self.book.requests.items.tolist(), self.book.requests.targets.tolist()]
                    ),
                    "weights": weights_digest(self.model.lm),
                }
                | ({} if self.other is None else {"reference": weights_digest(self.other.objective.lm)})
            )
        )

    def _record(self, identity: dict[str, Any], place: Place | None = None) -> None:
        assert self.folder is not None
        stage, lm = self.stage, self.model.lm
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
            "full_validation": self.full,
        }
        write_json(self.folder / RECORD, record)

    def _tell(self, place: Place) -> None:
        metric = self.stage.validation.metric
        best = "" if place.best is None else f", best {metric} {place.best:.4f} at step {place.best_step}"
        log.info("%s: %d steps%s", self.stage.name, place.step, best)


def rewards_of(model: Model, dataset: Dataset, stage: RLStage, knows: Knows) -> Rewards | ListRewards:
    """What a stage's answers are worth, of items or of lists."""
    if stage.rollout.lists is not None:
        return ListRewards(stage.rewards)
    return Rewards(stage.rewards, world_of(model, dataset, knows))


def book_of(model: Model, dataset: Dataset, stage: RLStage, seed: int, knows: Knows) -> Book | ListBook:
    """What a stage asks, for items or for lists.

    Raises:
        ConfigError: lists without a sequential teacher who ranks.
    """
    if stage.rollout.lists is None:
        return Book(model, dataset, stage.asks, seed, None if stage.rollout.thoughts is None else "think")
    if knows.teacher is not None and not isinstance(knows.teacher, Teacher):
        raise ConfigError(
            f"lists are ranked by a sequential teacher, and this one is a {type(knows.teacher).__name__}",
            "Give one of itemic.teacher.",
        )
    return ListBook(model, dataset, stage.asks, seed, knows.teacher)


def world_of(model: Model, dataset: Dataset, knows: Knows) -> World:
    """What rewards and rollouts may ask: the baselines are always there, ``memory`` being the transitions."""
    scores: dict[str, Any] = {name: _when_asked(made, dataset) for name, made in BASELINES.items()}
    scores["memory"] = scores["transitions"]
    scores |= {name: ranker.scores for name, ranker in knows.rankers.items()}
    if knows.teacher is not None:
        scores["teacher"] = knows.teacher.scores
    codes = model.index.codes if isinstance(model.index, ItemIndex) else None
    return World(dataset, codes, None if knows.vectors is None else np.asarray(knows.vectors), scores)


def _when_asked(made: Callable[[Dataset], Scorer], dataset: Dataset) -> Callable[[Requests], Any]:
    """A baseline's scores; it is counted or solved when it is first asked."""
    ranker = cache(lambda: made(dataset))
    return lambda requests: ranker().scores(requests)


def _put(strategy: Strategy, values: Mapping[str, torch.Tensor]) -> None:
    """Replace the weights that learn, wherever they are."""
    strategy.put(dict(values))
    strategy.whole()
    strategy.evaluated.settle()


def _meeting(strategy: Strategy, work: Callable[[], Any]) -> Any:
    """Compute with the weights of the moment; where they are shared out, all ranks at the same time."""
    return strategy.evaluate(lambda: strategy.together(work))
