"""FSDP2 as a strategy: weights, gradients and optimizer state are shared out over the ranks, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from itemic.errors import ConfigError
from itemic.training.parallel import Strategy, buffers_of, is_empty, refuse_whole_matrices
from itemic.training.precision import compute_dtype
from itemic.training.together import together, within

T = TypeVar("T")


class Sharded(Strategy):
    """Weights, gradients and optimizer state are shared out over the ranks, layer by layer (Zhao et al. 2023, "PyTorch
    FSDP").

    Where all ranks have their objective on the meta device and it can be read (:meth:`Objective.readable`), each rank
    reads its own shards, and no rank ever has more of the weights than these and a part that computes; the objective is
    then validated as it is shared out. Else rank 0's objective stays whole beside the shards, to be validated; those of
    the others may be on the meta device, get their shards from rank 0 part by part, and stay without weights.

    Raises:
        ConfigError: 4-bit weights, an optimizer that needs whole matrices, or rank 0 has no weights.
    """

    def _prepare(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        whole = self.module
        refuse_whole_matrices(whole, self.stage, "fsdp")
        told = self.ranks.gather((is_empty(whole), whole.readable()))
        without = [empty for empty, _ in told]
        self.apart = all(empty and readable for empty, readable in told)
        if without[0] and not self.apart:
            raise ConfigError(
                "rank 0 has a model without weights",
                "Load it on rank 0, or on the device meta on all ranks, from a folder that all of them see.",
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
            if not self.apart:
                _fill(self.module, names, whole, device, any(without))
            fully_shard(
                part,
                mesh=mesh,
                mp_policy=policy,
                reshard_after_forward=self.options.reshard_after_forward and part is not self.module,
            )
        self._wrapped = self.module
        if self.apart:
            self._read(whole, device)
            self.evaluated = self.module
            self.evaluate(self.module.prove)

    @torch.no_grad()
    def _read(self, whole: Any, device: torch.device) -> None:
        """Give each shard its values: rows of what the objective has, such as adapters, or of what it reads."""
        _make_room(self.module, device)
        own = dict(whole.named_parameters())
        for name, weight in self.module.named_parameters():
            assert isinstance(weight, DTensor)
            share = -(-weight.shape[0] // self.ranks.size)
            begin = min(share * self.ranks.rank, weight.shape[0])
            stop = min(begin + share, weight.shape[0])
            local = weight.to_local()
            assert len(local) == stop - begin
            if begin < stop:
                source = own[name]
                local.copy_(whole.read(name, begin, stop) if source.is_meta else source[begin:stop])

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        self._wrapped.set_requires_gradient_sync(last)
        return nullcontext()

    @torch.no_grad()
    def whole(self) -> None:
        for name, weight in self.named.items():
            plain = self.plain[name]
            if self.apart and plain.is_meta:
                continue
            assert isinstance(weight, DTensor)
            full = weight.full_tensor()
            if not plain.is_meta:
                plain.copy_(full)

    @torch.no_grad()
    def gather(self, name: str) -> Tensor:
        weight = _tensor(self.module, name)
        return weight.full_tensor() if isinstance(weight, DTensor) else weight

    def evaluate(self, work: Callable[[], T]) -> T:
        if not self.apart:
            return work()
        with torch.no_grad():
            return within(self.module, partial(self._settled, work), after=self._reshard)

    def _settled(self, work: Callable[[], T]) -> T:
        """With rows that learn in the whole matrices, which are given up afterwards."""
        self.module.settle()
        return work()

    def together(self, work: Callable[[], T]) -> T:
        return together(self.module, self.ranks, work) if self.apart else work()

    def _reshard(self) -> None:
        """Let the next pass gather anew: the weights may have changed until then."""
        from torch.distributed.fsdp import FSDPModule

        for part in self.module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()


def _make_room(module: nn.Module, device: torch.device) -> None:
    """Storage for the shards of a module on the meta device; its buffers stay what they are."""
    buffers = buffers_of(module)
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # all who hold a weight have it
    try:
        module.to_empty(device=device)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
    for part, name, buffer in buffers:
        setattr(part, name, buffer.to(device))


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
