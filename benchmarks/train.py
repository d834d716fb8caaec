"""Training against TRL's SFTTrainer, the loss against full logits, and what a checkpoint costs.

**Tokens a second.** Next-item rows (task C, a row for every item of a history but the first) of real users of Amazon
Beauty and of Industrial & Scientific, who are spread evenly over all lengths of history. Both sides train a copy of
the same Qwen3 of 6 M parameters and some 5,000 tokens in float32 on one thread, with fused AdamW and clipping, without
gradient checkpointing, logging and saving; an optimizer step is over all rows of all users, so both take the very same
steps. Counted are tokens of the *rows*, as they are before anything is shared. Ours is ``itemic.train`` from
conversations on, with reading, planning and building forests; of the peer only ``SFTTrainer.train()`` is timed, on rows
that are tokenised, sorted or packed before.

The peer runs with SDPA, padded and packed, each in the fastest of a few settings, found anew for each kind of rows;
padded batches have rows of like length then. *As it comes* are eight rows a batch in random order, which is what TRL
does unless it is told otherwise; they are padded more.

Packs are its best-fit-decreasing ones: position ids begin anew in each row of a pack, transformers makes a mask of
that, and rows don't see each other. Its ``wrapped`` packs cut rows and let them see what stands before them: another
loss, so there is nothing to compare. *Supervised head* is help from us: TRL applies the head to supervised positions
alone where it has Triton, and to all positions on a CPU; one name patched gives it the former here too.

No speed is printed unless the losses of two optimizer steps in a row agree, which says that the loss, its gradients
and the optimizer do.

**Cross-entropy** at a vocabulary of 176,384: see ``train_loss.py``. **Resume**: see ``train_resume.py``. **GPU**
(``--gpu``, instead of all that): see ``train_gpu.py``.

    python benchmarks/train.py [--quick] [--gpu] [--json FILE]
"""

from __future__ import annotations

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
import train_gpu
import train_loss
import train_resume
from common import Row, main, shared_data

import itemic
from itemic.forest import TokenRows
from itemic.model import Model
from itemic.sid.build import build_index
from itemic.sid.published import import_index
from itemic.tasks import prompt_words
from itemic.training.language.rows import training_rows
from itemic.training.language.stage import Stage, StageData
from itemic.training.settings import (
    CheckpointSettings,
    EngineSettings,
    LogSettings,
    OptimizerSettings,
    ScheduleSettings,
)

USERS = 40
AGREE = 1e-5  # relative difference of losses
STAGE = Stage(
    steps=1,
    data=StageData(tokens_per_step=1 << 30),  # a step is an epoch
    schedule=ScheduleSettings("constant", warmup=0),
    optimizer=OptimizerSettings(weight_decay=0.0),  # TRL's decays embeddings, ours doesn't
    engine=EngineSettings(precision="float32"),
    checkpoints=CheckpointSettings(every=0),
)


@dataclass(frozen=True)
class Case:
    """One kind of rows.

    Attributes:
        data: whose.
        most: items that a row shows, at most.
        window: how longer histories are cut, see :func:`itemic.tasks.windows.window_starts`.
        padded, packed: how many times faster than TRL's with padding, and with packing, ours should be.
    """

    data: str
    most: int
    padded: float
    packed: float
    window: str = "sliding"

    def __str__(self) -> str:
        windows = "" if self.window == "sliding" else f", windows by {self.window}"
        return f"{self.data.capitalize()}, histories ≤ {self.most}{windows}"


CASES = (
    Case("scientific", 10, 3, 2),
    Case("scientific", 50, 8, 5),
    Case("beauty", 10, 3, 2),
    Case("beauty", 10, 3, 2, window="blocks"),
    Case("beauty", 50, 8, 5),
)


class Seconds(NamedTuple):
    """Medians."""

    cpu: float
    clock: float


class Shop(NamedTuple):
    """A data set, its items' names, and a model with random weights."""

    dataset: Any
    index: Any
    model: Model


def open_shop(name: str) -> Shop:
    folder = shared_data() / name
    if name == "beauty":
        dataset = itemic.read("onerec-think", folder)
        index = import_index(dataset, folder / "Beauty.pretrain.json")
    else:
        dataset = itemic.read("letter", folder)
        index = build_index(dataset)
    titles = dataset.items["title"].to_list()
    return Shop(dataset, index, itemic.new_model("qwen3-micro", index, titles, corpus=prompt_words(), seed=0))


