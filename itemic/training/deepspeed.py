"""DeepSpeed's engine as a strategy: ZeRO shares out optimizer state (1), gradients too (2). Stage 3, which shares out
weights as well, is in ``partitioned.py``."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from itemic.errors import ConfigError
from itemic.training.checkpoint import Shapes, Tensors
from itemic.training.distribution import read_deepspeed
from itemic.training.optimizer import Optimizer
from itemic.training.parallel import Strategy, buffers_of, is_empty, part_of, refuse_whole_matrices
from itemic.training.precision import compute_dtype

STATES = ("exp_avg", "exp_avg_sq")  # AdamW's moments, by the names that torch gives them


class DeepSpeed(Strategy):
    """ZeRO's stages 1 and 2 (Rajbhandari et al. 2020). The objective's own weights compute, whole on every rank, and
    are validated as they are; under bfloat16 the engine rounds them, and :meth:`finish` brings back what it has in
    float32.

    Checkpoints hold each rank's rows of tensors that are gathered one by one, in the same form as those of the other
    strategies: a run may go on with any of them.

    Raises:
        ConfigError: DeepSpeed isn't there, its file doesn't fit, or the stage asks for what it can't do; or a rank has
            no weights.
    """

    def _prepare(self) -> None:
        self._check()
        empty = [str(rank) for rank, each in enumerate(self.ranks.gather(is_empty(self.module))) if each]
        if empty:
            raise ConfigError(
                f"a model without weights on rank {', '.join(empty)}: ZeRO shares weights out in stage 3 alone",
                "Load it on every rank, set zero_optimization.stage to 3, or use strategy fsdp.",
            )
        self.module.agree(self.ranks)
        self._decays = self.module.decay()
        # what the engine hangs on a weight is all that comes to its attributes; see finish()
        self._own = {weight: set(vars(weight)) for weight in self.module.parameters()}
        self._exact = {
            weight: weight.detach().cpu().clone()
            for weight in self.module.parameters()
            if self._loses_digits(weight)
        }

    def _check(self) -> None:
        """Refuse what the engine can't do, and read its file."""
        refuse_whole_matrices(self.module, self.stage, "deepspeed")
        if self.stage.optimizer.ema:
            raise ConfigError(
                "strategy deepspeed keeps no moving average of weights",
                "Set optimizer.ema to 0, or use fsdp.",
            )
        without = self.module.device.type == "meta"
        self._device = self.ranks.device if without else self.module.device
        low = compute_dtype(self.stage.engine.precision, self._device) == torch.bfloat16
        given: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": low},
            "steps_per_print": 1_000_000_000,
        }
        clip = {"gradient_clipping": self.stage.optimizer.clip}
        self._config = given | read_deepspeed(str(self.options.config)) | clip
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        asked = (dtype for name, dtype in kinds.items() if self._config.get(name, {}).get("enabled"))
        self._low = next(asked, None)  # what the engine rounds weights to
        self._mesh = init_device_mesh("cpu", (self.ranks.size,))

    def _set_up(self) -> None:
        self.optimizer = Optimizer(self.stage, self.named, self._decays)
        (optimizer,) = self.optimizer.parts
        buffers = buffers_of(self.module)
        self._wrapped, *_ = library().initialize(
            model=self.module, optimizer=optimizer, dist_init_required=False, config=self._config
        )
        for (
            part,
            name,
            buffer,
        ) in buffers:  # some versions round them as well, such as the frequencies of positions
            setattr(part, name, buffer)
        self._learn_exactly()

    def _learn_exactly(self) -> None:
        """Give the optimizer the values that it learns from as they were: the engine takes the rounded ones."""
        for weight in self.named.values():
            if (value := self._exact.pop(weight, None)) is not None:
                self._set(weight, value)

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        self._wrapped.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._wrapped.backward(loss * self.ranks.size)

    def step(self, rate: float, clip: float) -> float:
        for group in self._wrapped.optimizer.param_groups:
            group["lr"] = rate
        self._wrapped.step()
        return float(self._wrapped.get_global_grad_norm())

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        if self._wrapped is None:
            return super().weights()
        return {name: self._rows_of(safe_get_full_fp32_param(weight)) for name, weight in self.named.items()}

    def tensors(self) -> Tensors:
        from deepspeed.utils import safe_get_full_optimizer_state

        state: dict[str, Tensor] = {}
        if steps := self._steps():  # the engine makes its state in the first step
            self._link()
            for name, weight in self.named.items():
                for key in STATES:
                    state[f"{name}.{key}"] = self._rows_of(safe_get_full_optimizer_state(weight, key))
                state[f"{name}.step"] = torch.tensor(steps)
        return {"weights": self.weights(), "optimizer": state}

    def blank(self) -> dict[str, Tensor]:
        return {name: self._room(weight.shape, torch.float32) for name, weight in self.plain.items()}

    def room(self, shapes: Shapes) -> Tensors:
        return {
            part: {name: self._room(shape, dtype) for name, (shape, dtype) in part_of(shapes, part).items()}
            for part in ("weights", "optimizer")
        }

    def load(self, tensors: Tensors) -> None:
        state = tensors["optimizer"]
        if not state:  # a checkpoint of the beginning
            self.put(tensors["weights"])
            return
        # room for it comes with a step: one over nothing, at a rate of nothing
        self.accumulating(last=True)
        self.backward(self.cost(self.module.nothing()).sum)
        self.step(0.0, 0.0)
        self._link()
        self.put(tensors["weights"])
        for name, weight in self.named.items():
            for key in STATES:
                self._set(weight, _full(state[f"{name}.{key}"]), key)
        count = next(float(value) for key, value in state.items() if key.endswith(".step"))
        for each in self._wrapped.optimizer.optimizer.state.values():
            each["step"].fill_(count)

    @torch.no_grad()
    def put(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self.named.items():
            value = _full(weights[name])
            if self._wrapped is not None:
                self._set(weight, value)
            self._renew(weight, value)

    @torch.no_grad()
    def finish(self) -> None:
        """Give the objective its float32 weights back, each in a storage of its own, and let go of the engine."""
        from deepspeed.utils import safe_get_full_fp32_param

        learning = set(self.named.values())
        for weight in self.module.parameters():
            if weight in learning:
                weight.data = safe_get_full_fp32_param(weight).clone()
            else:
                weight.data = self._exact.pop(weight, weight.data).to(weight.device, torch.float32)
        engine, self._wrapped = self._wrapped, None
        engine.destroy()
        engine.module_forward_pre_hook.remove()
        engine.module_forward_post_hook.remove()
        for weight, own in self._own.items():
            weight.grad = None
            for name in set(vars(weight)) - own:
                delattr(weight, name)

    def _loses_digits(self, weight: Tensor) -> bool:
        """Whether the engine rounds this value to another one."""
        return self._low is not None and not torch.equal(weight.float(), weight.to(self._low).float())

    def _renew(self, weight: nn.Parameter, value: Tensor) -> None:
        """Give a weight that computes this whole value, which the engine would do after a step only."""
        weight.data.copy_(value)

    def _set(self, weight: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """Give the optimizer's own copy of a weight, or a state of it, this whole value."""
        from deepspeed import utils

        value = value.to(weight.device, torch.float32)
        if key is None:
            utils.safe_set_full_fp32_param(weight, value)
        else:
            utils.safe_set_full_optimizer_state(weight, value, key)

    def _rows_of(self, value: Tensor) -> Tensor:
        """This rank's rows of a whole tensor, in main memory, as a part of it."""
        room = self._room(value.shape, value.dtype)
        if isinstance(room, DTensor):
            own = room.to_local()
            begin = -(-len(value) // self.ranks.size) * self.ranks.rank
            own.copy_(value.detach()[begin : begin + len(own)])
            return room
        return value.detach().cpu()

    def _room(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Room for this rank's rows of a tensor; a number is whole on each."""
        if not len(shape):
            return torch.empty(shape, dtype=dtype)
        share = -(-shape[0] // self.ranks.size)
        begin = min(share * self.ranks.rank, shape[0])
        own = torch.empty((min(share, shape[0] - begin), *shape[1:]), dtype=dtype)
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(own, self._mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)

    def _link(self) -> None:
        """Let the engine's accessors see the state of every group of weights. It links them itself once, when the first
        group has made its step and the others have none yet (seen in 0.19)."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        zero = self._wrapped.optimizer
        for weights, flat in zip(
            getattr(zero, "bit16_groups", ()),
            getattr(zero, "single_partition_of_fp32_groups", ()),
            strict=True,
        ):
            lazy_init_hp_params_optimizer_state(weights, flat, zero.optimizer.state)

    def _steps(self) -> float:
        states = self._wrapped.optimizer.optimizer.state.values()
        return next((float(state["step"]) for state in states if "step" in state), 0.0)


def _full(value: Tensor) -> Tensor:
    """A whole tensor of each rank's rows."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def library() -> Any:
    """DeepSpeed.

    Raises:
        ConfigError: it isn't there.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it looks for a GPU's tool chain
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigError(
            "strategy deepspeed needs DeepSpeed",
            'Install it once torch is there: `pip install --no-build-isolation "itemic[deepspeed]"`.',
        ) from error
    return deepspeed
