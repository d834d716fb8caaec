"""Exact, trie-constrained beam search, and samples of what a model writes, free or under a grammar."""

from itemic.decode.beam import BeamSearch
from itemic.decode.grammar import Fixed, FreeText, Grammar, ItemList, ItemWalk, Sequence
from itemic.decode.include import Include
from itemic.decode.sample import Sampler, Samples
from itemic.decode.texts import Texts, TextSearch
from itemic.decode.thoughts import Thoughts, ThoughtSearch

__all__ = [
    "BeamSearch",
    "Fixed",
    "FreeText",
    "Grammar",
    "Include",
    "ItemList",
    "ItemWalk",
    "Sampler",
    "Samples",
    "Sequence",
    "TextSearch",
    "Texts",
    "ThoughtSearch",
    "Thoughts",
]
