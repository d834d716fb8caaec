"""A first recipe for raw files: sized to what they hold and to the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np

from itemic.data.dataset import Dataset
from itemic.data.filters import apply_filters
from itemic.data.look import Found
from itemic.data.settings import FilterRule, Method, SplitRule
from itemic.errors import DataError

KEPT = 0.7  # a k-core that loses more of the interactions is not proposed
CODES_AN_ITEM = 4  # so many times more semantic IDs than items, so that few items share one
STEPS = 1200  # what a small model needs to be good on small data
MOST_EPOCHS = 24
CUTOFFS = (1, 5, 10, 20)


@dataclass(frozen=True)
class Machine:
    """What a run may use: cores, bytes of memory, and the names of GPUs."""

    cores: int
    memory: int
    gpus: tuple[str, ...]

    @classmethod
    def here(cls) -> Machine:
        """This one. GPUs are those that ``nvidia-smi`` lists."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return cls(os.cpu_count() or 1, memory, _gpus())

    def __str__(self) -> str:
        gpus = ", ".join(self.gpus) or "no GPU"
        return f"{self.cores} cores, {self.memory / 1e9:.0f} GB of memory, {gpus}"


def _gpus() -> tuple[str, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        asked = [tool, "--query-gpu=name", "--format=csv,noheader"]
        listed = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in listed.splitlines() if line.strip())


@dataclass(frozen=True)
class Plan:
    """The numbers of a recipe.

    Attributes:
        core: of the k-core; 0 for none.
        split: the method.
        items: of the catalogue that is left.
        train: interactions to train on.
        encoder: of the semantic IDs.
        levels: sizes of their codebooks.
        preset: of the model.
        tokens_per_step: of training.
        epochs: of training.
        validate_every: steps.
        learning_rate: the highest.
        dropout: in training.
        beams: of the search.
        exclude_history: whether items that a user had are left out.
    """

    core: int
    split: Method
    items: int
    train: int
    encoder: str
    levels: tuple[int, ...]
    preset: str
    tokens_per_step: int
    epochs: int
    validate_every: int
    learning_rate: float
    dropout: float
    beams: int
    exclude_history: bool


