"""The one training loop: steps over forests until the schedule ends, a validation says so, or somebody
interrupts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from itemic.errors import ArtifactError, ConfigError, ItemicError
from itemic.forest.attention import forest_attention
from itemic.forest.run import forest_loss
from itemic.progress import log
from itemic.train.breakdown import LossParts, TokenKinds
from itemic.train.checkpoint import Checkpoint, Checkpoints, Tensors, random_state, restore_random_state
from itemic.train.dropout import residual_dropout
from itemic.train.engine import compiled, lean_memory
from itemic.train.flops import ModelFlops, peak_flops
from itemic.train.interrupt import interrupts
from itemic.train.journal import Journal, journal
from itemic.train.learning import Learning
from itemic.train.memory import peak_memory
from itemic.train.optimizer import Named, Optimizer, WeightAverage
from itemic.train.place import Place, Window
from itemic.train.precision import autocast, deterministic
from itemic.train.schedule import learning_rate
from itemic.train.stage import EPOCH, Stage
from itemic.train.stream import KeptRows, Step, StepSource, TrainingRows

Validate = Callable[[], dict[str, float]]
Samples = Callable[[], list[dict[str, str]]]


class Trainer:
    """One stage of one model. :meth:`run` trains ``lm`` in place."""

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
    ) -> None:
        """Set up the optimizer and what else a run keeps.

        Args:
            lm: the model, with float32 weights.
            data: what it learns from.
            stage: how.
            seed: decides the order of the data.
            learns: which weights learn, as :func:`itemic.train.learning.learning` gives them; None for all.
            kinds: what each token is, for losses by kind; None logs none.
            folder: where checkpoints and logs go; None keeps everything in memory.
            identity: what a checkpoint must have been made by to be gone on from.
            validate: measures the weights that would be saved; the model is in evaluation mode.
            samples: answers prompts with them.
        """
        learns = learns or Learning.all_of(lm)
        if stage.learns_rows != (learns.new_rows is not None):
            raise ValueError(f"train {stage.train!r} and what learns don't fit each other")
        self.lm, self.stage, self.seed = lm, stage, seed
        self.data = KeptRows(data, stage, seed) if isinstance(data, TrainingRows) else data
        self._data_state: dict[str, Any] | None = None  # where the data go on
        self.new_rows, self.folder, self.identity = learns.new_rows, folder, identity
        self.validate, self.samples = validate, samples
        self.named = learns.named
        self.optimizer = Optimizer(stage, learns.named, learns.decay)
        self.average = WeightAverage(self.named, stage.ema) if stage.ema else None
        self.checkpoints = Checkpoints(folder / "checkpoints") if folder else None
        self.place = Place(total=0)
        self._kept: dict[str, torch.Tensor] = {}  # the best weights, where there is no folder
        self._window = Window()
        self._parts = LossParts(kinds, self.data.names)
        self._flops, self._peak = ModelFlops.of(lm), peak_flops(lm.device)

    def run(self) -> Place:
        """Train from the latest checkpoint, or from the start, to the end; ``lm`` then has the best weights
        validated, or the last ones.

        Raises:
            KeyboardInterrupt: after a checkpoint of the last whole step was written.
            ItemicError: the loss is not a number, or a checkpoint can't be written.
        """
        with (
            deterministic(self.lm.device),
            residual_dropout(self.lm, self.stage.dropout, embeddings=self.new_rows is None),
            lean_memory(self.lm, self.stage.gradient_checkpointing),
            compiled(self.lm, self.stage.compile),
        ):
            self._begin()
            stream = self.data.steps(self._data_state)
            with (
                closing(stream),
                self._journal() as book,
                interrupts() as asked,
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

    def _journal(self) -> AbstractContextManager[Journal]:
        stage = self.stage
        return journal(
            self.folder,
            stage.name,
            self.place.step,
            self.place.total,
            trackers=stage.trackers,
            config=stage.to_json() | {"seed": self.seed},
        )

    def _begin(self) -> None:
        found = self.checkpoints.latest() if self.checkpoints else None
        if found is not None:
            self._restore(found)
            log.info("%s goes on from step %d of %d", self.stage.name, self.place.step, self.place.total)
            return
        self.place = Place(total=self.data.total_steps())  # where the schedule ends

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
        loss, weight = self._gradients(step)
        rate = learning_rate(self.stage, self.place.step, self.place.total)
        self.optimizer.set_learning_rate(rate)
        norm = float(torch.nn.utils.clip_grad_norm_(self.named.values(), self.stage.clip or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ItemicError(
                f"{self.stage.name}: step {self.place.step + 1} has loss {loss} and gradient norm {norm}",
                "Lower learning_rate, lengthen warmup, or set precision to float32.",
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update(self.place.step)
        self.place, self._data_state = self.place.after(step), step.state
        flops = self._flops(step.tokens, step.targets, step.pairs)
        self._window.add(step, loss, weight, norm, time.perf_counter() - started, flops)
        book.advance()
        if self._due(self.stage.log_every) or not self._goes_on():
            self._log(book, rate)

    def _gradients(self, step: Step) -> tuple[float, float]:
        """Gradients of the step's mean loss, block by block; returns the sums of losses and of weights."""
        weight, loss = step.weight, 0.0
        with forest_attention(self.lm):
            for forest in step.forests:
                with autocast(self.stage.precision, self.lm.device):
                    part = forest_loss(
                        self.lm, forest, new_rows=self.new_rows, label_smoothing=self.stage.label_smoothing
                    )
                (part.total / weight).backward()  # type: ignore[no-untyped-call]
                loss += float(part.total.detach())
                self._parts.add(forest, part)
        return loss, weight

    def _log(self, book: Journal, rate: float) -> None:
        numbers, self._window = self._window.numbers(self.stage.planned_block, self._peak), Window()
        speed = f"{numbers['tokens_per_second']:,} tokens/s"
        book.show(f"{self.stage.name} · loss {numbers['loss']:.3f} · {speed}")
        place = self.place
        done = {"tokens": place.tokens, "row_tokens": place.row_tokens, "targets": place.targets}
        memory = {"memory_gb": round(peak_memory(self.lm.device) / 1e9, 3)}
        book.write(
            place.step, place.progress, {**numbers, "lr": rate, **done, **memory, **self._parts.numbers()}
        )

    def _validate(self, book: Journal) -> bool:
        """Validate if it is time; true if it was the best so far."""
        if self.validate is None or not (self._due(self.stage.validate_every) or not self._goes_on()):
            return False
        metric, started = self.stage.metric, time.perf_counter()
        with self._as_saved():
            numbers = self.validate()
            answers = {"samples": self.samples()} if self.samples else {}
            if metric not in numbers:
                raise ConfigError(
                    f"the validation has no metric {metric!r}", f"Set metric to one of {', '.join(numbers)}."
                )
            self.place = self.place.validated(float(numbers[metric]), self.stage.patience)
            best = self.place.best_step == self.place.step
            if best and self.checkpoints is None:
                self._kept = {name: weight.detach().clone() for name, weight in self.named.items()}
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
            "optimizer": self.optimizer.tensors(),
        }
        if self.average:
            tensors["average"] = self.average.average
        place = {"place": asdict(self.place), "data": self._data_state}
        state = {"identity": self.identity, **place, "random": random_state()}
        best = self.place.best_step
        self.checkpoints.save(self.place.step, tensors, state, needs=[best] if best >= 0 else [])
        self.checkpoints.prune(self.stage.keep)

    def _restore(self, found: Checkpoint) -> None:
        if found.state["identity"] != self.identity:
            raise ArtifactError(
                f"{self.folder} holds checkpoints of another run",
                "Give this run another folder, or remove that one.",
            )
        self.place, self._data_state = Place(**found.state["place"]), found.state["data"]
        _copy(found.tensors["weights"], self.named)
        self.optimizer.load(found.tensors["optimizer"])
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


@torch.no_grad()
def _copy(tensors: dict[str, torch.Tensor], named: Named) -> None:
    for name, weight in named.items():
        weight.copy_(tensors[name])
