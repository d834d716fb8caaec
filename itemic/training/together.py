"""Passes through a module whose weights are shared out: all ranks meet in each part of each pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from itemic.training.objective import Objective
from itemic.training.ranks import Ranks

T = TypeVar("T")


def within(module: nn.Module, work: Callable[[], T], after: Callable[[], None] | None = None) -> T:
    """What ``work`` gives, done in the place of a module's forward pass: what the module holds itself is then whole,
    and each part is while it computes.

    Args:
        module: the root.
        work: may call the module's parts, but not itself.
        after: what to do at the end, also after an error.
    """
    own = vars(module).get("forward")
    module.forward = lambda: work()
    try:
        found: T = module()
        return found
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
        if after is not None:
            after()


def together(objective: Objective, ranks: Ranks, work: Callable[[], T]) -> T:
    """What ``work`` gives, on each rank its own, inside :func:`within`.

    Before each pass a rank tells the others that it has one to do; those that have none left do one over nothing, until
    no rank has any. Whatever each of them does, all do the same number of passes.

    Args:
        objective: the root, whose parts are gathered one by one.
        ranks: all of them call this.
        work: any number of forward passes through all parts, in their order.
    """
    parts = objective.shards()
    if not parts or ranks.size == 1:
        return work()

    def tell(*_: Any) -> None:
        ranks.any(True)

    handle = parts[0].register_forward_pre_hook(tell, prepend=True)
    try:
        found = work()
    finally:
        handle.remove()
    while ranks.any(False):
        with torch.no_grad(), objective.stepping():
            type(objective).forward(objective, objective.nothing())
    return found
