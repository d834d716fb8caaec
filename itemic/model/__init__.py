"""Language models that speak items: new ones, expanded ones, their tokenizers and chat templates.

Each name is imported when it is first used, so that settings are at hand without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itemic.model.build import new_model
    from itemic.model.chat import ChatRenderer
    from itemic.model.expand import expand
    from itemic.model.model import Model, supported
    from itemic.model.presets import PRESETS

_HOMES = {
    "ChatRenderer": "itemic.model.chat",
    "Model": "itemic.model.model",
    "PRESETS": "itemic.model.presets",
    "expand": "itemic.model.expand",
    "new_model": "itemic.model.build",
    "supported": "itemic.model.model",
}

__all__ = [
    "PRESETS",
    "ChatRenderer",
    "Model",
    "expand",
    "new_model",
    "supported",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
