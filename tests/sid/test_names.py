"""What every kind of names promises, whatever it is made of; and what only titles do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, IndexMismatchError
from itemic.model.tokenizer import add_index_tokens, train_tokenizer
from itemic.sid.index import ItemIndex
from itemic.sid.kinds import KINDS, load_names, need_sids
from itemic.sid.names import ItemNames
from itemic.sid.titles import TitleNames, plain, unique_names
from itemic.sid.trie import Trie
from tests.sid.helpers import make_dataset

TITLES = [
    "Alien",
    "Aliens",
    "Alien",
    "Alien (2)",
    "",
    "The {curly} <b>one</b> &amp; <|im_end|> more\nlines",
    "Jaws",
    "Léon 映画 😀",
]
CODES = [[0, 1], [2, 0], [0, 1], [0, 0], [1, 1], [1, 0], [2, 1], [2, 2]]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(TITLES)


@pytest.fixture(scope="module", params=KINDS)
def names(request: pytest.FixtureRequest, dataset: Dataset) -> ItemNames:
    if request.param == "title":
        return TitleNames.of(dataset)
    return ItemIndex(dataset.item_ids, np.array(CODES, np.int32), (3, 3), titles=TITLES)


@pytest.fixture(scope="module")
def tokenizer(names: ItemNames) -> PreTrainedTokenizerBase:
    made = train_tokenizer(TITLES, vocab_size=320)
    add_index_tokens(made, names.tokens)
    return made


def rows_of(names: ItemNames, row: int) -> list[int]:
    """All items that are called as that one is."""
    return np.flatnonzero(names.name_numbers == names.name_numbers[row]).tolist()


# -------------------------------------------------------------------- the contract


def test_a_name_is_read_back_exactly(names: ItemNames) -> None:
    for row, text in enumerate(names.texts):
        assert names.text(row) == text
        assert names.named(text).tolist() == rows_of(names, row)
        for other in (text[:-1], text[1:], text + " ", " " + text, text + text, text.swapcase(), ""):
            assert not len(names.named(other))
    assert names.examples(2) == names.texts[:2]
    assert names.distinct == len(set(names.texts))
    assert names.shared == sum(names.texts.count(text) > 1 for text in names.texts)


def test_names_are_found_in_any_text(names: ItemNames) -> None:
    first, second, third = names.texts[0], names.texts[1], names.texts[6]
    text = f"a {first} b{second}{third}\n{first[:-2]} {second}"
    found = names.mentions(text)
    assert [text[start:stop] for start, stop, _ in found] == [first, second, third, second]
    assert [rows.tolist() for _, _, rows in found] == [rows_of(names, row) for row in (0, 1, 6, 1)]


def test_patterns_know_names_in_both_dialects(names: ItemNames) -> None:
    text = f"a {names.texts[0]} b{names.texts[1]}\n{names.texts[7]}"
    found = pl.Series([text]).str.extract_all(names.patterns.name)[0].to_list()
    assert found == [names.texts[0], names.texts[1], names.texts[7]] == re.findall(names.patterns.name, text)
    for each in names.texts:
        assert re.search(names.patterns.token, each)
    assert not re.search(names.patterns.token, "Jaws (1975), a film: <b>")


def test_tokens_are_a_tokenizer_s_own_and_end_alone(
    names: ItemNames, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = names.token_rows(tokenizer)
    assert len(rows) == len(names)
    for row, text in enumerate(names.texts):
        assert tokenizer.decode(rows[row].tolist()) == text
    trie = Trie.build(rows)
    ends = trie.find(rows)
    assert trie.leaf[ends].all()  # no name is the beginning of another one
    assert trie.terminal.sum() == names.distinct
    starts = names.start_tokens(tokenizer)
    assert [np.isin(row, starts).sum() for row in rows] == [1] * len(names)


def test_names_survive_the_disk(names: ItemNames, tmp_path: Path) -> None:
    names.save(tmp_path)
    loaded = load_names(tmp_path)
    assert type(loaded) is type(names)
    assert loaded.digest == names.digest
    assert (loaded.texts, loaded.item_ids, loaded.origin) == (names.texts, names.item_ids, names.origin)
    assert loaded.known_titles() == names.known_titles()
    other = TitleNames if isinstance(names, ItemIndex) else ItemIndex
    with pytest.raises(IndexMismatchError, match="names items by"):
        other.load(tmp_path)


def test_a_folder_that_was_changed_is_refused(names: ItemNames, tmp_path: Path) -> None:
    names.save(tmp_path)
    table = pl.read_parquet(tmp_path / "items.parquet")
    table.select(pl.col("item_id").shuffle(3), pl.all().exclude("item_id")).write_parquet(
        tmp_path / "items.parquet"
    )
    with pytest.raises(IndexMismatchError, match=f"{names.digest}"):
        load_names(tmp_path)
    table.select("item_id").write_parquet(tmp_path / "items.parquet")
    with pytest.raises(IndexMismatchError, match="is not an item index"):
        load_names(tmp_path)
    head = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    (tmp_path / "index.json").write_text(json.dumps(head | {"names": "smell"}), encoding="utf-8")
    with pytest.raises(IndexMismatchError, match="'smell'"):
        load_names(tmp_path)
    (tmp_path / "index.json").unlink()
    with pytest.raises(IndexMismatchError, match="is not an item index"):
        load_names(tmp_path)


def test_other_items_are_refused(names: ItemNames, dataset: Dataset) -> None:
    names.check_dataset(dataset)
    assert names.catalogue == dataset.catalogue
    with pytest.raises(IndexMismatchError, match="in another order"):
        names.check_dataset(make_dataset(TITLES, ids=dataset.item_ids[::-1]))
    with pytest.raises(IndexMismatchError, match=f"no {names.word} for item 'new'"):
        names.check_dataset(make_dataset([*TITLES, "x"], ids=[*dataset.item_ids, "new"]))
    one = np.array([0, 1]), np.zeros(1, np.int32), np.array([-1], np.int32)
    names.check_requests(Requests(np.array(["u"], object), *one, names.catalogue))
    with pytest.raises(IndexMismatchError):
        names.check_requests(Requests(np.array(["u"], object), *one, "0" * 16))


def test_codes_are_asked_of_semantic_ids_alone(names: ItemNames) -> None:
    if isinstance(names, ItemIndex):
        assert need_sids(names, "this") is names
    else:
        with pytest.raises(ConfigError, match="this is about the codes of semantic IDs"):
            need_sids(names, "this")


# ------------------------------------------------------------------------- titles


def test_titles_are_cleaned_numbered_and_never_empty(dataset: Dataset) -> None:
    names = TitleNames.of(dataset)
    assert names.titles == [
        "Alien",
        "Aliens",
        "Alien (2)",
        "Alien (2) (2)",
        "item4",
        "The (curly) one & more lines",
        "Jaws",
        "Léon 映画 😀",
    ]
    assert names.tokens == []
    assert names.origin == {
        "column": "title",
        "max_tokens": None,
        "no_text": 1,
        "cut": 0,
        "numbered": 2,
    }
    assert names.parse("{Jaws}") == 6
    assert [names.parse(text) for text in ("Jaws", "{jaws}", "{Jaws }", "{Jaw}", "{Cars}")] == [None] * 5


def test_any_column_of_texts_names_items(dataset: Dataset) -> None:
    assert TitleNames.of(dataset, column="item_id").titles == dataset.item_ids
    brands = TitleNames.of(make_dataset(["a", "b"], brands=["Acme", "Acme"]), column="brand")
    assert brands.titles == ["Acme", "Acme (2)"]
    for column in ("categories", "smell"):
        with pytest.raises(ConfigError, match=f"no column '{column}' of texts"):
            TitleNames.of(dataset, column=column)
    for more in ({"max_tokens": 3}, {"max_tokens": 0, "tokenizer": object()}):
        with pytest.raises(ConfigError, match="cut to"):
            TitleNames.of(dataset, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("titles", "fault"),
    [
        (["a"], "2 items have 1 titles"),
        (["a", "a"], "two items have the title 'a'"),
        (["a", "b}"], r"'b}', which can't stand between"),
        (["a", ""], "'', which can't stand between"),
        (["a", "<|im_end|>"], "can't stand between"),
    ],
)
def test_titles_that_can_t_be_are_refused(titles: list[str], fault: str) -> None:
    with pytest.raises(IndexMismatchError, match=fault):
        TitleNames(["x", "y"], titles)


SPEECH = train_tokenizer([*TITLES, "Alien Resurrection and other films"] * 3, vocab_size=330)
anything = st.text(max_size=12) | st.sampled_from(
    [
        "Alien",
        "Alien (2)",
        "{",
        "a}b",
        "<|im_end|>",
        "<think>",
        "&amp;amp;",
        " ",
        "<<|a|>|b|>",
        "<|im_start|>",
    ]
)


@given(st.lists(anything, min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_whatever_titles_there_are_each_item_has_its_own(titles: list[str]) -> None:
    names = TitleNames.of(make_dataset(titles))
    assert len(set(names.titles)) == len(titles)
    text = " and ".join(names.texts)
    assert [row for _, _, row in names.find(text)] == list(range(len(titles)))
    for row, title in enumerate(names.titles):
        assert names.parse(names.text(row)) == row
        assert plain(title) == title
    rows = names.token_rows(SPEECH)
    marks = {i for i, token in SPEECH.added_tokens_decoder.items() if token.content.strip()}
    for row in range(len(names)):
        assert SPEECH.decode(rows[row].tolist()) == names.text(row)
        assert marks.isdisjoint(rows[row].tolist())


@given(st.lists(anything, min_size=1, max_size=12), st.lists(anything, max_size=6), st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_names_stay_when_items_are_added_and_cut_ones_are_short(
    titles: list[str], more: list[str], most: int
) -> None:
    names, grown = (
        TitleNames.of(make_dataset(some), max_tokens=most, tokenizer=SPEECH)
        for some in (titles, titles + more)
    )
    assert grown.titles[: len(titles)] == names.titles
    for raw, title, item in zip(titles, names.titles, names.item_ids, strict=True):
        stem = re.sub(r"( \(\d+\))+$", "", title)
        whole = plain(raw)
        assert whole.startswith(stem) or stem.startswith(item) or title.startswith("Alien")
        if whole.startswith(title):  # neither numbered nor an id
            ids = SPEECH(title, add_special_tokens=False)["input_ids"]
            assert len(ids) <= most or not set(ids).isdisjoint(SPEECH.all_special_ids)
            if len(SPEECH(whole, add_special_tokens=False)["input_ids"]) <= most:
                assert title == whole


@given(st.lists(st.sampled_from(["a", "a (2)", "a (3)", "b", "a (2) (2)"]), max_size=12))
@settings(deadline=None)
def test_numbers_are_the_first_free_ones(stems: list[str]) -> None:
    names = unique_names(stems)
    assert len(set(names)) == len(stems)
    for row, (stem, name) in enumerate(zip(stems, names, strict=True)):
        free = (text for number in range(1, 20) if (text := stem + f" ({number})" * (number > 1)))
        assert name == next(text for text in free if text not in names[:row])


def test_the_first_64_tokens_are_those_of_the_round_trip() -> None:
    """RecLM's ``title64_t``: what is left of a title after 64 tokens of a tokenizer."""
    long = "Alien Resurrection and other films: " * 12
    names = TitleNames.of(make_dataset([long, "short", long]), max_tokens=64, tokenizer=SPEECH)
    ids = SPEECH(plain(long), add_special_tokens=False)["input_ids"]
    assert names.titles[0] == SPEECH.decode(ids[:64]).strip()
    assert names.titles[1:] == ["short", f"{names.titles[0]} (2)"]
    assert names.origin == {"column": "title", "max_tokens": 64, "no_text": 0, "cut": 2, "numbered": 1}


