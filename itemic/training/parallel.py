"""Who computes a step and holds the weights: one process, DDP, or FSDP2. DeepSpeed is in ``deepspeed.py``.

All of them are used alike: :meth:`Strategy.cost` and :meth:`Strategy.backward` for each block, :meth:`Strategy.step`
when the step's gradients are there. Losses of a step are divided by its weight over all ranks and gradients are summed
over the ranks, so that a step is the same however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from itemic.errors import ConfigError
from itemic.training.checkpoint import Shapes, Tensors
from itemic.training.distribution import Distribution
from itemic.training.objective import Cost, Objective
from itemic.training.optimizer import Optimizer
from itemic.training.precision import compute_dtype
from itemic.training.ranks import Ranks
from itemic.training.settings import TrainingSettings


class Strategy:
    """One process: the objective computes as it is. The others differ in what they override.

    Args:
        objective: with its model, whole, as it is validated and saved.
        stage: how it learns.
        ranks: who takes part.
        options: how they share the work.

    Attributes:
        module: what computes.
        named: the weights that learn as the optimizer holds them, by name: whole, or this rank's shards.
        optimizer: over them.
    """

    def __init__(
        self, objective: Objective, stage: TrainingSettings, ranks: Ranks, options: Distribution
    ) -> None:
        self.plain, self.stage, self.ranks, self.options = objective.learning(), stage, ranks, options
        self.module = objective
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
        """Bring the weights back into the objective, on every rank."""


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


class Sharded(Strategy):
    """Weights, gradients and optimizer state are shared out over the ranks, layer by layer (FSDP2; Zhao et al. 2023,
    "PyTorch FSDP").

    Rank 0's objective stays whole beside them, to be validated and saved; those of the others may be on the meta device
    and stay there. Each part is filled, from the rank's own weights or by rank 0, and shared out before the next one,
    so that a rank without weights never holds more than its shards and a part.

    Raises:
        ConfigError: 4-bit weights, an optimizer that needs whole matrices, or rank 0 has no weights.
    """

    def _prepare(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        whole = self.module
        refuse_whole_matrices(whole, self.stage, "fsdp")
        without = self.ranks.gather(is_empty(whole))
        if without[0]:
            raise ConfigError(
                "rank 0 has a model without weights", "Load it on rank 0; others may do without."
            )
        shapes = self.ranks.gather([(name, tuple(weight.shape)) for name, weight in whole.named_parameters()])
        if (other := next((rank for rank, each in enumerate(shapes) if each != shapes[0]), 0)) != 0:
            raise ConfigError(
                f"rank {other} has another model than rank 0: {len(shapes[other])} weights, not {len(shapes[0])}, or "
                "of other shapes",
                "Load the same folder on all ranks; a model that was moved to the meta device is no longer tied.",
            )
        whole.agree(self.ranks)
        device = whole.device if not any(without) else self.ranks.device
        low = compute_dtype(self.stage.engine.precision, device)
        policy = MixedPrecisionPolicy(
            param_dtype=None if low == torch.float32 else low, reduce_dtype=torch.float32
        )
        mesh = init_device_mesh(device.type, (self.ranks.size,))
        self.module = whole.empty()
        # the root, last, holds what is in no part, such as a head, which the backward pass begins with: it stays whole
        parts = (*self.module.shards(), self.module)
        for part, names in zip(parts, _names_of(parts), strict=True):
            _fill(self.module, names, whole, device, any(without))
            fully_shard(
                part,
                mesh=mesh,
                mp_policy=policy,
                reshard_after_forward=self.options.reshard_after_forward and part is not self.module,
            )
        self._wrapped = self.module

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        self._wrapped.set_requires_gradient_sync(last)
        return nullcontext()

    @torch.no_grad()
    def whole(self) -> None:
        for name, weight in self.named.items():
            assert isinstance(weight, DTensor)
            full, plain = weight.full_tensor(), self.plain[name]
            if plain.device.type != "meta":
                plain.copy_(full)


def is_empty(objective: Objective) -> bool:
    """Whether an objective's weights are on the meta device: there are none."""
    return any(weight.device.type == "meta" for weight in objective.parameters())


def _names_of(parts: Sequence[nn.Module]) -> list[list[str]]:
    """Names of the tensors of each part, in the last one, which holds them all; each in the first part that has it."""
    left = dict([*parts[-1].named_parameters(), *parts[-1].named_buffers()])
    found = []
    for part in parts:
        inside = {id(tensor) for tensor in (*part.parameters(), *part.buffers())}
        found.append([name for name, tensor in left.items() if id(tensor) in inside])
        left = {name: tensor for name, tensor in left.items() if id(tensor) not in inside}
    return found


@torch.no_grad()
def _fill(
    module: nn.Module, names: Sequence[str], whole: nn.Module, device: torch.device, told: bool
) -> None:
    """Give tensors of an empty copy their values.

    Args:
        module: the copy.
        names: of its tensors.
        whole: what it is a copy of.
        device: where the values go.
        told: whether rank 0 gives them to all; else each rank has them itself.
    """
    for name in names:
        tensor, source = _tensor(module, name), _tensor(whole, name)
        values = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        filled = nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values
        torch.utils.swap_tensors(tensor, filled)  # type: ignore[no-untyped-call]  # all who hold it have it
        if source.device.type != "meta":
            tensor.copy_(source)
        if told:
            torch.distributed.broadcast(tensor.detach(), src=0)


def _tensor(module: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(owner), last)
    return found


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
