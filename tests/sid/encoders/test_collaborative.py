"""Vectors from behaviour alone: of the training part, never NaN, and chosen where there are no texts."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from itemic import build_index
from itemic.errors import ConfigError, DataError
from itemic.sid.build import build_tokenizer, encode_items
from itemic.sid.cooccurrence import cooccurrence_vectors
from itemic.sid.encoders.collaborative import CollaborativeEncoder
from itemic.sid.tokenizer import ItemTokenizer
from tests.sid.helpers import make_dataset

HISTORIES = {
    f"u{k}": [*(10 * (k % 2) + np.random.default_rng(k).permutation(10)).tolist(), 20] for k in range(40)
}
SILENT = make_dataset([""] * 22, HISTORIES)  # item 20 is everybody's last one, item 21 nobody's


def test_vectors_are_those_of_the_training_part() -> None:
    vectors, record = encode_items(SILENT, "collaborative", options={"dims": 8})
    expected = cooccurrence_vectors(SILENT.train, 22, 8)
    np.testing.assert_array_equal(vectors[:20], expected[:20])
    assert record["items_without_neighbours"] == 2
    mean = expected[:20].mean(axis=0)
    np.testing.assert_allclose(vectors[20:], [mean / np.linalg.norm(mean)] * 2, atol=1e-6)


def test_targets_of_validation_and_test_are_not_looked_at() -> None:
    others = {user: [*history[:-2], *history[-2:][::-1]] for user, history in HISTORIES.items()}
    first, second = (
        encode_items(make_dataset([""] * 22, data), "collaborative")[0] for data in (HISTORIES, others)
    )
    np.testing.assert_array_equal(first, second)


def test_an_index_without_any_text_comes_from_behaviour(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="itemic"):
        index = build_index(SILENT, levels=[2, 16])
    assert "encoder collaborative: 0 of 22 items have text" in caplog.text
    assert index.origin["encoder"]["name"] == "collaborative"
    assert index.collisions.rate == 0
    halves = index.codes[:20, 0].reshape(2, 10)
    assert all(len(set(half.tolist())) == 1 for half in halves)
    assert halves[0, 0] != halves[1, 0]


def test_texts_are_preferred_where_half_of_the_items_have_one() -> None:
    titles = [f"thing {row}" if row % 2 else "" for row in range(22)]
    assert build_index(make_dataset(titles, HISTORIES), levels=[4, 16]).origin["encoder"]["name"] == "lsa"


def test_lsa_without_text_says_what_to_do() -> None:
    with pytest.raises(DataError) as caught:
        build_index(SILENT, encoder="lsa", levels=[4, 16])
    assert "collaborative" in caught.value.remedy


def test_new_items_of_a_saved_tokenizer_get_the_mean(tmp_path: Path) -> None:
    build_tokenizer(SILENT, encoder="collaborative", levels=[4, 16]).save(tmp_path)
    again = ItemTokenizer.load(tmp_path)
    new = make_dataset([""], ids=["new"]).items
    np.testing.assert_allclose(np.linalg.norm(again.encoder.transform(new), axis=1), 1, atol=1e-6)
    assert len(again.assign(new).index) == 23


def test_what_it_cannot_work_with() -> None:
    alone = replace(SILENT, interactions=make_dataset([""] * 22, {"u": [1], "v": [2]}).interactions)
    with pytest.raises(DataError, match="no two items"):
        encode_items(alone, "collaborative")
    with pytest.raises(ConfigError, match="collaborative_weight"):
        encode_items(SILENT, "collaborative", options={"collaborative_weight": 0.5})
    with pytest.raises(ConfigError, match="dims"):
        CollaborativeEncoder(dims=0)
    with pytest.raises(ConfigError, match="observe"):
        CollaborativeEncoder().fit_transform(SILENT.items)
