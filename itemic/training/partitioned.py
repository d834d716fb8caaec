"""ZeRO's stage 3: weights are shared out as well, each in equal pieces of its numbers, whatever its shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from itemic.errors import ConfigError
from itemic.training.deepspeed import DeepSpeed, library
from itemic.training.parallel import buffers_of, is_empty
from itemic.training.together import together, within

T = TypeVar("T")


class Partitioned(DeepSpeed):
    """ZeRO's stage 3 (Rajbhandari et al. 2020).

    Where all ranks have their objective on the meta device and it can be read (:meth:`Objective.readable`), rank 0
    reads weight by weight, each of which is shared out before the next one is there; the objective is then validated
    and saved as it is shared out. Else each rank's objective stays whole beside the pieces, to be validated.

    Raises:
        ConfigError: as for the other stages; or some ranks have weights and others haven't, or nobody can read them.
    """

    def _prepare(self) -> None:
        self._check()
        self._given = whole = self.module
        told = self.ranks.gather((is_empty(whole), whole.readable()))
        self.apart = all(empty and readable for empty, readable in told)
        if not self.apart and any(empty for empty, _ in told):
            raise ConfigError(
                "some ranks have a model without weights, and not all of them have it from a folder",
                "Load it on every rank, or on the device meta on all of them, from a folder that all of them see.",
            )
        whole.agree(self.ranks)
        self._decays = whole.decay()
        self.module = whole.empty()
        for part, name, buffer in buffers_of(self.module):
            setattr(part, name, buffer.to(self._device))
        self._share_out()

    @torch.no_grad()
    def _share_out(self) -> None:
        """Give each weight its values, and keep this rank's piece of them."""
        zero = library()
        zero.init_distributed(dist_init_required=False)
        convert = None
        for name, weight in self.module.named_parameters():
            dtype = self._low or weight.dtype
            values = torch.empty(weight.shape, dtype=dtype, device=self._device)
            if self.ranks.main:
                values.copy_(self._value(name))
            filled = nn.Parameter(values, weight.requires_grad)
            torch.utils.swap_tensors(weight, filled)  # type: ignore[no-untyped-call]  # all who hold it have it
            del values, filled
            if convert is None:
                zero.zero.Init(module=nn.ParameterList([weight]), config_dict_or_path=self._config)
                convert = weight.convert_to_zero_parameters  # type: ignore[attr-defined]
            else:
                convert([weight])  # rank 0's values reach the others here

    def _set_up(self) -> None:
        super()._set_up()
        for weight in self.module.outside():
            library().zero.register_external_parameter(self.module, weight)
        if self.apart:
            self.evaluated = self.module
            self.evaluate(self.module.prove)

    @torch.no_grad()
    def _learn_exactly(self) -> None:
        learning = set(self.named.values())
        for name, weight in self.module.named_parameters():
            if self._low is None or weight not in learning:
                continue
            value = self._value(name).to(self._device, torch.float32) if self.ranks.main else None
            if self.ranks.share(value is not None and self._loses_digits(value)):
                if value is None:
                    value = torch.empty(weight.ds_shape, device=self._device)  # type: ignore[attr-defined]
                torch.distributed.broadcast(value, src=0)
                self._set(weight, value)

    @torch.no_grad()
    def whole(self) -> None:
        from deepspeed.utils import safe_get_full_fp32_param

        for name, weight in self.named.items():
            if not self.plain[name].is_meta:
                self.plain[name].copy_(safe_get_full_fp32_param(weight))

    def finish(self) -> None:
        self.whole()

    @torch.no_grad()
    def gather(self, name: str) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param

        owner, _, last = name.rpartition(".")
        weight: Tensor = getattr(self.module.get_submodule(owner), last)
        if not isinstance(weight, nn.Parameter):
            return weight
        if weight.requires_grad:
            whole: Tensor = safe_get_full_fp32_param(weight)
            return whole
        if self._low:  # the pieces are rounded, what they were read from isn't
            return self._value(name) if self.ranks.main else weight
        with library().zero.GatheredParameters([weight]):
            return weight.detach().clone()

    def evaluate(self, work: Callable[[], T]) -> T:
        if not self.apart:
            return work()
        found: list[T] = []
        with torch.no_grad():
            within(self.module, partial(self._settled, work, found))
        return found[0]

    def _settled(self, work: Callable[[], T], found: list[T]) -> None:
        """With rows that learn in the whole matrices, which are given up afterwards; gives nothing back, for the
        engine looks for tensors in what a module gives."""
        # passes that come now are others than those of a step, and may differ from rank to rank: nothing is fetched
        # ahead of its turn until the next step has been seen
        coordinator = self._wrapped.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()
        self.module.settle()
        found.append(work())

    def together(self, work: Callable[[], T]) -> T:
        return together(self.module, self.ranks, work) if self.apart else work()

    def _value(self, name: str) -> Tensor:
        """A whole weight as it was given, read where nobody has it."""
        own = self._given.get_parameter(name)
        if not own.is_meta:
            return own.detach()
        return self._given.read(name, 0, own.shape[0] if own.ndim else 1)

    def _renew(self, weight: nn.Parameter, value: Tensor) -> None:
        with library().zero.GatheredParameters([weight], modifier_rank=0):
            weight.data.copy_(value)

    def _set(self, weight: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        from deepspeed import utils

        value = value.to(weight.device, torch.float32)
        part: Any = weight.ds_tensor  # type: ignore[attr-defined]
        share = part.numel()  # of a rank; the last one's may be padded
        flat = value.new_zeros(share * self.ranks.size)
        flat[: value.numel()] = value.flatten()
        own = flat[share * self.ranks.rank :][:share]
        if key is None:
            utils.safe_set_local_fp32_param(weight, own)
        else:
            utils.safe_set_local_optimizer_state(weight, own, key)
