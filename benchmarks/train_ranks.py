"""How much main memory a rank takes under FSDP2 on CPUs: a model in float32 on two ranks over gloo, from its folder to
two trained steps.

*Ours* is a rank without weights of its own, which reads its shards from the folder; *peer* the same rank with the whole
model loaded beside its shards. What a process takes that has only imported everything is told as well.

    python benchmarks/train_ranks.py [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Row, main, peak_rss
from transformers import Qwen3Config, Qwen3ForCausalLM

from itemic.forest import TokenRows
from itemic.model.folder import load_lm
from itemic.training.distribution import Distribution
from itemic.training.language.next_token import NextToken
from itemic.training.language.stage import Stage
from itemic.training.language.stream import KeptRows, TrainingRows
from itemic.training.loop import Trainer
from itemic.training.ranks import joined

VOCABULARY = 16_384
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 768,
    "intermediate_size": 2304,
    "num_hidden_layers": 10,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
SMALL = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}


def child(folder: str, without: bool) -> None:
    """One rank; rank 1 prints its peaks in bytes: imported, shared out, and trained."""
    torch.set_num_threads(1)
    peaks = [peak_rss()]
    with joined() as ranks:
        device = ranks.device_for("fsdp") if without else ranks.device
        lm = load_lm(Path(folder), device, None)
        rng = np.random.default_rng(0)
        rows = TokenRows.of([rng.integers(0, VOCABULARY, 60).tolist() for _ in range(8)], [[1.0] * 60] * 8)
        data = TrainingRows(rows, np.arange(8), np.zeros(8, np.int32))
        stage = Stage.of({"steps": 2, "data": {"tokens_per_step": 240, "block_tokens": 120}})
        trainer = Trainer(
            NextToken.of(lm, stage),
            KeptRows.of(lm, data, stage),
            stage,
            ranks=ranks,
            distribution=Distribution("fsdp"),
        )
        peaks.append(peak_rss())
        trainer.run()
        peaks.append(peak_rss())
        if not ranks.main:
            print(json.dumps(peaks), flush=True)


def peaks_of(folder: Path, without: bool) -> list[int]:
    with socket.socket() as box:
        box.bind(("127.0.0.1", 0))
        port = box.getsockname()[1]
    made = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        environment = os.environ | place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, __file__, "--rank", str(folder), str(int(without))]
        made.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    texts = [process.communicate()[0] for process in made]
    if any(process.returncode for process in made):
        raise RuntimeError(f"exit codes {[process.returncode for process in made]}")
    found: list[int] = json.loads(texts[1].strip().splitlines()[-1])
    return found


def measure(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lm = Qwen3ForCausalLM(Qwen3Config(**SHAPE | (SMALL if quick else {})))
        size = sum(weight.numel() for weight in lm.parameters())
        lm.save_pretrained(folder)
        del lm
        ours, peer = peaks_of(folder, True), peaks_of(folder, False)

    def row(what: str, at: int) -> Row:
        mine, theirs = (each[at] / 1e6 for each in (ours, peer))
        return Row(f"{size / 1e6:.0f} M parameters, {what}", mine, theirs, "MB", theirs / mine, None, None)

    return [
        row("everything imported", 0),
        row("the model shared out", 1),
        row("two steps trained", 2),
    ]


if __name__ == "__main__":
    if "--rank" in sys.argv:
        child(sys.argv[-2], sys.argv[-1] == "1")
    else:
        main("Ranks", measure, __doc__ or "")