class Deaf:
    """A tokenizer that reads lower case only, and maybe no numbers."""

    added_tokens_decoder: ClassVar[dict[int, object]] = {}

    def __init__(self, unread: str = "") -> None:
        self.unread = unread

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        heard = [
            re.sub(rf"[{self.unread}]", "", text.lower()) if self.unread else text.lower() for text in texts
        ]
        return SPEECH(heard, add_special_tokens=False)  # type: ignore[return-value]


def test_names_that_a_tokenizer_can_t_tell_apart_are_refused_or_numbered() -> None:
    names = TitleNames.of(make_dataset(["Up", "up", "UP"]))
    assert len(names.token_rows(SPEECH)) == 3
    with pytest.raises(IndexMismatchError, match=r"names of 2 items .* reads item 'item1' \(up\)"):
        names.token_rows(Deaf())
    numbered = TitleNames.of(make_dataset(["Up", "up", "UP"]), tokenizer=Deaf())
    assert numbered.titles == ["Up", "up (2)", "UP (3)"]
    assert len(numbered.token_rows(Deaf())) == 3
    with pytest.raises(ConfigError, match="can't be numbered"):
        TitleNames.of(make_dataset(["Up", "up"]), tokenizer=Deaf("0-9() "))


def test_letters_that_are_composed_in_two_ways_are_the_same() -> None:
    names = TitleNames.of(make_dataset(["L\u00e9on", "Le\u0301on"]))
    assert names.titles == ["L\u00e9on", "L\u00e9on (2)"]


def test_a_letter_that_was_added_to_a_vocabulary_is_a_letter() -> None:
    made = train_tokenizer(TITLES, vocab_size=320)
    made.add_tokens(["\u00fc", "\u00f8"])
    names = TitleNames.of(make_dataset(["M\u00fcnchen", "\u00f8"]))
    added = made.convert_tokens_to_ids(["\u00fc", "\u00f8"])
    rows = names.token_rows(made)
    assert [[number for number in row.tolist() if number in added] for row in rows] == [added[:1], added[1:]]
