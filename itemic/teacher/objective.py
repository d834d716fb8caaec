"""The item softmax: every item of a row is predicted from those before it, among all items of the catalogue.

A softmax over the whole catalogue rather than over sampled negatives is what makes the plain model strong: Klenitskiy
and Vasilev, "Turning dross into gold loss: is BERT4Rec really better than SASRec?", RecSys 2023; Petrov and Macdonald,
"gSASRec: reducing overconfidence in sequential recommendation trained with negative sampling", RecSys 2023.
"""

from __future__ import annotations

import torch

from itemic.forest.loss import weighted_cross_entropy
from itemic.teacher.model import SASRec
from itemic.teacher.rows import ItemRows, Packed, pack
from itemic.training.objective import Cost, Objective
from itemic.training.steps import Sizes


class ItemSoftmax(Objective):
    """What a block of rows costs: ``Σ -log softmax(hidden · itemsᵀ)[target]``, each target of equal weight.

    Args:
        model: on its device.
        label_smoothing: share of a target's probability that is spread over the catalogue.
        chunk: targets whose scores are held at once; bounds the memory.
    """

    totals = ("targets", "rows")

    def __init__(self, model: SASRec, *, label_smoothing: float = 0.0, chunk: int = 1024) -> None:
        super().__init__()
        self.model, self.label_smoothing, self.chunk = model, label_smoothing, chunk

    def forward(self, block: Packed) -> Cost:
        """The cost of packed rows that are learned from; rows without targets weigh nothing."""
        block = block.to(self.device)
        learned = block.targets is not None
        targets = block.targets if block.targets is not None else torch.zeros_like(block.items)
        weights = torch.full((len(block),), float(learned), device=self.device)
        total, _ = weighted_cross_entropy(
            self.model(block),
            self.model.items.weight,
            targets,
            weights,
            chunk=self.chunk,
            label_smoothing=self.label_smoothing,
        )
        return Cost(total, float(len(block) * learned))

    def nothing(self) -> Packed:
        return pack(NOTHING)

    def flops(self, sizes: Sizes) -> float:
        """Twice a multiplication and an addition for each weight and target forward, twice that backward; attention,
        which is short, isn't counted."""
        matrices = sum(weight.numel() for weight in self.parameters() if weight.ndim == 2)
        return 6.0 * (matrices - self.model.positions.weight.numel()) * sizes.counts.get("targets", 0)


NOTHING = ItemRows(torch.zeros(1, dtype=torch.int32).numpy(), torch.tensor([0, 1]).numpy())
