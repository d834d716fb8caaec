"""A checkpoint of training as a model."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from itemic.errors import ArtifactError
from itemic.model import Model
from itemic.training.checkpoint import STATE, Checkpoints
from itemic.training.language.learning import learning
from itemic.training.language.stage import Stage
from itemic.training.optimizer import Named
from itemic.training.record import RECORD


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one that training left to go on from."""
    return (folder / STATE).is_file()


def checkpoint_model(checkpoint: str | Path, base: str | Path, *, average: bool = True) -> Model:
    """The model that a checkpoint of :func:`itemic.training.train` holds the weights of.

    Args:
        checkpoint: a folder ``step-…``.
        base: the model that the stage began from.
        average: take the moving average of the weights where there is one, as the end of training does.

    Raises:
        ArtifactError: the checkpoint is damaged, or belongs to another model or stage.
    """
    folder = Path(checkpoint)
    stage = _stage(folder.parent.parent / RECORD)
    found = Checkpoints(folder.parent).load(_step(folder))
    part = "average" if average and "average" in found.tensors else "weights"
    model = Model.load(base, dtype="float32")
    if stage.data.think_pattern is not None:
        model.think_pattern = stage.data.think_pattern
    with learning(model.lm, stage, range(*model.new_token_range)) as learns:
        _fill(learns.named, found.tensors[part], folder)
    return model


@torch.no_grad()
def _fill(named: Named, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    for name, weight in named.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != weight.shape:
            seen = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
            raise ArtifactError(
                f"{folder} has {seen} for {name}, which the base has in shape {tuple(weight.shape)}",
                "Give the model that the stage began from as the base.",
            )
        weight.copy_(tensor)


def _stage(record: Path) -> Stage:
    try:
        return Stage.of(json.loads(record.read_text(encoding="utf-8"))["stage"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{record} doesn't say what was trained: {error}",
            "Give a checkpoint where training left it, with training.json two folders above.",
        ) from error


def _step(folder: Path) -> int:
    try:
        return int(json.loads((folder / STATE).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder} is not a whole checkpoint: {error}", "Take an earlier one.") from error
