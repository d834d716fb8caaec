from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from itemic.errors import ModelError
from itemic.model.layers import branches
from itemic.training.language.dropout import residual_dropout, without_own_dropout
from tests.families import BY_NAME
from tests.stages import stage_of, with_keys
from tests.training.helpers import VOCABULARY, copy_of, lm_trainer, tiny_lm, toy_rows

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


OWN = {
    "GPT-2": {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3},
    "OPT": {"dropout": 0.3, "attention_dropout": 0.3, "layerdrop": 0.9},
    "GPT-NeoX": {"hidden_dropout": 0.3, "attention_dropout": 0.3},
    "Phi": {"resid_pdrop": 0.3, "embd_pdrop": 0.3},
    "StarCoder2": {"residual_dropout": 0.3, "embedding_dropout": 0.3},
    "Mixtral": {"router_jitter_noise": 0.3},
}


@pytest.mark.parametrize("family", OWN)
def test_a_bases_own_dropout_is_off_while_it_trains(family: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = BY_NAME[family]
    lm = replace(plain, keys=dict(plain.keys) | OWN[family]).model(VOCABULARY).train()
    calm = plain.model(VOCABULARY).eval()
    assert not torch.equal(lm(TOKENS, use_cache=False).logits, lm(TOKENS, use_cache=False).logits)
    with caplog.at_level("INFO", "itemic"), without_own_dropout(lm), torch.no_grad():
        assert torch.equal(lm(TOKENS, use_cache=False).logits, calm(TOKENS, use_cache=False).logits)
    assert f"the {plain.kind} model's own dropout" in caplog.text
    assert not torch.equal(lm(TOKENS, use_cache=False).logits, lm(TOKENS, use_cache=False).logits)


def test_training_is_that_of_a_base_without_dropout() -> None:
    """Whatever the base's configuration says; a stage's own dropout counts."""
    plain = BY_NAME["GPT-2"]
    stage = stage_of({"steps": 2, "data.tokens_per_step": 100, "engine.precision": "float32"})
    weights = []
    for keys, share in (({}, 0.0), (OWN["GPT-2"], 0.0), ({}, 0.2)):
        lm = replace(plain, keys=dict(plain.keys) | keys).model(VOCABULARY)
        torch.manual_seed(0)
        lm_trainer(lm, toy_rows(), with_keys(stage, {"objective.dropout": share})).run()
        weights.append(copy_of(lm))
        assert lm.transformer.drop.p == keys.get("embd_pdrop", 0.0)
    without, own, dropped = weights
    assert all(torch.equal(own[name], weight) for name, weight in without.items())
    assert not all(torch.equal(dropped[name], weight) for name, weight in without.items())


@pytest.mark.parametrize(
    ("family", "last"), [("GPT-2", "mlp"), ("OPT", "fc2"), ("Mixtral", "mlp"), ("GPT-J", "mlp")]
)
def test_attention_and_feed_forward_are_found_under_other_names(family: str, last: str) -> None:
    lm = BY_NAME[family].model(VOCABULARY)
    found = [name for part in branches(lm) for name, module in lm.named_modules() if module is part]
    assert len(found) == 4
    assert [name.rpartition(".")[2] for name in found[1::2]] == [last, last]
    assert all("attn" in name for name in found[::2])
