"""How far a run has come, and what has been summed up since its last log line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from itemic.training.language.stream import Ahead, Sizes


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
        tokens: forest tokens computed.
        row_tokens: what the same rows hold one by one.
        targets: weighted tokens learned from.
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

    def after(self, sizes: Sizes, ahead: Ahead) -> Place:
        """The place when a step is done, which over all ranks had these sizes and left off there."""
        return replace(
            self,
            step=self.step + 1,
            epoch=ahead.epoch,
            index=0 if ahead.epoch > self.epoch else self.index + 1,
            tokens=self.tokens + sizes.tokens,
            row_tokens=self.row_tokens + sizes.row_tokens,
            targets=self.targets + sizes.targets,
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
    """Sums since the last log line."""

    loss: float = 0.0
    weight: float = 0.0
    norm: float = 0.0
    steps: int = 0
    tokens: int = 0
    row_tokens: int = 0
    targets: int = 0
    blocks: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def add(self, sizes: Sizes, loss: float, norm: float, seconds: float, flops: float = 0.0) -> None:
        self.loss += loss
        self.weight += sizes.weight
        self.norm += norm
        self.steps += 1
        self.tokens += sizes.tokens
        self.row_tokens += sizes.row_tokens
        self.targets += sizes.targets
        self.blocks += sizes.blocks
        self.flops += flops
        self.seconds += seconds

    def numbers(self, block_tokens: int, peak: float | None = None) -> dict[str, float]:
        """Means of the steps; what each is says ``journal.py``. ``block_tokens`` is a full block, ``peak`` the devices'
        FLOPs a second, of all ranks."""
        seconds = max(self.seconds, 1e-9)
        used = {} if peak is None else {"mfu": round(self.flops / seconds / peak, 4)}
        return {
            "loss": self.loss / max(self.weight, 1e-9),
            "grad_norm": self.norm / max(self.steps, 1),
            "tokens_per_second": round(self.tokens / seconds),
            "row_tokens_per_second": round(self.row_tokens / seconds),
            "block_fill": round(self.tokens / max(self.blocks * block_tokens, 1), 4),
            "target_share": round(self.targets / max(self.tokens, 1), 4),
            "teraflops": round(self.flops / seconds / 1e12, 4),
            **used,
        }