def plan_recipe(found: Found, machine: Machine) -> Plan:
    """Choose the numbers.

    Raises:
        DataError: there is too little to train on and to ask about.
    """
    core, left = _filtered(found.dataset)
    split = _split_method(left)
    data = left.with_split(SplitRule(split))
    for part in ("valid", "test"):
        data.split(part)
    items, train = len(left.items), len(data.train.items)
    levels = code_levels(items)
    preset = _preset(train, bool(machine.gpus))
    tokens = train * len(levels)
    step = _power_of_two(tokens / 16, 512, 16384 if machine.gpus else 4096)
    steps = ceil(tokens / step)
    epochs = min(max(round(STEPS / steps), 1), MOST_EPOCHS)
    return Plan(
        core,
        split,
        items,
        train,
        "lsa" if max(found.counts["text"].values()) >= 0.5 else "collaborative",
        levels,
        preset,
        step,
        epochs,
        max(epochs * steps // 6, 1),
        {"qwen3-pico": 4e-3, "qwen3-nano": 3e-3, "qwen3-micro": 2e-3}.get(preset, 1e-3),
        0.2 if train < 100_000 else 0.1,
        min(50, items),
        found.counts["repeats"]["share"] < 0.01,
    )


def code_levels(items: int) -> tuple[int, ...]:
    """Sizes of codebooks, powers of two up to 256: as few levels as hold four semantic IDs for every item."""
    bits = max(ceil(log2(max(items, 1) * CODES_AN_ITEM)), 2)
    count = max(ceil(bits / 8), 2)
    return tuple(2 ** (bits // count + (i < bits % count)) for i in range(count))


def _filtered(dataset: Dataset) -> tuple[int, Dataset]:
    """The largest usual k-core that keeps most interactions, and what it leaves."""
    for core in (5, 3):
        try:
            left = apply_filters(dataset, FilterRule(core, core))
        except DataError:
            continue
        if len(left.interactions) >= KEPT * len(dataset.interactions):
            return core, left
    return 0, apply_filters(dataset, FilterRule())


def _split_method(dataset: Dataset) -> Method:
    """The source's own, else leave-one-out, else by time where most users have too few interactions for it."""
    if dataset.rule.method != "leave-one-out":
        return dataset.rule.method
    short = np.median(np.diff(dataset.sequences.offsets)) < 4
    return "temporal" if short and dataset.sequences.timestamps is not None else "leave-one-out"


def _preset(train: int, gpu: bool) -> str:
    if not gpu:
        return "qwen3-pico" if train < 1_000_000 else "qwen3-nano"
    return "qwen3-nano" if train < 100_000 else "qwen3-micro" if train < 2_000_000 else "qwen3-mini"


def _power_of_two(value: float, low: int, high: int) -> int:
    return int(min(max(2 ** round(log2(max(value, 1))), low), high))


def draft_recipe(found: Found, machine: Machine, file: Path | None = None) -> str:
    """A commented recipe, YAML.

    Args:
        found: what :func:`itemic.data.look.look` saw.
        machine: what it is sized to.
        file: where it will be written, for its first lines.

    Raises:
        DataError: there is too little to train on and to ask about.
    """
    plan = plan_recipe(found, machine)
    return "\n".join([*_head(found, machine, file), *_data(found, plan), *_model(plan), *_training(plan), ""])


def _head(found: Found, machine: Machine, file: Path | None) -> list[str]:
    counts = found.counts
    name = re.sub(r"[^\w.\-]+", "-", found.dataset.name, flags=re.ASCII).strip("-._") or "mine"
    return [
        f"# {counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions;"
        f" sized for {machine}.",
        f"#   itemic run {file or 'recipe.yaml'}",
        f"name: {_yaml(name)}",
        "seed: 0",
        "",
    ]


def _data(found: Found, plan: Plan) -> list[str]:
    path = found.path if "://" in found.path else str(Path(found.path).expanduser().resolve())
    told = [re.sub(r"\s+", " ", line) for line in found.dataset.notes["read"].get("told", [])]
    lines = [
        "data:",
        *(f"  # {line}" for line in told),
        f"  format: {found.format}",
        f"  path: {_yaml(path)}",
    ]
    if found.options:
        lines.append(f"  options: {_yaml(found.options)}")
    if found.dropped:
        lines.append(
            _said("  on_bad_row: drop", f"{found.dropped:,} rows are bad; error would stop at the first")
        )
    if plan.core:
        core = f"{{user_k_core: {plan.core}, item_k_core: {plan.core}}}"
        lines.append(_said(f"  filters: {core}", f"leaves {plan.items:,} items"))
    why = {
        "leave-one-out": "a user's last item is the test, the one before it the validation",
        "temporal": "by time: most users have too few interactions for leave-one-out",
        "published": "the split that the files bring along",
    }.get(plan.split, "as the source has it")
    return [*lines, _said(f"  split: {{method: {plan.split}, history: 50}}", why), ""]


def _model(plan: Plan) -> list[str]:
    if plan.encoder == "lsa":
        encoder = [
            _said("  encoder: lsa", "the items' texts, and what users had together in training"),
            "  encoder_options: {collaborative_weight: 0.35}",
        ]
    else:
        encoder = [
            _said("  encoder: collaborative", "what users had together in training: items have no texts")
        ]
    many = f"{np.prod(plan.levels):,} semantic IDs for {plan.items:,} items"
    return [
        "index:",
        *encoder,
        _said(f"  levels: {list(plan.levels)}", many),
        _said("  format: minionerec", "a semantic ID is its codes, nothing around them"),
        "",
        "model:",
        _said(f"  preset: {plan.preset}", "from scratch; base: FOLDER takes a Hugging Face model instead"),
        _said("  vocab_size: 512", "semantic IDs alone: no words to learn"),
        _said("  init: vectors", "a code starts where its items' vectors are"),
        "",
        "tasks:",
        _said("  - {task: sequence, max_items: 50}", "a user's items, one after the other"),
        "",
    ]


def _training(plan: Plan) -> list[str]:
    cutoffs = [k for k in CUTOFFS if k <= plan.beams]
    again = "nobody has an item twice" if plan.exclude_history else "users have items again"
    return [
        "stages:",
        "  - name: all",
        "    train: all",
        f"    epochs: {plan.epochs}",
        f"    learning_rate: {plan.learning_rate}",
        "    schedule: {min_lr: 1.0e-4, warmup: 0.05}",
        f"    objective: {{dropout: {plan.dropout}}}",
        f"    data: {{tokens_per_step: {plan.tokens_per_step}}}",
        "    validation:",
        _said(f"      every: {plan.validate_every}", "steps"),
        "      task: sequence",
        "      requests: 500",
        "      beams: 20",
        "",
        "evaluate:",
        "  task: sequence",
        _said(f"  beams: {plan.beams}", "a wider search is slower and finds a little more"),
        f"  k: {cutoffs}",
        "  normalize: level",
        _said(f"  exclude_history: {_yaml(plan.exclude_history)}", again),
    ]


def _said(line: str, comment: str) -> str:
    return f"{line:<48}# {comment}" if len(line) < 48 else f"{line}  # {comment}"


def _yaml(value: Any) -> str:
    """JSON, which is YAML."""
    return json.dumps(value, ensure_ascii=False)
