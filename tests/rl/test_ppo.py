"""PPO: advantages, whitening, the critic's and the policy's costs, against plain loops and rows of their own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from itemic.errors import ArtifactError
from itemic.forest.rows import TokenRows
from itemic.rl.critic import as_critic, critic_adapters, load_critic, save_critic, value_head
from itemic.rl.groups import GroupBlock, Groups, blocks_of
from itemic.rl.objective import weight_of
from itemic.rl.ppo import PPOObjective, discounted, value_costs, whitened, with_advantages
from itemic.rl.scoring import Legal
from itemic.rl.settings import GroupSettings, PPOSettings, RLStage
from itemic.sid.trie import Trie
from itemic.training.language.learning import Learning, learning
from tests.rl.helpers import catalogue, text_groups
from tests.training.helpers import tiny_lm

TRIE = Trie.build(TokenRows.of(catalogue()))
PROMPTS = [[1, 2, 3, 30, 31], [1, 2, 3, 7], [1, 2, 9, 9, 9, 9]]


def lists(seed: int = 0) -> Groups:
    """Texts some of whose tokens were given, others chosen from sets, with rewards on their choices."""
    rng, texts = np.random.default_rng(seed), text_groups(PROMPTS, seed)
    count = len(texts.choice)
    choice = rng.random(count) < 0.7
    choice[texts.answers.offsets[1:] - 1] = True  # an answer goes up to its last choice
    sets, node = [], np.full(count, -1)
    for at in np.flatnonzero(choice & (rng.random(count) < 0.6)).tolist():
        own = rng.choice(np.arange(6, 60), rng.integers(2, 9), replace=False)
        sets.append(np.unique([*own, texts.answers.tokens[at]]).tolist())
        node[at] = len(sets) - 1
    zero = np.where(choice, 1, 0).astype(np.float32)
    return replace(
        texts,
        choice=choice,
        node=node,
        log_probs=texts.log_probs * zero,
        reference=texts.reference * zero,
        sets=TokenRows.of(sets),
        numbers={"rewards": (rng.normal(size=count) * choice).astype(np.float32)},
    )


def one_by_one(groups: Groups) -> list[np.ndarray]:
    """The choices of each answer, as places of all tokens."""
    offsets = groups.answers.offsets
    return [first + np.flatnonzero(groups.choice[first:stop]) for first, stop in pairwise(offsets.tolist())]


def test_advantages_are_sums_of_what_comes() -> None:
    """By their definition: the sum of discounted errors of the critic, row by row, step by step."""
    rng = np.random.default_rng(0)
    lengths = [5, 1, 3]
    there = np.arange(5) < np.array(lengths)[:, None]
    rewards, values = rng.normal(size=(2, 3, 5)) * there
    advantages, returns = discounted(rewards, values, there, 0.9, 0.7)
    for row, length in enumerate(lengths):
        ahead = [*values[row, :length], 0.0]
        errors = [rewards[row, t] + 0.9 * ahead[t + 1] - ahead[t] for t in range(length)]
        for t in range(length):
            wanted = sum((0.9 * 0.7) ** (later - t) * errors[later] for later in range(t, length))
            assert advantages[row, t] == pytest.approx(wanted)
    np.testing.assert_allclose(returns, (advantages + values) * there)
    assert not advantages[~there].any()
    whole, _ = discounted(rewards, values, there, 1.0, 1.0)  # then it is the reward to come, less the value
    to_come = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(whole[there], (to_come - values)[there])


def test_the_worked_example() -> None:
    advantages, returns = discounted(
        np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]), np.ones((1, 2), bool), 0.9, 1.0
    )
    np.testing.assert_allclose(advantages, [[0.4, 0.5]])
    np.testing.assert_allclose(returns, [[0.9, 1.0]])


def test_whitening() -> None:
    values = np.random.default_rng(0).normal(3, 5, 200)
    shifted, kept = whitened(values, shift=True), whitened(values, shift=False)
    np.testing.assert_allclose(shifted, (values - values.mean()) / values.std())
    np.testing.assert_allclose(kept, (values - values.mean()) / values.std() + values.mean())
    np.testing.assert_allclose(whitened(np.full(4, 2.0), shift=False), 2.0)
    np.testing.assert_allclose(whitened(np.full(4, 2.0), shift=True), 0.0)
    # ranks that have a part each whiten what all have
    parts = [values[:50], values[50:]]
    told = [np.array([len(part), part.sum(), (part**2).sum()]) for part in parts]
    for part, other in zip(parts, told[::-1], strict=True):
        mine = whitened(part, shift=True, gather=lambda own, other=other: [own, other])  # type: ignore[misc]
        np.testing.assert_allclose(mine, (part - values.mean()) / values.std())


@pytest.mark.parametrize("whiten", ["none", "rewards", "advantages", "both"])
def test_rewards_become_advantages(whiten: str) -> None:
    """The distance to the reference comes off choice by choice; then whitening, advantages, whitening."""
    groups = lists()
    settings = PPOSettings(kl=0.3, gamma=0.9, smoothing=0.8, whiten=whiten)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    values = rng.normal(size=len(groups.choice)).astype(np.float32)
    found = with_advantages(groups, values, settings)
    assert groups.reference is not None
    given = groups.numbers["rewards"] - 0.3 * (groups.log_probs - groups.reference)
    places = one_by_one(groups)
    every = np.concatenate(places)
    assert len(every) == groups.choice.sum()
    if whiten in ("rewards", "both"):
        given = (given - given[every].mean()) / given[every].std() + given[every].mean()
    gains = np.zeros(len(given))
    for own in places:
        ahead, after = 0.0, 0.0
        for at in own[::-1]:
            ahead = given[at] + 0.9 * after - values[at] + 0.9 * 0.8 * ahead
            gains[at], after = ahead, values[at]
    np.testing.assert_allclose(found.numbers["returns"][every], (gains + values)[every], atol=2e-5)
    if whiten in ("advantages", "both"):
        gains[every] = (gains[every] - gains[every].mean()) / gains[every].std()
    np.testing.assert_allclose(found.numbers["advantages"][every], gains[every], atol=2e-5)
    assert not found.numbers["advantages"][~groups.choice].any()


def test_a_value_s_cost_counts_what_it_may_not_gain() -> None:
    cost = value_costs(torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([2.0, 2.0]), 0.2)
    torch.testing.assert_close(cost, torch.tensor([1.62, 0.5 * 1.9**2]))


def objective_of(lm: torch.nn.Module, **keys: object) -> PPOObjective:
    settings = GroupSettings("ppo", ppo=PPOSettings(**keys), clip_high=0.3)  # type: ignore[arg-type]
    torch.manual_seed(1)
    head = value_head(lm, 12)  # type: ignore[arg-type]
    torch.nn.init.normal_(head.out.weight)
    return PPOObjective(lm, Legal(TRIE, "legal"), head=head, settings=settings)  # type: ignore[arg-type]


def plain_cost(
    objective: PPOObjective, groups: Groups, critic: bool = False
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The whole cost by definition: an answer at a time, each a row of its own through plain transformers."""
    lm, told = objective.lm, objective.settings.ppo
    total = torch.zeros(())
    values = []
    for number, own in enumerate(one_by_one(groups)):
        first = int(groups.answers.offsets[number])
        prompt, answer = groups.prompts[int(groups.group[number])].tolist(), groups.answers[number].tolist()
        row = torch.tensor([prompt + answer])
        out = lm(row, use_cache=False, output_hidden_states=True)
        hidden = out.hidden_states[-1][0]
        if critic:
            with as_critic(lm):
                hidden = lm(row, use_cache=False, output_hidden_states=True).hidden_states[-1][0]
        for at in own.tolist():
            place = len(prompt) + at - first
            line = out.logits[0][place - 1].float()
            node = int(groups.node[at])
            over = list(range(len(line))) if node < 0 else groups.sets[node].tolist()  # type: ignore[index]
            chances = line[over].log_softmax(-1)
            log_prob = chances[over.index(int(groups.answers.tokens[at]))]
            ratio = (log_prob - float(groups.log_probs[at])).exp()
            gain = float(groups.numbers["advantages"][at])
            total = total - torch.minimum(ratio * gain, ratio.clamp(0.8, 1.3) * gain)
            state = hidden[place - 1] if critic else hidden[place - 1].detach()
            head = objective.value_head
            value = head.out(torch.tanh(head.inside(state)))[0]  # type: ignore[operator, union-attr]
            values.append(value)
            old, wanted = (float(groups.numbers[name][at]) for name in ("values", "returns"))
            near = old + (value - old).clamp(-0.2, 0.2)
            error = torch.maximum((value - wanted) ** 2, (near - wanted) ** 2)
            entropy = -(chances.exp() * chances).sum()
            total = total + told.value_weight * 0.5 * error - told.entropy * entropy
    return total, values


