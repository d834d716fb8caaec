"""The one training loop: steps over blocks until the schedule ends, a validation says so, or somebody interrupts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from itemic.errors import ArtifactError, ConfigError, ItemicError
from itemic.interrupt import interrupts
from itemic.progress import log
from itemic.tf32 import tf32
from itemic.training.checkpoint import Checkpoints, random_state, restore_random_state, step_of
from itemic.training.distribution import Distribution
from itemic.training.journal import Journal, journal
from itemic.training.memory import peak_memory
from itemic.training.objective import Objective
from itemic.training.optimizer import WeightAverage
from itemic.training.peaks import peak_flops
from itemic.training.place import Place, Window
from itemic.training.precision import autocast, deterministic
from itemic.training.ranks import ALONE, Ranks
from itemic.training.schedule import learning_rate
from itemic.training.settings import EPOCH, TrainingSettings
from itemic.training.steps import Ahead, Sizes, Step, StepSource
from itemic.training.strategies import make_strategy

Validate = Callable[[], dict[str, float]]
Samples = Callable[[], list[dict[str, str]]]


class Trainer:
    """One training. :meth:`run` trains the objective's model in place, on every rank."""

    def __init__(
        self,
        objective: Objective,
        source: StepSource,
        stage: TrainingSettings,
        *,
        seed: int = 0,
        folder: Path | None = None,
        identity: str = "",
        validate: Validate | None = None,
        samples: Samples | None = None,
        ranks: Ranks = ALONE,
        distribution: Distribution | None = None,
    ) -> None:
        """Set up the optimizer and what else a run keeps.

        Args:
            objective: what a block costs; its weights are float32.
            source: where the blocks come from.
            stage: how it learns.
            seed: what the data were ordered by, for the record.
            folder: where checkpoints and logs go; None keeps everything in memory.
            identity: what a checkpoint must have been made by to be gone on from.
            validate: measures the weights that would be saved, by the strategy's ``evaluated`` objective, which is in
                evaluation mode. Every rank calls it, so that they may share the work; rank 0's numbers count.
            samples: answers prompts with them, likewise.
            ranks: the processes that train it together; each calls this with the same arguments.
            distribution: how they share the work.
        """
        self.objective, self.source, self.stage = objective, source, stage
        self.seed, self.ranks = seed, ranks
        self._data_state: dict[str, Any] | None = None  # where this rank's data go on
        self.folder, self.identity = folder, identity
        self.validate, self.samples = validate, samples
        self.strategy = make_strategy(objective, stage, ranks, distribution or Distribution())
        self.device = self.strategy.module.device  # the objective's own may be meta
        peak = peak_flops(self.device)
        self._peak = None if peak is None else peak * ranks.size
        self.named = self.strategy.named
        self.average = WeightAverage(self.named, stage.optimizer.ema) if stage.optimizer.ema else None
        self.checkpoints = Checkpoints(folder / "checkpoints", ranks) if folder else None
        self.place = Place(total=0)
        self._kept: dict[str, torch.Tensor] = {}  # the best weights, where there is no folder
        self._window = Window()

    def run(self) -> Place:
        """Train from the latest checkpoint, or from the start, to the end; the objective then has the best
        weights validated, or the last ones.

        Raises:
            KeyboardInterrupt: after a checkpoint of the last whole step was written.
            ItemicError: the loss is not a number, or a checkpoint can't be written.
        """
        computing, device = self.strategy.module, self.device
        with deterministic(device), tf32(self.stage.engine.tf32, device), computing.running():
            self._begin()
            with (
                closing(self._stream()) as stream,
                self._journal() as book,
                self.checkpoints.open() if self.checkpoints else nullcontext(),
                interrupts() as asked,
            ):
                computing.train()
                fresh = self.place.step == 0 and self.place.best is None
                if fresh and self.stage.validation.first and self._validate(book):
                    self.save()
                while self._goes_on():
                    self._advance(next(stream), book)
                    better = self._validate(book)
                    stop = self.ranks.any(asked())
                    if stop or better or self._due(self.stage.checkpoints.every):
                        self.save()
                    if stop:
                        raise KeyboardInterrupt
                self._finish(book)
        return self.place

    def _stream(self) -> Generator[Step, None, None]:
        return self.source.steps(self._data_state, self.ranks.rank, self.ranks.size)

    def _journal(self) -> AbstractContextManager[Journal]:
        stage = self.stage
        return journal(
            self.folder if self.ranks.main else None,
            stage.name,
            self.place.step,
            self.place.total,
            trackers=stage.logs.trackers,
            config=stage.flat() | {"seed": self.seed},
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
        self.place = Place(total=self.source.total_steps())  # where the schedule ends

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
            self.average = WeightAverage(self.named, self.stage.optimizer.ema)
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
        norm = self.strategy.step(rate, self.stage.optimizer.clip)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ItemicError(
                f"{self.stage.name}: step {self.place.step + 1} has loss {loss} and gradient norm {norm}",
                "Lower learning_rate, lengthen schedule.warmup, or set engine.precision to float32.",
            )
        if self.average:
            self.average.update(self.place.step)
        self.place, self._data_state = self.place.after(sizes, ahead), step.state
        flops = self.objective.flops(sizes)
        self._window.add(sizes, loss, norm, time.perf_counter() - started, flops)
        book.advance()
        if self._due(self.stage.logs.every) or not self._goes_on():
            self._log(book, rate)

    def _meet(self, step: Step) -> tuple[Sizes, int, Ahead]:
        """What all ranks make of a step: its sizes, how many blocks the rank with most has, where it leaves off."""
        own = step.sizes
        told = self.ranks.gather_numbers([own.weight, own.blocks, *own.counts.values(), *step.after])
        sizes = [
            Sizes(weight, round(blocks), dict(zip(own.counts, map(round, counts), strict=True)))
            for weight, blocks, *counts, _, _ in told
        ]
        total = Sizes.sum(sizes)
        if total.weight <= 0:
            raise ItemicError(
                f"{self.stage.name}: step {self.place.step + 1} has nothing to learn from on any rank",
                "The data were gone through in full; lower steps, or give more.",
            )
        progress = sum(row[-1] for row in told) / len(told)
        ahead = Ahead(round(min(row[-2] for row in told)), progress)
        return total, max(each.blocks for each in sizes), ahead

    def _gradients(self, step: Step, weight: float, rounds: int) -> float:
        """Gradients of the step's mean loss, block by block; returns the sum of this rank's losses. Every rank computes
        as many blocks, for the engines meet in each: one that has fewer computes one without weight."""
        loss, found = 0.0, 0.0
        computing = self.strategy.module
        # entered once, so that weights are cast once; what is cast stays until the end of the block
        with computing.stepping(), autocast(self.stage.engine.precision, self.device):
            for number in range(rounds):
                block = step.blocks[number] if number < len(step.blocks) else computing.nothing()
                with self.strategy.accumulating(last=number + 1 == rounds):
                    cost = self.strategy.cost(block)
                    with torch.autocast(self.device.type, enabled=False):
                        self.strategy.backward(cost.sum / weight)
                loss += float(cost.sum.detach())
                found += cost.weight
                self._window.add_parts(cost.numbers)
        if not math.isclose(found, step.sizes.weight, rel_tol=1e-3, abs_tol=1e-6):
            raise ItemicError(
                f"{self.stage.name}: the blocks of step {self.place.step + 1} weigh {found:g}, the step says "
                f"{step.sizes.weight:g}",
                "Let the source weigh blocks as the objective does.",
            )
        return loss

    def _log(self, book: Journal, rate: float) -> None:
        window, self._window = self._window.summed(self.objective.names, self.ranks.total), Window()
        rates = self.objective.rates(window.sizes, max(window.seconds, 1e-9))
        numbers, place = window.numbers(rates, self._peak), self.place
        speed = next(
            (f" · {value:,} {name.replace('_per_second', '/s')}" for name, value in rates.items()), ""
        )
        book.show(f"{self.stage.name} · loss {numbers['loss']:.3f}{speed}")
        totals = {name: place.counts[name] for name in self.objective.totals}
        memory = {"memory_gb": round(peak_memory(self.device) / 1e9, 3)}
        values = {**numbers, "lr": rate, **totals, **memory, **window.means()}
        book.write(place.step, place.progress, values)

    def _validate(self, book: Journal) -> bool:
        """Validate if it is time; true if it was the best so far."""
        begins = self.place.step == 0  # asked for by the stage
        due = begins or self._due(self.stage.validation.every) or not self._goes_on()
        if self.validate is None or not due:
            return False
        metric, started = self.stage.validation.metric, time.perf_counter()
        with self._as_saved():
            numbers = self.ranks.share(self.strategy.evaluate(self.validate))
            answers = self._answers()
            if metric not in numbers:
                raise ConfigError(
                    f"the validation has no metric {metric!r}",
                    f"Set validation.metric to one of {', '.join(numbers)}.",
                )
            self.place = self.place.validated(float(numbers[metric]), self.stage.validation.patience)
            best = self.place.best_step == self.place.step
            if best and self.checkpoints is None:
                self._kept = {
                    name: weight.detach().clone() for name, weight in self.strategy.weights().items()
                }
        values: dict[str, Any] = {f"valid/{key}": value for key, value in numbers.items()}
        values["valid/seconds"] = round(time.perf_counter() - started, 3)
        book.write(self.place.step, self.place.progress, values | answers)
        if self.place.stopped:
            log.info("%s stops: no better %s for %d validations", self.stage.name, metric, self.place.worse)
        return best

    def _answers(self) -> dict[str, Any]:
        """Rank 0's samples, for the log."""
        if self.samples is None:
            return {}
        return {"samples": self.strategy.evaluate(self.samples)}

    @contextmanager
    def _as_saved(self) -> Iterator[None]:
        """The weights that would be saved, in evaluation mode; random numbers drawn inside don't count."""
        if self.average:
            self.average.swap()
        self.strategy.whole()
        self.objective.settle()
        self.strategy.evaluated.train(False)
        try:
            with torch.random.fork_rng(enabled=True):
                yield
        finally:
            self.strategy.module.train()
            if self.average:
                self.average.swap()

    def save(self) -> None:
        """Write a checkpoint of this moment, in the background."""
        if self.checkpoints is None:
            return
        tensors = self.strategy.tensors()
        if self.average:
            tensors["average"] = self.average.average
        if kept := self.strategy.module.kept():
            tensors["kept"] = kept
        state = {
            "identity": self.identity,
            "place": asdict(self.place),
            "data": self.source.merged(self.ranks.gather(self._data_state or {})),
            "random": self.ranks.gather(random_state()),
        }
        best = self.place.best_step
        needs = [best] if best >= 0 else []
        self.checkpoints.save(self.place.step, tensors, state, needs=needs, keep=self.stage.checkpoints.kept)

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
        if kept := self.strategy.module.kept():
            tensors["kept"] = kept
        checkpoints.read(step, tensors)
        self.strategy.load(tensors)
        if self.ranks.rank < len(state["random"]):
            restore_random_state(state["random"][self.ranks.rank])

    def _finish(self, book: Journal) -> None:
        """Leave in the objective what is to be saved: the best weights if any were validated, else the last."""
        best = self.place.best_step
        if best >= 0 and best != self.place.step:
            if self.checkpoints is None:
                self.strategy.put(self._kept)
            else:
                self.checkpoints.finish()
                self._read_best(self.checkpoints, best)
        elif self.average:
            self.average.swap()
        self.strategy.finish()
        self.objective.settle()
        self.objective.train(False)
        self.strategy.evaluated.train(False)
        if self.validate is None and self.samples is not None:
            book.write(self.place.step, self.place.progress, self._answers())

    def _read_best(self, checkpoints: Checkpoints, best: int) -> None:
        part = "average" if self.average else "weights"
        checkpoints.verify(best)
        found = self.strategy.blank()
        checkpoints.read(best, {part: found})
        self.strategy.put(found)
