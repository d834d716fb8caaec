from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.errors import ConfigError, IndexMismatchError
from itemic.sid.format import TOKEN_FORMATS
from itemic.sid.index import ItemIndex
from tests.sid.helpers import make_dataset, make_index

CODES = [[0, 1], [2, 0], [0, 1], [0, 0]]


def test_texts_parse_back_to_the_codes() -> None:
    for form in TOKEN_FORMATS:
        index = make_index(CODES, (3, 2), form)
        for row, text in enumerate(index.texts):
            parsed = index.parse(text)
            assert parsed is not None
            assert parsed.tolist() == CODES[row]
            assert index.text(row) == text
    assert make_index(CODES, (3, 2)).parse("<|sid_begin|><s_a_2><s_b_2><|sid_end|>") is None
    (found,) = make_index(CODES, (3, 2)).find("I bought <|sid_begin|><s_a_1><s_b_1><|sid_end|>.")
    assert (found[0], found[2].tolist()) == (9, [1, 1])


def test_collisions_are_counted() -> None:
    stats = make_index(CODES, (3, 2)).collisions
    assert (stats.items, stats.sids, stats.collided, stats.largest, stats.rate) == (4, 3, 2, 2, 0.25)
    assert make_index(CODES, (3, 2)).sid_numbers.tolist() == [1, 2, 1, 0]


@st.composite
def indexes(draw: st.DrawFn) -> ItemIndex:
    sizes = draw(st.lists(st.integers(1, 5) | st.just(2**30), min_size=1, max_size=5))
    row = st.tuples(*(st.integers(0, min(size, 5) - 1) | st.just(size - 1) for size in sizes))
    return make_index(draw(st.lists(row, min_size=1, max_size=20)), sizes)


@given(indexes(), st.data())
def test_rows_of_codes_are_those_of_a_loop(index: ItemIndex, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, index.levels))
    known = [tuple(row[:length]) for row in index.codes.tolist()]
    anything = st.tuples(*(st.integers(-1, 6) for _ in range(length)))
    asked = data.draw(st.lists(st.sampled_from(known) | anything, min_size=1, max_size=8))
    rows, offsets = index.rows_of_codes(asked)
    for k, codes in enumerate(asked):
        expected = [row for row, mine in enumerate(known) if mine == codes]
        assert rows[offsets[k] : offsets[k + 1]].tolist() == expected


def test_the_digest_tells_ids_codes_sizes_and_format_apart() -> None:
    base = make_index(CODES, (3, 2))
    others = [
        make_index([*CODES[:3], [1, 0]], (3, 2)),
        make_index(CODES, (3, 3)),
        make_index(CODES, (3, 2), "offset"),
        ItemIndex(["a", "b", "c", "d"], base.codes, (3, 2)),
    ]
    assert len({index.digest for index in [base, *others]}) == 5
    assert make_index(CODES, (3, 2), origin={"encoder": "x"}).digest == base.digest


@pytest.mark.parametrize(
    "books", [None, [np.eye(3, 4, dtype=np.float32)], [np.ones((3, 4)), np.zeros((2, 4))]]
)
def test_save_and_load_bit_for_bit(tmp_path: Path, books: list[Any] | None) -> None:
    index = make_index(CODES, (3, 2), "offset", origin={"encoder": "lsa", "seed": 3}, codebooks=books)
    index.save(tmp_path / "sid")
    loaded = ItemIndex.load(tmp_path / "sid")
    assert (loaded.item_ids, loaded.sizes, loaded.format) == (index.item_ids, (3, 2), "offset")
    assert (loaded.origin, loaded.digest) == ({"encoder": "lsa", "seed": 3}, index.digest)
    assert loaded.codes.dtype == np.int32
    assert (loaded.codes == index.codes).all()
    assert (loaded.codebooks is None) == (books is None)
    for mine, theirs in zip(books or [], loaded.codebooks or [], strict=True):
        assert theirs.dtype == np.float32
        assert (mine == theirs).all()
    table = pl.read_parquet(tmp_path / "sid" / "items.parquet")
    assert table["semantic_id"].to_list() == index.texts


