from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from itemic.training.language.lean import NORMS, lean_norms, rms_norm
from tests.forest.reference import FAMILIES, tiny

KINDS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)


def test_all_kinds_are_checked() -> None:
    assert sorted(kind.__name__ for kind in KINDS) == sorted(NORMS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 3000, 64), (1, 7, 4, 8), (5, 1)])
def test_it_is_transformers_norm_with_its_gradients(
    kind: type[torch.nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    norm = kind(shape[-1], eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(shape[-1]))  # type: ignore[operator]
    hidden, slope = torch.randn(shape, requires_grad=True), torch.randn(shape)
    wanted = norm(hidden)
    slopes = torch.autograd.grad(wanted, (hidden, norm.weight), slope)
    found = rms_norm(hidden, norm.weight, 1e-3)  # type: ignore[arg-type]
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(torch.autograd.grad(found, (hidden, norm.weight), slope), slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    hidden = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-6), (hidden, weight))


def test_a_weight_that_does_not_learn_gets_no_gradient() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.ones(8)
    rms_norm(hidden, weight, 1e-6).sum().backward()
    assert hidden.grad is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_models_stay_what_they_are(family: str) -> None:
    lm = tiny(family)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        before = lm(tokens).logits
        with lean_norms(lm):
            inside = lm(tokens).logits
            doubled = lm.double()(tokens).logits
            lm.float()
        torch.testing.assert_close(inside, before)
        assert doubled.dtype == torch.float64
        assert torch.equal(lm(tokens).logits, before)
