"""The contract of every encoder, then what LSA promises beyond it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from itemic.errors import ConfigError, DataError
from itemic.sid.encoders import ENCODERS, Encoder
from itemic.sid.encoders.lsa import LSAEncoder
from tests.sid.helpers import make_dataset

COLOURS = ("red", "green", "blue", "white")
THINGS = ("soap", "shampoo", "brush", "towel", "mirror")
TITLES = [f"{colour} {thing} number {k}" for k in range(3) for colour in COLOURS for thing in THINGS]
CATEGORIES = [["Home", thing.title()] for _ in range(3) for _ in COLOURS for thing in THINGS]
ITEMS = make_dataset(TITLES, categories=CATEGORIES).items


def make(name: str, **options: Any) -> Encoder:
    return ENCODERS[name](**options)


@pytest.mark.parametrize("name", ENCODERS)
class TestContract:
    def test_vectors_are_finite_float32(self, name: str) -> None:
        vectors = make(name).fit_transform(ITEMS)
        assert vectors.dtype == np.float32
        assert vectors.shape[0] == len(ITEMS)
        assert np.isfinite(vectors).all()
        assert make(name).name == name

    def test_the_same_seed_gives_the_same_vectors(self, name: str) -> None:
        first, second = (make(name, seed=3).fit_transform(ITEMS) for _ in range(2))
        assert (first == second).all()

    def test_equal_texts_get_equal_vectors(self, name: str) -> None:
        vectors = make(name).fit_transform(make_dataset([*TITLES, TITLES[4]]).items)
        np.testing.assert_allclose(vectors[4], vectors[-1], atol=1e-5)

    def test_similar_items_are_near(self, name: str) -> None:
        vectors = make(name).fit_transform(ITEMS)
        nearest = (vectors @ vectors.T - 2 * np.eye(len(ITEMS))).argmax(axis=1)
        same = [THINGS[row % 5] == THINGS[other % 5] for row, other in enumerate(nearest.tolist())]
        assert np.mean(same) > 0.9

    def test_one_item(self, name: str) -> None:
        vectors = make(name).fit_transform(ITEMS[:1])
        assert len(vectors) == 1
        assert np.isfinite(vectors).all()

    def test_an_item_without_text_is_counted_and_said(
        self, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        encoder = make(name)
        with caplog.at_level(logging.WARNING, logger="itemic"):
            vectors = encoder.fit_transform(make_dataset([*TITLES, "", " - "]).items)
        assert np.isfinite(vectors).all()
        assert encoder.notes["items_without_text"] == 2
        assert "2 items have no text (first 'item60')" in caplog.text

    def test_new_items_and_a_restored_encoder(self, name: str) -> None:
        encoder, again = make(name), make(name)
        vectors = encoder.fit_transform(ITEMS)
        np.testing.assert_allclose(encoder.transform(ITEMS), vectors, atol=1e-4)
        fresh = make_dataset(["pink soap number 9", "red towel"]).items
        again.restore(encoder.state)
        assert again.identity == encoder.identity
        assert (again.transform(fresh) == encoder.transform(fresh)).all()
        nearest = (encoder.transform(fresh) @ vectors.T).argmax(axis=1)
        assert [THINGS[row % 5] for row in nearest.tolist()] == ["soap", "towel"]

    def test_no_text_at_all(self, name: str) -> None:
        with pytest.raises(DataError, match="none of the 3 items has text"):
            make(name).fit_transform(make_dataset(["", "", ""]).items)


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
