from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.training.language.stage import PACKING
from itemic.training.language.stream import plan_epoch, row_weights, sample_rows, steps
from tests.stages import stage_of
from tests.training.helpers import copy_of, lm_trainer, tiny_lm, toy_rows

STAGE = stage_of({"data.tokens_per_step": 60, "data.block_tokens": 20})


def test_an_epoch_is_a_permutation_and_a_function_of_seed_and_epoch() -> None:
    data = toy_rows()
    plan = plan_epoch(data, STAGE, 0, 0)
    flat = np.concatenate([block for step in plan for block in step])
    assert sorted(flat) == list(range(len(data.rows)))
    again = plan_epoch(data, STAGE, 0, 0)
    assert all((a == b).all() for x, y in zip(plan, again, strict=True) for a, b in zip(x, y, strict=True))
    other = np.concatenate([block for step in plan_epoch(data, STAGE, 0, 1) for block in step])
    assert not np.array_equal(flat, other)


def test_steps_hold_about_as_many_blocks_as_asked() -> None:
    sizes = [len(step) for step in plan_epoch(toy_rows(users=40), STAGE, 0, 0)]
    # users of 10 forest tokens, two in a block: 20 blocks over 7 steps
    assert sorted(sizes) == [2, 3, 3, 3, 3, 3, 3]


def test_the_stream_goes_on_where_it_is_told_to() -> None:
    data = toy_rows(users=42)
    whole = list(islice(steps(data, STAGE, 0, 0, 0), 12))
    rest = list(islice(steps(data, STAGE, 0, 0, 5), 7))
    assert [(s.state, s.after) for s in whole[5:]] == [(s.state, s.after) for s in rest]
    for one, two in zip(whole[5:], rest, strict=True):
        assert all((a.tokens == b.tokens).all() for a, b in zip(one.blocks, two.blocks, strict=True))
    assert whole[6].state == {"epoch": 1, "index": 0}


def test_source_weights_choose_whole_groups() -> None:
    data = toy_rows(users=400, names=("a", "b", "c"))
    rng = np.random.default_rng(0)
    rows, groups = sample_rows(data, {"a": 0, "b": 2.25}, rng)
    count = np.bincount(data.sources[rows], minlength=3)
    assert count[0] == 0
    assert count[2] == (data.sources == 2).sum()
    assert count[1] / (data.sources == 1).sum() == pytest.approx(2.25, abs=0.1)
    sizes = np.unique(groups, return_counts=True)[1]
    assert (sizes == 4).all()  # copies are groups of their own, no group is torn


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="zzz"):
        sample_rows(toy_rows(), {"zzz": 1}, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="no conversation is left"):
        sample_rows(toy_rows(), {"all": 0}, np.random.default_rng(0))


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.5]), max_size=6),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_row_weights_sum_to_one_over_each_row(weights: list[list[float]]) -> None:
    rows = TokenRows.of([[1] * len(row) for row in weights], weights)
    scaled = row_weights(rows)
    for number, row in enumerate(weights):
        part = scaled[rows.offsets[number] : rows.offsets[number + 1]]
        total = sum(row[1:])
        expected = [0.0, *(w / total if total else 0.0 for w in row[1:])][: len(row)]
        assert part.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("packing", ["blocks", "none"])
def test_packing_without_sharing_sees_every_row_once(packing: str) -> None:
    data = toy_rows(30)
    stage = stage_of({"data.packing": packing, "data.tokens_per_step": 60, "data.block_tokens": 30})
    plan = plan_epoch(data, stage, 0, 0)
    assert sorted(int(row) for step in plan for block in step for row in block) == list(range(len(data.rows)))
    assert all(step for step in plan)
    sizes = [[int(data.rows.lengths[block].sum()) for block in step] for step in plan]
    if packing == "blocks":
        assert max(size for step in sizes for size in step) <= 30
    else:
        assert all(len(block) == 1 for step in plan for block in step)
        assert 40 <= np.mean([sum(step) for step in sizes]) <= 80
    again = plan_epoch(data, stage, 0, 0)
    assert all(
        (one == two).all() for a, b in zip(plan, again, strict=True) for one, two in zip(a, b, strict=True)
    )
    assert str(plan_epoch(data, stage, 0, 1)) != str(plan)


@pytest.mark.parametrize("normalizer", ["token", "row"])
def test_packing_does_not_change_the_loss(normalizer: str) -> None:
    """One step over all rows, computed as a forest, as rows in blocks and row after row."""
    data = toy_rows(8, names=("a", "b"))
    weights = []
    for packing in PACKING:
        lm = tiny_lm()
        # plain gradient descent in one step: the weights tell the gradient
        stage = stage_of(
            {
                "steps": 1,
                "data.tokens_per_step": 10_000,
                "data.packing": packing,
                "engine.precision": "float32",
                "objective.normalizer": normalizer,
                "optimizer.clip": 0,
            }
        )
        trainer = lm_trainer(lm, data, stage)
        trainer.strategy.optimizer.parts = [torch.optim.SGD(lm.parameters(), lr=1.0)]
        trainer.run()
        weights.append(copy_of(lm))
    for other in weights[1:]:
        for name, weight in weights[0].items():
            torch.testing.assert_close(other[name], weight, atol=1e-5, rtol=1e-4, msg=name)
