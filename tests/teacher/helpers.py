"""A tiny teacher for the tests of this room."""

from __future__ import annotations

import numpy as np
import torch

from itemic.teacher.rows import ItemRows
from itemic.teacher.teacher import Teacher

ITEMS = 30
SHAPE = {"width": 12, "layers": 2, "heads": 3, "inner": 20, "max_length": 8, "dropout": 0.0}


def tiny(items: int = ITEMS, item_ids: list[str] | None = None, seed: int = 0, **shape: float) -> Teacher:
    """Random weights that prefer some items by far."""
    torch.manual_seed(seed)
    names = item_ids or [f"i{row}" for row in range(items)]
    teacher = Teacher.new(names, SHAPE | shape)
    with torch.no_grad():
        for weight in teacher.model.parameters():
            weight.mul_(5).add_(torch.randn_like(weight) * 0.1)
        share = torch.rand(len(names)) + 0.1
        teacher.model.share.copy_(share / share.sum())
    teacher.model.eval()
    return teacher


def rows_of(rows: list[list[int]]) -> ItemRows:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return ItemRows(np.array([item for row in rows for item in row], np.int32), offsets)
