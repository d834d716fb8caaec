"""Language models that speak items: new ones, expanded ones, their tokenizers and chat templates."""

from itemic.model.build import new_model
from itemic.model.chat import ChatRenderer
from itemic.model.expand import expand
from itemic.model.model import Model, supported
from itemic.model.presets import PRESETS

__all__ = ["PRESETS", "ChatRenderer", "Model", "expand", "new_model", "supported"]
