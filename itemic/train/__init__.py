"""Training: one loop, run stage by stage. ``Stage`` imports at once; what needs torch is imported when it is
asked for.

The package can be called: ``itemic.train(model, …)`` is :func:`itemic.train.run.train`, whether or not this
package was imported before and so took the function's name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from itemic.train.stage import Stage

if TYPE_CHECKING:
    from itemic.train.run import train

__all__ = ["Stage", "train"]


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from itemic.train.run import train

        return train(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage


def __getattr__(name: str) -> Any:
    if name == "train":
        from itemic.train.run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
