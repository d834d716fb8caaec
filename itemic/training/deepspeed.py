"""DeepSpeed's engine as a strategy: ZeRO shares out optimizer state (1), gradients too (2), weights too (3)."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from itemic.errors import ConfigError
from itemic.training.checkpoint import Shapes, Tensors
from itemic.training.distribution import read_deepspeed
from itemic.training.optimizer import Optimizer
from itemic.training.parallel import Strategy, part_of, refuse_whole_matrices
from itemic.training.precision import compute_dtype

STATES = ("exp_avg", "exp_avg_sq")  # AdamW's moments, by the names that torch gives them


class DeepSpeed(Strategy):
    """ZeRO (Rajbhandari et al. 2020). The objective stays whole beside the engine's copy, to be validated and saved.

    Checkpoints hold whole tensors, gathered one by one, in the same form as those of the other strategies: a run may go
    on with any of them.

    Raises:
        ConfigError: DeepSpeed isn't there, its file doesn't fit, or the stage asks for what it can't do.
    """

    def _prepare(self) -> None:
        refuse_whole_matrices(self.module, self.stage, "deepspeed")
        if self.stage.optimizer.ema:
            raise ConfigError(
                "strategy deepspeed keeps no moving average of weights",
                "Set optimizer.ema to 0, or use fsdp.",
            )
        self.module = self.module.apart()

    def _set_up(self) -> None:
        library = _library()
        config = read_deepspeed(str(self.options.config))
        self.optimizer = Optimizer(self.stage, self.named, self.module.decay())
        (optimizer,) = self.optimizer.parts
        device = self.module.device
        low = compute_dtype(self.stage.engine.precision, device) == torch.bfloat16
        self._wrapped, *_ = library.initialize(
            model=self.module,
            optimizer=optimizer,
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "bf16": {"enabled": low},
                "steps_per_print": 1_000_000_000,
            }
            | config
            | {"gradient_clipping": self.stage.optimizer.clip},
        )
        self._shards_weights = config["zero_optimization"]["stage"] == 3
        if self._shards_weights:
            for weight in self.module.outside():
                library.zero.register_external_parameter(self.module, weight)

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

    def tensors(self) -> Tensors:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._link()
        weights: dict[str, Tensor] = {}
        state: dict[str, Tensor] = {}
        steps = torch.tensor(float(self._steps()))
        for name, weight in self.named.items():
            weights[name] = safe_get_full_fp32_param(weight).detach().cpu()
            for key in STATES:
                state[f"{name}.{key}"] = safe_get_full_optimizer_state(weight, key).detach().cpu()
            state[f"{name}.step"] = steps.clone()
        return {"weights": weights, "optimizer": state}

    def blank(self) -> dict[str, Tensor]:
        return {name: torch.empty_like(weight) for name, weight in self.plain.items()}

    def room(self, shapes: Shapes) -> Tensors:
        return {
            part: {
                name: torch.empty(shape, dtype=dtype)
                for name, (shape, dtype) in part_of(shapes, part).items()
            }
            for part in ("weights", "optimizer")
        }

    def load(self, tensors: Tensors) -> None:
        # the engine makes its state in the first step: one over nothing, at a rate of nothing
        self.accumulating(last=True)
        self.backward(self.cost(self.module.nothing()).sum)
        self.step(0.0, 0.0)
        self._link()
        self.put(tensors["weights"])
        state = tensors["optimizer"]
        for name, weight in self.named.items():
            for key in STATES:
                self._set(weight, state[f"{name}.{key}"], key)
        count = next((float(value) for key, value in state.items() if key.endswith(".step")), 0.0)
        for each in self._wrapped.optimizer.optimizer.state.values():
            each["step"].fill_(count)

    def put(self, weights: dict[str, Tensor]) -> None:
        gathered = _library().zero.GatheredParameters
        for name, weight in self.named.items():
            self._set(weight, weights[name])
            # and those that compute, which the engine would renew after a step only
            with gathered([weight], modifier_rank=0) if self._shards_weights else nullcontext():
                weight.data.copy_(weights[name])

    @torch.no_grad()
    def whole(self) -> None:
        from deepspeed.utils import safe_get_full_fp32_param

        for name, weight in self.named.items():
            self.plain[name].copy_(safe_get_full_fp32_param(weight))

    def _set(self, weight: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """Give the optimizer's own copy of a weight, or a state of it, this whole value."""
        from deepspeed import utils

        value = value.to(weight.device, torch.float32)
        if not self._shards_weights:
            if key is None:
                utils.safe_set_full_fp32_param(weight, value)
            else:
                utils.safe_set_full_optimizer_state(weight, value, key)
            return
        part: Tensor = weight.ds_tensor  # type: ignore[attr-defined]
        share = part.numel()  # of a rank; the last one's may be padded
        flat = value.new_zeros(share * self.ranks.size)
        flat[: value.numel()] = value.flatten()
        own = flat[share * self.ranks.rank :][:share]
        if key is None:
            utils.safe_set_local_fp32_param(weight, own)
        else:
            utils.safe_set_local_optimizer_state(weight, own, key)

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


def _library() -> Any:
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
