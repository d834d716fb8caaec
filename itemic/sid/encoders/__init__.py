"""Encoders turn items into vectors; a new one is a class and a row here, and passes
``tests/sid/encoders/test_encoders.py``.

=======================  ======================================================  =====================================
name                     what it is                                              its own options
=======================  ======================================================  =====================================
``lsa``                  TF-IDF and SVD over the catalogue's own words; needs    ``dims`` ``fields`` (weights)
                         no model                                                ``max_features``
``collaborative``        what users of the training part met together, no texts  ``dims`` ``window``
``sentence-transformers``  a model of that library, with the pooling that it     ``prompt`` (by name) ``max_length``
                         brings along; needs ``pip install "itemic[sentence-transformers]"``
``transformers``         any Hugging Face encoder or causal language model,      ``pooling`` (mean, last, cls)
                         pooled by us                                            ``max_length``
``openai``               a server with an OpenAI-compatible                      ``base_url`` ``key_env``
                         ``/v1/embeddings``                                      ``max_chars`` ``parallel`` ``timeout``
                                                                                 ``retries``
``precomputed``          a ``.npy`` file in catalogue order, or Parquet by       ``path`` ``id_column``
                         item id                                                 ``vector_column`` ``unknown``
                                                                                 ``normalize``
=======================  ======================================================  =====================================

The three that hand texts to a model share ``model``, ``fields`` (a list, in the order of the text), ``instruction``
(text in front of each item's), ``batch_size``, ``dims`` (leading dimensions to keep), ``normalize`` and ``cache`` (a
folder in which vectors are kept by content, so that a run that was killed goes on and only new texts are encoded).
Those that run one here have ``device`` (``auto``), ``dtype`` (float32, bfloat16, float16) and ``revision`` as well.
Every encoder takes a ``seed``. ``auto``, the default, is ``lsa`` where at least half of the items have text, else
``collaborative``. Collaborative vectors are added to any of them by ``collaborative_weight``, see
:mod:`itemic.sid.cooccurrence`.
"""

from __future__ import annotations

from itemic.sid.encoders.base import Encoder
from itemic.sid.encoders.collaborative import CollaborativeEncoder
from itemic.sid.encoders.lsa import LSAEncoder
from itemic.sid.encoders.openai import OpenAIEncoder
from itemic.sid.encoders.precomputed import PrecomputedEncoder
from itemic.sid.encoders.sentence_transformers import SentenceTransformersEncoder
from itemic.sid.encoders.transformers import TransformersEncoder

__all__ = ["ENCODERS", "Encoder"]

ENCODERS: dict[str, type[Encoder]] = {
    "lsa": LSAEncoder,
    "collaborative": CollaborativeEncoder,
    "sentence-transformers": SentenceTransformersEncoder,
    "transformers": TransformersEncoder,
    "openai": OpenAIEncoder,
    "precomputed": PrecomputedEncoder,
}
