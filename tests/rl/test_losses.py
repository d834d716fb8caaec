"""Every objective against its formula, written out answer by answer in plain Python, values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from itemic.rl.losses import ESTIMATORS, LOSSES, Answers, Settings, divergence

LENGTHS = [[3, 1, 4], [2, 2], [5, 1, 1, 2]]  # tokens of each answer of each group
REWARDS = [[0.0, 1.0, 0.5], [0.3, 0.3], [0.0, 0.0, 1.0, 1.0]]
ADVANTAGES = [[-1.1, 1.3, -0.2], [0.4, -0.4], [-0.9, -0.7, 1.0, 0.6]]
ETA = 0.7
SETTINGS = Settings(clip=0.2, clip_high=0.28, max_tokens=5, sharpness=0.5, preference=0.3, eta=ETA)


def numbers(seed: int, spread: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of all tokens now, when they were drawn, and under a reference."""
    total = sum(map(sum, LENGTHS))
    draw = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(total, generator=draw, dtype=torch.float64)
    now = old + spread * torch.randn(total, generator=draw, dtype=torch.float64)
    return now.requires_grad_(), old, old + 0.3 * torch.randn(total, generator=draw, dtype=torch.float64)


def made(now: Tensor, old: Tensor, reference: Tensor | None) -> Answers:
    lengths = torch.tensor([length for group in LENGTHS for length in group])
    answer = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    group = torch.repeat_interleave(torch.arange(3), torch.tensor([len(group) for group in LENGTHS]))
    flat = [
        torch.tensor([x for group in some for x in group], dtype=torch.float64)
        for some in (ADVANTAGES, REWARDS)
    ]
    return Answers(now, old, answer, group, *flat, reference)


Row = tuple[Tensor, Tensor, Tensor, float, float]  # now, old, reference, advantage, reward


def rows(now: Tensor, old: Tensor, reference: Tensor) -> list[list[Row]]:
    """Answer by answer, each with views of its own tokens."""
    found, at = [], 0
    for lengths, advantages, rewards in zip(LENGTHS, ADVANTAGES, REWARDS, strict=True):
        own = []
        for length, advantage, reward in zip(lengths, advantages, rewards, strict=True):
            part = slice(at, at + length)
            own.append((now[part], old[part], reference[part], advantage, reward))
            at += length
        found.append(own)
    return found


def surrogate(ratio: Tensor, advantage: float) -> Tensor:
    bounded = min(max(float(ratio.detach()), 0.8), 1.28)
    plain = ratio * advantage
    return (
        -plain if float(plain.detach()) <= bounded * advantage else -plain.detach() * 0 - bounded * advantage
    )


def plain_grpo(groups: list[list[Row]]) -> Tensor:
    every = [row for group in groups for row in group]
    return sum(
        sum(surrogate((lp - was).exp(), a) for lp, was in zip(now, old, strict=True)) / len(now)
        for now, old, _, a, _ in every
    ) / len(every)  # type: ignore[return-value]


def plain_dr_grpo(groups: list[list[Row]]) -> Tensor:
    every = [row for group in groups for row in group]
    return sum(
        sum(surrogate((lp - was).exp(), a) for lp, was in zip(now, old, strict=True)) / 5
        for now, old, _, a, _ in every
    ) / len(every)  # type: ignore[return-value]


def plain_tokens(groups: list[list[Row]]) -> Tensor:
    every = [row for group in groups for row in group]
    tokens = sum(len(row[0]) for row in every)
    return (
        sum(
            surrogate((lp - was).exp(), a)
            for now, old, _, a, _ in every
            for lp, was in zip(now, old, strict=True)
        )
        / tokens
    )  # type: ignore[return-value]


def plain_gspo(groups: list[list[Row]]) -> Tensor:
    every = [row for group in groups for row in group]
    return sum(surrogate((now - old).mean().exp(), a) for now, old, _, a, _ in every) / len(every)  # type: ignore[return-value]


def plain_cispo(groups: list[list[Row]]) -> Tensor:
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        for now, old, _, advantage, _ in group:
            for lp, was in zip(now, old, strict=True):
                weight = min(max(math.exp(float((lp - was).detach())), 0.8), 1.28)
                total, tokens = total - weight * advantage * lp, tokens + 1
    return total / tokens


def plain_rloo(groups: list[list[Row]]) -> Tensor:
    every = [row for group in groups for row in group]
    return sum(surrogate((now.sum() - old.sum()).exp(), a) for now, old, _, a, _ in every) / len(every)  # type: ignore[return-value]


