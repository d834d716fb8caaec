"""The token forest: rows that share their beginnings, written once.

``rows``, ``build`` and ``pack`` are arrays only; ``attention``, ``loss`` and ``run`` need torch and transformers
and are imported by name.
"""

from itemic.forest.build import TokenForest, build_forest
from itemic.forest.pack import plan_blocks
from itemic.forest.rows import TokenRows

__all__ = ["TokenForest", "TokenRows", "build_forest", "plan_blocks"]
