"""Who computes a step and holds the weights: one process, or DDP. FSDP2 is in ``sharded.py``, DeepSpeed in
``deepspeed.py`` and ``partitioned.py``.

All of them are used alike: :meth:`Strategy.cost` and :meth:`Strategy.backward` for each block, :meth:`Strategy.step`
when the step's gradients are there. Losses of a step are divided by its weight over all ranks and gradients are summed
over the ranks, so that a step is the same however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from itemic.errors import ConfigError
from itemic.training.checkpoint import Shapes, Tensors
from itemic.training.distribution import Distribution
from itemic.training.objective import Cost, Objective
from itemic.training.optimizer import Optimizer
from itemic.training.ranks import Ranks
from itemic.training.settings import TrainingSettings

T = TypeVar("T")


class Strategy:
    """One process: the objective computes as it is. The others differ in what they override.

    Args:
        objective: with its model, whole, or on the meta device where a strategy can do so.
        stage: how it learns.
        ranks: who takes part.
        options: how they share the work.

    Attributes:
        module: what computes.
        named: the weights that learn as the optimizer holds them, by name: whole, or this rank's shards.
        optimizer: over them.
        evaluated: what is validated: the objective, or what computes, inside :meth:`evaluate` alone.
        apart: whether no rank has the whole model.
    """

    apart = False

    def __init__(
        self, objective: Objective, stage: TrainingSettings, ranks: Ranks, options: Distribution
    ) -> None:
        self.plain, self.stage, self.ranks, self.options = objective.learning(), stage, ranks, options
        self.module = self.evaluated = objective
        self._wrapped: Any = objective
        self._prepare()
        self.named = self.module.learning()
        self._set_up()

    def _prepare(self) -> None:
        """Wrap ``module``, or put a copy of it in its place."""

    def _set_up(self) -> None:
        self.optimizer = Optimizer(self.stage, self.named, self.module.decay())

    def cost(self, block: Any) -> Cost:
        """What a block costs."""
        found: Cost = self._wrapped(block)
        return found

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a block's forward and backward pass; gradients meet on the ``last`` one of a step."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add to the gradients. The engines average over the ranks, and a step's loss is a sum over them."""
        (loss * self.ranks.size).backward()  # type: ignore[no-untyped-call]

    def step(self, rate: float, clip: float) -> float:
        """Clip, learn and forget the gradients; returns their norm before clipping."""
        self.optimizer.set_learning_rate(rate)
        norm = torch.nn.utils.clip_grad_norm_(self.named.values(), clip or math.inf)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        found = float(norm)
        if math.isfinite(found):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return found

    def weights(self) -> dict[str, Tensor]:
        """The weights that learn, whole or this rank's shards, which :meth:`put` takes back. They may be the very ones
        that learn: who keeps them copies them. Every rank asks for them."""
        return dict(self.named)

    def tensors(self) -> Tensors:
        """Weights and the optimizer's state for a checkpoint."""
        return {"weights": self.weights(), "optimizer": self.optimizer.tensors()}

    def room(self, shapes: Shapes) -> Tensors:
        """Tensors for a checkpoint of these shapes to be read into; :meth:`load` then takes them over."""
        return {"weights": dict(self.named), "optimizer": self.optimizer.room(part_of(shapes, "optimizer"))}

    def load(self, tensors: Tensors) -> None:
        """Go on from what was read into :meth:`room`'s tensors; the weights are there already."""
        self.optimizer.load(tensors["optimizer"])

    def blank(self) -> dict[str, Tensor]:
        """Room for the weights alone; :meth:`put` then takes them over."""
        return {name: torch.empty_like(weight, requires_grad=False) for name, weight in self.named.items()}

    @torch.no_grad()
    def put(self, weights: dict[str, Tensor]) -> None:
        """Replace the weights that learn."""
        for name, weight in self.named.items():
            weight.copy_(weights[name])

    def whole(self) -> None:
        """Bring the weights back into the objective, on every rank, where it has any of its own."""

    def finish(self) -> None:
        """Leave the objective with the weights that the training ends with; nothing is trained after it."""
        self.whole()

    def gather(self, name: str) -> Tensor:
        """One whole weight or buffer of :attr:`module`, by its name; every rank asks for it."""
        owner, _, last = name.rpartition(".")
        found: Tensor = getattr(self.module.get_submodule(owner), last)
        return found.detach()

    def evaluate(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, which computes with :attr:`evaluated`; every rank calls this. The ranks may do other
        passes than each other inside :meth:`together` alone."""
        return work()

    def together(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, on each rank its own: ranks that are done before others keep these company."""
        return work()


class DataParallel(Strategy):
    """Each rank has the whole model; gradients are averaged while the backward pass goes on (Li et al. 2020, "PyTorch
    Distributed")."""

    def _prepare(self) -> None:
        from torch.nn.parallel import DistributedDataParallel

        device = self.module.device
        self._wrapped = DistributedDataParallel(
            self.module,
            device_ids=[device.index] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self._wrapped.no_sync()


def is_empty(objective: Objective) -> bool:
    """Whether an objective's weights are on the meta device: there are none."""
    return any(weight.device.type == "meta" for weight in objective.parameters())


def buffers_of(module: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """A module's buffers, each with the part that it belongs to and its name there."""
    return [
        (part, name, buffer)
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]


def refuse_whole_matrices(objective: Objective, stage: TrainingSettings, strategy: str) -> None:
    """What a strategy that shares out weights can't do.

    Raises:
        ConfigError: 4-bit weights, or another optimizer than AdamW.
    """
    if not all(weight.is_floating_point() for weight in objective.parameters()):
        raise ConfigError(
            f"strategy {strategy} can't share out weights in 4 bits", "Use ddp for qlora, or train lora."
        )
    if stage.optimizer.name != "adamw":
        raise ConfigError(
            f"optimizer {stage.optimizer.name} needs whole matrices, which strategy {strategy} shares out",
            "Use optimizer adamw, or strategy ddp.",
        )


def part_of(shapes: Shapes, part: str) -> Shapes:
    """The shapes of one part of a checkpoint, by their names in it."""
    return {
        name.removeprefix(f"{part}/"): value for name, value in shapes.items() if name.startswith(f"{part}/")
    }
