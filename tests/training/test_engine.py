"""Another way through the same numbers: checkpointed and compiled passes."""

from __future__ import annotations

import shutil

import pytest
import torch

from itemic.errors import ConfigError
from itemic.forest.context import forest_attention
from itemic.training.language.engine import lean_memory
from tests.stages import stage_of
from tests.training.helpers import copy_of, lm_trainer, tiny_lm, toy_rows


def trained(**keys: object) -> dict[str, torch.Tensor]:
    lm = tiny_lm()
    stage = stage_of(
        {
            "steps": 3,
            "data.tokens_per_step": 100,
            "engine.precision": "float32",
            "objective.dropout": 0.1,
            **keys,
        }
    )  # type: ignore[arg-type]
    torch.manual_seed(1)
    lm_trainer(lm, toy_rows(), stage).run()
    lm(torch.tensor([[3, 4]]))  # it works as before
    assert not lm.model.gradient_checkpointing
    return copy_of(lm)


def test_checkpointing_changes_nothing() -> None:
    plain, lean = trained(), trained(**{"engine.gradient_checkpointing": True})
    for name, weight in plain.items():
        torch.testing.assert_close(lean[name], weight, msg=name)


def test_layers_compute_again_under_checkpointing() -> None:
    lm = tiny_lm()
    calls = []
    with forest_attention(lm):  # proves now that the model can do it, with forward passes of its own
        lm.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    lm_trainer(
        lm,
        toy_rows(),
        stage_of({"steps": 1, "data.tokens_per_step": 1000, "engine.gradient_checkpointing": True}),
    ).run()
    assert len(calls) == 2  # once for the loss, once for the gradient
    assert not lm.get_input_embeddings()._forward_hooks


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_compiling_changes_next_to_nothing() -> None:
    plain, fast = trained(), trained(**{"engine.compile": True})
    for name, weight in plain.items():
        torch.testing.assert_close(fast[name], weight, atol=1e-4, rtol=1e-3, msg=name)


def test_layers_that_cannot_be_computed_again_are_named() -> None:
    lm = tiny_lm()
    lm.supports_gradient_checkpointing = False
    with (
        pytest.raises(ConfigError, match="qwen3 model can't compute its layers again"),
        lean_memory(lm, True),
    ):
        pass
