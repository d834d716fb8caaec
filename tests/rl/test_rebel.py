"""REBEL over forests against one row per answer with plain autograd, and what becomes of rewards before that."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from itemic.errors import ConfigError
from itemic.forest.context import forest_attention
from itemic.forest.rows import TokenRows
from itemic.rl.groups import GroupBlock
from itemic.rl.rebel import RebelObjective, objective_class, shaped_rewards
from itemic.rl.scoring import Legal
from itemic.rl.settings import GroupSettings, RebelSettings, RLStage
from itemic.sid.trie import Trie
from tests.rl.helpers import plain_log_probs, text_groups
from tests.training.helpers import tiny_lm

FREE = Legal(Trie.build(TokenRows.of([[0]])), "vocab")
PROMPTS = [[1, 2, 3, 30, 31], [1, 2, 3, 7], [1, 2, 9, 9, 9, 9]]


@pytest.mark.parametrize("pairs", ["all", "best-worst"])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_one_forest_is_one_row_per_answer(pairs: str, kind: str) -> None:
    """Value, weight and every weight's gradient."""
    lm = tiny_lm(kind=kind, tied=kind == "qwen3")
    groups = text_groups(PROMPTS, each=4)
    told = GroupSettings(name="rebel", rebel=RebelSettings(eta=0.6, pairs=pairs))  # type: ignore[arg-type]
    objective = RebelObjective(lm, FREE, settings=told)
    with objective.stepping(), forest_attention(lm):
        cost = objective(GroupBlock.of(groups))
        cost.sum.backward()
    assert cost.weight == 3
    found = {name: weight.grad.clone() for name, weight in lm.named_parameters() if weight.grad is not None}
    lm.zero_grad(set_to_none=True)
    gained = []
    for number, now in enumerate(plain_log_probs(lm, groups, [[0]], "vocab")):
        first, stop = groups.answers.offsets[number : number + 2].tolist()
        gained.append(now.sum() - float(groups.log_probs[first:stop].sum()))
    total = torch.zeros(())
    for group in range(3):
        own = np.flatnonzero(groups.group == group).tolist()
        some = list(combinations(own, 2))
        if pairs == "best-worst":
            some = [
                (max(own, key=lambda at: groups.rewards[at]), min(own, key=lambda at: groups.rewards[at]))
            ]
        costs = [
            (gained[one] - gained[two] - 0.6 * float(groups.rewards[one] - groups.rewards[two])) ** 2
            for one, two in some
        ]
        total = total + torch.stack(costs).mean()
    torch.testing.assert_close(cost.sum, total, atol=1e-4, rtol=1e-4)
    total.backward()
    for name, weight in lm.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=2e-4, rtol=1e-3, msg=name)


def test_the_distance_is_taken_off_rewards_answer_by_answer() -> None:
    groups = text_groups(PROMPTS)
    found = shaped_rewards(groups, RebelSettings(kl=0.2, whiten=False))
    assert groups.reference is not None
    for number in range(len(groups.answers)):
        part = slice(*groups.answers.offsets[number : number + 2].tolist())
        apart = float(groups.log_probs[part].sum()) - float(groups.reference[part].sum())
        assert found[number] == pytest.approx(float(groups.rewards[number]) - 0.2 * apart, abs=1e-5)
    given = replace(groups, choice=np.zeros(len(groups.choice), bool))  # tokens that nobody chose don't count
    np.testing.assert_allclose(shaped_rewards(given, RebelSettings(kl=0.2, whiten=False)), groups.rewards)


def test_ranks_whiten_together() -> None:
    whole = text_groups(PROMPTS)
    parts = [whole.take(np.array([0])), whole.take(np.array([1, 2]))]
    told = []

    def gather(own: np.ndarray) -> list[np.ndarray]:
        told.append(own)
        return [own]

    for part in parts:
        shaped_rewards(part, RebelSettings(), gather)
    found = [shaped_rewards(part, RebelSettings(), lambda own: told) for part in parts]
    rewards = whole.rewards.astype(np.float64)
    np.testing.assert_allclose(
        np.concatenate(found), (rewards - rewards.mean()) / rewards.std(), rtol=1e-5, atol=1e-6
    )
    apart = [shaped_rewards(part, RebelSettings()) for part in parts]
    assert not np.allclose(np.concatenate(apart), np.concatenate(found))


def test_equal_rewards_hold_log_ratios_together() -> None:
    """So a group without a signal isn't left out, unlike elsewhere."""
    assert not GroupSettings(name="rebel").needs_signal
    assert GroupSettings(name="grpo").needs_signal
    assert objective_class(GroupSettings(name="rebel")) is RebelObjective
    assert GroupSettings(name="rebel", rebel=RebelSettings(kl=0.1)).compares
    assert not GroupSettings(name="rebel").compares


def test_the_distance_has_one_place() -> None:
    with pytest.raises(ConfigError, match=r"rebel takes the distance off the rewards: rebel\.kl"):
        RLStage.of({"objective": {"name": "rebel", "kl": 0.1}})
