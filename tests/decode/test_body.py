"""The lean forward against the model's own, and who gets it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from itemic.decode import BeamSearch
from itemic.decode.attention import PromptPass
from itemic.decode.body import LeanBody, TransformersBody, body_of
from itemic.decode.layout import Group, group_prompts
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.decode.test_beam import catalogue, some_prompts
from tests.forest.reference import FAMILIES, tiny

LEAN = ("qwen3", "qwen2", "llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_models_of_known_build_get_the_lean_forward(family: str) -> None:
    assert type(body_of(tiny(family).eval())) is (LeanBody if family in LEAN else TransformersBody)


def test_anything_unusual_goes_through_transformers() -> None:
    hooked = tiny("qwen3").eval()
    hooked.model.layers[0].mlp.down_proj.register_forward_hook(lambda *_: None)
    assert isinstance(body_of(hooked), TransformersBody)

    class Adapted(nn.Linear):
        pass

    adapted = tiny("llama").eval()
    old = adapted.model.layers[1].self_attn.q_proj
    adapted.model.layers[1].self_attn.q_proj = Adapted(old.in_features, old.out_features)
    assert isinstance(body_of(adapted), TransformersBody)

    other_activation = tiny("qwen2").eval()
    other_activation.config.hidden_act = "gelu"
    assert isinstance(body_of(other_activation), TransformersBody)

    changed = tiny("qwen3").eval()  # what its attributes say is not what it does
    forward = changed.model.norm.forward
    changed.model.norm.forward = lambda x: forward(x) * 2
    assert isinstance(body_of(changed), TransformersBody)


@pytest.mark.parametrize("family", LEAN)
@pytest.mark.parametrize("template", [None, [1, 2, 3, 1, 2]])
def test_lean_searches_find_what_transformers_finds(family: str, template: list[int] | None) -> None:
    lm, trie = tiny(family).eval(), Trie.build(TokenRows.of(catalogue()))
    prompts = TokenRows.of(some_prompts((3, 7, 150, 20, 1, 8, 9)))
    search = BeamSearch(lm, trie, beams=15, template=template)
    assert isinstance(search.body, LeanBody)
    items, scores = search.rank(prompts, k=15)
    other = BeamSearch(lm, trie, beams=15, template=template)
    other.body = TransformersBody(lm)
    theirs = other.rank(prompts, k=15)
    assert (items == theirs[0]).all()
    np.testing.assert_allclose(scores, theirs[1], atol=1e-4)


@pytest.mark.parametrize("family", LEAN)
def test_hidden_states_are_those_of_each_prompt_alone(family: str) -> None:
    lm = tiny(family).eval()
    prompts = TokenRows.of(some_prompts((3, 40, 41, 7)))
    start = np.repeat(prompts.offsets[:-1], prompts.lengths)
    position = torch.from_numpy(np.arange(len(prompts.tokens)) - start)
    step = PromptPass(group_prompts(prompts.lengths, lm.device), [])
    with torch.inference_mode():
        ours = LeanBody(lm)(torch.from_numpy(prompts.tokens.astype(np.int64)), position, step)
        theirs = [
            lm.base_model(torch.tensor([prompts[row].tolist()])).last_hidden_state[0, -1]
            for row in range(len(prompts))
        ]
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-5, rtol=1e-4)


def test_groups_pad_and_unpad_without_loss() -> None:
    lengths = np.array([9, 9, 8, 3, 3, 30])
    groups = group_prompts(lengths, torch.device("cpu"))
    assert [group.requests for group in groups] == [5, 1]  # 3 is within 8 tokens of 9; 30 is far from both
    tokens = torch.arange(int(lengths.sum()))
    assert torch.cat([group.unpad(group.pad(tokens)) for group in groups]).tolist() == tokens.tolist()
    assert torch.cat([group.ends() for group in groups]).tolist() == (np.cumsum(lengths) - 1).tolist()
    for group in groups:
        if group.bias is not None:
            real = int(torch.isfinite(group.bias).sum())
            assert real == group.stop - group.start


def test_groups_hold_few_scores_at_once() -> None:
    many = group_prompts(np.full(64, 1000), torch.device("cpu"), template=1000, leaves=50 * 16)
    assert len(many) == 7  # ten prompts of 2,000 keys and 800 queries are 16 million scores
    assert sum(group.requests for group in many) == 64


def test_a_group_without_leaves_is_empty() -> None:
    group = Group.of(5, np.zeros(3, np.int64), torch.device("cpu"))
    assert (group.start, group.stop, group.width) == (5, 5, 0)
