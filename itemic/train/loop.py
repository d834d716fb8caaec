"""The one training loop: steps over forests until the schedule ends, a validation says so, or somebody
interrupts."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import PreTrainedModel

from itemic.errors import ArtifactError, ConfigError, ItemicError
from itemic.forest.attention import forest_attention
from itemic.forest.run import NewRows, forest_loss
from itemic.progress import log
from itemic.train.checkpoint import Checkpoint, Checkpoints, Tensors, random_state, restore_random_state
from itemic.train.dropout import residual_dropout
from itemic.train.journal import Journal, journal
from itemic.train.optimizer import (
    Named,
    WeightAverage,
    decayed,
    load_optimizer,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
    trainable_parameters,
)
from itemic.train.precision import autocast, deterministic
from itemic.train.schedule import learning_rate
from itemic.train.stage import EPOCH, Stage
from itemic.train.stream import Step, TrainingRows, plan_epoch, steps

Validate = Callable[[], dict[str, float]]
Samples = Callable[[], list[dict[str, str]]]


@dataclass(frozen=True)
class Place:
    """How far a run has come: all that isn't a tensor or a random state.

    Attributes:
        step: optimizer steps done.
        total: optimizer steps planned.
        epoch, index: the next step's place in the data.
        best, best_step: the best validation and the step it was made after; None and -1 before any.
        worse: validations since then.
        tokens, row_tokens, targets: what was learned from, see ``journal.py``.
        progress: data gone through, in epochs.
        stopped: an early stop.
    """

    total: int
    step: int = 0
    epoch: int = 0
    index: int = 0
    best: float | None = None
    best_step: int = -1
    worse: int = 0
    tokens: int = 0
    row_tokens: int = 0
    targets: int = 0
    progress: float = 0.0
    stopped: bool = False


@dataclass
class _Window:
    """Sums since the last log line."""

    loss: float = 0.0
    weight: float = 0.0
    norm: float = 0.0
    steps: int = 0
    tokens: int = 0
    row_tokens: int = 0
    seconds: float = 0.0


class Trainer:
    """One stage of one model. :meth:`run` trains ``lm`` in place."""

    def __init__(
        self,
        lm: PreTrainedModel,
        data: TrainingRows,
        stage: Stage,
        *,
        seed: int = 0,
        new_rows: NewRows | None = None,
        folder: Path | None = None,
        identity: str = "",
        validate: Validate | None = None,
        samples: Samples | None = None,
    ) -> None:
        """Set up the optimizer and what else a run keeps.

        Args:
            lm: the model, with float32 weights.
            data: what it learns from.
            stage: how.
            seed: decides the order of the data.
            new_rows: what learns, under ``train: embeddings``.
            folder: where checkpoints and logs go; None keeps everything in memory.
            identity: what a checkpoint must have been made by to be gone on from.
            validate: measures the weights that would be saved; the model is in evaluation mode.
            samples: answers prompts with them.
        """
        self.lm, self.data, self.stage, self.seed = lm, data, stage, seed
        self.new_rows, self.folder, self.identity = new_rows, folder, identity
        self.validate, self.samples = validate, samples
        self.named = _learning(lm, new_rows)
        decay = set() if new_rows else decayed(lm, self.named)
        self.optimizer = make_optimizer(stage, self.named, decay)
        self.average = WeightAverage(self.named, stage.ema) if stage.ema else None
        self.checkpoints = Checkpoints(folder / "checkpoints") if folder else None
        self.place = Place(total=0)
        self._kept: dict[str, torch.Tensor] = {}  # the best weights, where there is no folder
        self._window = _Window()

    def run(self) -> Place:
        """Train from the latest checkpoint, or from the start, to the end; ``lm`` then has the best weights
        validated, or the last ones.

        Raises:
            KeyboardInterrupt: after a checkpoint of the last whole step was written.
            ItemicError: the loss is not a number, or a checkpoint can't be written.
        """
        with deterministic(self.lm.device), residual_dropout(self.lm, self.stage.dropout):
            self._begin()
            stream = steps(self.data, self.stage, self.seed, self.place.epoch, self.place.index)
            with (
                closing(stream),
                journal(self.folder, self.stage.name, self.place.step, self.place.total) as book,
                _interrupts() as asked,
            ):
                self.lm.train()
                while self._goes_on():
                    self._advance(next(stream), book)
                    better = self._validate(book)
                    if asked() or better or self._due(self.stage.checkpoint_every):
                        self.save()
                    if asked():
                        raise KeyboardInterrupt
                self._finish(book)
        return self.place

    def _begin(self) -> None:
        found = self.checkpoints.latest() if self.checkpoints else None
        if found is not None:
            self._restore(found)
            log.info("%s goes on from step %d of %d", self.stage.name, self.place.step, self.place.total)
            return
        per_epoch = len(plan_epoch(self.data, self.stage, self.seed, 0))
        # epochs may differ by a step or so; the first tells where the schedule ends
        self.place = Place(total=self.stage.steps or per_epoch * int(self.stage.epochs or 1))

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
        place = self.place
        weight = float(sum(forest.weight.sum(dtype="float64") for forest in step.forests))
        loss = 0.0
        if weight > 0:
            with forest_attention(self.lm):
                for forest in step.forests:
                    with autocast(self.stage.precision, self.lm.device):
                        part = forest_loss(
                            self.lm,
                            forest,
                            new_rows=self.new_rows,
                            label_smoothing=self.stage.label_smoothing,
                        )
                    (part.total / weight).backward()  # type: ignore[no-untyped-call]
                    loss += float(part.total.detach())
        rate = learning_rate(self.stage, place.step, place.total)
        set_learning_rate(self.optimizer, rate)
        norm = float(torch.nn.utils.clip_grad_norm_(self.named.values(), self.stage.clip or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ItemicError(
                f"{self.stage.name}: step {place.step + 1} has the loss {loss} and the gradient norm {norm}",
                "Lower learning_rate, lengthen warmup, or set precision to float32.",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(place.step)
        tokens = sum(len(forest) for forest in step.forests)
        row_tokens = sum(forest.row_tokens for forest in step.forests)
        last = step.index + 1 == step.of
        self.place = replace(
            place,
            step=place.step + 1,
            epoch=step.epoch + 1 if last else step.epoch,
            index=0 if last else step.index + 1,
            tokens=place.tokens + tokens,
            row_tokens=place.row_tokens + row_tokens,
            targets=place.targets + sum(int((forest.weight > 0).sum()) for forest in step.forests),
            progress=step.epoch + (step.index + 1) / step.of,
        )
        window = self._window
        window.loss, window.weight, window.norm = (
            window.loss + loss,
            window.weight + weight,
            window.norm + norm,
        )
        window.steps, window.tokens, window.row_tokens = (
            window.steps + 1,
            window.tokens + tokens,
            window.row_tokens + row_tokens,
        )
        window.seconds += time.perf_counter() - started
        self._log(book, rate)

    def _log(self, book: Journal, rate: float) -> None:
        book.advance()
        if not (self._due(self.stage.log_every) or not self._goes_on()):
            return
        window, self._window = self._window, _Window()
        speed = window.tokens / max(window.seconds, 1e-9)
        loss = window.loss / max(window.weight, 1e-9)
        book.show(f"{self.stage.name} · loss {loss:.3f} · {speed:,.0f} tokens/s")
        book.write(
            self.place.step,
            self.place.progress,
            {
                "loss": loss,
                "lr": rate,
                "grad_norm": window.norm / window.steps,
                "tokens": self.place.tokens,
                "row_tokens": self.place.row_tokens,
                "targets": self.place.targets,
                "tokens_per_second": round(speed),
                "row_tokens_per_second": round(window.row_tokens / max(window.seconds, 1e-9)),
            },
        )

    def _validate(self, book: Journal) -> bool:
        """Validate if it is time; true if it was the best so far."""
        if self.validate is None or not (self._due(self.stage.validate_every) or not self._goes_on()):
            return False
        started = time.perf_counter()
        with self._as_saved():
            numbers = self.validate()
            answers = self.samples() if self.samples else None
        if self.stage.metric not in numbers:
            raise ConfigError(
                f"the validation has no metric {self.stage.metric!r}",
                f"Set metric to one of {', '.join(numbers)}.",
            )
        values: dict[str, Any] = {f"valid/{key}": value for key, value in numbers.items()}
        values["valid/seconds"] = round(time.perf_counter() - started, 3)
        if answers is not None:
            values["samples"] = answers
        score, place = float(numbers[self.stage.metric]), self.place
        book.write(place.step, place.progress, values)
        if place.best is None or score > place.best:
            self.place = replace(place, best=score, best_step=place.step, worse=0)
            if self.checkpoints is None:
                with torch.no_grad(), self._as_saved():
                    self._kept = {name: weight.detach().clone() for name, weight in self.named.items()}
            return True
        stop = 0 < self.stage.patience <= place.worse + 1
        self.place = replace(place, worse=place.worse + 1, stopped=stop)
        if stop:
            log.info(
                "%s stops: no better %s for %d validations",
                self.stage.name,
                self.stage.metric,
                place.worse + 1,
            )
        return False

    @contextmanager
    def _as_saved(self) -> Iterator[None]:
        """The weights that would be saved, in evaluation mode; random numbers drawn inside don't count."""
        if self.average:
            self.average.swap()
        self.lm.train(False)
        try:
            with torch.random.fork_rng(enabled=True):
                yield
        finally:
            self.lm.train()
            if self.average:
                self.average.swap()

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        if self.checkpoints is None:
            return
        tensors: Tensors = {
            "weights": dict(self.named),
            "optimizer": optimizer_tensors(self.optimizer, self.named),
        }
        if self.average:
            tensors["average"] = self.average.average
        state = {"identity": self.identity, "place": asdict(self.place), "random": random_state()}
        self.checkpoints.save(self.place.step, tensors, state)
        self.checkpoints.prune(self.stage.keep, self.place.best_step)

    def _restore(self, found: Checkpoint) -> None:
        if found.state["identity"] != self.identity:
            raise ArtifactError(
                f"{self.folder} holds checkpoints of another run",
                "Give this run another folder, or remove that one.",
            )
        self.place = Place(**found.state["place"])
        _copy(found.tensors["weights"], self.named)
        load_optimizer(self.optimizer, self.named, found.tensors["optimizer"])
        if self.average:
            for name, tensor in self.average.average.items():
                tensor.copy_(found.tensors["average"][name])
        restore_random_state(found.state["random"])

    def _finish(self, book: Journal) -> None:
        """Leave in ``lm`` what is to be saved: the best weights if any were validated, else the last."""
        best = self.place.best_step
        if best >= 0 and best != self.place.step:
            if self.checkpoints is None:
                _copy(self._kept, self.named)
            else:
                found = self.checkpoints.load(best)
                _copy(found.tensors["average" if self.average else "weights"], self.named)
        elif self.average:
            self.average.swap()
        self.lm.train(False)
        if self.validate is None and self.samples is not None:
            book.write(self.place.step, self.place.progress, {"samples": self.samples()})


def _learning(lm: PreTrainedModel, new_rows: NewRows | None) -> Named:
    if new_rows is None:
        return trainable_parameters(lm)
    rows = {"input_rows": new_rows.input, "output_rows": new_rows.output}
    return {name: row for name, row in rows.items() if row is not None}


@torch.no_grad()
def _copy(tensors: dict[str, torch.Tensor], named: Named) -> None:
    for name, weight in named.items():
        weight.copy_(tensors[name])


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C only asks: a step is never torn. The second one interrupts at
    once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        log.info("finishing the step and writing a checkpoint; interrupt again to stop at once")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
