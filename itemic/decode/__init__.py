"""Exact, trie-constrained beam search, and samples of what a model writes, free or under a grammar."""

from itemic.decode.beam import BeamSearch
from itemic.decode.grammar import Fixed, FreeText, Grammar, ItemWalk, Sequence
from itemic.decode.include import Include
from itemic.decode.sample import Sampler, Samples

__all__ = [
    "BeamSearch",
    "Fixed",
    "FreeText",
    "Grammar",
    "Include",
    "ItemWalk",
    "Sampler",
    "Samples",
    "Sequence",
]
