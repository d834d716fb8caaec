"""A recipe that runs in seconds, and ways to run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

RECIPE = """\
name: tiny
data:
  simulate: {users: 60, items: 40, categories: 4, brands: 6, shortest: 4, longest: 8}
index:
  levels: [8, 8]
model:
  preset: qwen3-pico
  vocab_size: 400
  overrides: {hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, head_dim: 16, intermediate_size: 32}
tasks:
  - {task: C, windows: [all]}
  - {task: A, limit: 40}
stages:
  - name: rows
    train: embeddings
    steps: 2
    data: {tokens_per_step: 512}
  - name: all
    epochs: 2
    data: {tokens_per_step: 512}
    validation: {every: epoch, requests: 20, beams: 10}
    checkpoints: {every: 2}
evaluate:
  beams: 20
  k: [5, 10]
  published:
    - {name: somebody, metrics: {recall@10: 0.5}, source: a paper}
"""
STEPS = ["data", "index", "conversations", "model", "train.rows", "train.all", "evaluate", "report"]


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """``itemic …`` in a process of its own, on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    code = "from itemic.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def made(root: Path) -> dict[str, str]:
    """When each step of a run was made, in the order of the steps."""
    return {
        step: json.loads((root / step / "manifest.json").read_text())["created"]
        + str((root / step / "manifest.json").stat().st_mtime_ns)
        for step in STEPS
        if (root / step).is_dir()
    }


def weights(root: Path, step: str = "train.all") -> bytes:
    return (root / step / "model.safetensors").read_bytes()
