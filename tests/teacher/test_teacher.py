"""A teacher's scores and rankings against sorted slow ones; masks; its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError, IndexMismatchError, ModelError
from itemic.teacher import teacher as module
from itemic.teacher.teacher import CONFIG, Teacher, best
from itemic.teacher.teacher import ITEMS as ITEMS_FILE
from tests.evaluate.helpers import random_dataset
from tests.evaluate.test_baselines import requests
from tests.teacher.helpers import ITEMS, tiny
from tests.teacher.reference import log_chances

ROWS = [[1, 2, 3], [], [5], [7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [3, 3]]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return tiny()


def slow(teacher: Teacher, row: list[int]) -> np.ndarray:
    """``[n]``; the last eight items are read."""
    if not row:
        return teacher.model.share.log().numpy()
    with torch.no_grad():
        return log_chances(teacher.model, row[-8:])[-1].numpy()


def test_scores_are_log_probabilities(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    for cells in (module.CELLS, 2 * ITEMS):
        monkeypatch.setattr(module, "CELLS", cells)
        found = teacher.scores(requests(ROWS))
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-4)
        for row, scores in zip(ROWS, found, strict=True):
            np.testing.assert_allclose(scores, slow(teacher, row), atol=2e-4)
        parts = list(teacher.score_batches(requests(ROWS)))
        assert len(parts) == (1 if cells == module.CELLS and cells > 1000 else 3)
        np.testing.assert_array_equal(np.concatenate([scores for _, scores in parts]), found)


@pytest.mark.parametrize("exclude", [False, True])
def test_rankings_are_sorted_scores(teacher: Teacher, exclude: bool) -> None:
    asked = requests(ROWS)
    items, scores = teacher.rank(asked, ITEMS + 3, exclude_history=exclude)
    assert items.dtype == np.int32
    assert scores.dtype == np.float32
    for number, row in enumerate(ROWS):
        kept = [item for item in range(ITEMS) if not (exclude and item in row)]
        truth = slow(teacher, row)
        assert sorted(items[number][: len(kept)]) == kept
        assert (items[number][len(kept) :] == -1).all()
        assert np.isneginf(scores[number][len(kept) :]).all()
        np.testing.assert_allclose(truth[items[number][: len(kept)]], scores[number][: len(kept)], atol=2e-4)
        assert (np.diff(scores[number][: len(kept)]) <= 0).all()
    short, _ = teacher.rank(asked, 4, exclude_history=exclude)
    assert (short == items[:, :4]).all()
    assert teacher.shortened(asked).tolist() == [False, False, False, True, False]


def test_masks_are_hard(teacher: Teacher) -> None:
    asked = requests(ROWS)
    plain = teacher.scores(asked)
    allowed = [np.array(rows) for rows in ([2, 4, 6], [0], [1, 2], [29], [5, 7])]
    excluded = [np.array(rows, int) for rows in ([4], [], [2], [], list(range(ITEMS)))]
    found = teacher.scores(asked, allowed=allowed, excluded=excluded)
    items, _ = teacher.rank(asked, 5, allowed=allowed, excluded=excluded)
    for number in range(len(ROWS)):
        left = sorted(set(allowed[number].tolist()) - set(excluded[number].tolist()))
        out = sorted(set(range(ITEMS)) - set(left))
        np.testing.assert_array_equal(found[number, left], plain[number, left])
        assert np.isneginf(found[number, out]).all()
        assert items[number][items[number] >= 0].tolist() == sorted(left, key=lambda i: -plain[number, i])
    assert (teacher.rank(asked, 5, excluded=excluded)[0][4] == -1).all()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=6, max_size=6), min_size=1, max_size=4
    ),
    st.integers(1, 8),
)
def test_of_equals_the_lower_row_comes_first(values: list[list[float]], k: int) -> None:
    items, scores = best(np.array(values, np.float32), k)
    for row, found, score in zip(values, items, scores, strict=True):
        order = [item for item in sorted(range(6), key=lambda i: (-row[i], i)) if row[item] > -np.inf][:k]
        assert found.tolist() == order + [-1] * (k - len(order))
        assert score[: len(order)].tolist() == [row[item] for item in order]


def test_the_folder_is_plain_and_comes_back(teacher: Teacher, tmp_path: Path) -> None:
    teacher.save(tmp_path / "t")
    names = {file.name for file in (tmp_path / "t").iterdir()}
    assert names == {"config.json", "model.safetensors", "items.parquet"}
    again = Teacher.load(tmp_path / "t")
    assert again.item_ids == teacher.item_ids
    assert again.config == teacher.config
    np.testing.assert_array_equal(again.scores(requests(ROWS)), teacher.scores(requests(ROWS)))


def test_a_broken_folder_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a teacher"):
        Teacher.load(tmp_path)
    teacher.save(tmp_path)
    tiny(items=20).save(tmp_path / "other")
    whole = (tmp_path / CONFIG).read_text()
    for text in ("{", whole.replace("sasrec", "gru"), whole.replace('"width": 12', '"width": 24')):
        (tmp_path / CONFIG).write_text(text)
        with pytest.raises(ModelError, match="is not a teacher"):
            Teacher.load(tmp_path)
    (tmp_path / CONFIG).write_text(whole.replace(teacher.catalogue, "0" * 16))
    with pytest.raises(ModelError, match="other items"):
        Teacher.load(tmp_path)
    (tmp_path / CONFIG).write_text(whole)
    (tmp_path / ITEMS_FILE).write_bytes((tmp_path / "other" / ITEMS_FILE).read_bytes())
    with pytest.raises(ModelError, match="is not a teacher"):
        Teacher.load(tmp_path)


def test_faults(teacher: Teacher) -> None:
    asked = requests([[1], [2]])
    with pytest.raises(ConfigError, match="ranking of 0"):
        teacher.rank(asked, 0)
    with pytest.raises(ConfigError, match="1 lists of allowed items for 2"):
        teacher.scores(asked, allowed=[np.array([1])])
    with pytest.raises(ConfigError, match="excluded items of request 1 name row 30"):
        teacher.scores(asked, excluded=[np.array([1]), np.array([30])])
    with pytest.raises(DataError, match="item row 77"):
        teacher.scores(requests([[77]]))
    with pytest.raises(IndexMismatchError, match="catalogue"):
        teacher.rank(random_dataset(9, 8).split("test"), 3)
    with pytest.raises(ConfigError, match="5 heads"):
        tiny(heads=5)
    with pytest.raises(ModelError, match="30 items with the ids of 2"):
        Teacher(teacher.model, ["a", "b"], teacher.shape)


def test_no_request_is_no_trouble(teacher: Teacher) -> None:
    nothing: Requests = requests([[1]])[:0]
    assert teacher.scores(nothing).shape == (0, ITEMS)
    assert teacher.rank(nothing, 3)[0].shape == (0, 3)
