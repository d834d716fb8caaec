from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.forest.rows import TokenRows
from itemic.sid.index import ItemIndex
from itemic.sid.published import import_index
from itemic.sid.trie import Trie
from tests.sid.helpers import make_dataset

DATA = make_dataset(["a", "b", "c"], ids=["1", "2", "3"])
LISTS = {"1": ["<a_0>", "<b_9>"], "3": ["<a_4>", "<b_2>"], "2": ["<a_0>", "<b_9>"]}


def write(folder: Path, content: Any) -> Path:
    file = folder / "some.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def ids_of(file: Path) -> list[str]:
    return list(json.loads(file.read_text(encoding="utf-8")))


PUBLISHED = [
    ("scientific/index/rkmeans_native.index.json", 4344, 3469, 4),
    ("scientific/index/rqvae_native.index.json", 4344, 3790, 4),
    ("scientific/index/rkmeans_zcr.index.json", 4344, 4344, 4),
    ("beauty/index/rkmeans_native.index.json", 12101, 10527, 4),
    ("beauty/index/rqvae_zcr.index.json", 12101, 12101, 4),
    ("beauty/Beauty.pretrain.json", 12101, 12101, 4),
    ("minionerec/index/Industrial_and_Scientific.index.json", 3686, None, 3),
]


def published(shared: Path, name: str) -> ItemIndex:
    ids = ids_of(shared / name)
    return import_index(make_dataset(ids, ids=ids), shared / name, format="onerec")


@pytest.mark.parametrize(("name", "items", "sids", "levels"), PUBLISHED)
def test_published_files(shared: Path, name: str, items: int, sids: int | None, levels: int) -> None:
    index = published(shared, name)
    content = json.loads((shared / name).read_text(encoding="utf-8"))
    tuples = [tuple(value) if isinstance(value, list) else value["sid"] for value in content.values()]
    assert (len(index), index.levels, index.sizes) == (items, levels, (256,) * levels)
    assert index.collisions.sids == len(set(tuples))
    if sids is not None:
        assert index.collisions.sids == sids
    for row in (0, items // 2, items - 1):
        if isinstance(tuples[row], str):
            assert index.text(row) == tuples[row]
        else:
            numbers = [int(token[3:-1]) for token in tuples[row]]
            assert index.codes[row].tolist() == numbers


@pytest.mark.parametrize(("name", "items", "sids", "levels"), PUBLISHED[:4])
def test_the_trie_of_a_published_index(shared: Path, name: str, items: int, sids: int, levels: int) -> None:
    index = published(shared, name)
    vocabulary = {token: i for i, token in enumerate(index.tokens)}
    rows = index.token_rows(lambda tokens: [vocabulary.get(token) for token in tokens])
    trie = Trie.build(rows)
    assert trie.terminal.sum() == sids
    assert len(trie.levels) == levels + 2
    for depth in range(levels):
        prefixes = {tuple(row[: depth + 1]) for row in index.codes.tolist()}
        assert (trie.depth == depth + 2).sum() == len(prefixes)
        assert (trie.levels[depth + 1] - 256 * depth).tolist() == sorted({prefix[-1] for prefix in prefixes})
    assert (trie.items_at(trie.find(rows))[1][1:] > 0).all()
    assert trie.subtree_sizes[0] == items
    strangers = np.random.default_rng(0).integers(0, 256, (2000, levels))
    asked = np.concatenate([strangers, index.codes[:100]])
    frame = vocabulary["<|sid_begin|>"], vocabulary["<|sid_end|>"]
    token_lists = [
        [frame[0], *(code + 256 * k for k, code in enumerate(row)), frame[1]] for row in asked.tolist()
    ]
    known = set(map(tuple, index.codes.tolist()))
    assert trie.contains(TokenRows.of(token_lists)).tolist() == [
        tuple(row) in known for row in asked.tolist()
    ]


def test_rows_follow_the_dataset_not_the_file(tmp_path: Path) -> None:
    index = import_index(DATA, write(tmp_path, LISTS))
    assert index.item_ids == ["1", "2", "3"]
    assert index.codes.tolist() == [[0, 9], [0, 9], [4, 2]]
    assert index.sizes == (16, 16)
    assert index.collisions.collided == 2
    assert index.origin["file"] == "some.json"
    assert import_index(DATA, write(tmp_path, LISTS), sizes=(5, 300)).sizes == (5, 300)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("<|sid_begin|><s_a_3><s_b_1><|sid_end|>", None),
        ("<a_3><b_1>", None),
        ("<|sid_start|><|sid_3|><|sid_9|><|sid_end|>", (8, 4)),
    ],
)
@pytest.mark.parametrize("as_record", [False, True])
def test_texts_of_all_formats(tmp_path: Path, text: str, sizes: Any, as_record: bool) -> None:
    content = {item: {"title": "t", "sid": text} if as_record else text for item in "123"}
    index = import_index(DATA, write(tmp_path, content), sizes=sizes)
    assert index.codes.tolist() == [[3, 1]] * 3


