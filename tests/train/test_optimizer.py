from __future__ import annotations

import pytest
import torch

from itemic.train.optimizer import (
    WeightAverage,
    decayed,
    load_optimizer,
    make_optimizer,
    optimizer_tensors,
    trainable_parameters,
)
from itemic.train.stage import Stage
from tests.train.helpers import copy_of, tiny_lm


@pytest.mark.parametrize("tied", [True, False])
def test_only_inner_matrices_decay(tied: bool) -> None:
    lm = tiny_lm(tied=tied)
    names = decayed(lm, trainable_parameters(lm))
    inner = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert names == {name for name, _ in lm.named_parameters() if name.split(".")[-2] in inner}
    assert len(names) == 2 * len(inner)


def test_a_step_without_gradient_direction_only_decays() -> None:
    lm = tiny_lm(tied=False)
    named = trainable_parameters(lm)
    before = copy_of(lm)
    optimizer = make_optimizer(Stage(learning_rate=0.1, weight_decay=0.5), named, decayed(lm, named))
    for weight in named.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for name, weight in named.items():
        factor = 0.95 if "proj" in name else 1.0
        torch.testing.assert_close(weight.detach(), before[name] * factor)


def test_state_survives_the_way_through_named_tensors() -> None:
    def model() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
        torch.manual_seed(3)
        named = {"a": torch.nn.Parameter(torch.randn(3, 2)), "b": torch.nn.Parameter(torch.randn(2))}
        return named, make_optimizer(Stage(), named, {"a"})

    def step(named: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW, seed: int) -> None:
        torch.manual_seed(seed)
        for weight in named.values():
            weight.grad = torch.randn_like(weight)
        optimizer.step()

    one, first = model()
    for seed in range(4):
        step(one, first, seed)
    two, second = model()
    for seed in range(2):
        step(two, second, seed)
    three, third = model()
    with torch.no_grad():
        for name in three:
            three[name].copy_(two[name])
    load_optimizer(third, three, {k: v.clone() for k, v in optimizer_tensors(second, two).items()})
    for seed in range(2, 4):
        step(three, third, seed)
    assert all(torch.equal(one[name], three[name]) for name in one)


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
