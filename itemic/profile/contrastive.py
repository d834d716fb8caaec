"""The embedder's objective: the target of a profile among all items of a batch.

InfoNCE: van den Oord, Li and Vinyals, "Representation learning with contrastive predictive coding", 2018; with the
batch's other targets as negatives: Henderson et al., "Efficient natural language response suggestion for Smart Reply",
2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from itemic.errors import ModelError
from itemic.model.layers import layers_of
from itemic.profile.embedder import Embedder, Ready
from itemic.profile.settings import InfoNCESettings
from itemic.training.language.dropout import without_own_dropout
from itemic.training.objective import Cost, Objective
from itemic.training.ranks import ALONE, Ranks

COLDEST = math.log(0.01)


@dataclass(frozen=True)
class PairBlock:
    """This rank's part of a batch. The batch's items stand in columns, rank by rank, each distinct item once.

    Attributes:
        profiles: the rank's own ``n`` profiles.
        items: its own columns, at least one text; what is more than ``columns[rank]`` stands in for none.
        columns: of each rank how many columns it encodes.
        target: int64 ``[n]``, the column of each own profile's target.
        barred: bool ``[n, C]``: columns that are no negatives of a profile: items that it was written from.
    """

    profiles: Ready
    items: Ready
    columns: tuple[int, ...]
    target: Tensor
    barred: Tensor

    def to(self, device: torch.device) -> PairBlock:
        return PairBlock(
            self.profiles.to(device),
            self.items.to(device),
            self.columns,
            self.target.to(device),
            self.barred.to(device),
        )

    def __len__(self) -> int:
        return len(self.target)


class InfoNCE(Objective):
    """What a batch of profiles costs: ``Σ -log softmax(similarity / temperature)[target]`` over the batch's items.

    The items are those of all ranks. Each computes the vectors of its own and has the others' from them, with the
    gradient, so a step is the same however many ranks there are. False negatives don't count: an item is one column
    however many profiles it is right for, items with equal texts are one item, and those that a profile was written
    from are left out of its sum.

    Args:
        embedder: float32, on its device.
        settings: temperature and dropout.
        ranks: the processes that share a batch.
    """

    names = ("accuracy", "temperature")
    totals = ("pairs", "tokens")

    def __init__(self, embedder: Embedder, settings: InfoNCESettings, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.embedder, self.settings = embedder, settings
        self.rank, self.size = ranks.rank, ranks.size  # numbers alone: the objective can be copied
        if settings.learned:  # of one number rather than none, which can't be shared out
            self.heat = nn.Parameter(
                torch.tensor([math.log(settings.temperature)], device=embedder.device, dtype=torch.float32)
            )

    def forward(self, block: PairBlock) -> Cost:
        """The cost of the profiles of a block. All ranks call it for the same batches in the same order."""
        block = block.to(self.device)
        profiles = self.embedder(block.profiles)
        own = self.embedder(block.items)[: block.columns[self.rank]]
        with torch.autocast(self.device.type, enabled=False):
            items = gathered(own.float(), block.columns, self.rank)
            temperature = self.temperature
            logits = (profiles.float() @ items.T / temperature).masked_fill(block.barred, -math.inf)
            loss = F.cross_entropy(logits, block.target, reduction="sum")
        weight = float(len(block))
        right = (logits.argmax(dim=1) == block.target).sum()
        numbers = {"accuracy": (right, weight), "temperature": (float(temperature.detach()) * weight, weight)}
        return Cost(loss, weight, numbers)

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by, a scalar; with a gradient where it learns."""
        if not self.settings.learned:
            return torch.tensor(self.settings.temperature, device=self.device)
        return self.heat.clamp_min(COLDEST).exp().squeeze()

    def nothing(self) -> PairBlock:
        """A block for a rank on its own: where several share batches, all have as many."""
        one = Ready(torch.tensor([[self.embedder.pad]]), torch.ones(1, 1, dtype=torch.int64))
        columns = tuple(int(rank == self.rank) for rank in range(self.size))
        return PairBlock(
            one, one, columns, torch.zeros(1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.bool)
        )

    @property
    def device(self) -> torch.device:
        return next(self.embedder.parameters()).device

    def shards(self) -> Sequence[nn.Module]:
        try:
            return list(layers_of(self.embedder.lm)[1])
        except ModelError:
            return ()

    def running(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.settings.dropout else without_own_dropout(self.embedder.lm)


def gathered(own: Tensor, counts: Sequence[int], rank: int) -> Tensor:
    """All ranks' rows ``[Σ counts, d]``, in their order, of which each has ``counts[rank]``. The gradient of a rank's
    rows is the sum of what all ranks have for them."""
    if len(counts) == 1:
        return own
    found: Tensor = _Gathered.apply(own, tuple(counts), rank)  # type: ignore[no-untyped-call]
    return found


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        import torch.distributed as dist

        ctx.counts, ctx.rank = counts, rank
        padded = own.new_zeros(max(counts), own.shape[1])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        import torch.distributed as dist

        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        start = sum(ctx.counts[: ctx.rank])
        return total[start : start + ctx.counts[ctx.rank]], None, None
