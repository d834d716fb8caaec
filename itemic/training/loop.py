"""The one training loop: steps over forests until the schedule ends, a validation says so, or somebody
interrupts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from itemic.errors import ArtifactError, ConfigError, ItemicError
from itemic.forest.context import forest_attention
from itemic.interrupt import interrupts
from itemic.model.positions import learned_positions
from itemic.model.precision import tf32
from itemic.progress import log
from itemic.training.checkpoint import Checkpoints, random_state, restore_random_state, step_of
from itemic.training.distribution import Distribution
from itemic.training.journal import Journal, journal
from itemic.training.language.breakdown import LossParts, TokenKinds
from itemic.training.language.dropout import residual_dropout, without_own_dropout
from itemic.training.language.engine import compiled, lean_memory
from itemic.training.language.flops import ModelFlops, peak_flops
from itemic.training.language.lean import lean_norms
from itemic.training.language.learning import Learning
from itemic.training.language.stage import EPOCH, Stage
from itemic.training.language.stream import Ahead, KeptRows, Sizes, Step, StepSource, TrainingRows
from itemic.training.memory import peak_memory
from itemic.training.optimizer import WeightAverage
from itemic.training.parallel import NOTHING
from itemic.training.place import Place, Window
from itemic.training.precision import deterministic
from itemic.training.ranks import ALONE, Ranks
from itemic.training.schedule import learning_rate
from itemic.training.strategies import make_strategy

Validate = Callable[[], dict[str, float]]
Samples = Callable[[], list[dict[str, str]]]


def _check_positions(lm: PreTrainedModel, data: TrainingRows) -> None:
    """Rows must end where a model's learned positions do; :func:`itemic.train` cuts them there."""
    room, longest = learned_positions(lm), int(data.rows.lengths.max(initial=0))
    if room is not None and longest > room:
        raise ConfigError(
            f"a row has {longest} tokens, the model's positions end at {room}", f"Set max_length to {room}."
        )


