"""FLOPs by formula against torch's own count of a plain forward and backward pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from itemic.forest.build import build_forest
from itemic.forest.context import forest_attention
from itemic.forest.rows import TokenRows
from itemic.forest.run import ROUND, forest_loss
from itemic.forest.support import check_supported
from itemic.training.language.flops import ModelFlops
from itemic.training.language.next_token import NextToken
from itemic.training.language.stream import forest_sizes
from itemic.training.peaks import PEAKS, peak_flops
from itemic.training.place import Window
from tests.families import BY_NAME
from tests.stages import stage_of
from tests.training.helpers import lm_trainer, tiny_lm, toy_rows


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("frozen", [False, True])
def test_equal_to_torchs_counter(kind: str, frozen: bool) -> None:
    lm = tiny_lm(tied=False, kind=kind)
    lm.set_attn_implementation("eager")  # whose products torch counts, the upper triangle too
    tokens = torch.arange(3, 40)[None]
    if frozen:
        lm.requires_grad_(False)
    embeds = lm.get_input_embeddings()(tokens).detach().requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        lm(inputs_embeds=embeds, use_cache=False).logits.sum().backward()
    length = tokens.shape[1]
    assert ModelFlops.of(lm)(length, length, length, length**2) == pytest.approx(
        counter.get_total_flops(), rel=1e-3
    )


@pytest.mark.parametrize("family", ["GPT-2", "OPT", "Qwen3-MoE", "DeepSeek-V3", "gpt-oss"])
def test_equal_to_torchs_counter_in_other_families(family: str) -> None:
    lm = BY_NAME[family].model(300)
    lm.set_attn_implementation("eager")
    lm.set_experts_implementation("eager")  # a product per expert, as many tokens as it is given
    embeds = lm.get_input_embeddings()(torch.arange(3, 40)[None]).detach().requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        lm(inputs_embeds=embeds, use_cache=False).logits.sum().backward()
    assert ModelFlops.of(lm)(37, 37, 37, 37**2) == pytest.approx(counter.get_total_flops(), rel=1e-3)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_a_forest_needs_what_torch_counts(kind: str) -> None:
    """But for attention, whose CPU kernel torch doesn't count; at sizes that nothing has to be rounded up to."""
    rows = [[1, 2, 3, 4, user, *[5, 6, 7, 8, 9] * 10, 10 + user] for user in range(11, 11 + 16)]
    lm, forest = (
        tiny_lm(tied=False, kind=kind),
        build_forest(TokenRows.of(rows, [[1.0] * 56] * 16)).padded(ROUND),
    )
    weight = forest.weight.copy()
    weight[np.flatnonzero(weight)[2 * ROUND :]] = 0
    forest = replace(forest, weight=weight)
    sizes = forest_sizes([forest])
    parents = -(-sizes.counts["parents"] // ROUND) * ROUND
    check_supported(lm)  # the trial of a model counts for nothing
    with FlopCounterMode(display=False) as counter, forest_attention(lm):
        forest_loss(lm, forest, backend="sdpa").total.backward()
    found = counter.get_total_flops()
    wanted = ModelFlops.of(lm)(len(forest), parents, sizes.counts["targets"], 0)
    assert sizes.counts["targets"] == 2 * ROUND < len(forest) / 2
    assert found == pytest.approx(wanted, rel=0.02)
    assert found < 0.95 * ModelFlops.of(lm)(len(forest), len(forest), sizes.counts["targets"], 0)


def test_parents_are_counted_once() -> None:
    forest = build_forest(TokenRows.of([[1, 2, 3], [1, 2, 4]], [[0.0, 1.0, 1.0], [0.0, 0.0, 2.0]]))
    counts = forest_sizes([forest]).counts
    assert (counts["targets"], counts["parents"]) == (3, 2)


def test_pairs_are_those_of_the_dense_mask() -> None:
    forest = build_forest(TokenRows.of([[1, 2, 3], [1, 2, 4, 5], [6]]))
    assert forest_sizes([forest]).counts["pairs"] == int(forest.dense_mask().sum())


def test_a_run_logs_what_it_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemic.training.loop.peak_flops", lambda device: 1e12)
    lm_trainer(
        tiny_lm(),
        toy_rows(),
        stage_of({"steps": 2, "data.tokens_per_step": 100, "logs.every": 1}),
        folder=tmp_path,
    ).run()
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < line["target_share"] < 1
    assert line["memory_gb"] > 0.05
    assert line["mfu"] == pytest.approx(line["teraflops"], abs=2e-4)  # of a peak of one teraflop


def test_a_share_of_the_peak_by_hand() -> None:
    forest = build_forest(TokenRows.of([[1, 2]], [[0.0, 1.0]]))
    window = Window()
    window.add(forest_sizes([forest]), 1.0, 1.0, seconds=2.0, flops=4e12)
    assert window.numbers({}, peak=10e12)["mfu"] == 0.2
    assert "mfu" not in window.numbers({})
    rates = NextToken(tiny_lm(), block_tokens=4).rates(window.sizes, 2.0)
    assert rates == {
        "tokens_per_second": 1,
        "row_tokens_per_second": 1,
        "block_fill": 0.5,
        "target_share": 0.5,
    }


def test_peaks_go_by_the_first_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA L40S": 362e12,
        "Quadro": None,
    }
    for name, peak in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert peak_flops(torch.device("cuda")) == peak
    assert peak_flops(torch.device("cpu")) is None
    assert min(PEAKS.values()) > 1e14
