"""Training on a CUDA device: the same losses as on the CPU, in every way to train, and resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stages import stage_of
from tests.training.helpers import lm_trainer, tiny_lm, toy_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def losses(folder: Path, device: str, **options: Any) -> list[float]:
    settings = {"steps": 6, "data.tokens_per_step": 256, "engine.precision": "float32", "logs.every": 1}
    stage = stage_of(settings | options)
    lm_trainer(tiny_lm().to(device), toy_rows(), stage, folder=folder).run()
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer.name": "muon"},
        {"optimizer.name": "adafactor"},
        {"engine.gradient_checkpointing": True},
        {"data.packing": "blocks"},
        {"optimizer.ema": 0.9, "objective.label_smoothing": 0.1},
    ],
    ids=str,
)
def test_losses_are_those_of_the_cpu(options: dict[str, Any], tmp_path: Path) -> None:
    here, there = (losses(tmp_path / device, device, **options) for device in ("cpu", "cuda"))
    assert there == pytest.approx(here, rel=2e-3)


@pytest.mark.parametrize(
    "options", [{"engine.precision": "bfloat16"}, {"engine.compile": True, "engine.precision": "bfloat16"}]
)
def test_bfloat16_and_compiled_layers_are_near(options: dict[str, Any], tmp_path: Path) -> None:
    here = losses(tmp_path / "cpu", "cpu")
    there = losses(tmp_path / "cuda", "cuda", **options)
    assert there == pytest.approx(here, rel=2e-2)