def plain_expected(groups: list[list[Row]]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for group in groups:
        mass = [now.sum().exp() ** 0.5 for now, *_ in group]
        total = total - sum(m * row[4] for m, row in zip(mass, group, strict=True)) / sum(mass)
    return total / len(groups)


def gain(row: Row) -> Tensor:
    return 0.3 * (row[0].sum() - row[2].sum())


def preferences(group: list[Row]) -> tuple[Row, list[Row]]:
    most = max(row[4] for row in group)
    return next(row for row in group if row[4] == most), [row for row in group if row[4] < most]


def plain_dpo(groups: list[list[Row]]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for group in groups:
        best, worse = preferences(group)
        if worse:
            total = total - sum(torch.log(torch.sigmoid(gain(best) - gain(x))) for x in worse) / len(worse)
    return total / len(groups)


def plain_sdpo(groups: list[list[Row]]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for group in groups:
        best, worse = preferences(group)
        if worse:
            against = sum(torch.exp(gain(x) - gain(best)) for x in worse)
            total = total - torch.log(torch.sigmoid(-torch.log(against)))
    return total / len(groups)


def plain_rebel(groups: list[list[Row]], pairs: str = "all") -> Tensor:
    """The mean over pairs of a group, then over groups."""
    total = torch.zeros((), dtype=torch.float64)
    for group in groups:
        some = [(one, two) for at, one in enumerate(group) for two in group[at + 1 :]]
        if pairs == "best-worst":
            rewards = [row[4] for row in group]
            worst = len(group) - 1 - rewards[::-1].index(min(rewards))
            some = [(group[rewards.index(max(rewards))], group[worst])]
        costs = [
            ((one[0] - one[1]).sum() - (two[0] - two[1]).sum() - ETA * (one[4] - two[4])) ** 2
            for one, two in some
        ]
        total = total + sum(costs) / len(costs)
    return total / len(groups)


PLAIN: dict[str, Callable[[list[list[Row]]], Tensor]] = {
    "grpo": plain_grpo,
    "dr-grpo": plain_dr_grpo,
    "dapo": plain_tokens,
    "gspo": plain_gspo,
    "cispo": plain_cispo,
    "rloo": plain_rloo,
    "reinforce++": plain_tokens,
    "ppo": plain_tokens,  # where all tokens of an answer have its advantage
    "expected": plain_expected,
    "dpo": plain_dpo,
    "s-dpo": plain_sdpo,
    "rebel": plain_rebel,
}


def mean_of(name: str, answers: Answers) -> Tensor:
    loss = LOSSES[name]
    each = loss.function(answers, SETTINGS).each
    count = {"answers": len(answers.group), "tokens": len(answers.old), "groups": answers.groups}[loss.over]
    assert len(each) == count
    return each.sum() / count


def test_all_objectives_are_checked() -> None:
    assert sorted(PLAIN) == sorted(LOSSES)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PLAIN)
def test_values_and_gradients_are_the_formula_s(name: str, seed: int) -> None:
    now, old, reference = numbers(seed)
    found = mean_of(name, made(now, old, reference))
    wanted = PLAIN[name](rows(now, old, reference))
    (mine,), (theirs,) = (torch.autograd.grad(value, now) for value in (found, wanted))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(mine, theirs)
    assert mine.abs().sum() > 0


@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "dapo", "cispo", "rloo", "reinforce++"])
def test_fresh_answers_give_the_policy_gradient(name: str) -> None:
    """Where the weights haven't moved the gradient is that of Σ A log p, and nothing is clipped."""
    _, old, reference = numbers(0)
    now = old.clone().requires_grad_()
    answers = made(now, old, reference)
    cost = LOSSES[name].function(answers, SETTINGS)
    assert not cost.clipped.any()
    (found,) = torch.autograd.grad(cost.each.sum(), now)
    scale = {"grpo": 1 / answers.lengths, "dr-grpo": torch.full_like(answers.lengths, 1 / 5)}.get(name)
    wanted = -answers.advantages if scale is None else -answers.advantages * scale
    torch.testing.assert_close(found, wanted[answers.answer])


def test_rebel_of_the_best_and_the_worst_alone() -> None:
    """Of equally good answers the first, of equally bad ones the last; of two it is the pair."""
    now, old, reference = numbers(3)
    best_worst = replace(SETTINGS, pairs="best-worst")
    each = LOSSES["rebel"].function(made(now, old, None), best_worst).each
    wanted = plain_rebel(rows(now, old, reference), "best-worst")
    torch.testing.assert_close(each.mean(), wanted)
    (mine,), (theirs,) = (torch.autograd.grad(value, now) for value in (each.mean(), wanted))
    torch.testing.assert_close(mine, theirs)
    every = LOSSES["rebel"].function(made(now, old, None), SETTINGS).each
    torch.testing.assert_close(each[1], every[1])  # the second group has two answers
    assert not torch.isclose(each[0], every[0])


def test_without_a_reference_preferences_are_against_the_answers_own_time() -> None:
    now, old, reference = numbers(1)
    for name in ("dpo", "s-dpo"):
        torch.testing.assert_close(mean_of(name, made(now, old, None)), mean_of(name, made(now, old, old)))
        assert mean_of(name, made(now, old, reference)) != mean_of(name, made(now, old, None))


def test_divergences_are_those_of_all_tokens() -> None:
    """Over all of a vocabulary, weighed by the policy, against the sum that defines the divergence."""
    draw = torch.Generator().manual_seed(0)
    scores, others = (torch.randn(12, generator=draw, dtype=torch.float64) for _ in range(2))
    log, reference = scores.requires_grad_().log_softmax(0), others.log_softmax(0)
    exact = (log.exp() * (log - reference)).sum()
    weights = log.exp().detach()
    for estimator in ("k1", "k3"):
        torch.testing.assert_close((weights * divergence(log, reference, estimator)).sum(), exact)
    (slope,) = torch.autograd.grad(exact, scores, retain_graph=True)
    (found,) = torch.autograd.grad(
        (weights * divergence(log, reference, "k2")).sum(), scores, retain_graph=True
    )
    torch.testing.assert_close(found, slope)
    (nothing,) = torch.autograd.grad(
        (weights * divergence(log, reference, "k1")).sum(), scores, retain_graph=True
    )
    np.testing.assert_allclose(nothing, 0, atol=1e-12)
    assert all((divergence(log, log, estimator) == 0).all() for estimator in ESTIMATORS)
