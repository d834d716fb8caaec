from __future__ import annotations

import sys
from typing import get_args

import pytest
import torch

from itemic.errors import ConfigError
from itemic.training.optimizer import Optimizer, WeightAverage, decayed, trainable_parameters
from itemic.training.settings import OptimizerName
from tests.families import BY_NAME
from tests.stages import stage_of
from tests.training.helpers import copy_of, tiny_lm
from tests.training.test_muon import by_singular_values


@pytest.mark.parametrize("tied", [True, False])
def test_only_inner_matrices_decay(tied: bool) -> None:
    lm = tiny_lm(tied=tied)
    names = decayed(lm, trainable_parameters(lm))
    inner = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert names == {name for name, _ in lm.named_parameters() if name.split(".")[-2] in inner}
    assert len(names) == 2 * len(inner)


def test_norms_and_biases_with_a_row_for_each_do_not_decay() -> None:
    lm = BY_NAME["Cohere"].model(64)
    names = decayed(lm, trainable_parameters(lm))
    assert dict(lm.named_parameters())["model.layers.0.self_attn.q_norm.weight"].ndim == 2
    assert {name.split(".")[-2] for name in names} == {
        *(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
    }
    lm = BY_NAME["gpt-oss"].model(64)
    names = decayed(lm, trainable_parameters(lm))
    assert "model.layers.0.mlp.experts.down_proj" in names
    assert dict(lm.named_parameters())["model.layers.0.mlp.experts.down_proj_bias"].ndim == 2
    assert not [name for name in names if "bias" in name]


def test_muon_leaves_experts_in_one_tensor_to_adamw() -> None:
    lm = BY_NAME["Qwen3-MoE"].model(64)
    named = trainable_parameters(lm)
    optimizer = Optimizer(
        stage_of({"optimizer.name": "muon", "optimizer.weight_decay": 0.5, "learning_rate": 0.1}),
        named,
        decayed(lm, named),
    )
    before = copy_of(lm)
    for weight in named.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    muon, adamw = optimizer.parts
    assert all(weight.ndim == 2 for group in muon.param_groups for weight in group["params"])
    experts = "model.layers.0.mlp.experts.down_proj"
    assert any(named[experts] is weight for group in adamw.param_groups for weight in group["params"])
    torch.testing.assert_close(named[experts].detach(), 0.95 * before[experts])


def test_a_step_without_gradient_direction_only_decays() -> None:
    lm = tiny_lm(tied=False)
    named = trainable_parameters(lm)
    before = copy_of(lm)
    optimizer = Optimizer(
        stage_of({"learning_rate": 0.1, "optimizer.weight_decay": 0.5}), named, decayed(lm, named)
    )
    for weight in named.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for name, weight in named.items():
        factor = 0.95 if "proj" in name else 1.0
        torch.testing.assert_close(weight.detach(), before[name] * factor)


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_state_survives_the_way_through_named_tensors(name: str) -> None:
    """Two steps, state and weights handed to a new optimizer, two more: the weights of four steps in one."""

    def model() -> tuple[dict[str, torch.nn.Parameter], Optimizer]:
        torch.manual_seed(3)
        # 80 × 64 is large enough for bitsandbytes to keep its state in 8 bits
        named = {"a": torch.nn.Parameter(torch.randn(80, 64)), "b.c": torch.nn.Parameter(torch.randn(2))}
        return named, Optimizer(stage_of({"optimizer.name": name, "learning_rate": 0.02}), named, {"a"})

    def step(named: dict[str, torch.nn.Parameter], optimizer: Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for weight in named.values():
            weight.grad = torch.randn_like(weight)
        optimizer.step()

    one, first = model()
    before = {key: weight.detach().clone() for key, weight in one.items()}
    for seed in range(4):
        step(one, first, seed)
    assert not any(torch.equal(one[key], before[key]) for key in one)
    two, second = model()
    for seed in range(2):
        step(two, second, seed)
    if name == "adamw-8bit":
        assert second.tensors()["a.state1"].dtype == torch.uint8
    three, third = model()
    assert third.tensors() == {}
    with torch.no_grad():
        for key in three:
            three[key].copy_(two[key])
    third.load({key: value.clone() for key, value in second.tensors().items()})
    for seed in range(2, 4):
        step(three, third, seed)
    assert all(torch.equal(one[key], three[key]) for key in one)


def test_muon_takes_the_matrices_and_adamw_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", by_singular_values)
    torch.manual_seed(0)
    weights = {"m": torch.randn(6, 4), "n": torch.randn(4)}
    grads = {key: torch.randn_like(weight) for key, weight in weights.items()}
    named = {key: torch.nn.Parameter(weight.clone()) for key, weight in weights.items()}
    alone = {key: torch.nn.Parameter(weight.clone()) for key, weight in weights.items()}
    ours = Optimizer(
        stage_of({"optimizer.name": "muon", "learning_rate": 0.1, "optimizer.weight_decay": 0.3}),
        named,
        {"m"},
    )
    theirs = [
        torch.optim.Muon(
            [alone["m"]], lr=0.05, weight_decay=0.3, momentum=0.9, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW([alone["n"]], lr=0.05, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    ours.set_learning_rate(0.05)
    for key in weights:
        named[key].grad, alone[key].grad = grads[key].clone(), grads[key].clone()
    ours.step()
    for optimizer in theirs:
        optimizer.step()
    for key in weights:
        torch.testing.assert_close(named[key].detach(), alone[key].detach())
    ours.zero_grad()
    assert all(weight.grad is None for weight in named.values())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    weight = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(ConfigError, match="needs bitsandbytes"):
        Optimizer(stage_of({"optimizer.name": "adamw-8bit"}), {"w": weight}, set())


def test_average_by_hand() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    average = WeightAverage({"w": weight}, 0.5)
    with torch.no_grad():
        weight.fill_(10.0)
    average.update(0)  # decay min(.5, 1/10): .1·0 + .9·10
    assert average.average["w"].item() == pytest.approx(9.0)
    with torch.no_grad():
        weight.fill_(20.0)
    average.update(100)  # decay .5: .5·9 + .5·20
    assert average.average["w"].item() == pytest.approx(14.5)
    average.swap()
    assert (weight.item(), average.average["w"].item()) == (14.5, 20.0)
    average.swap()
    assert (weight.item(), average.average["w"].item()) == (20.0, 14.5)
