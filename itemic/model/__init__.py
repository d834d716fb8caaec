"""Language models that speak items: new ones, expanded ones, their tokenizers and chat templates.

Each name is imported when it is first used, so that settings are at hand without torch. ``expand`` is the module of
that name, which would hide a lazy function once it is imported: take it from there, or as ``itemic.expand``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itemic.model.build import new_model
    from itemic.model.chat import ChatRenderer
    from itemic.model.model import Model, supported
    from itemic.model.presets import PRESETS

_HOMES = {
    "ChatRenderer": "itemic.model.chat",
    "Model": "itemic.model.model",
    "PRESETS": "itemic.model.presets",
    "new_model": "itemic.model.build",
    "supported": "itemic.model.model",
}

__all__ = [
    "PRESETS",
    "ChatRenderer",
    "Model",
    "new_model",
    "supported",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
