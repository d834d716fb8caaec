"""The contract of every encoder."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from itemic.errors import ConfigError, DataError
from itemic.sid.encoders import ENCODERS
from tests.sid.encoders.cases import CASES, FRESH, ITEMS, THINGS, TITLES, Maker, Site
from tests.sid.helpers import make_dataset


@pytest.fixture(params=CASES)
def make(request: pytest.FixtureRequest, site: Site) -> Maker:
    return Maker(request.param, site)


def things(vectors: np.ndarray, others: np.ndarray) -> list[str]:
    """What thing the nearest of the others is."""
    return [THINGS[row % 5] for row in (vectors @ others.T).argmax(axis=1).tolist()]


def test_every_encoder_has_a_case() -> None:
    assert {name for name, _ in CASES.values()} == set(ENCODERS)


def test_the_table_is_imported_without_torch() -> None:
    code = (
        "import sys, itemic.sid.encoders; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class TestContract:
    def test_vectors_are_finite_float32(self, make: Maker) -> None:
        vectors = make().fit_transform(ITEMS)
        assert vectors.dtype == np.float32
        assert vectors.shape[0] == len(ITEMS)
        assert np.isfinite(vectors).all()
        assert make().name == make.name

    def test_the_same_seed_gives_the_same_vectors(self, make: Maker) -> None:
        first, second = (make(seed=3).fit_transform(ITEMS) for _ in range(2))
        assert (first == second).all()

    def test_equal_texts_get_equal_vectors(self, make: Maker) -> None:
        make.promises("texts")
        vectors = make().fit_transform(make_dataset([*TITLES, TITLES[4]]).items)
        np.testing.assert_allclose(vectors[4], vectors[-1], atol=1e-5)

    def test_the_order_of_items_does_not_matter(self, make: Maker) -> None:
        make.promises("any order")
        backwards = make().fit_transform(ITEMS.reverse())[::-1]
        cosines = make().fit_transform(ITEMS)
        np.testing.assert_allclose(backwards @ backwards.T, cosines @ cosines.T, atol=1e-4)

    def test_similar_items_are_near(self, make: Maker) -> None:
        make.promises("meaning")
        vectors = make().fit_transform(ITEMS)
        nearest = (vectors @ vectors.T - 2 * np.eye(len(ITEMS))).argmax(axis=1)
        same = [THINGS[row % 5] == THINGS[other % 5] for row, other in enumerate(nearest.tolist())]
        assert np.mean(same) > 0.9

    def test_one_item(self, make: Maker) -> None:
        make.promises("one item")
        vectors = make().fit_transform(ITEMS[:1])
        assert len(vectors) == 1
        assert np.isfinite(vectors).all()

    def test_an_item_without_text_is_counted_and_said(
        self, make: Maker, caplog: pytest.LogCaptureFixture
    ) -> None:
        make.promises("texts")
        encoder = make()
        with caplog.at_level(logging.WARNING, logger="itemic"):
            vectors = encoder.fit_transform(make_dataset([*TITLES, "", " - "]).items)
        assert encoder.notes["items_without_text"] == 2
        assert "2 items have no text (first 'item60')" in caplog.text
        mean = vectors[:-2].mean(axis=0)
        np.testing.assert_allclose(vectors[-2:], [mean / np.linalg.norm(mean)] * 2, atol=1e-5)
        silent = encoder.transform(make_dataset([""]).items)
        np.testing.assert_allclose(silent, vectors[-1:], atol=1e-6)

    def test_new_items_and_a_restored_encoder(self, make: Maker) -> None:
        encoder, again = make(), make()
        vectors = encoder.fit_transform(ITEMS)
        np.testing.assert_allclose(encoder.transform(ITEMS), vectors, atol=1e-4)
        again.restore(encoder.state)
        assert again.identity == encoder.identity
        assert (again.transform(FRESH) == encoder.transform(FRESH)).all()
        assert encoder.transform(FRESH).shape == (2, vectors.shape[1])

    def test_new_items_are_near_old_ones_like_them(self, make: Maker) -> None:
        make.promises("meaning")
        make.promises("meaning of new items")
        encoder = make()
        vectors = encoder.fit_transform(ITEMS)
        assert things(encoder.transform(FRESH), vectors) == ["soap", "towel"]

    def test_identity_and_notes_are_plain_json_and_steady(self, make: Maker) -> None:
        encoder = make()
        encoder.fit_transform(ITEMS)
        assert json.loads(json.dumps(encoder.identity)) == encoder.identity
        assert json.loads(json.dumps(encoder.notes)) == encoder.notes
        assert encoder.identity["name"] == make.name
        other = make()
        other.fit_transform(ITEMS)
        assert other.identity == encoder.identity

    def test_no_text_at_all(self, make: Maker) -> None:
        make.promises("texts")
        with pytest.raises(DataError, match="none of the 3 items has text"):
            make().fit_transform(make_dataset(["", "", ""]).items)

    def test_an_unknown_field(self, make: Maker) -> None:
        make.promises("texts")
        with pytest.raises(ConfigError, match="colour"):
            make(fields={"colour": 1.0} if make.name == "lsa" else ["colour"]).fit_transform(ITEMS)
