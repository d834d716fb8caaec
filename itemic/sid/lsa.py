"""Latent semantic analysis: item vectors from words alone, with nothing to download.

TF-IDF over each text field, the fields side by side with a weight each, then a truncated SVD (Deerwester et
al., "Indexing by latent semantic analysis", 1990).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from itemic import schema as c
from itemic.errors import ConfigError, DataError
from itemic.progress import log
from itemic.sid.text import field_texts
from itemic.sid.vectors import Float32, normalize

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

    def fit_transform(self, items: pl.DataFrame) -> Float32:
        """Vectors of length 1 for all items: float32 ``[n, min(dims, …)]``.

        Raises:
            DataError: no item has any text.
        """
        terms = self._terms(items)
        known = np.diff(terms.indptr) > 0
        if not known.any():
            raise DataError(
                f"none of the {len(items)} items has text in {', '.join(self.fields)}",
                "Import the items' texts, or encode another field.",
            )
        vectors = normalize(self._reduce(terms))
        silent = np.flatnonzero(~known)
        if len(silent):
            vectors[silent] = normalize(vectors[known].mean(axis=0, keepdims=True))
            first = items[c.ITEM_ID][int(silent[0])]
            log.warning("%d items have no text (first %r) and get the mean vector", len(silent), first)
        self.notes = {"dims": vectors.shape[1], "terms": terms.shape[1], "items_without_text": len(silent)}
        return vectors

    def _terms(self, items: pl.DataFrame) -> sparse.csr_matrix:
        parts = []
        for field, weight in self.fields.items():
            texts = field_texts(items, field)
            vectorizer = TfidfVectorizer(
                ngram_range=(1, 2),
                sublinear_tf=True,
                min_df=1 if len(items) < SMALL_CATALOGUE else 2,
                max_features=self.max_features,
                token_pattern=r"(?u)\b\w+\b",
                dtype=np.float32,
            )
            try:
                parts.append(vectorizer.fit_transform(texts) * weight)
            except ValueError:  # scikit-learn's way to say that a field has no words at all
                continue
        return sparse.hstack([sparse.csr_matrix((len(items), 0), dtype=np.float32), *parts], format="csr")

    def _reduce(self, terms: sparse.csr_matrix) -> Float32:
        dims = min(self.dims, *terms.shape)
        if dims == min(terms.shape):  # the randomised SVD needs room; so small a table is decomposed exactly
            left, scale, _ = np.linalg.svd(terms.toarray(), full_matrices=False)
            return np.asarray(left[:, :dims] * scale[:dims], np.float32)
        svd = TruncatedSVD(dims, n_iter=5, random_state=self.seed)
        return np.asarray(svd.fit_transform(terms), np.float32)
