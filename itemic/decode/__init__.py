"""Exact, trie-constrained beam search."""

from itemic.decode.beam import BeamSearch
from itemic.decode.include import Include

__all__ = ["BeamSearch", "Include"]
