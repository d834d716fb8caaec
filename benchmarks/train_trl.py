"""TRL's SFTTrainer as the peer of :mod:`train`: rows that are tokenised already, one optimizer step an epoch."""

from __future__ import annotations

import copy
import logging
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from itemic import Stage
from itemic.forest import TokenRows

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded; TRL's telemetry stays off as well
try:
    import trl.trainer.utils
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from trl import SFTConfig, SFTTrainer
except ImportError as error:
    sys.exit(f"the peer is missing ({error}); install it with: pip install 'itemic[bench]'")

IGNORED = -100  # a label that carries no loss


@dataclass(frozen=True)
class Setting:
    """One way of TRL's to lay rows out.

    Attributes:
        rows: examples of a forward pass; packs where ``packed``.
        packed: tokens of a pack (best-fit decreasing, whole rows only); None pads.
        strategy: how packs are filled.
        supervised_head: apply the head to supervised positions only, as TRL does itself where it has Triton.
        by_length: whether a batch's rows are of like length; else in random order, which is TRL's default.
    """

    rows: int
    packed: int | None = None
    strategy: str = "bfd"
    supervised_head: bool = False
    by_length: bool = True

    def __str__(self) -> str:
        if self.packed:
            return f"packs of {self.packed}"
        return f"batches of {self.rows}" + (", by length" if self.by_length else "")


DEFAULT = Setting(8, by_length=False)  # what SFTConfig says of batches and their order


def padded(quick: bool) -> list[Setting]:
    """Settings with padding that may be the fastest."""
    return [Setting(rows) for rows in ((8,) if quick else (4, 8, 16))]


def packed(longest: int, quick: bool) -> list[Setting]:
    """Settings with packing that may be the fastest, for rows of at most ``longest`` tokens."""
    sizes = [size for size in (256, 512, 1024) if size >= longest]
    return [Setting(1, size) for size in (sizes[:1] if quick else sizes)]


class Recorded(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that keeps the loss of every forward pass, each already divided by its step's targets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))
        return loss

    def losses_by_step(self) -> list[float]:
        """The mean loss per supervised token of each optimizer step."""
        return np.reshape(self.losses, (self.state.global_step, -1)).sum(axis=1).tolist()  # type: ignore[no-any-return]


def as_dataset(rows: TokenRows) -> Dataset:
    """Columns ``input_ids`` and ``labels``.

    Raises:
        ValueError: a weight is neither 0 nor 1, which labels can't say.
    """
    assert rows.weights is not None
    if not np.isin(rows.weights, (0, 1)).all():
        raise ValueError("TRL's labels can't say a weight that is neither 0 nor 1")
    labels = np.where(rows.weights > 0, rows.tokens, IGNORED)
    cut = rows.offsets[1:-1]
    return Dataset.from_dict(
        {
            "input_ids": [row.tolist() for row in np.split(rows.tokens, cut)],
            "labels": [row.tolist() for row in np.split(labels, cut)],
        }
    )


def trainer(
    lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: TokenRows, setting: Setting, stage: Stage
) -> Recorded:
    """A trainer of a copy of ``lm``: ``stage.steps`` steps, each over all rows, with ``stage``'s optimizer."""
    logging.getLogger("trl").setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(trl|transformers|torch)\.")
    disable_progress_bar()
    mine = copy.deepcopy(lm)
    mine.config._attn_implementation = "sdpa"
    made = Recorded(
        model=mine,
        args=SFTConfig(
            output_dir=tempfile.gettempdir(),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            num_train_epochs=stage.steps,
            per_device_train_batch_size=setting.rows,
            gradient_accumulation_steps=1 << 20,
            train_sampling_strategy="group_by_length" if setting.by_length else "random",
            packing=setting.packed is not None,
            packing_strategy=setting.strategy,
            max_length=setting.packed,
            optim="adamw_torch_fused",
            learning_rate=stage.learning_rate,
            lr_scheduler_type="constant",
            warmup_steps=0,
            weight_decay=stage.optimizer.weight_decay,
            adam_beta1=stage.optimizer.betas[0],
            adam_beta2=stage.optimizer.betas[1],
            max_grad_norm=stage.optimizer.clip,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=0,
        ),
        train_dataset=as_dataset(rows),
        processing_class=tokenizer,
    )
    made.remove_callback(PrinterCallback)
    return made


def train(made: Recorded, setting: Setting) -> None:
    """``SFTTrainer.train``, with the head applied as ``setting`` says."""
    before = trl.trainer.utils._use_triton
    if setting.supervised_head:
        trl.trainer.utils._use_triton = lambda device: True  # asked there for the choice of positions alone
    try:
        made.train()
    finally:
        trl.trainer.utils._use_triton = before
