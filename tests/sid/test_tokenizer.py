"""The bundle: it comes back from disk as it was, and gives new items semantic IDs without touching old ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import itemic
from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.sid.build import build_tokenizer
from itemic.sid.duplicates import duplicate_groups
from itemic.sid.index import ItemIndex
from itemic.sid.item_encoder import ItemEncoder
from itemic.sid.tokenizer import ItemTokenizer
from tests.sid.encoders.cases import COLOURS, ITEMS, THINGS, TITLES
from tests.sid.helpers import make_dataset

DATA = Dataset(ITEMS, make_dataset(TITLES, {"u": [0, 5, 10], "v": [3, 8, 20]}).interactions, name="shop")
NEW = make_dataset(
    [f"{colour} {thing} number 7" for colour in COLOURS for thing in THINGS],
    ids=[f"new{row}" for row in range(20)],
).items


def build(**options: object) -> ItemTokenizer:
    return build_tokenizer(DATA, **({"levels": (8, 4, 8)} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"encoder_options": {"collaborative_weight": 0.3, "dims": 20}}])
def test_a_saved_tokenizer_assigns_the_same_semantic_ids(options: dict, tmp_path: Path) -> None:
    tokenizer = build(**options)
    tokenizer.save(tmp_path)
    again = ItemTokenizer.load(tmp_path)
    assert again.index.digest == tokenizer.index.digest == ItemIndex.load(tmp_path).digest
    assert (again.index.codes == tokenizer.index.codes).all()
    assert again.encoder.identity == tokenizer.encoder.identity
    mine, theirs = tokenizer.assign(NEW), again.assign(NEW)
    assert (mine.index.codes == theirs.index.codes).all()
    assert mine.drift == theirs.drift


def test_old_items_keep_theirs_and_nobody_collides() -> None:
    tokenizer = build()
    found = tokenizer.assign(NEW)
    assert found.new == NEW[c.ITEM_ID].to_list()
    assert found.index.item_ids == [*tokenizer.index.item_ids, *found.new]
    assert (found.index.codes[: len(ITEMS)] == tokenizer.index.codes).all()
    assert found.index.collisions.collided == 0
    assert (
        found.index.tokens == tokenizer.index.tokens
    )  # a model that speaks the old index can speak this one
    assert found.index.origin["assigned"] == [{"items": 20, "after": tokenizer.index.digest}]
    # what they are called is what their nearest relatives are called
    same = [
        THINGS[row % 5] == THINGS[int((found.index.codes[: len(ITEMS), 0] == code).nonzero()[0][0]) % 5]
        for row, code in enumerate(found.index.codes[len(ITEMS) :, 0].tolist())
    ]
    assert np.mean(same) > 0.8


def test_known_items_are_left_out() -> None:
    tokenizer = build()
    found = tokenizer.assign(pl.concat([ITEMS[3:5], NEW[:1]]))
    assert (found.known, found.new) == (["item3", "item4"], ["new0"])
    assert len(found.index) == len(ITEMS) + 1
    nothing = tokenizer.assign(ITEMS[:2])
    assert nothing.index is tokenizer.index
    assert nothing.drift is None


def test_vectors_of_the_caller_and_of_another_encoder() -> None:
    tokenizer = build()
    vectors = tokenizer.encoder.transform(NEW)
    assert (
        tokenizer.assign(NEW, vectors=vectors, encoder=tokenizer.encoder).index.codes
        == tokenizer.assign(NEW).index.codes
    ).all()
    other = ItemEncoder("lsa", {"dims": 9})
    other.fit_transform(DATA)
    with pytest.raises(ConfigError, match=r"another encoder \(text.dims is 9"):
        tokenizer.assign(NEW, vectors=other.transform(NEW), encoder=other)
    with pytest.raises(ConfigError, match="dimensions"):
        tokenizer.assign(NEW, vectors=other.transform(NEW))
    with pytest.raises(DataError, match="3 vectors for 20 items"):
        tokenizer.assign(NEW, vectors=vectors[:3])
    with pytest.raises(DataError, match="'new0' comes twice"):
        tokenizer.assign(pl.concat([NEW, NEW[:1]]))


def test_drift_tells_strangers_from_relatives() -> None:
    tokenizer = build(quantizer="balanced")  # it leaves errors for relatives to stay within
    relatives = tokenizer.assign(NEW).drift
    strange = make_dataset([f"red {word}" for word in "abcdefgh"], ids=list("abcdefgh")).items
    strangers = tokenizer.assign(strange).drift
    assert relatives is not None
    assert strangers is not None
    assert strangers.new > relatives.new
    assert strangers.far > relatives.far
    assert len(relatives.farthest) == 10
    assert relatives.farthest[0][1] == max(value for _, value in relatives.farthest)
    json.dumps(strangers.to_json())


def test_no_room_is_an_error_that_changes_nothing() -> None:
    tokenizer = build_tokenizer(DATA, levels=(8, 8))
    with pytest.raises(ConfigError, match="20 items don't fit beside 60 others in the 64 semantic IDs"):
        tokenizer.assign(NEW)
    ranked = build_tokenizer(DATA, levels=(2, 2), collisions="rank")
    many = make_dataset(["red soap number 1"] * 100, ids=[f"n{row}" for row in range(100)]).items
    with pytest.raises(ConfigError, match="the level that counts items has"):
        ranked.assign(many)


def test_duplicates_are_counted_and_may_share() -> None:
    titles = [*TITLES, TITLES[0], TITLES[0].upper(), "", ""]
    data = make_dataset(titles)
    groups = duplicate_groups(data.items)
    assert groups[60] == groups[61] == groups[0]
    assert len(set(groups.tolist())) == 62  # items without text are not alike
    apart = build_tokenizer(data, levels=(8, 4, 8))
    assert apart.index.origin["duplicates"] == {"policy": "apart", "items": 2}
    assert apart.index.collisions.collided == 0
    share = build_tokenizer(data, levels=(8, 4, 8), duplicates="share")
    codes = share.index.codes
    assert (codes[0] == codes[60]).all()
    assert share.index.collisions.sids == 62
    with pytest.raises(ConfigError, match="treatment of duplicates 'together'"):
        build_tokenizer(data, duplicates="together")


def test_a_new_duplicate_shares_with_its_like(tmp_path: Path) -> None:
    build(duplicates="share").save(tmp_path)
    tokenizer = ItemTokenizer.load(tmp_path)
    again = [["Home", "Brush"]]
    twins = make_dataset(
        ["pink soap", "pink soap", TITLES[2]], ids=["a", "b", "c"], categories=[[], [], *again]
    ).items
    codes = tokenizer.assign(twins).index.codes
    assert (codes[-3] == codes[-2]).all()
    assert (codes[-1] == codes[2]).all()
    only = tokenizer.assign(twins[2:]).index.codes
    assert (only[-1] == only[2]).all()
    apart = build().assign(twins).index
    assert apart.collisions.collided == 0


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    tokenizer = build()
    tokenizer.save(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"\0")
    with pytest.raises(IndexMismatchError, match="not an item tokenizer"):
        ItemTokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    head = json.loads((tmp_path / "tokenizer.json").read_text())
    head["identity"]["text"]["learnt"] = "0" * 16
    (tmp_path / "tokenizer.json").write_text(json.dumps(head))
    with pytest.raises(IndexMismatchError, match=r"has changed.*text.learnt"):
        ItemTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(IndexMismatchError, match="not the encoder that new items need"):
        ItemTokenizer.load(tmp_path)
    build(levels=(4, 4, 8)).index.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(head))
    with pytest.raises(IndexMismatchError):
        ItemTokenizer.load(tmp_path)


@pytest.mark.slow
def test_new_items_of_a_real_catalogue(shared: Path) -> None:
    """A fifth of the items held out: all get semantic IDs, none collides, and old ones stay."""
    data = itemic.read("letter", shared / "scientific")
    held = np.zeros(len(data.items), bool)
    held[np.random.default_rng(0).permutation(len(held))[: len(held) // 5]] = True
    old = Dataset(data.items.filter(~held), data.interactions[:0], name="old")
    tokenizer = build_tokenizer(old, levels=(256, 256, 256))
    found = tokenizer.assign(data.items.filter(held))
    assert found.index.collisions.collided == 0
    assert (found.index.codes[: len(old.items)] == tokenizer.index.codes).all()
    assert len(found.index) == len(data.items)
    assert found.drift is not None
    assert found.drift.new > found.drift.training  # words that only they have are unknown
