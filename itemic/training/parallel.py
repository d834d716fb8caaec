"""Who computes a step and holds the weights: one process, DDP, or FSDP2. DeepSpeed is in ``deepspeed.py``.

All of them are used alike: :meth:`Strategy.loss` and :meth:`Strategy.backward` for each block, :meth:`Strategy.step`
when the step's gradients are there. Losses of a step are divided by its weight over all ranks and gradients are summed
over the ranks, so that a step is the same however many there are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from itemic.errors import ConfigError
from itemic.forest.build import TokenForest, chain_forest
from itemic.forest.rows import TokenRows
from itemic.forest.run import NewRows, forest_loss
from itemic.forest.support import check_copy
from itemic.model.layers import layers_of
from itemic.training.checkpoint import Shapes, Tensors
from itemic.training.distribution import Distribution
from itemic.training.language.learning import Learning
from itemic.training.language.stage import Stage
from itemic.training.optimizer import Named, Optimizer
from itemic.training.precision import autocast, compute_dtype
from itemic.training.ranks import Ranks

NOTHING: TokenForest = chain_forest(TokenRows.of([[0]], [[0.0]]))  # a block without weight


class ForestModule(nn.Module):
    """A model and the loss of a block as one module: what the engines wrap, so that the embeddings and the head, which
    the loss reads, are there when it is computed."""

    def __init__(self, lm: PreTrainedModel, rows: NewRows | None, stage: Stage) -> None:
        super().__init__()
        self.lm, self.stage = lm, stage
        self.start = None if rows is None else rows.start
        self.input_rows = None if rows is None else rows.input
        self.output_rows = None if rows is None else rows.output

    def forward(self, forest: TokenForest) -> tuple[Tensor, Tensor]:
        """The weighted sum of losses, a graph, and the losses themselves (:class:`itemic.forest.run.ForestLoss`)."""
        rows = None
        if self.start is not None and self.input_rows is not None:
            rows = NewRows(self.start, self.input_rows, self.output_rows)
        with autocast(self.stage.engine.precision, self.lm.device):
            found = forest_loss(
                self.lm,
                forest,
                new_rows=rows,
                chunk=self.stage.engine.minibatch_size,
                label_smoothing=self.stage.objective.label_smoothing,
            )
        return found.total, found.losses

    def learning(self, names: Iterable[str]) -> Named:
        """The parameters of these names, which are the model's own or ``input_rows`` and ``output_rows``."""
        own = dict(self.lm.named_parameters()) | {
            "input_rows": self.input_rows,
            "output_rows": self.output_rows,
        }
        return {name: own[name] for name in names}  # type: ignore[misc]

    def apart(self) -> ForestModule:
        """A copy with weights of its own; the rows that learn no longer share their storage with the embeddings."""
        rows = [
            row if row is None else nn.Parameter(row.detach().clone())
            for row in (self.input_rows, self.output_rows)
        ]
        found = ForestModule(copy.deepcopy(self.lm), None, self.stage)
        check_copy(found.lm, self.lm)
        found.start, found.input_rows, found.output_rows = self.start, rows[0], rows[1]
        return found


class Strategy:
    """One process: the model computes as it is. The others differ in what they override.

    Args:
        lm: the model, whole, as it is validated and saved.
        learns: which of its weights learn.
        stage: how.
        ranks: who takes part.
        options: how they share the work.

    Attributes:
        module: what computes.
        named: the weights that learn as the optimizer holds them, by name: whole, or this rank's shards.
        optimizer: over them.
    """

    def __init__(
        self, lm: PreTrainedModel, learns: Learning, stage: Stage, ranks: Ranks, options: Distribution
    ) -> None:
        self.plain, self.stage, self.ranks, self.options = learns.named, stage, ranks, options
        self.module = ForestModule(lm, learns.new_rows, stage)
        self._wrapped: Any = self.module
        self._prepare(learns)
        self._set_up(learns)

    def _prepare(self, learns: Learning) -> None:
        """Wrap ``module``, or put a copy of it in its place."""
        self.named = learns.named

    def _set_up(self, learns: Learning) -> None:
        self.optimizer = Optimizer(self.stage, self.named, learns.decay)

    @property
    def computing(self) -> PreTrainedModel:
        """The model that computes: ``lm`` itself, or its shards."""
        return self.module.lm

    def loss(self, forest: TokenForest) -> tuple[Tensor, Tensor]:
        """The weighted sum of losses of a block, a graph, and the losses of its weighted tokens, one by one."""
        found: tuple[Tensor, Tensor] = self._wrapped(forest)
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

    def tensors(self) -> Tensors:
        """Weights and the optimizer's state for a checkpoint."""
        return {"weights": dict(self.named), "optimizer": self.optimizer.tensors()}

    def room(self, shapes: Shapes) -> Tensors:
        """Tensors for a checkpoint of these shapes to be read into; :meth:`load` then takes them over."""
        weights: dict[str, Tensor] = dict(self.named)
        return {"weights": weights, "optimizer": self.optimizer.room(part_of(shapes, "optimizer"))}

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
        """Bring the weights back into ``lm``, on every rank."""


class DataParallel(Strategy):
    """Each rank has the whole model; gradients are averaged while the backward pass goes on (Li et al. 2020, "PyTorch
    Distributed")."""

    def _prepare(self, learns: Learning) -> None:
        from torch.nn.parallel import DistributedDataParallel

        self.named = learns.named
        device = next(self.module.parameters()).device
        self._wrapped = DistributedDataParallel(
            self.module,
            device_ids=[device.index] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self._wrapped.no_sync()


class Sharded(Strategy):
    """Weights, gradients and optimizer state are shared out over the ranks, layer by layer (FSDP2; Zhao et al. 2023,
    "PyTorch FSDP"). ``lm`` stays whole beside them, to be validated and saved.

    Raises:
        ConfigError: 4-bit weights, or an optimizer that needs whole matrices.
    """

    def _prepare(self, learns: Learning) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        refuse_whole_matrices(self.stage, "fsdp")
        device = next(self.module.parameters()).device
        self.module = self.module.apart()
        low = compute_dtype(self.stage.engine.precision, device)
        policy = MixedPrecisionPolicy(
            param_dtype=None if low == torch.float32 else low, reduce_dtype=torch.float32
        )
        mesh = init_device_mesh(device.type, (self.ranks.size,))
        for layer in layers_of(self.module.lm)[1]:
            fully_shard(
                layer,
                mesh=mesh,
                mp_policy=policy,
                reshard_after_forward=self.options.reshard_after_forward,
            )
        # the root holds embeddings and head, which the backward pass begins with: not given up in between
        fully_shard(self.module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        self._wrapped = self.module
        self.named = self.module.learning(learns.named)

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        self._wrapped.set_requires_gradient_sync(last)
        return nullcontext()

    @torch.no_grad()
    def whole(self) -> None:
        for name, weight in self.named.items():
            assert isinstance(weight, DTensor)
            self.plain[name].copy_(weight.full_tensor())


def refuse_whole_matrices(stage: Stage, strategy: str) -> None:
    """What a strategy that shares out weights can't do.

    Raises:
        ConfigError: 4-bit weights, or another optimizer than AdamW.
    """
    if stage.train.what == "qlora":
        raise ConfigError(
            f"strategy {strategy} can't share out the 4-bit weights of train qlora",
            "Use ddp for qlora, or train lora.",
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
