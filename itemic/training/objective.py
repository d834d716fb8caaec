"""What a training learns for: the cost of a block. All that the loop knows of a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from itemic.training.optimizer import Named, decayed, trainable_parameters
from itemic.training.ranks import Ranks
from itemic.training.steps import Sizes


class Cost(NamedTuple):
    """What a block costs.

    Attributes:
        sum: the weighted sum of its losses, a scalar with a graph. A step's loss is the sum over its blocks, on all
            ranks, divided by the step's weight.
        weight: the sum of the weights; 0 for :meth:`Objective.nothing`.
        numbers: of :attr:`Objective.names` those that the block has: a weighted sum, a number or a scalar without a
            graph, and its weight. The log has the means since its last line.
    """

    sum: Tensor
    weight: float
    numbers: Mapping[str, tuple[Tensor | float, float]] = {}


class Objective(nn.Module):
    """What one block of a step costs. The engines wrap it and call it block by block.

    A subclass has the model as a submodule, so that its weights are found, and gives :meth:`forward` and
    :meth:`nothing`; the rest says what else it can.

    Attributes:
        names: numbers that it reports beside the loss, as the log calls them (``loss/text``, ``accuracy``).
        totals: of a step's counts those that the log tells: their sums since the beginning, and how many a second.
    """

    names: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()

    def forward(self, block: Any) -> Cost:
        """The cost of a block."""
        raise NotImplementedError

    def nothing(self) -> Any:
        """A block without weight, which goes through the same modules as others: the engines meet in every one of them,
        so a rank that has fewer blocks than another computes this one."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def learning(self) -> Named:
        """The weights that learn, by the names that checkpoints know them by."""
        return trainable_parameters(self)

    def decay(self) -> set[str]:
        """Names of the weights that decay: of :meth:`learning` the matrices that are neither embeddings nor norms."""
        return decayed(self, self.learning())

    def shards(self) -> Sequence[nn.Module]:
        """Modules that are gathered one by one when they compute, in that order, where weights are shared out; what is
        in none of them stays whole for all of a block. By default all of it."""
        return ()

    def outside(self) -> Sequence[nn.Parameter]:
        """Weights that :meth:`forward` reads outside of the modules they belong to."""
        return ()

    def readable(self) -> bool:
        """Whether the values of weights on the meta device can be read, by :meth:`read`."""
        return False

    def read(self, name: str, begin: int, stop: int) -> Tensor:
        """Rows ``begin … stop`` of a weight on the meta device."""
        raise NotImplementedError

    def prove(self) -> None:
        """Make sure that the model can be computed, by a small pass, where nobody could before its weights were shared
        out."""

    def agree(self, ranks: Ranks) -> None:
        """Tell ranks whose model is on the meta device what only rank 0's weights could tell them."""

    def empty(self) -> Self:
        """A copy whose parameters are on the meta device, each with a storage of its own."""
        return copy.deepcopy(self, {id(weight): _empty(weight) for weight in self.parameters()})

    def kept(self) -> dict[str, Tensor]:
        """Further tensors that a checkpoint holds, and that are read back in place; under names of their own."""
        return {}

    def settle(self) -> None:
        """Bring weights that learn apart from the model into it, before it is validated, and at the end."""

    def running(self) -> AbstractContextManager[Any]:
        """How it computes while a training lasts: with dropout, with less memory, compiled."""
        return nullcontext()

    def stepping(self) -> AbstractContextManager[Any]:
        """The same for the blocks of a step alone; validations and samples are outside of it."""
        return nullcontext()

    def flops(self, sizes: Sizes) -> float | None:
        """FLOPs that a step of these sizes needs, forward and backward; None where nobody counted."""
        return None

    def rates(self, sizes: Sizes, seconds: float) -> dict[str, float]:
        """What the sizes of some steps, and the seconds they took, say to a reader of the log; a bar shows the first
        of them."""
        return {f"{name}_per_second": round(sizes.counts.get(name, 0) / seconds) for name in self.totals}


def _empty(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
