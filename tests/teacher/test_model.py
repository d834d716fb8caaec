"""Packed rows against one user at a time: hidden states, losses, gradients; windows and slabs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.data.sequences import Sequences
from itemic.teacher.objective import ItemSoftmax
from itemic.teacher.rows import ItemRows, pack, windows
from tests.teacher.helpers import ITEMS, rows_of, tiny
from tests.teacher.reference import hidden_states, log_chances, loss

RNG = np.random.default_rng(0)
ROWS = [RNG.integers(0, ITEMS, size).tolist() for size in (3, 8, 2, 3, 5, 8, 2, 9, 4, 3)]


def test_hidden_states_and_scores_are_those_of_one_user_at_a_time() -> None:
    model = tiny().model
    rows = [row[:8] for row in ROWS] + [[4]]
    packed = pack(rows_of(rows))
    with torch.no_grad():
        hidden, scores = model(packed), model.scores(packed)
    start = 0
    for place in packed.order.tolist():  # the rows in the order of the slabs
        row = rows[place]
        torch.testing.assert_close(
            hidden[start : start + len(row)], hidden_states(model, row), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(scores[place], log_chances(model, row)[-1], atol=1e-4, rtol=1e-4)
        start += len(row)
    assert start == len(packed)  # nothing is padded


def test_losses_and_gradients_are_those_of_one_user_at_a_time() -> None:
    objective = ItemSoftmax(tiny().model, chunk=7)
    model = objective.model
    cost = objective(pack(rows_of(ROWS), learn=True))
    assert cost.weight == sum(len(row) - 1 for row in ROWS)
    cost.sum.backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    slow = loss(model, ROWS)
    slow.backward()
    assert float(cost.sum.detach()) == pytest.approx(float(slow.detach()), rel=1e-5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(ours[name], weight.grad, atol=1e-3, rtol=1e-3)


def test_blocks_add_up() -> None:
    """However rows are put into blocks, a step's gradient is the same."""
    objective = ItemSoftmax(tiny().model)
    found = []
    for parts in ([ROWS], [ROWS[:3], ROWS[3:4], ROWS[4:]]):
        objective.zero_grad()
        for part in parts:
            objective(pack(rows_of(part), learn=True)).sum.backward()
        found.append([weight.grad.clone() for weight in objective.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_label_smoothing_is_torchs() -> None:
    objective = ItemSoftmax(tiny().model, label_smoothing=0.2)
    block = pack(rows_of(ROWS), learn=True)
    with torch.no_grad():
        logits = objective.model(block) @ objective.model.items.weight.T
        truth = torch.nn.functional.cross_entropy(logits, block.targets, reduction="sum", label_smoothing=0.2)
        assert float(objective(block).sum) == pytest.approx(float(truth), rel=1e-5)


def test_nobody_peeks() -> None:
    """Later items, and other users, change nothing before them."""
    model = tiny().model
    one, two = [1, 2, 3, 4, 5], [1, 2, 3, 20, 21]
    with torch.no_grad():
        alone = model(pack(rows_of([one])))
        other = model(pack(rows_of([two])))
        beside = model(pack(rows_of([one, [9, 9, 9, 9, 9], [7] * 6])))
    torch.testing.assert_close(alone[:3], other[:3])
    assert not torch.allclose(alone[3:], other[3:])
    torch.testing.assert_close(alone, beside[:5], atol=1e-6, rtol=1e-5)


def test_a_block_without_weight_has_gradients_of_zero() -> None:
    objective = ItemSoftmax(tiny().model)
    cost = objective(objective.nothing())
    assert cost.weight == 0
    assert float(cost.sum) == 0
    cost.sum.backward()
    assert all(
        weight.grad is not None and not weight.grad.any() for weight in objective.model.layers.parameters()
    )


def test_dropout_works_in_training_alone() -> None:
    model = tiny(dropout=0.5).model
    block = pack(rows_of([row[:8] for row in ROWS]))
    with torch.no_grad():
        calm = model(block)
        assert torch.equal(calm, model(block))
        model.train()
        one, two = model(block), model(block)
    assert not torch.allclose(one, two)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=8), st.integers(1, 6))
def test_windows_learn_every_item_but_the_first_once(lengths: list[int], length: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.arange(offsets[-1], dtype=np.int32)  # an item's number is its place
    users = np.array([str(user) for user in range(len(lengths))], object)
    found = windows(Sequences(users, offsets, items), length)
    assert ((found.lengths >= 2) & (found.lengths <= length + 1)).all()
    rows = [found.items[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]
    assert all(row == list(range(row[0], row[-1] + 1)) for row in rows)
    targets = [item for row in rows for item in row[1:]]
    firsts = set(offsets[:-1].tolist())
    assert sorted(targets) == [place for place in range(offsets[-1]) if place not in firsts]
    for user, size in enumerate(lengths):  # the latest items are together
        if size > length:
            stop = int(offsets[user + 1])
            assert list(range(stop - length - 1, stop)) in rows


def test_packing_keeps_all_and_knows_where() -> None:
    rows = rows_of(ROWS)
    packed = pack(rows)
    assert sum(count * length for count, length in packed.slabs) == len(packed) == len(rows.items)
    ends = packed.items[packed.ends].tolist()
    assert ends == [ROWS[place][-1] for place in packed.order]
    taken = rows.take(np.array([3, 0], np.int64))
    assert isinstance(taken, ItemRows)
    assert taken.items.tolist() == ROWS[3] + ROWS[0]