def conversations(shop: Shop, case: Case) -> list[pl.DataFrame]:
    """The conversations of each user, users by the number of theirs."""
    options = {"windows": ["all"], "max_items": case.most, "window": case.window}
    built = itemic.build_conversations(shop.dataset, shop.index, [{"task": "C", **options}])
    table = pl.concat([frame for _, frame in built.frames()])
    table = table.with_columns(pl.col("metadata").str.json_path_match("$.group").alias("user"))
    users = table.partition_by("user", maintain_order=True, include_key=False)
    return sorted(users, key=len)


def spread(users: list[pl.DataFrame], count: int) -> pl.DataFrame:
    """``count`` users, evenly from those with the fewest conversations to those with the most."""
    at = (np.arange(count) + 0.5) * len(users) / count
    return pl.concat([users[int(i)] for i in at])


def in_turn(
    sides: Mapping[str, Callable[[], Callable[[], object]]], repeats: int, warmup: int = 0
) -> dict[str, Seconds]:
    """Medians of what each side's work takes, in turn. A side sets its work up, untimed, and returns it."""
    for set_up in list(sides.values()) * warmup:
        set_up()()
    taken: dict[str, list[Seconds]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, set_up in sides.items():
            work = set_up()
            cpu, clock = time.process_time(), time.perf_counter()
            work()
            taken[name].append(Seconds(time.process_time() - cpu, time.perf_counter() - clock))
    return {
        name: Seconds(*(statistics.median(times) for times in zip(*all_of, strict=True)))
        for name, all_of in taken.items()
    }


class Ours:
    """``itemic.train`` on a table, always from the same weights."""

    def __init__(self, model: Model, table: pl.DataFrame) -> None:
        self.model, self.table = model, table
        self._start = copy.deepcopy(model.lm.state_dict())

    def rows(self) -> TokenRows:
        """What the peer is given."""
        encode = self.model.chat.encode_table
        return training_rows(self.table, encode, encoder="benchmark", max_length=STAGE.data.max_length).rows

    def set_up(self) -> Callable[[], object]:
        self.model.lm.load_state_dict(self._start)
        return lambda: itemic.train(self.model, self.table, stage=STAGE)

    def logged(self, steps: int) -> list[dict[str, float]]:
        """What is logged of each step."""
        self.model.lm.load_state_dict(self._start)
        with tempfile.TemporaryDirectory() as folder:
            stage = replace(STAGE, steps=steps, logs=LogSettings(every=1))
            itemic.train(self.model, self.table, stage=stage, output=folder)
            lines = (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()
        self.model.lm.load_state_dict(self._start)
        return [json.loads(line) for line in lines]

    def losses(self, steps: int) -> list[float]:
        """The mean loss per supervised token of each step."""
        return [line["loss"] for line in self.logged(steps)]


class Theirs:
    """``SFTTrainer.train`` on the same rows, always from the weights that the model has now."""

    def __init__(self, model: Model, rows: TokenRows) -> None:
        self.lm, self.tokenizer, self.rows = copy.deepcopy(model.lm), model.tokenizer, rows
        self._latest: dict[Any, Any] = {}

    def set_up(self, setting: Any, steps: int = 1) -> Callable[[], object]:
        import train_trl

        stage = replace(STAGE, steps=steps)
        made = train_trl.trainer(self.lm, self.tokenizer, self.rows, setting, stage)
        self._latest[setting] = made
        return lambda: train_trl.train(made, setting)

    def side(self, setting: Any) -> Callable[[], Callable[[], object]]:
        return lambda: self.set_up(setting)

    def off(self, losses: list[float]) -> float:
        """How far the losses of the latest run of any setting are from ``losses``, relative to them.

        Raises:
            SystemExit: further than :data:`AGREE`, so the work is not the same.
        """
        worst = 0.0
        for setting, trainer in self._latest.items():
            found = difference(losses, trainer.losses_by_step())
            if not found <= AGREE:
                raise SystemExit(
                    f"TRL ({setting}) and itemic differ in their losses by {found:.1e}: not compared"
                )
            worst = max(worst, found)
        return worst

    def wrapped_losses(self) -> list[float]:
        """The losses over packs that cut rows and let them see each other."""
        import train_trl

        setting = train_trl.Setting(1, 512, strategy="wrapped")
        self.set_up(setting)()
        losses: list[float] = self._latest.pop(setting).losses_by_step()
        return losses


def difference(ours: list[float], theirs: list[float]) -> float:
    """The largest relative difference."""
    return float(np.abs(np.array(theirs) / np.array(ours) - 1).max())


def fastest(theirs: Theirs, settings: list[Any]) -> Any:
    """The setting that takes the fewest CPU seconds for two steps."""
    taken = {}
    for setting in settings:
        work = theirs.set_up(setting, steps=2)
        started = time.process_time()
        work()
        taken[setting] = time.process_time() - started
    return min(taken, key=lambda setting: taken[setting])


def compare(case: Case, shop: Shop, quick: bool) -> list[Row]:
    import train_trl

    users, repeats = (6, 1) if quick else (USERS, 3)
    everybody = conversations(shop, case)
    ours, few = (Ours(shop.model, spread(everybody, count)) for count in (users, max(3, users // 3)))
    theirs, sample = (Theirs(shop.model, side.rows()) for side in (ours, few))
    padded = fastest(sample, train_trl.padded(quick))
    packed = fastest(sample, train_trl.packed(int(theirs.rows.lengths.max()), quick))
    off = sample.off(few.losses(2))

    sides = {"ours": ours.set_up, "padded": theirs.side(padded), "packed": theirs.side(packed)}
    seconds = in_turn(sides, repeats, warmup=1)
    others = {"default": theirs.side(train_trl.DEFAULT)} | {
        f"{kind} helped": theirs.side(replace(setting, supervised_head=True))
        for kind, setting in (("padded", padded), ("packed", packed))
    }
    seconds |= in_turn(others, 1)
    step = ours.logged(1)[0]
    off = max(off, theirs.off([step["loss"]]))
    total, shared = len(theirs.rows.tokens), step["tokens"]

    def speed(name: str, peer: str, target: float | None = None, clock: bool = False) -> Row:
        mine, other = (total / seconds[side][clock] for side in ("ours", peer))
        goal = None if target is None else f"≥ {target:g} ×"
        holds = None if target is None else mine / other >= target
        unit = "row tokens/s" if clock else "row tokens/CPU s"
        return Row(f"{case}: against {name}", mine, other, unit, mine / other, goal, holds)

    return [
        speed(f"padding as it comes ({train_trl.DEFAULT}, in random order)", "default", case.padded),
        speed(f"padding ({padded})", "padded", case.padded),
        speed(f"packing ({packed})", "packed", case.packed),
        speed("padding, by the clock", "padded", clock=True),
        speed("packing, by the clock", "packed", clock=True),
        speed("padding, supervised head", "padded helped"),
        speed("packing, supervised head", "packed helped"),
        Row(
            f"{case}: tokens of {len(theirs.rows)} rows", shared, total, "tokens", total / shared, None, None
        ),
        Row(f"{case}: losses, largest relative difference", off, None, "", None, f"≤ {AGREE:g}", True),
    ]


def wrapped_loss(case: Case, shop: Shop) -> Row:
    """How far the loss over TRL's ``wrapped`` packs is from that over rows which don't see each other."""
    ours = Ours(shop.model, spread(conversations(shop, case), 3))
    found = difference(ours.losses(1), Theirs(shop.model, ours.rows()).wrapped_losses())
    return Row(f"{case}: loss over wrapped packs, relative difference", found, None, "", None, None, None)


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    lines: list[Row] = []
    shops: dict[str, Shop] = {}
    for case in CASES[:1] if quick else CASES:
        if case.data not in shops:
            shops[case.data] = open_shop(case.data)
        lines += compare(case, shops[case.data], quick)
    first = shops[CASES[0].data]
    lines.append(wrapped_loss(CASES[0], first))
    lines += train_loss.measure(quick)
    lines += train_resume.measure(first.model, spread(conversations(first, CASES[0]), 3), quick)
    return lines


if __name__ == "__main__":
    main("Training", measure, __doc__, modes={"gpu": train_gpu.measure})
