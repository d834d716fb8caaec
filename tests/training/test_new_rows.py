from __future__ import annotations

import numpy as np
import pytest
import torch

from itemic.errors import ModelError
from itemic.forest.rows import TokenRows
from itemic.training.language.learning import Learning
from itemic.training.language.new_rows import learning_rows
from itemic.training.language.stream import TrainingRows
from tests.stages import stage_of
from tests.training.helpers import copy_of, lm_trainer, tiny_lm, toy_rows

NEW = list(range(40, 60))
STAGE = stage_of(
    {
        "train.what": "embeddings",
        "steps": 5,
        "data.tokens_per_step": 100,
        "learning_rate": 0.05,
        "optimizer.weight_decay": 0.5,
        "optimizer.ema": 0.5,
        "objective.dropout": 0.1,
        "engine.precision": "float32",
        "schedule.warmup": 0,
    }
)


@pytest.mark.parametrize("tied", [True, False])
def test_all_else_is_bit_identical(tied: bool) -> None:
    lm = tiny_lm(tied=tied)
    before = copy_of(lm)
    flags = {name: weight.requires_grad for name, weight in lm.named_parameters()}
    data = toy_rows()
    seen = np.intersect1d(np.concatenate([data.rows[row][:-1] for row in range(len(data.rows))]), NEW)
    with learning_rows(lm, NEW) as rows:
        trainer = lm_trainer(lm, data, STAGE, learns=Learning.rows_of(rows))
        trainer.run()
        assert len(trainer.strategy.optimizer.tensors()) == 3 * (1 if tied else 2)
    after = copy_of(lm)
    matrices = {"model.embed_tokens.weight", "lm_head.weight"}
    for name, weight in after.items():
        if name not in matrices:
            assert torch.equal(weight, before[name]), name
            continue
        same = (weight == before[name]).all(1)
        assert same[:40].all(), name
        assert same[60:].all(), name
        # the softmax reaches every new row of the head; the input's rows learn where they were seen
        learned = np.arange(40, 60) if tied or name == "lm_head.weight" else seen
        assert np.flatnonzero(~same.numpy()).tolist() == learned.tolist(), name
    assert {name: weight.requires_grad for name, weight in lm.named_parameters()} == flags
    assert (lm.get_output_embeddings().weight is lm.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_those_of_the_whole_model(tied: bool) -> None:
    """One step of plain gradient descent by autograd on the unmodified model, rows cut out by hand."""
    lm = tiny_lm(tied=tied)
    tokens = torch.tensor([[41, 5, 42, 43, 7, 44]])
    loss = lm(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    whole = [m.weight.grad[40:60].clone() for m in (lm.get_input_embeddings(), lm.get_output_embeddings())]
    lm.zero_grad()

    row = TokenRows.of(tokens.tolist(), [[1.0] * 6])
    data = TrainingRows(row, np.zeros(1, np.int64), np.zeros(1, np.int32))
    with learning_rows(lm, NEW) as rows:
        trainer = lm_trainer(
            lm,
            data,
            stage_of(
                {"train.what": "embeddings", "steps": 1, "engine.precision": "float32", "optimizer.clip": 0}
            ),
            learns=Learning.rows_of(rows),
        )
        grads: list[torch.Tensor] = []
        trainer.strategy.optimizer.parts[0].register_step_pre_hook(
            lambda *_: grads.extend(weight.grad.clone() for weight in trainer.named.values())
        )
        trainer.run()
    for ours, theirs in zip(grads, whole, strict=False):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    assert len(grads) == (1 if tied else 2)


def test_ids_with_a_gap_or_beyond_the_model_are_refused() -> None:
    lm = tiny_lm()
    with pytest.raises(ModelError, match="contiguous"), learning_rows(lm, [40, 42]):
        pass
    with pytest.raises(ModelError, match="beyond"), learning_rows(lm, [63, 64]):
        pass


class Bent(torch.nn.Embedding):
    """Does more with its rows than to scale them."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens).tanh()


def test_an_embedding_that_does_more_with_its_rows_is_refused() -> None:
    lm = tiny_lm()
    old = lm.get_input_embeddings()
    bent = Bent(*old.weight.shape)
    bent.weight = torch.nn.Parameter(torch.ones_like(old.weight))
    lm.set_input_embeddings(bent)
    with pytest.raises(ModelError, match="embedding of a qwen3 model"), learning_rows(lm, range(40, 50)):
        pass
    assert all(weight.requires_grad for weight in lm.parameters())
