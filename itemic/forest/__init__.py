"""The token forest: rows that share their beginnings, written once."""

from itemic.forest.rows import TokenRows

__all__ = ["TokenRows"]