def test_rank_makes_them_unique(tmp_path: Path) -> None:
    index = import_index(DATA, write(tmp_path, LISTS), collisions="rank", format="minionerec")
    assert index.texts == ["<a_0><b_9><c_0>", "<a_0><b_9><c_1>", "<a_4><b_2><c_0>"]
    assert index.sizes == (16, 16, 2)
    with pytest.raises(ConfigError, match="'rank'"):
        import_index(DATA, write(tmp_path, LISTS), collisions="reassign")


def test_ids_that_do_not_match_are_named(tmp_path: Path) -> None:
    some = {item: LISTS[item] for item in "13"}
    with pytest.raises(IndexMismatchError, match="no semantic ID for 1 items of 'small': '2'"):
        import_index(DATA, write(tmp_path, some))
    more = LISTS | {"9": ["<a_1>", "<b_1>"]}
    with pytest.raises(IndexMismatchError, match="names 1 items that 'small' doesn't have: '9'"):
        import_index(DATA, write(tmp_path, more))
    assert len(import_index(DATA, write(tmp_path, more), unknown="drop")) == 3


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "can't be read"),
        ('{"1": ["<a_1>"], "1": ["<a_2>"]}', "the key '1' comes twice"),
        ("[]", "holds no items"),
        (LISTS | {"2": ["<a_1>"]}, "item '2' has '<a_1>', not 2 codes of format 'minionerec'"),
        (LISTS | {"2": ["<b_1>", "<a_1>"]}, "item '2'"),
        (LISTS | {"2": [1, 2]}, "item '2' has no semantic ID"),
        (LISTS | {"2": {"title": "t"}}, "item '2' has no semantic ID"),
        (LISTS | {"1": "hello"}, "item '1' has 'hello', no semantic ID"),
    ],
)
def test_broken_files_name_the_item(tmp_path: Path, content: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        import_index(DATA, write(tmp_path, content))


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    file = write(tmp_path, LISTS)
    with pytest.raises(DataError, match=r"not 2 codes of format 'minionerec' below \[4, 16\]"):
        import_index(DATA, file, sizes=(4, 16))
    with pytest.raises(DataError, match="with 3 levels"):
        import_index(DATA, file, sizes=(16, 16, 16))
    offset = write(tmp_path, dict.fromkeys("123", "<|sid_start|><|sid_3|><|sid_end|>"))
    with pytest.raises(ConfigError, match="offset format doesn't tell its sizes"):
        import_index(DATA, offset)
    with pytest.raises(ConfigError, match="unknown is"):
        import_index(DATA, file, unknown="skip")
    with pytest.raises(DataError, match="can't be read"):
        import_index(DATA, tmp_path / "nowhere.json")


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_without_a_dataset_the_items_are_the_files_own(tmp_path: Path, kind: str) -> None:
    codes = {"9": [0, 5], "2": [4, 2], "7": [0, 5]}
    if kind == "json":
        lists = {item: [f"<a_{a}>", f"<b_{b}>"] for item, (a, b) in codes.items()}
        file = write(tmp_path, lists)
    else:
        file = tmp_path / "table.parquet"
        pl.DataFrame({"pid": [int(item) for item in codes], "sid": list(codes.values())}).write_parquet(file)
    index = import_index(None, file, sizes=[8, 8])
    assert index.item_ids == list(codes)
    assert index.codes.tolist() == list(codes.values())
    assert index.sizes == (8, 8)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "none.parquet"
    pl.DataFrame(schema={"pid": pl.Int64, "sid": pl.List(pl.Int64)}).write_parquet(file)
    with pytest.raises(DataError, match="holds no items"):
        import_index(None, file)