class Trainer:
    """One stage of one model. :meth:`run` trains ``lm`` in place, on every rank."""

    def __init__(
        self,
        lm: PreTrainedModel,
        data: TrainingRows | StepSource,
        stage: Stage,
        *,
        seed: int = 0,
        learns: Learning | None = None,
        kinds: TokenKinds | None = None,
        folder: Path | None = None,
        identity: str = "",
        validate: Validate | None = None,
        samples: Samples | None = None,
        ranks: Ranks = ALONE,
        distribution: Distribution | None = None,
    ) -> None:
        """Set up the optimizer and what else a run keeps.

        Args:
            lm: the model, with float32 weights.
            data: what it learns from.
            stage: how.
            seed: decides the order of the data.
            learns: which weights learn, as :func:`itemic.training.language.learning.learning` gives them; None for all.
            kinds: what each token is, for losses by kind; None logs none.
            folder: where checkpoints and logs go; None keeps everything in memory.
            identity: what a checkpoint must have been made by to be gone on from.
            validate: measures the weights that would be saved, on rank 0; the model is in evaluation mode.
            samples: answers prompts with them.
            ranks: the processes that train it together; each calls this with the same arguments.
            distribution: how they share the work.
        """
        if isinstance(data, TrainingRows):
            _check_positions(lm, data)
        learns = learns or Learning.all_of(lm)
        rows_only = stage.train == "embeddings" and learns.new_rows is None  # then nothing would learn
        if rows_only or (learns.new_rows is not None and not stage.learns_rows):
            raise ValueError(f"train {stage.train!r} and what learns don't fit each other")
        self.lm, self.stage, self.seed, self.ranks = lm, stage, seed, ranks
        self.data = KeptRows(data, stage, seed) if isinstance(data, TrainingRows) else data
        self._data_state: dict[str, Any] | None = None  # where this rank's data go on
        self.folder, self.identity = folder, identity
        self.validate, self.samples = validate, samples
        self._flops, peak = ModelFlops.of(lm), peak_flops(lm.device)
        self._peak = None if peak is None else peak * ranks.size
        self.embeds = learns.new_rows is None
        self.strategy = make_strategy(lm, learns, stage, ranks, distribution or Distribution())
        self.named = self.strategy.named
        self.average = WeightAverage(self.named, stage.ema) if stage.ema else None
        self.checkpoints = Checkpoints(folder / "checkpoints", ranks) if folder else None
        self.place = Place(total=0)
        self._kept: dict[str, torch.Tensor] = {}  # the best weights, where there is no folder
        self._window = Window()
        self._parts = LossParts(kinds, self.data.names)

    def run(self) -> Place:
        """Train from the latest checkpoint, or from the start, to the end; ``lm`` then has the best weights
        validated, or the last ones.

        Raises:
            KeyboardInterrupt: after a checkpoint of the last whole step was written.
            ItemicError: the loss is not a number, or a checkpoint can't be written.
        """
        computing = self.strategy.computing
        with (
            deterministic(self.lm.device),
            tf32(self.stage.tf32, self.lm.device),
            without_own_dropout(computing),
            residual_dropout(computing, self.stage.dropout, embeddings=self.embeds),
            lean_memory(computing, self.stage.gradient_checkpointing),
            lean_norms(computing, not self.stage.compile),
            compiled(computing, self.stage.compile),
        ):
            self._begin()
            with (
                closing(self._stream()) as stream,
                self._journal() as book,
                self.checkpoints.open() if self.checkpoints else nullcontext(),
                interrupts() as asked,
            ):
                computing.train()
                while self._goes_on():
                    self._advance(next(stream), book)
                    better = self._validate(book)
                    stop = self.ranks.any(asked())
                    if stop or better or self._due(self.stage.checkpoint_every):
                        self.save()
                    if stop:
                        raise KeyboardInterrupt
                self._finish(book)
        return self.place

    def _stream(self) -> Generator[Step, None, None]:
        return self.data.steps(self._data_state, self.ranks.rank, self.ranks.size)

    def _journal(self) -> AbstractContextManager[Journal]:
        stage = self.stage
        return journal(
            self.folder if self.ranks.main else None,
            stage.name,
            self.place.step,
            self.place.total,
            trackers=stage.trackers,
            config=stage.to_json() | {"seed": self.seed},
            shown=self.ranks.main,
        )

    def _begin(self) -> None:
        found = self.checkpoints.latest() if self.checkpoints else None
        if found is not None and self.checkpoints is not None:
            self._restore(self.checkpoints, found)
            log.info("%s goes on from step %d of %d", self.stage.name, self.place.step, self.place.total)
            return
        if self.stage.weights is not None:
            self._begin_with(Path(self.stage.weights))
        self.place = Place(total=self.data.total_steps())  # where the schedule ends

    def _begin_with(self, folder: Path) -> None:
        """Take the weights of another run's checkpoint, averaged ones if it has them, and nothing else of it."""
        step = step_of(folder)
        others = Checkpoints(folder.parent, self.ranks)
        others.verify(step)
        part = "average" if any(name.startswith("average/") for name in others.shapes(step)) else "weights"
        found = self.strategy.blank()
        others.read(step, {part: found})
        self.strategy.put(found)
        if self.average:
            self.average = WeightAverage(self.named, self.stage.ema)
        log.info("%s begins with the weights of %s", self.stage.name, folder)

    def _goes_on(self) -> bool:
        if self.place.stopped:
            return False
        if self.stage.steps is not None:
            return self.place.step < self.stage.steps
        return self.place.epoch < int(self.stage.epochs or 1)

    def _due(self, every: int | str | None) -> bool:
        if not every:
            return False
        if every == EPOCH:
            return self.place.index == 0 or not self._goes_on()
        return self.place.step % int(every) == 0

    def _advance(self, step: Step, book: Journal) -> None:
        """One optimizer step."""
        started = time.perf_counter()
        sizes, rounds, ahead = self._meet(step)
        loss = self._gradients(step, sizes.weight, rounds)
        rate = learning_rate(self.stage, self.place.step, self.place.total)
        norm = self.strategy.step(rate, self.stage.clip)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ItemicError(
                f"{self.stage.name}: step {self.place.step + 1} has loss {loss} and gradient norm {norm}",
                "Lower learning_rate, lengthen warmup, or set precision to float32.",
            )
        if self.average:
            self.average.update(self.place.step)
        self.place, self._data_state = self.place.after(sizes, ahead), step.state
        flops = self._flops(sizes.tokens, sizes.parents, sizes.targets, sizes.pairs)
        self._window.add(sizes, loss, norm, time.perf_counter() - started, flops)
        book.advance()
        if self._due(self.stage.log_every) or not self._goes_on():
            self._log(book, rate)

    def _meet(self, step: Step) -> tuple[Sizes, int, Ahead]:
        """What all ranks make of a step: its sizes, how many blocks the rank with most has, where it leaves off."""
        told = self.ranks.gather_numbers([*astuple(step.sizes), *step.after])
        sizes = [Sizes(weight, *map(round, counts)) for weight, *counts, _, _ in told]
        total = Sizes.sum(sizes)
        if total.weight <= 0:
            raise ItemicError(
                f"{self.stage.name}: step {self.place.step + 1} has nothing to learn from on any rank",
                "The conversations were gone through in full; lower steps, or give more.",
            )
        progress = sum(row[-1] for row in told) / len(told)
        ahead = Ahead(round(min(row[-2] for row in told)), progress)
        return total, max(each.blocks for each in sizes), ahead

    def _gradients(self, step: Step, weight: float, rounds: int) -> float:
        """Gradients of the step's mean loss, block by block; returns the sum of this rank's losses. Every rank computes
        as many blocks, for the engines meet in each: one that has fewer computes one without weight."""
        loss = 0.0
        with forest_attention(self.strategy.computing):
            for number in range(rounds):
                forest = step.forests[number] if number < len(step.forests) else NOTHING
                with self.strategy.accumulating(last=number + 1 == rounds):
                    total, losses = self.strategy.loss(forest)
                    self.strategy.backward(total / weight)
                loss += float(total.detach())
                self._parts.add(forest, losses)
        return loss

    def _log(self, book: Journal, rate: float) -> None:
        (self._window.loss,) = self.ranks.total([self._window.loss])
        numbers, self._window = self._window.numbers(self.stage.planned_block, self._peak), Window()
        speed = f"{numbers['tokens_per_second']:,} tokens/s"
        book.show(f"{self.stage.name} · loss {numbers['loss']:.3f} · {speed}")
        place = self.place
        done = {"tokens": place.tokens, "row_tokens": place.row_tokens, "targets": place.targets}
        memory = {"memory_gb": round(peak_memory(self.lm.device) / 1e9, 3)}
        book.write(
            place.step,
            place.progress,
            {**numbers, "lr": rate, **done, **memory, **self._parts.numbers(self.ranks.total)},
        )

    def _validate(self, book: Journal) -> bool:
        """Validate if it is time; true if it was the best so far."""
        if self.validate is None or not (self._due(self.stage.validate_every) or not self._goes_on()):
            return False
        metric, started = self.stage.metric, time.perf_counter()
        with self._as_saved():
            numbers = self.ranks.share(self.validate() if self.ranks.main else {})
            answers = {"samples": self.samples()} if self.samples and self.ranks.main else {}
            if metric not in numbers:
                raise ConfigError(
                    f"the validation has no metric {metric!r}", f"Set metric to one of {', '.join(numbers)}."
                )
            self.place = self.place.validated(float(numbers[metric]), self.stage.patience)
            best = self.place.best_step == self.place.step
            if best and self.checkpoints is None:
                weights = self.strategy.tensors()["weights"]
                self._kept = {name: weight.detach().clone() for name, weight in weights.items()}
        values: dict[str, Any] = {f"valid/{key}": value for key, value in numbers.items()}
        values["valid/seconds"] = round(time.perf_counter() - started, 3)
        book.write(self.place.step, self.place.progress, values | answers)
        if self.place.stopped:
            log.info("%s stops: no better %s for %d validations", self.stage.name, metric, self.place.worse)
        return best

    @contextmanager
    def _as_saved(self) -> Iterator[None]:
        """The weights that would be saved, in evaluation mode; random numbers drawn inside don't count."""
        if self.average:
            self.average.swap()
        self.strategy.whole()
        self.lm.train(False)
        try:
            with torch.random.fork_rng(enabled=True):
                yield
        finally:
            self.strategy.computing.train()
            if self.average:
                self.average.swap()

    def save(self) -> None:
        """Write a checkpoint of this moment, in the background."""
        if self.checkpoints is None:
            return
        tensors = self.strategy.tensors()
        if self.average:
            tensors["average"] = self.average.average
        state = {
            "identity": self.identity,
            "place": asdict(self.place),
            "data": self.data.merged(self.ranks.gather(self._data_state or {})),
            "random": self.ranks.gather(random_state()),
        }
        best = self.place.best_step
        needs = [best] if best >= 0 else []
        self.checkpoints.save(self.place.step, tensors, state, needs=needs, keep=self.stage.checkpoints_kept)

    def _restore(self, checkpoints: Checkpoints, step: int) -> None:
        state = checkpoints.state(step)
        if state["identity"] != self.identity:
            raise ArtifactError(
                f"{self.folder} holds checkpoints of another run",
                "Give this run another folder, or remove that one.",
            )
        self.place, self._data_state = Place(**state["place"]), state["data"]
        tensors = self.strategy.room(checkpoints.shapes(step))
        if self.average:
            tensors["average"] = self.average.average
        checkpoints.read(step, tensors)
        self.strategy.load(tensors)
        if self.ranks.rank < len(state["random"]):
            restore_random_state(state["random"][self.ranks.rank])

    def _finish(self, book: Journal) -> None:
        """Leave in ``lm`` what is to be saved: the best weights if any were validated, else the last."""
        best = self.place.best_step
        if best >= 0 and best != self.place.step:
            if self.checkpoints is None:
                self.strategy.put(self._kept)
            else:
                self.checkpoints.finish()
                self._read_best(self.checkpoints, best)
        elif self.average:
            self.average.swap()
        self.strategy.whole()
        self.lm.train(False)
        if self.validate is None and self.samples is not None and self.ranks.main:
            book.write(self.place.step, self.place.progress, {"samples": self.samples()})

    def _read_best(self, checkpoints: Checkpoints, best: int) -> None:
        part = "average" if self.average else "weights"
        checkpoints.verify(best)
        found = self.strategy.blank()
        checkpoints.read(best, {part: found})
        self.strategy.put(found)
