"""What differs from family to family and isn't attention: positions, the bias of a head, names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from itemic.decode import BeamSearch
from itemic.errors import ConfigError, ConstraintError, ModelError
from itemic.forest.rows import TokenRows
from itemic.model.expand import check_kind, resize
from itemic.model.layers import branches, layers_of, matrices_of_layers
from itemic.model.positions import learned_positions, most_positions
from itemic.sid.trie import Trie
from itemic.training.language.stage import Stage
from tests.families import BY_NAME
from tests.training.helpers import lm_trainer, toy_rows


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("Qwen3", "model.layers"),
        ("GPT-2", "transformer.h"),
        ("OPT", "model.decoder.layers"),
        ("GPT-NeoX", "gpt_neox.layers"),
    ],
)
def test_layers_and_their_matrices_are_found(family: str, name: str) -> None:
    lm = BY_NAME[family].model(64)
    found, layers = layers_of(lm)
    assert found == name
    assert layers is lm.get_submodule(name)
    inside = {each for each, weight in lm.named_parameters() if each.startswith(name) and weight.ndim == 2}
    assert {f"{matrix}.weight" for matrix in matrices_of_layers(lm)} == inside


def test_a_part_that_nobody_knows_is_named() -> None:
    lm = BY_NAME["Qwen3"].model(64)
    lm.model.layers[1].memory = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="qwen3 model have a part memory"):
        branches(lm)
    lm.model.layers = torch.nn.ModuleList(list(lm.model.layers)[:1])
    with pytest.raises(ModelError, match="found no layers in a qwen3"):
        layers_of(lm)


def test_experts_in_one_tensor_and_routers_are_no_matrices_of_their_own() -> None:
    for family in ("Qwen3-MoE", "Llama 4"):
        names = {name.rpartition(".")[2] for name in matrices_of_layers(BY_NAME[family].model(64))}
        assert {"q_proj", "k_proj", "v_proj", "o_proj"} <= names
        assert not names & {"experts", "router", "gate"}


def test_positions_are_those_of_the_short_frequencies() -> None:
    """One more token changes all of them, so rows on both sides have nothing to share."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0, 1.0, 1.5, 2.0],
        "long_factor": [1.0, 4.0, 8.0, 16.0],
    }
    keys = {"rope_parameters": rope, "original_max_position_embeddings": 16, "max_position_embeddings": 64}
    lm = replace(BY_NAME["Phi-4"], keys=keys).model(64)
    bound = most_positions(lm)
    assert bound == 16
    tokens = torch.arange(3, 3 + bound + 1)[None]
    with torch.no_grad():
        within, shorter, beyond = (
            lm(tokens[:, :n], use_cache=False).logits[0, 5] for n in (bound, 8, bound + 1)
        )
    torch.testing.assert_close(within, shorter)
    assert not torch.allclose(within, beyond, atol=1e-3)


@pytest.mark.parametrize("family", ["GPT-2", "OPT", "Llama, rope dynamic", "Llama, rope yarn", "GPT-J"])
def test_positions_of_others_are_all_they_have(family: str) -> None:
    assert most_positions(BY_NAME[family].model(64)) == 256


@pytest.mark.parametrize("family", ["Phi", "GPT-J"])
def test_a_heads_bias_grows_with_it(family: str) -> None:
    lm = BY_NAME[family].model(60)
    before = lm.lm_head.bias.detach().clone()
    resize(lm, 64)
    after = lm.lm_head.bias.detach()
    assert torch.equal(after[:60], before)
    torch.testing.assert_close(after[60:], before.mean().expand(4))


def test_what_its_configuration_leaves_open_does_not_make_an_encoder() -> None:
    config = BY_NAME["GPT-NeoX"].model(64).config
    assert config.is_decoder is False
    check_kind(config)


@pytest.mark.parametrize("family", ["GPT-2", "OPT"])
def test_learned_positions_end(family: str) -> None:
    """The last token of an answer is read by nobody: with three tokens, a prompt of 14 fits into 16."""
    base = BY_NAME[family]
    lm = replace(base, keys=dict(base.keys) | {"max_position_embeddings": 16}).model(64)
    assert learned_positions(lm) == 16
    search = BeamSearch(lm, Trie.build(TokenRows.of([[4, 5, 6], [4, 6, 7]])), beams=2, skip_forced=False)
    items, _ = search.rank(TokenRows.of([[9] * 14]), k=2)
    assert sorted(items[0].tolist()) == [0, 1]
    with pytest.raises(
        ConstraintError,
        match="prompt 1 has 15 tokens, up to 2 more are to come, and the model's positions end at 16",
    ):
        search.rank(TokenRows.of([[9] * 3, [9] * 15]), k=2)
    with torch.no_grad(), pytest.raises(IndexError):
        lm(torch.full((1, 17), 9))
    short = replace(base, keys=dict(base.keys) | {"max_position_embeddings": 8}).model(64)
    with pytest.raises(ConfigError, match="a row has 10 tokens") as caught:
        lm_trainer(short, toy_rows(), Stage(steps=1))
    assert "data.max_length to 8" in caught.value.remedy


@pytest.mark.parametrize("family", ["Qwen3", "GPT-NeoX", "Llama, rope dynamic"])
def test_computed_positions_do_not(family: str) -> None:
    assert learned_positions(BY_NAME[family].model(64)) is None
