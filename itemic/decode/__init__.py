"""Exact, trie-constrained beam search."""

from itemic.decode.beam import BeamSearch

__all__ = ["BeamSearch"]
