"""Latent semantic analysis: item vectors from words alone, with nothing to download.

TF-IDF over each text field, the fields side by side with a weight each, then a truncated SVD (Deerwester et
al., "Indexing by latent semantic analysis", 1990).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from itemic import schema as c
from itemic.errors import ConfigError
from itemic.sid.encoders.silent import Known, fill_silent, mean_vector, require_text
from itemic.sid.text import field_texts
from itemic.sid.vectors import Array, Float32, normalize

# A category path has few distinct values, so a small weight already gives it the first dimensions; with 1 the
# titles hardly show and the items of one category collide.
FIELD_WEIGHTS: Mapping[str, float] = {c.TITLE: 1.0, c.BRAND: 0.5, c.CATEGORIES: 0.25, c.DESCRIPTION: 0.7}
SMALL_CATALOGUE = 1000  # below this many items a word that only one of them has is kept


class LSAEncoder:
    """TF-IDF and SVD over the items' text fields.

    Words and pairs of words, sublinear term counts; each field's rows have length 1 before its weight
    applies, so a long description doesn't drown a title. An item without any known word gets the mean of all
    other vectors; how many did is logged and stands in ``notes``.

    Args:
        dims: length of the vectors; fewer where the catalogue has fewer words or items.
        fields: weight of each text field; a field that is not named is not read.
        max_features: most frequent terms kept per field.
        seed: for the randomised SVD.
    """

    name = "lsa"

    def __init__(
        self,
        *,
        dims: int = 256,
        fields: Mapping[str, float] | None = None,
        max_features: int = 100_000,
        seed: int = 0,
    ) -> None:
        self.fields = dict(FIELD_WEIGHTS if fields is None else fields)
        if dims < 1:
            raise ConfigError(f"dims is {dims}", "Give a positive number of dimensions.")
        if not self.fields or any(weight <= 0 for weight in self.fields.values()):
            raise ConfigError(
                f"field weights are {self.fields}", "Name at least one field; weights are positive."
            )
        self.dims = dims
        self.max_features = max_features
        self.seed = seed
        self.notes: dict[str, Any] = {}
        self._words: dict[str, TfidfVectorizer] = {}  # by field; a field without any word has none
        self._components = np.zeros((0, 0), np.float32)  # [dims, terms]
        self._mean = np.zeros((1, 0), np.float32)

    def fit_transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of length 1 for all items: float32 ``[n, min(dims, …)]``.

        Raises:
            DataError: no item has any text.
        """
        terms = self.learn_terms(items)
        known = np.diff(terms.indptr) > 0
        require_text(known, self.fields)
        vectors = normalize(self._reduce(terms))
        self._mean = mean_vector(vectors, known, unit=True)
        return self._filled(vectors, known, items)

    def transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of other items by the words and dimensions that were learnt, float32 ``[m, d]``.

        Raises:
            ConfigError: nothing was learnt yet.
        """
        if not self._words:
            raise ConfigError(
                "the LSA encoder hasn't been fitted", "Fit it, or load a tokenizer that holds it."
            )
        parts = [
            words.transform(field_texts(items, field)) * self.fields[field]
            for field, words in self._words.items()
        ]
        terms = sparse.hstack(parts, format="csr")
        known = np.diff(terms.indptr) > 0
        vectors = normalize(np.asarray(terms @ self._components.T, np.float32))
        return self._filled(vectors, known, items)

    def _filled(self, vectors: Float32, known: Known, items: pl.DataFrame) -> Float32:
        silent = fill_silent(vectors, known, self._mean, items)
        terms = self._components.shape[1]
        self.notes = {"dims": vectors.shape[1], "terms": terms, "items_without_text": silent}
        return vectors

    @property
    def identity(self) -> dict[str, Any]:
        """Fields, dimensions and a digest of the words and components that were learnt."""
        learnt = hashlib.sha256()
        for name, array in sorted(self.state.items()):
            learnt.update(name.encode())
            learnt.update(np.ascontiguousarray(array).tobytes())
        return {
            "name": self.name,
            "fields": self.fields,
            "dims": len(self._components),
            "learnt": learnt.hexdigest()[:16],
        }

    @property
    def state(self) -> dict[str, Array]:
        """``components [dims, terms]``, ``mean [1, dims]``; per field ``idf.…`` and its ``words.…`` as JSON bytes."""
        state: dict[str, Array] = {"components": self._components, "mean": self._mean}
        for field, words in self._words.items():
            terms = sorted(words.vocabulary_, key=words.vocabulary_.__getitem__)
            state[f"words.{field}"] = np.frombuffer(json.dumps(terms).encode(), np.uint8)
            state[f"idf.{field}"] = np.asarray(words.idf_, np.float32)
        return state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what another LSA encoder with the same fields has learnt."""
        self._components = np.asarray(state["components"], np.float32)
        self._mean = np.asarray(state["mean"], np.float32)
        self._words = {}
        for field in self.fields:
            if f"words.{field}" not in state:
                continue
            terms = json.loads(np.asarray(state[f"words.{field}"], np.uint8).tobytes())
            words = self._vectorizer(1, vocabulary={term: place for place, term in enumerate(terms)})
            words.idf_ = np.asarray(state[f"idf.{field}"], np.float32)
            self._words[field] = words

    def _vectorizer(self, rarest: int, vocabulary: dict[str, int] | None = None) -> TfidfVectorizer:
        return TfidfVectorizer(
            ngram_range=(1, 2),
            sublinear_tf=True,
            min_df=rarest,
            max_features=self.max_features,
            token_pattern=r"(?u)\b\w+\b",
            dtype=np.float32,
            vocabulary=vocabulary,
        )

    def learn_terms(self, items: pl.DataFrame) -> sparse.csr_matrix:
        """Learn the words of all items; their weighted TF-IDF, ``[n, terms]``, an empty row for one without words."""
        parts = []
        self._words = {}
        for field, weight in self.fields.items():
            words = self._vectorizer(1 if len(items) < SMALL_CATALOGUE else 2)
            try:
                parts.append(words.fit_transform(field_texts(items, field)) * weight)
            except ValueError:  # scikit-learn's way to say that a field has no words at all
                continue
            self._words[field] = words
        return sparse.hstack([sparse.csr_matrix((len(items), 0), dtype=np.float32), *parts], format="csr")

    def _reduce(self, terms: sparse.csr_matrix) -> Float32:
        dims = min(self.dims, *terms.shape)
        if dims == min(terms.shape):  # the randomised SVD needs room; so small a table is decomposed exactly
            left, scale, right = np.linalg.svd(terms.toarray(), full_matrices=False)
            self._components = np.asarray(right[:dims], np.float32)
            return np.asarray(left[:, :dims] * scale[:dims], np.float32)
        svd = TruncatedSVD(dims, n_iter=5, random_state=self.seed)
        reduced = np.asarray(svd.fit_transform(terms), np.float32)
        self._components = np.asarray(svd.components_, np.float32)
        return reduced