@pytest.mark.parametrize("adapters", [False, True])
def test_costs_and_gradients_are_those_of_single_rows(adapters: bool) -> None:
    """Policy, critic and entropy together, over forests, with a head alone and with a critic's own adapters."""
    lm = tiny_lm()
    stage = RLStage.of({"train": {"what": "lora" if adapters else "all", "rank": 3}})
    with learning(lm, stage, range(0)) as learns:
        critics = critic_adapters(lm, stage.train) if adapters else None
        objective = objective_of(lm, kl=0.3, entropy=0.05, value_weight=0.7)
        if adapters:
            objective = PPOObjective(
                lm,
                objective.legal,
                learns,
                head=objective.value_head,
                adapters=critics,
                settings=objective.settings,
            )
            with torch.no_grad():  # adapters that add something, each of its own
                for name, weight in objective.learning().items():
                    if "lora_B" in name:
                        weight.normal_(0, 0.1)
        groups = lists()
        values = objective.value_all(groups, 40)
        found = with_advantages(
            groups, (values + 0.3 * groups.choice).astype(np.float32), objective.settings.ppo
        )
        with objective.stepping():
            cost = objective(GroupBlock.of(found))
        cost.sum.backward()
        named = objective.learning()
        ours = {name: weight.grad.clone() for name, weight in named.items() if weight.grad is not None}
        assert cost.weight == groups.choice.sum() == weight_of(groups, objective.settings)
        for weight in named.values():
            weight.grad = None
        total, states = plain_cost(objective, found, critic=adapters)
        np.testing.assert_allclose(
            values[groups.choice], [float(each.detach()) for each in states], atol=2e-5
        )
        torch.testing.assert_close(cost.sum, total, atol=1e-4, rtol=1e-4)
        total.backward()
        theirs = {name: weight.grad for name, weight in named.items() if weight.grad is not None}
        assert ours.keys() == theirs.keys()
        if adapters:
            assert any(".critic." in name for name in ours)
            assert any(".default." in name for name in ours)
        for name, grad in theirs.items():
            torch.testing.assert_close(ours[name], grad, atol=1e-4, rtol=1e-3, msg=name)