def test_saving_again_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    make_index(CODES, (3, 2), codebooks=[np.eye(3, dtype=np.float32)]).save(tmp_path)
    make_index(CODES[:2], (3, 2)).save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.json", "items.parquet"]


def test_changed_codes_are_noticed(tmp_path: Path) -> None:
    make_index(CODES, (3, 2)).save(tmp_path / "a")
    make_index([[1, 1], *CODES[1:]], (3, 2)).save(tmp_path / "b")
    (tmp_path / "b" / "items.parquet").replace(tmp_path / "a" / "items.parquet")
    with pytest.raises(IndexMismatchError, match="other semantic IDs"):
        ItemIndex.load(tmp_path / "a")


def spoil_head(folder: Path) -> None:
    (folder / "index.json").write_text('{"format": "onerec"')


def drop_key(folder: Path) -> None:
    head = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({key: head[key] for key in head if key != "sizes"}))


def cut_items(folder: Path) -> None:
    whole = (folder / "items.parquet").read_bytes()
    (folder / "items.parquet").write_bytes(whole[: len(whole) // 2])


def cut_codebooks(folder: Path) -> None:
    (folder / "codebooks.safetensors").write_bytes(b"\0" * 5)


@pytest.mark.parametrize(
    "spoil", [spoil_head, drop_key, cut_items, cut_codebooks, lambda f: (f / "index.json").unlink()]
)
def test_a_broken_folder_is_named(tmp_path: Path, spoil: Any) -> None:
    make_index(CODES, (3, 2), codebooks=[np.eye(3, dtype=np.float32)]).save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(IndexMismatchError, match=str(tmp_path)):
        ItemIndex.load(tmp_path)


@pytest.mark.parametrize(
    ("ids", "codes", "sizes", "fault"),
    [
        (["a", "b"], [[0], [3]], (3,), "item 'b' has code 3 at level 0, which has 3 codes"),
        (["a", "b"], [[0], [-1]], (3,), "code -1"),
        (["a", "a"], [[0], [1]], (3,), "twice"),
        (["a"], [[0], [1]], (3,), "shape"),
        ([], np.zeros((0, 2)), (3,), "shape"),
        ([], np.zeros((0, 1)), (0,), "0"),
        (["a"], np.zeros((1, 0)), (), "no levels"),
    ],
)
def test_parts_that_contradict_each_other(
    ids: list[str], codes: Any, sizes: Sequence[int], fault: str
) -> None:
    with pytest.raises(IndexMismatchError, match=fault):
        ItemIndex(ids, np.array(codes), tuple(sizes))
    with pytest.raises(ConfigError, match="token format"):
        ItemIndex(["a"], np.array([[0]], np.int32), (1,), "tiger")
    with pytest.raises(IndexMismatchError, match="codebook of level 0"):
        make_index([[0]], (3,), codebooks=[np.zeros((2, 4), np.float32)])


def test_the_dataset_must_be_the_one() -> None:
    index = make_index(CODES, (3, 2))
    index.check_dataset(make_dataset(["t"] * 4))
    with pytest.raises(IndexMismatchError, match="another order: row 0 is 'item0' and 'item1'"):
        index.check_dataset(make_dataset(["t"] * 4, ids=["item1", "item0", "item2", "item3"]))
    with pytest.raises(IndexMismatchError, match="no semantic ID for item 'item4'"):
        index.check_dataset(make_dataset(["t"] * 5))
    with pytest.raises(IndexMismatchError, match="1 items only in the index"):
        index.check_dataset(make_dataset(["t"] * 3))


# ------------------------------------------------------------------ tokenizers


def a_tokenizer(tokens: list[str], *, unk: str | None = None) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<", ">", "|", "_", *"abdeginstr0123456789", *([unk] if unk else [])]
    raw = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], unk_token=unk))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token=unk)
    tokenizer.add_tokens(tokens)
    return tokenizer


