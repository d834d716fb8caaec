"""The table of item encoders: a new one is a class and a row, and passes ``tests/sid/encoders/test_encoders.py``."""

from __future__ import annotations

from itemic.sid.encoders.base import Encoder
from itemic.sid.encoders.lsa import LSAEncoder
from itemic.sid.encoders.sentence_transformers import SentenceTransformersEncoder
from itemic.sid.encoders.transformers import TransformersEncoder

__all__ = ["ENCODERS", "Encoder"]

ENCODERS: dict[str, type[Encoder]] = {
    "lsa": LSAEncoder,
    "sentence-transformers": SentenceTransformersEncoder,
    "transformers": TransformersEncoder,
}
