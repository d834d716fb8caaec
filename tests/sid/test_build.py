from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itemic.errors import ConfigError, DataError
from itemic.sid.build import build_index, encode_items
from itemic.sid.codebooks import Codebooks
from itemic.sid.index import ItemIndex
from tests.sid.encoders.cases import CATEGORIES, TITLES
from tests.sid.helpers import make_dataset

DATA = make_dataset(TITLES, {"u": [0, 5, 10, 15, 20], "v": [1, 6, 11, 16, 21]}, categories=CATEGORIES)


@pytest.mark.parametrize("form", ["onerec", "minionerec", "offset"])
def test_every_item_has_a_semantic_id_of_its_own(form: str, tmp_path: Path) -> None:
    index = build_index(DATA, levels=(8, 4, 4), format=form)
    assert index.collisions.collided == 0
    assert (index.sizes, index.format) == ((8, 4, 4), form)
    index.check_dataset(DATA)
    index.save(tmp_path)
    loaded = ItemIndex.load(tmp_path)
    assert (loaded.digest, loaded.origin) == (index.digest, index.origin)


def test_keep_has_the_codes_that_the_codebooks_give() -> None:
    index = build_index(DATA, quantizer="rqkmeans", levels=(8, 4, 4), collisions="keep")
    vectors, _ = encode_items(DATA)
    assert index.codebooks is not None
    assert (Codebooks(index.codebooks).assign(vectors) == index.codes).all()
    changed = build_index(DATA, quantizer="rqkmeans", levels=(8, 4, 4))
    assert changed.origin["collisions"]["items_changed"] == (changed.codes != index.codes).any(axis=1).sum()


def test_balanced_gives_every_code_of_a_level_as_many_items() -> None:
    index = build_index(DATA, quantizer="balanced", levels=(8, 4, 4), collisions="keep")
    for level, size in enumerate((8, 4, 4)):
        counts = np.bincount(index.codes[:, level], minlength=size)
        assert counts.max() - counts.min() <= 1


def test_rank_adds_a_level() -> None:
    titles = [*TITLES, *TITLES[:3]]
    index = build_index(make_dataset(titles), levels=(8, 8), collisions="rank")
    assert index.levels == 3
    assert index.collisions.collided == 0
    assert index.codebooks is not None
    assert len(index.codebooks) == 2


def test_the_seed_decides() -> None:
    first, second, other = (build_index(DATA, levels=(8, 8), seed=seed) for seed in (1, 1, 2))
    assert first.digest == second.digest
    assert first.digest != other.digest


def test_duplicates_get_semantic_ids_of_their_own() -> None:
    index = build_index(make_dataset(["the same thing"] * 20), levels=(2, 2, 8))
    assert index.collisions.sids == 20


def test_one_item_and_fewer_items_than_codes() -> None:
    assert len(build_index(make_dataset(["a thing"]), levels=(4, 4))) == 1
    index = build_index(make_dataset(TITLES[:5]))
    assert index.collisions.sids == 5


def test_collaborative_weight_draws_users_items_together() -> None:
    rng = np.random.default_rng(0)
    histories = {f"u{k}": (np.arange(k % 2, 60, 2)[rng.permutation(30)]).tolist() for k in range(60)}
    data = make_dataset(TITLES, histories, categories=CATEGORIES)
    codes = build_index(
        data, levels=(2,), collisions="keep", encoder_options={"collaborative_weight": 0.9}
    ).codes[:, 0]
    assert (codes[::2] == codes[0]).all()
    assert (codes[1::2] == codes[1]).all()
    assert codes[0] != codes[1]
    plain = build_index(data, levels=(2,), collisions="keep").codes[:, 0]
    assert (plain != codes).any()


def test_targets_of_the_splits_are_not_read() -> None:
    options = {"collaborative_weight": 0.5}
    histories = {f"u{k}": [k, k + 5, k + 10, k + 15, k + 20] for k in range(20)}
    planted = {user: [*history[:3], 59, 58] for user, history in histories.items()}
    first, second = (
        build_index(make_dataset(TITLES, h), levels=(8, 8), encoder_options=options).digest
        for h in (histories, planted)
    )
    assert first == second


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"encoder": "bert"}, "unknown encoder 'bert'"),
        ({"quantizer": "vq"}, "unknown quantizer 'vq'"),
        ({"collisions": "shuffle"}, "unknown collision policy"),
        ({"format": "tiger"}, "unknown token format"),
        ({"encoder_options": {"dimz": 3}}, "encoder 'lsa' has no option 'dimz'"),
        ({"encoder_options": {"seed": 3}}, "no option 'seed'"),
        ({"quantizer_options": {"restarts": 3}}, "quantizer 'rqkmeans' has no option 'restarts'"),
        ({"encoder_options": {"collaborative_weight": 7}}, "collaborative_weight is 7"),
        ({"levels": (2, 2)}, "60 items don't fit"),
        ({"levels": ()}, "levels"),
    ],
)
def test_arguments_that_cannot_work(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        build_index(DATA, **options)


def test_a_catalogue_without_text() -> None:
    with pytest.raises(DataError, match="none of the 2 items has text"):
        build_index(make_dataset(["", ""]), encoder="lsa")
