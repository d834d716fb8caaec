"""Log-probabilities of choices, and costs, over forests: values and gradients against a row of its own per answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from itemic.forest.context import forest_attention
from itemic.forest.rows import TokenRows
from itemic.rl.groups import GroupBlock, Groups, blocks_of
from itemic.rl.losses import LOSSES, TOKENS, Answers, Settings, divergence
from itemic.rl.objective import GroupObjective, weight_of
from itemic.rl.scoring import Legal, choice_log_probs
from itemic.rl.settings import GroupSettings
from itemic.sid.trie import Trie
from itemic.training.language.learning import Learning
from itemic.training.language.new_rows import learning_rows
from tests.rl.helpers import catalogue, item_groups, plain_log_probs, text_groups
from tests.training.helpers import tiny_lm

ROWS = catalogue()
TRIE = Trie.build(TokenRows.of(ROWS))
PROMPTS = [[1, 2, 3, 30, 31], [1, 2, 3, 7], [1, 2, 9, 9, 9, 9]]
ITEMS = item_groups(ROWS, PROMPTS, [[0, 1, 5, 20], [3, 2], [7, 8, 9, 10, 11]])
MIXED = Groups.joined([ITEMS, text_groups(PROMPTS)])


@pytest.mark.parametrize("normalize", ["vocab", "level", "legal"])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("chunk", [2048, 3])
def test_log_probabilities_and_gradients_are_those_of_single_rows(
    normalize: str, kind: str, chunk: int
) -> None:
    lm = tiny_lm(kind=kind, tied=kind == "qwen3")
    block = GroupBlock.of(MIXED)
    with forest_attention(lm):
        ours = choice_log_probs(lm, block, Legal(TRIE, normalize), chunk=chunk)
        push = torch.from_numpy(np.random.default_rng(0).normal(size=len(ours)).astype(np.float32))
        (ours * push).sum().backward()
    gradients = {
        name: weight.grad.clone() for name, weight in lm.named_parameters() if weight.grad is not None
    }
    lm.zero_grad()
    theirs = torch.cat(plain_log_probs(lm, MIXED, ROWS, normalize))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    (theirs * push).sum().backward()
    for name, weight in lm.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, atol=5e-5, rtol=1e-3, msg=name)


def test_rows_that_learn_get_the_gradient_that_they_have_in_the_whole() -> None:
    lm = tiny_lm(tied=False)
    block, legal = GroupBlock.of(MIXED), Legal(TRIE, "level")
    with forest_attention(lm):
        choice_log_probs(lm, block, legal).sum().backward()
    whole = [part.weight.grad.clone() for part in (lm.get_input_embeddings(), lm.get_output_embeddings())]
    lm.zero_grad(set_to_none=True)
    with learning_rows(lm, range(20, 50)) as rows, forest_attention(lm):
        choice_log_probs(lm, block, legal, new_rows=rows).sum().backward()
        torch.testing.assert_close(rows.input.grad, whole[0][20:50], atol=1e-5, rtol=1e-4)
        assert rows.output is not None
        torch.testing.assert_close(rows.output.grad, whole[1][20:50], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name not in ("ppo", "rebel")]
)  # they have tests of their own
@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_costs_of_every_objective_against_single_rows(name: str, kl: float) -> None:
    """The same loss function fed with rows of their own: the objective's sum, its weight, and the gradient."""
    settings = GroupSettings(name=name, kl=kl, clip_high=0.28, sharpness=0.5)
    lm = tiny_lm()
    objective = GroupObjective(lm, Legal(TRIE, "vocab"), settings=settings, max_tokens=4)
    with objective.stepping():
        cost = objective(GroupBlock.of(ITEMS))
    cost.sum.backward()
    ours = {key: weight.grad.clone() for key, weight in lm.named_parameters()}
    lm.zero_grad()
    rows = plain_log_probs(lm, ITEMS, ROWS, "vocab")
    answer = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(row) for row in rows]))
    choice = ITEMS.choice
    answers = Answers(
        torch.cat(rows),
        torch.from_numpy(ITEMS.log_probs[choice]),
        answer,
        torch.from_numpy(ITEMS.group),
        torch.from_numpy(ITEMS.advantages),
        torch.from_numpy(ITEMS.rewards),
        torch.from_numpy(ITEMS.reference[choice]),
    )
    theirs = LOSSES[name].function(answers, Settings(0.2, 0.28, 4, 0.5, 0.1)).each
    total = theirs.sum()
    apart = divergence(answers.log_probs, answers.reference, "k3")
    if kl and name == "expected":
        for group in range(len(ITEMS)):  # the definition of the divergence of two distributions
            own = [number for number in range(len(rows)) if ITEMS.group[number] == group]
            mine, other = (
                torch.stack([0.5 * values[answer == number].sum() for number in own]).log_softmax(0)
                for values in (answers.log_probs, answers.reference)
            )
            total = total + kl * torch.nn.functional.kl_div(other, mine, log_target=True, reduction="sum")
    elif kl and LOSSES[name].over == TOKENS:
        total = total + kl * apart.sum()
    elif kl:
        each = torch.stack([apart[answer == number].mean() for number in range(len(rows))])
        total = total + kl * each.mean() * len(theirs)
    assert cost.weight == len(theirs) == weight_of(ITEMS, settings)
    torch.testing.assert_close(cost.sum, total, atol=1e-4, rtol=1e-4)
    total.backward()
    for key, weight in lm.named_parameters():
        torch.testing.assert_close(ours[key], weight.grad, atol=1e-4, rtol=1e-3, msg=key)


