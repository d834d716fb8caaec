"""How far a run has come, and what has been summed up since its last log line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from itemic.training.steps import Ahead, Sizes

Total = Callable[[list[float]], list[float]]  # sums over the ranks


@dataclass(frozen=True)
class Place:
    """All of a run's state that is neither a tensor nor a random state; a checkpoint holds it as JSON.

    Attributes:
        total: optimizer steps planned.
        step: optimizer steps done.
        epoch: epoch of the next step.
        index: the next step's number within it.
        best: the best validation; None before any.
        best_step: the step it was made after; -1 before any.
        worse: validations since then.
        counts: what all steps held, as :class:`itemic.training.steps.Sizes` names it.
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
    counts: dict[str, int] = field(default_factory=dict)
    progress: float = 0.0
    stopped: bool = False

    def after(self, sizes: Sizes, ahead: Ahead) -> Place:
        """The place when a step is done, which over all ranks had these sizes and left off there."""
        return replace(
            self,
            step=self.step + 1,
            epoch=ahead.epoch,
            index=0 if ahead.epoch > self.epoch else self.index + 1,
            counts=dict((Sizes(counts=self.counts) + sizes).counts),
            progress=ahead.progress,
        )

    def validated(self, score: float, patience: int) -> Place:
        """The place after a validation: a better one is remembered, ``patience`` worse ones in a row stop the
        run."""
        if self.best is None or score > self.best:
            return replace(self, best=score, best_step=self.step, worse=0)
        return replace(self, worse=self.worse + 1, stopped=0 < patience <= self.worse + 1)


@dataclass
class Window:
    """Sums since the last log line: of steps, of all ranks but for ``loss`` and ``parts``, which are this rank's.

    Attributes:
        loss: the weighted sum of losses.
        parts: the same, and its weight, of the other numbers that the objective reports.
        norm: of the norms of gradients.
        steps: how many.
        sizes: of the steps.
        flops: that they needed; None where nobody counted.
        seconds: that they took.
    """

    loss: float = 0.0
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)
    norm: float = 0.0
    steps: int = 0
    sizes: Sizes = field(default_factory=Sizes)
    flops: float | None = 0.0
    seconds: float = 0.0

    def add(self, sizes: Sizes, loss: float, norm: float, seconds: float, flops: float | None = None) -> None:
        """Count a step."""
        self.loss += loss
        self.norm += norm
        self.steps += 1
        self.sizes += sizes
        self.flops = None if flops is None or self.flops is None else self.flops + flops
        self.seconds += seconds

    def add_parts(self, numbers: Mapping[str, tuple[Tensor | float, float]]) -> None:
        """Count what the objective reports of a block."""
        for name, (total, weight) in numbers.items():
            before = self.parts.get(name, (0.0, 0.0))
            self.parts[name] = (before[0] + float(total), before[1] + weight)

    def summed(self, names: Sequence[str], total: Total) -> Window:
        """The same of all ranks; each names the parts alike."""
        own = [number for name in names for number in self.parts.get(name, (0.0, 0.0))]
        loss, *sums = total([self.loss, *own])
        parts = zip(names, sums[0::2], sums[1::2], strict=True)
        return replace(self, loss=loss, parts={name: (value, weight) for name, value, weight in parts})

    def numbers(self, rates: Mapping[str, float], peak: float | None = None) -> dict[str, float]:
        """Means over the steps; what each is says ``journal.py``.

        Args:
            rates: what the objective makes of the sizes.
            peak: the devices' FLOPs a second, of all ranks.
        """
        seconds = max(self.seconds, 1e-9)
        found = {
            "loss": self.loss / max(self.sizes.weight, 1e-9),
            "grad_norm": self.norm / max(self.steps, 1),
            **rates,
        }
        if self.flops is not None:
            found["teraflops"] = round(self.flops / seconds / 1e12, 4)
            if peak is not None:
                found["mfu"] = round(self.flops / seconds / peak, 4)
        return found

    def means(self) -> dict[str, float]:
        """Of the parts that there were."""
        return {name: value / weight for name, (value, weight) in self.parts.items() if weight > 0}
