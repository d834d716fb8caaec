"""What LSA promises beyond the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from itemic.errors import ConfigError
from itemic.sid.encoders.lsa import LSAEncoder
from tests.sid.encoders.cases import ITEMS, TITLES
from tests.sid.helpers import make_dataset


def test_lsa_rows_have_length_one_and_silent_items_the_mean() -> None:
    vectors = LSAEncoder().fit_transform(make_dataset([*TITLES, ""]).items)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    mean = vectors[:-1].mean(axis=0)
    np.testing.assert_allclose(vectors[-1], mean / np.linalg.norm(mean), atol=1e-5)


def test_lsa_keeps_the_cosines_of_a_full_decomposition() -> None:
    """Exact for a small table: the vectors' products are those of the TF-IDF rows themselves."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = LSAEncoder(dims=1000, fields={"title": 1.0}).fit_transform(ITEMS)
    table = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\b\w+\b").fit_transform(
        TITLES
    )
    np.testing.assert_allclose(vectors @ vectors.T, (table @ table.T).toarray(), atol=1e-5)


def test_lsa_dims_and_weights() -> None:
    assert LSAEncoder(dims=7).fit_transform(ITEMS).shape == (60, 7)
    by_category = LSAEncoder(fields={"title": 0.01, "categories": 1.0}).fit_transform(ITEMS)
    assert by_category[0] @ by_category[5] > 0.99  # another colour of the same thing
    by_title = LSAEncoder(fields={"title": 1.0}).fit_transform(ITEMS)
    assert by_title[0] @ by_title[5] < 0.9


@pytest.mark.parametrize("options", [{"dims": 0}, {"fields": {}}, {"fields": {"title": -1.0}}])
def test_lsa_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LSAEncoder(**options)