def test_blocks_cost_what_the_whole_does_and_nothing_costs_nothing() -> None:
    objective = objective_of(tiny_lm())
    groups = with_advantages(lists(), objective.value_all(lists(), 1000), objective.settings.ppo)
    with objective.stepping():
        whole = objective(GroupBlock.of(groups))
        parts = [objective(GroupBlock.of(part)) for part in blocks_of(groups, 30)]
        nothing = objective(objective.nothing())
    assert len(parts) > 1
    assert sum(float(part.sum.detach()) for part in parts) == pytest.approx(
        float(whole.sum.detach()), rel=1e-4
    )
    assert float(nothing.sum.detach()) == nothing.weight == 0
    nothing.sum.backward()  # through every module, as the engines ask
    assert all(weight.grad is not None and not weight.grad.any() for weight in objective.learning().values())


def test_groups_with_sets_and_numbers_survive_json_and_joining() -> None:
    one, two = lists(0), lists(1)
    back = Groups.from_json(one.to_json())
    assert back.sets is not None
    assert one.sets is not None
    np.testing.assert_array_equal(back.sets.tokens, one.sets.tokens)
    np.testing.assert_array_equal(back.numbers["rewards"], one.numbers["rewards"])
    both = Groups.joined([one, two.moved(len(one))])
    later = both.take(np.arange(len(one), len(both)))
    assert later.sets is not None
    assert two.sets is not None
    for at, (mine, theirs) in enumerate(zip(later.node.tolist(), two.node.tolist(), strict=True)):
        assert (mine < 0) == (theirs < 0), at
        if mine >= 0:
            assert later.sets[mine].tolist() == two.sets[theirs].tolist()
    np.testing.assert_array_equal(later.numbers["rewards"], two.numbers["rewards"])


def test_a_critic_is_saved_and_loaded(tmp_path: Path) -> None:
    lm = tiny_lm()
    stage = RLStage.of({"train": {"what": "lora", "rank": 3}})
    with learning(lm, stage, range(0)) as learns:
        adapters = critic_adapters(lm, stage.train)
        objective = objective_of(lm)
        objective = PPOObjective(
            lm,
            objective.legal,
            learns,
            head=objective.value_head,
            adapters=adapters,
            settings=objective.settings,
        )
        with torch.no_grad():
            for weight in objective.critic_weights().values():
                weight.normal_()
        policy = {name: weight.clone() for name, weight in objective.policy_weights().items()}
        values = objective.value_all(lists(), 1000)
        save_critic(objective.critic_weights(), tmp_path)
        with torch.no_grad():
            for weight in objective.critic_weights().values():
                weight.zero_()
        assert not np.array_equal(objective.value_all(lists(), 1000), values)
        load_critic(objective.critic_weights(), tmp_path)
        np.testing.assert_array_equal(objective.value_all(lists(), 1000), values)
        assert all(torch.equal(policy[name], weight) for name, weight in objective.policy_weights().items())
    other = objective_of(tiny_lm()).critic_weights()
    with pytest.raises(ArtifactError, match="critic of another model"):
        load_critic(other, tmp_path)
    with pytest.raises(ArtifactError, match="objective ppo"):
        load_critic(other, tmp_path / "nowhere")


def test_all_of_a_model_learns_but_for_what_the_critic_alone_reads() -> None:
    """The head doesn't teach the policy's layers: without a policy's and the entropy's cost they get no gradient."""
    lm = tiny_lm()
    objective = objective_of(lm, entropy=0.0)
    groups = lists()
    done = with_advantages(groups, objective.value_all(groups, 1000), objective.settings.ppo)
    done = done.with_numbers(advantages=np.zeros(len(groups.choice), np.float32))
    with objective.stepping():
        objective(GroupBlock.of(done)).sum.backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in lm.parameters())
    assert objective.value_head.out.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]
    assert set(Learning.all_of(lm).named) == set(objective.policy_weights())
