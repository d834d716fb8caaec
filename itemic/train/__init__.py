"""Training: one loop, run stage by stage. ``Stage`` imports at once; what needs torch is imported when it is
asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from itemic.train.stage import Stage

if TYPE_CHECKING:
    from itemic.train.run import train

__all__ = ["Stage", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from itemic.train.run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