@pytest.mark.parametrize("form", TOKEN_FORMATS)
def test_token_rows_are_what_the_tokenizer_makes_of_the_text(form: str) -> None:
    index = make_index(CODES, (3, 2), form)
    tokenizer = a_tokenizer(index.tokens)
    rows = index.token_rows(tokenizer)
    assert [rows[k].tolist() for k in range(len(rows))] == [tokenizer.encode(text) for text in index.texts]
    assert (rows.tokens.dtype, rows.offsets.dtype) == (np.int32, np.int64)
    again = index.token_rows(tokenizer.convert_tokens_to_ids)
    assert (again.tokens == rows.tokens).all()


@pytest.mark.parametrize("unk", [None, "<unk>"])
def test_a_token_that_the_tokenizer_lacks(unk: str | None) -> None:
    index = make_index(CODES, (3, 2))
    with pytest.raises(IndexMismatchError, match=r"lacks 2 of the index's 7 tokens, first '<s_a_1>'"):
        index.token_rows(a_tokenizer([t for t in index.tokens if t not in ("<s_a_1>", "<s_b_0>")], unk=unk))


def test_a_token_that_shares_its_id_or_is_split() -> None:
    index = make_index(CODES, (3, 2))
    with pytest.raises(IndexMismatchError, match="the id of another token"):
        index.token_rows(lambda tokens: [0] * len(tokens))

    class Splitting:
        unk_token_id = None

        def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
            return list(range(len(tokens)))

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [0, 1, 50, 51, 3, 4, 5, 6]

    with pytest.raises(IndexMismatchError, match="'<s_a_2>' as one token"):
        index.token_rows(Splitting())


class TestCodesAlone:
    """OpenOneRec's pretraining has a code space and no catalogue."""

    def test_they_have_tokens_and_nothing_else(self) -> None:
        index = ItemIndex.of_codes((3, 2))
        assert len(index) == 0
        assert index.tokens == make_index(CODES, (3, 2)).tokens
        assert index.texts == []
        assert index.examples(5) == [TOKEN_FORMATS["onerec"].text([row, row], (3, 2)) for row in range(2)]
        assert (index.collisions.items, index.collisions.sids, index.collisions.rate) == (0, 0, 0.0)
        assert index.parse(index.examples(1)[0]).tolist() == [0, 0]  # type: ignore[union-attr]
        rows, offsets = index.rows_of_codes([[0, 0], [2, 1]])
        assert (rows.tolist(), offsets.tolist()) == ([], [0, 0, 0])

    def test_they_survive_the_disk(self, tmp_path: Path) -> None:
        index = ItemIndex.of_codes((3, 2), "minionerec")
        index.save(tmp_path)
        found = ItemIndex.load(tmp_path)
        assert (found.digest, found.sizes, found.format, len(found)) == (
            index.digest,
            (3, 2),
            "minionerec",
            0,
        )
        assert found.table.schema["item_id"] == pl.String

    def test_the_digest_of_the_codes_is_that_of_any_items_with_them(self) -> None:
        alone, index = ItemIndex.of_codes((3, 2)), make_index(CODES, (3, 2))
        assert index.codes_digest == alone.digest == alone.codes_digest != index.digest
        assert make_index(CODES, (4, 2)).codes_digest != alone.digest

    def test_openonerecs_tokens_in_openonerecs_order(self) -> None:
        """All s_a, all s_b, all s_c, then begin and end: 3 × 8,192 + 2."""
        tokens = ItemIndex.of_codes((8192,) * 3).tokens
        layers = [f"<s_{layer}_{code}>" for layer in "abc" for code in range(8192)]
        assert tokens == [*layers, "<|sid_begin|>", "<|sid_end|>"]
