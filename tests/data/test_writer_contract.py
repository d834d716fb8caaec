"""What every writer must do: its files are read back as the same dataset, but for what it says it can't hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.data import READERS, Dataset, SplitRule, read
from itemic.data.writers import WRITERS
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.sid.export import export_dataset
from itemic.sid.index import ItemIndex
from itemic.sid.published import import_index
from itemic.tasks import Conversations

from ..sid.helpers import make_dataset

ITEMS = ["4", "11", "007", "B00-x"]
TITLES = ["Comb & Brush &amp; Co", "\"Crème\", 50 ml 'n' more", "", "['a', 'list'] <or> two"]
HISTORIES = {"u7": [0, 1, 2, 3], "8": [1, 0, 1], "09": [2, 3, 0, 0, 1], "lone": [2]}
DATA = make_dataset(
    TITLES,
    HISTORIES,
    ids=ITEMS,
    descriptions=["[1]", "a\\b", "", "less < more"],
    brands=["Men's", "", "K & J", ""],
    categories=[["Beauty", "Tapes,Glue & More"], [], ["One,Two"], ["Men's", "It's"]],
)
METHODS = ("leave-one-out", "leave-last-out", "temporal", "published")
AS_TABLES = sorted(set(WRITERS) & set(READERS))
SIZES = (12, 3)


def timed(data: Dataset = DATA) -> Dataset:
    """The same with ratings, and times that rise within a user and interleave between users."""
    n = len(data.interactions)
    times = [1_400_000_000_000 + 1_000 * i + (250 if i % 2 else 0) for i in range(n)]
    ratings = [None if i == 2 else 4.1 for i in range(n)]
    columns = [pl.Series(c.TIMESTAMP, times), pl.Series(c.RATING, ratings, pl.Float32)]
    return replace(data, interactions=data.interactions.with_columns(columns))


def split_by(method: str, history: int | None = 50) -> Dataset:
    data = timed().with_split(SplitRule(method, history))
    if method != "published":
        return data
    labels = ["train", "valid", "test", "test", "train", "train", "test"]
    labels += ["train", "train", "valid", "valid", "test", "train"]
    return replace(data, interactions=data.interactions.with_columns(pl.Series(c.SPLIT, labels)))


def index_of(data: Dataset = DATA, form: str = "offset") -> ItemIndex:
    codes = np.array([[11 - i % 12, i % 3] for i in range(len(data.item_ids))], np.int32)
    return ItemIndex(data.item_ids, codes, SIZES, form)


def export(data: Dataset, folder: Path, form: str) -> list[str]:
    """With semantic IDs where files consist of them."""
    return export_dataset(data, folder, form, index=index_of(data) if form == "openonerec" else None)


def sequences(data: Dataset) -> dict[str, list[tuple[str, int | None, float | None]]]:
    """User → (item, time, rating), in order."""
    found: dict[str, list[tuple[str, int | None, float | None]]] = {}
    for user, *event in data.interactions.select(c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.RATING).iter_rows():
        found.setdefault(user, []).append(tuple(event))
    return found


def items_only(data: Dataset) -> dict[str, list[str]]:
    return {user: [event[0] for event in events] for user, events in sequences(data).items()}


def questions(data: Dataset, split: str) -> list[tuple[str, list[str], str]]:
    requests, ids = data.split(split), data.item_ids
    return sorted(
        (user, [ids[row] for row in requests.history(i)], ids[requests.targets[i]])
        for i, user in enumerate(requests.users)
    )


def test_every_writer_has_its_name() -> None:
    assert all(name == writer.name for name, writer in WRITERS.items())
    assert set(AS_TABLES) == set(WRITERS)


@pytest.mark.parametrize("form", AS_TABLES)
def test_the_catalogue_comes_back(form: str, tmp_path: Path) -> None:
    lost = export(DATA, tmp_path / "made", form)
    again = read("auto", tmp_path / "made")
    assert again.notes["read"]["format"] == form
    kept = [column for column in c.ITEM_COLUMNS if column not in lost]
    assert again.items.select(kept).equals(DATA.items.select(kept))
    assert (set(c.ITEM_COLUMNS) - set(kept)) <= {c.BRAND}


@pytest.mark.parametrize("form", AS_TABLES)
def test_the_interactions_come_back(form: str, tmp_path: Path) -> None:
    data = timed()
    lost = export(data, tmp_path / "made", form)
    again = sequences(read(form, tmp_path / "made"))
    before = sequences(data)
    if "1 users of one item" in lost:
        before.pop("lone")
    if "times" in lost:
        before = {user: [(item, None, rating) for item, _, rating in rows] for user, rows in before.items()}
    if "ratings" in lost:
        before = {user: [(item, time, None) for item, time, _ in rows] for user, rows in before.items()}
    assert again == before


@pytest.mark.parametrize("history", [50, 2, None])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", AS_TABLES)
def test_the_split_comes_back_or_is_said_to_be_lost(
    form: str, method: str, history: int | None, tmp_path: Path
) -> None:
    data = split_by(method, history)
    lost = " ".join(export(data, tmp_path / "made", form))
    again = read(form, tmp_path / "made")
    if "leave-last-out: name it" in lost:
        again = again.with_split(data.rule)
    if f"the {method} split" in lost:
        return
    if "length of a request's history" in lost:
        again = again.with_split(replace(again.rule, history=history))
    if form == "minionerec":
        again = again.with_split(SplitRule("published", again.rule.history))
    assert questions(again, "valid") == questions(data, "valid")
    if "without an answer" in lost:
        with pytest.raises(DataError, match="empty"):
            again.split("test")
    else:
        assert questions(again, "test") == questions(data, "test")
    trained = {user: data.train[i].tolist() for i, user in enumerate(data.train.users)}
    if "users of one item" in lost:
        trained.pop("lone")
    assert {user: again.train[i].tolist() for i, user in enumerate(again.train.users)} == trained


@pytest.mark.parametrize("form", ["letter", "minionerec", "onerec-think", "openonerec"])
def test_the_semantic_ids_come_back(form: str, tmp_path: Path) -> None:
    index, root = index_of(), tmp_path / "made"
    assert not [words for words in export_dataset(DATA, root, form, index=index) if "semantic" in words]
    file = {"onerec-think": "made.pretrain.json", "minionerec": "index/made.index.json"}
    file |= {"openonerec": "pid2sid.parquet"}
    again = import_index(
        read(form, root), root / file.get(form, "made.index.json"), format="offset", sizes=SIZES
    )
    assert again.digest == index.digest


@pytest.mark.parametrize("form", WRITERS)
def test_it_says_what_is_lost(form: str, tmp_path: Path) -> None:
    wide = timed(replace(DATA, items=DATA.items.with_columns(pl.Series(c.PRICE, [1.5, None, 2.0, 3.0]))))
    lost = export_dataset(wide, tmp_path / "full", form, index=index_of())
    wide_enough = form in ("recbole", "openonerec")
    assert (c.PRICE in lost) == (not wide_enough and form != "reclm-gen")
    assert ("times" in lost) == (not wide_enough) == ("ratings" in lost)
    assert ("semantic IDs" in lost) == (form in ("recbole", "reclm-gen"))
    assert ("brand" in lost) == (form == "onerec-think")


def test_recbole_s_files_hold_tags_and_numbers(tmp_path: Path) -> None:
    data = timed()
    extra = [pl.Series(c.TAGS, [["a b", "it's"], [], ["c"], []]), pl.Series(c.PRICE, [1.5, None, 2.0, 3.0])]
    clicks = pl.Series("clicks", list(range(len(data.interactions))))
    wide = replace(
        data, items=data.items.with_columns(extra), interactions=data.interactions.with_columns(clicks)
    )
    again = _written(wide, tmp_path / "made", "recbole")
    assert again.items.select(c.TAGS, c.PRICE).equals(wide.items.select(c.TAGS, c.PRICE))
    assert again.interactions["clicks"].to_list() == clicks.to_list()


def test_minionerec_s_columns_are_the_system_s_own(tmp_path: Path) -> None:
    export_dataset(DATA, tmp_path / "made", "minionerec", index=index_of())
    lines = (tmp_path / "made" / "valid" / "made.csv").read_text("utf-8").splitlines()
    assert lines[0] == (
        "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid"
    )
    quoted = """8,"['""Crème"", 50 ml \\'n\\' more']",Comb &amp; Brush &amp;amp; Co,[11],4,"""
    assert lines[2] == quoted + "['<a_10><b_1>'],<a_11><b_0>"
    info = (tmp_path / "made" / "info" / "made.txt").read_text("utf-8").splitlines()
    assert info[2] == "<a_9><b_2>\t\t007"
    assert len(info) == len(ITEMS)


@pytest.mark.parametrize("method", METHODS)
def test_openonerec_s_conversations_hold_sequences_and_split(method: str, tmp_path: Path) -> None:
    data, index = split_by(method, 2), index_of()
    export_dataset(data, tmp_path / "made", "openonerec", index=index)
    texts = dict(zip(ITEMS, replace(index, format="onerec").texts, strict=True))

    def rows(split: str) -> Sequence[tuple[str, str, list[str]]]:
        told = [(row, row.metadata) for row in Conversations.open(tmp_path / "made" / f"{split}.parquet")]
        assert {meta["split"] for _, meta in told} == {split}
        return [(row, meta["group"].removeprefix("user:"), meta["items"]) for row, meta in told]

    train = {user: [ITEMS[row] for row in data.train[i]] for i, user in enumerate(data.train.users)}
    assert {user: items for _, user, items in rows("train")} == {u: s for u, s in train.items() if s}
    assert all(row.text == "".join(texts[item] for item in items) for row, _, items in rows("train"))
    asked = []
    for row, user, items in rows("valid"):
        question, answer = row.messages
        assert question["content"].startswith("".join(texts[item] for item in items) + "\n")
        (target,) = row.metadata["target"]
        assert answer["content"] == texts[target]
        asked.append((user, items, target))
    assert sorted(asked) == questions(data, "valid")
    ids = import_index(data, tmp_path / "made" / "pid2sid.parquet", format="offset", sizes=SIZES)
    assert ids.digest == index.digest
    assert json.loads((tmp_path / "made" / "made.json").read_text()) == ["train.parquet"]


@pytest.mark.parametrize("history", [50, 2, None])
@pytest.mark.parametrize("method", METHODS)
def test_openonerec_s_files_are_read_as_the_same_dataset(
    method: str, history: int | None, tmp_path: Path
) -> None:
    tags = pl.Series(c.TAGS, [["a b", "it's"], [], ["c"], []])
    data = split_by(method, history)
    data = replace(data, items=data.items.with_columns(tags, pl.Series("stock", [1, None, 3, 4])))
    assert not export(data, tmp_path / "made", "openonerec")
    again = read("auto", tmp_path / "made")
    assert again.items.equals(data.items)
    assert again.interactions.equals(data.interactions)
    assert (again.name, again.rule) == (data.name, data.rule)


def test_openonerec_s_files_hold_users_without_training(tmp_path: Path) -> None:
    labels = ["valid", "test", "test", "test", "test", "test", "test"]
    labels += ["train", "train", "valid", "valid", "test", "train"]
    data = split_by("published", 2)
    data = replace(data, interactions=data.interactions.with_columns(pl.Series(c.SPLIT, labels)))
    assert not export(data, tmp_path / "made", "openonerec")
    again = read("openonerec", tmp_path / "made")
    assert again.interactions.equals(data.interactions)
    assert questions(again, "test") == questions(data, "test")
    labels[-1] = "test"
    held = replace(data, interactions=data.interactions.with_columns(pl.Series(c.SPLIT, labels)))
    assert export(held, tmp_path / "held", "openonerec") == ["1 users of one item that is not of training"]
    left = held.interactions.filter(pl.col(c.USER_ID) != "lone")
    assert read("openonerec", tmp_path / "held").interactions.equals(left)
    other = held.with_split(SplitRule())
    assert export(other, tmp_path / "other", "openonerec") == ["the source's own split"]


def test_what_can_t_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="csv-of-mine"):
        export_dataset(DATA, tmp_path / "made", "csv-of-mine")
    with pytest.raises(ConfigError, match="semantic IDs"):
        export_dataset(DATA, tmp_path / "made", "openonerec")
    other = make_dataset(["a", "b"])
    with pytest.raises(IndexMismatchError):
        export_dataset(DATA, tmp_path / "made", "letter", index=index_of(other))
    spaced = make_dataset(["a"], {"u": [0, 0, 0]}, ids=["x y"])
    with pytest.raises(DataError, match="'x y'"):
        export_dataset(spaced, tmp_path / "made", "onerec-think")
    assert items_only(_written(spaced, tmp_path / "spaced", "recbole")) == {"u": ["x y"] * 3}
    with pytest.raises(DataError, match="x\\\\ty"):
        export_dataset(make_dataset(["a"], {"u": [0]}, ids=["x\ty"]), tmp_path / "tab", "recbole")


def _written(data: Dataset, folder: Path, form: str) -> Dataset:
    export(data, folder, form)
    return read(form, folder)


words = st.text(st.sampled_from("aé&;<>[]'\",\\#1:/ "), max_size=12).map(lambda text: " ".join(text.split()))
names = words.filter(lambda name: name and "<" not in name and " > " not in name and "&" not in name)


@settings(max_examples=60, deadline=None)
@given(titles=st.lists(words, min_size=1, max_size=4), path=st.lists(names, max_size=3))
def test_any_texts_come_back(
    titles: list[str], path: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = make_dataset(titles, {"u": [0, 0, 0]}, descriptions=titles, categories=[path] * len(titles))
    for form in AS_TABLES:
        again = _written(data, tmp_path_factory.mktemp("texts") / "made", form).items
        for column in (c.TITLE, c.DESCRIPTION, c.CATEGORIES):
            assert again[column].to_list() == data.items[column].to_list(), form


events_of_users = st.lists(
    st.lists(st.tuples(st.sampled_from(c.SPLITS), st.integers(0, 3)), min_size=2, max_size=6),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(users=events_of_users, history=st.sampled_from([1, 2, None]))
def test_any_published_split_comes_back_from_openonerec_s_files(
    users: list[list[tuple[str, int]]], history: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    histories = {f"u {i}": [row for _, row in events] for i, events in enumerate(users)}
    labels = [
        label for events in users for label in sorted((label for label, _ in events), key=c.SPLITS.index)
    ]
    data = make_dataset(TITLES, histories, ids=ITEMS)
    data = replace(data, interactions=data.interactions.with_columns(pl.Series(c.SPLIT, labels)))
    data = data.with_split(SplitRule("published", history))
    assert not export(data, folder := tmp_path_factory.mktemp("split") / "made", "openonerec")
    assert read("openonerec", folder).interactions.equals(data.interactions)


@pytest.mark.parametrize("form", sorted(set(AS_TABLES) - {"minionerec"}))
def test_real_data_come_back(form: str, shared: Path, tmp_path: Path) -> None:
    data = read("letter", shared / "scientific")
    again = _written(data, tmp_path / "made", form)
    kept = [column for column in c.ITEM_COLUMNS if column != c.BRAND]
    assert again.items.select(kept).equals(data.items.select(kept))
    assert items_only(again) == items_only(data)


def test_minionerec_s_own_files_are_written_as_they_were(shared: Path, tmp_path: Path) -> None:
    source = shared / "minionerec"
    data = read("minionerec", source)
    index = import_index(data, next((source / "index").glob("*.index.json")), format="minionerec")
    export_dataset(data.with_split(SplitRule("published", 10)), tmp_path / "made", "minionerec", index=index)
    for split in ("valid", "test"):
        (theirs,) = (source / split).glob("*.csv")
        mine = pl.read_csv(tmp_path / "made" / split / "made.csv", infer_schema=False).drop(
            "history_item_title", "item_title"
        )
        columns = mine.columns
        assert mine.sort(columns).equals(
            pl.read_csv(theirs, infer_schema=False).select(columns).sort(columns)
        )
