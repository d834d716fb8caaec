"""Adapters of a supervised stage, then adapters of reinforcement learning: the end is a plain folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from itemic.cli.app import call
from itemic.model import Model
from tests.runs import write_recipe
from tests.test_control_runs import CONTROL

STAGES = """\
stages:
  - name: sft
    train: {what: lora, rank: 4, alpha: 8}
    steps: 3
    learning_rate: 1.0e-2
    objective: {scope: items}
    data: {tokens_per_step: 512, sources: {SFTSeqRec: 0.5}}
rl:
  train: {what: lora, rank: 2, alpha: 4}
  steps: 2
  learning_rate: 1.0e-2
  data: {prompts_per_step: 4}
  rollout: {answers: 4, normalize: level}
  validation: {every: null}
  rewards: {hit: 1.0, teacher: {weight: 0.5}}
evaluate:
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged")
    text = CONTROL[: CONTROL.index("stages:")] + STAGES + CONTROL[CONTROL.index("evaluate:\n") + 10 :]
    assert (
        call(["run", str(write_recipe(folder, text)), "-o", str(folder / "run"), "--until", "train.rl"]) == 0
    )
    return folder / "run"


def test_the_last_folder_is_a_model_of_transformers_that_equals_both_adapters_by_peft(ran: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(ran / "train.rl")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Recommend 4 items to this user."}],
        tokenize=False,
        add_generation_prompt=True,
    )
    asked = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    plain: Any = AutoModelForCausalLM.from_pretrained(ran / "train.rl")
    found: list[Any] = [plain, AutoModelForCausalLM.from_pretrained(ran / "train.sft")]
    lm: Any = AutoModelForCausalLM.from_pretrained(ran / "model")
    logits = []
    with torch.no_grad():
        start = lm(asked).logits
        for stage in ("train.sft", "train.rl"):
            lm = PeftModel.from_pretrained(lm, str(ran / stage / "adapter")).merge_and_unload().eval()
            logits.append(lm(asked).logits)
        torch.testing.assert_close(plain(asked).logits, logits[1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[1](asked).logits, logits[0], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(logits[0], start, atol=1e-3)
        assert not torch.allclose(logits[1], logits[0], atol=1e-3)
        ours = Model.load(ran / "train.rl")
        assert torch.equal(ours.lm(asked).logits, plain(asked).logits)
    with safe_open(ran / "train.rl" / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "lora" in name]  # noqa: SIM118 - it is no dict
