"""Exact, trie-constrained beam search, and samples of what a model writes."""

from itemic.decode.beam import BeamSearch
from itemic.decode.sample import Sampler, Samples

__all__ = ["BeamSearch", "Sampler", "Samples"]