def test_blocks_cost_what_the_whole_does_and_nothing_costs_nothing() -> None:
    lm = tiny_lm()
    objective = GroupObjective(lm, Legal(TRIE, "level"))
    with objective.stepping():
        whole = objective(GroupBlock.of(MIXED))
        parts = [objective(GroupBlock.of(part)) for part in blocks_of(MIXED, 30)]
        nothing = objective(objective.nothing())
    assert len(parts) > 1
    assert sum(part.weight for part in parts) == whole.weight == len(MIXED.answers)
    assert sum(float(part.sum) for part in parts) == pytest.approx(float(whole.sum), rel=1e-4)
    assert float(nothing.sum) == nothing.weight == 0
    nothing.sum.backward()  # through every module, as the engines ask
    assert all(weight.grad is not None and not weight.grad.any() for weight in lm.parameters())


def test_scores_without_gradients_are_the_same_and_leave_the_mode() -> None:
    lm = tiny_lm().train()
    objective = GroupObjective(lm, Legal(TRIE, "level"))
    found = objective.score(MIXED)
    assert lm.training
    theirs = torch.cat(plain_log_probs(lm.eval(), MIXED, ROWS, "level")).detach().numpy()
    np.testing.assert_allclose(found[MIXED.choice], theirs, atol=2e-5)
    assert not found[~MIXED.choice].any()


def test_groups_survive_json_and_taking_apart() -> None:
    back = Groups.from_json(MIXED.to_json())
    for name in ("group", "request", "node", "choice", "log_probs", "rewards", "advantages", "reference"):
        np.testing.assert_array_equal(getattr(back, name), getattr(MIXED, name))
    order = np.array([4, 0, 2])
    some = MIXED.take(order)
    assert some.prompts[1].tolist() == MIXED.prompts[0].tolist()
    for new, old in enumerate(order.tolist()):
        mine, theirs = np.flatnonzero(some.group == new), np.flatnonzero(MIXED.group == old)
        assert [some.answers[n].tolist() for n in mine] == [MIXED.answers[n].tolist() for n in theirs]
        np.testing.assert_array_equal(some.rewards[mine], MIXED.rewards[theirs])
    assert some.choice.sum() == sum(
        MIXED.choice[slice(*MIXED.answers.offsets[n : n + 2])].sum()
        for n in np.flatnonzero(np.isin(MIXED.group, order))
    )


def test_a_block_s_places_are_its_tokens() -> None:
    block = GroupBlock.of(MIXED)
    np.testing.assert_array_equal(block.forest.tokens[block.place], MIXED.answers.tokens[MIXED.choice])
    assert len(block.forest) < len(MIXED.rows.tokens)  # prompts stand once


def test_learning_alone_is_what_a_reference_keeps() -> None:
    from itemic.rl.reference import OwnWeights

    lm = tiny_lm()
    objective = GroupObjective(lm, Legal(TRIE, "vocab"), Learning.all_of(lm), settings=GroupSettings(kl=0.1))
    reference = OwnWeights(objective, 5)
    before = reference.score(ITEMS, 1000)
    np.testing.assert_allclose(before, objective.score(ITEMS), atol=1e-6)
    with torch.no_grad():
        for weight in lm.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    moved = objective.score(ITEMS)
    assert np.abs(moved - before).max() > 1e-3
    np.testing.assert_allclose(reference.score(ITEMS, 1000), before, atol=1e-6)
    np.testing.assert_array_equal(objective.score(ITEMS), moved)  # the policy's weights are back
    reference.follow(4)
    np.testing.assert_allclose(reference.score(ITEMS, 1000), before, atol=1e-6)
    reference.follow(5)
    np.testing.assert_allclose(reference.score(ITEMS, 1000), moved, atol=1e-6)
