from __future__ import annotations

import pytest
import torch

from itemic.errors import ModelError
from itemic.train.dropout import residual_dropout
from tests.train.helpers import tiny_lm

TOKENS = torch.tensor([[5, 6, 7]])


def test_only_in_training_mode_and_only_inside() -> None:
    lm = tiny_lm()
    with torch.no_grad():
        plain = lm(TOKENS).logits
        with residual_dropout(lm, 0.5):
            assert torch.equal(lm(TOKENS).logits, plain)
            lm.train()
            assert not torch.equal(lm(TOKENS).logits, plain)
        assert torch.equal(lm(TOKENS).logits, plain)


def test_what_a_branch_adds_is_dropped_and_scaled() -> None:
    lm = tiny_lm().train()
    seen: list[torch.Tensor] = []
    mlp = lm.model.layers[0].mlp
    torch.manual_seed(0)
    with residual_dropout(lm, 0.25), torch.no_grad():
        handle = mlp.register_forward_hook(lambda module, args, out: seen.append(out / module.forward(*args)))
        for _ in range(40):
            lm(TOKENS)
        handle.remove()
    ratio = torch.cat(seen).flatten()
    assert set(ratio.mul(3).round().int().tolist()) == {0, 4}  # nothing, or 1/(1-.25)
    assert (ratio == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_a_model_without_known_layers_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    config.bos_token_id = config.eos_token_id = 1
    lm = GPT2LMHeadModel(config)
    for block in lm.transformer.h:
        block.feed, block.mlp = block.mlp, torch.nn.Identity()
        del block.mlp
    with pytest.raises(ModelError, match="gpt2"), residual_dropout(lm, 0.1):
        pass


def test_embeddings_are_dropped_too_unless_they_are_made_elsewhere() -> None:
    lm = tiny_lm().train()
    module = lm.get_input_embeddings()
    tokens = torch.arange(1, module.num_embeddings)  # row 0 pads and is zero
    with residual_dropout(lm, 0.5):
        dropped = module(tokens)
    assert 0.3 < float((dropped == 0).float().mean()) < 0.7
    with residual_dropout(lm, 0.5, embeddings=False):
        assert not (module(tokens) == 0).any()
