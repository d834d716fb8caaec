from __future__ import annotations

import warnings
from contextlib import suppress

import pytest
import torch

from itemic.tf32 import tf32


@pytest.mark.parametrize(("wanted", "inside"), [(True, "high"), (False, "highest")])
@pytest.mark.parametrize("before", ["highest", "medium"])
def test_set_for_cuda_and_put_back(wanted: bool, inside: str, before: str) -> None:
    own = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with suppress(ValueError), tf32(wanted, torch.device("cuda")):
                assert torch.get_float32_matmul_precision() == inside
                raise ValueError
            assert torch.get_float32_matmul_precision() == before
            with tf32(wanted, torch.device("cpu")):
                assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(own)


def test_somebody_s_own_switches_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed() -> str:
        raise RuntimeError("you have used mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", mixed)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: pytest.fail("it was changed"))
    with tf32(True, torch.device("cuda")):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_differ_in_their_last_bits() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 256, 256, device="cuda").unbind()
    exact = (a.double() @ b.double()).float()
    faults = []
    for wanted in (False, True):
        with tf32(wanted, a.device):
            faults.append(float((a @ b - exact).abs().max()))
    assert faults[0] < 1e-3
    if torch.cuda.get_device_capability() >= (8, 0):
        assert 1e-3 < faults[1] < 1
