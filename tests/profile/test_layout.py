"""LangPTune's tables: there and back, in both forms, and as its own scripts write them."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from itemic import schema as c
from itemic.errors import ConfigError, DataError
from itemic.model.chat import ChatRenderer
from itemic.profile.layout import Layout, write_layout
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.profile.word_settings import WordsSettings
from itemic.profile.words import ProfileWords
from itemic.tasks.facts import ItemFacts
from tests.model.helpers import family_tokenizer
from tests.profile.people import TITLES, people, walk

LENGTHS = (700, 120)
ALL = ["title", "average", "description", "brand", "category", "price", "rating", "review"]


def written(folder, form="parquet", **options):
    users = {
        f"u{n}": walk([0, 1 + n % 3, 6, 4 + n % 2], 10 * n, float(2 + n % 4), "so good\n\nreally")
        for n in range(10)
    }
    dataset = people(users)
    sessions = Sessions.of(dataset, SessionSettings(inputs=3))
    facts = ItemFacts.of(dataset, sessions.training)
    tokenizer = family_tokenizer("qwen3")
    tokenizer.pad_token = tokenizer.eos_token
    words = ProfileWords(facts, WordsSettings(fields=ALL, max_tokens=LENGTHS[0], instruction="Write.\n\n"))
    prompts = words.prompts(sessions, ChatRenderer(tokenizer))
    options = {"writer": tokenizer, "embedder": tokenizer, "form": form, "max_tokens": LENGTHS} | options
    lost = write_layout(folder, sessions, words, prompts, **options)
    return dataset, sessions, prompts, tokenizer, lost


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_there_and_back(tmp_path, form):
    dataset, sessions, prompts, tokenizer, lost = written(tmp_path, form)
    found = Layout.read(tmp_path / "items", tmp_path / "sessions")
    assert {split: len(table) for split, table in found.sessions.items()} == {"train": 8, "val": 1, "test": 1}
    assert found.items["item_descriptions"].to_list()[2].startswith("Title: Tent\n")
    assert set(found.items["item_description_tokens"].list.len()) == {LENGTHS[1]}
    table = found.sessions["train"]
    row = table.row(0, named=True)
    assert row["in_sess_item_idxs"] == sessions.inputs(0).tolist()
    assert row["out_sess_item_idxs"] == [sessions.targets[0]]
    assert row["sess_description_llama"][-len(prompts.tokens[0]) :] == prompts.tokens[0].tolist()
    assert len(row["sess_description_llama"]) == LENGTHS[0]
    assert row["sess_descriptions"] == tokenizer.decode(prompts.tokens[0])
    assert row["ref_responses"] == found.items["item_descriptions"][row["in_sess_item_idxs"][-1]]
    assert "dense_in_sesses" not in table.columns
    assert lost[:2] == ["user ids", "times"]

    back = found.dataset()
    assert back.items[c.TITLE].to_list() == TITLES
    for column in (c.DESCRIPTION, c.BRAND, c.CATEGORIES, c.PRICE):
        assert back.items[column].to_list() == dataset.items[column].to_list()
    again = Sessions.of(back, SessionSettings(inputs=3, split="dataset"))
    for split in ("train", "valid", "test"):
        old, new = sessions.split(split), again.split(split)
        np.testing.assert_array_equal(new.items, old.items)
        np.testing.assert_array_equal(new.targets, old.targets)
        np.testing.assert_array_equal(new.ratings, old.ratings)
        assert set(new.reviews) == {"so good really"}  # as the prompt has them, on one line
    assert back.notes == {"inputs without a rating in the prompt": 0, "sessions without a target": 0}


def test_datasets_reads_what_we_write(tmp_path):
    datasets = pytest.importorskip("datasets", reason="it comes with the extra bench")
    _, sessions, _, _, _ = written(tmp_path, "arrow")
    items = datasets.load_from_disk(str(tmp_path / "items"))
    assert items["index"][:] == list(range(8))
    splits = datasets.load_from_disk(str(tmp_path / "sessions"))
    assert {name: len(part) for name, part in splits.items()} == {"train": 8, "val": 1, "test": 1}
    row = splits["train"][0]
    assert np.flatnonzero(row["dense_in_sesses"]).tolist() == sorted(set(sessions.inputs(0).tolist()))
    assert np.flatnonzero(row["dense_out_sesses"]).tolist() == [sessions.targets[0]]
    # and we what it writes, in several shards
    items.save_to_disk(str(tmp_path / "own"), num_shards=3)
    splits.save_to_disk(str(tmp_path / "parts"))
    ours, theirs = (
        Layout.read(tmp_path / one, tmp_path / two) for one, two in (("items", "sessions"), ("own", "parts"))
    )
    assert ours.items.equals(theirs.items)
    assert all(ours.sessions[split].equals(theirs.sessions[split]) for split in ours.sessions)


def theirs(folder, **columns):
    """Tables as the public scripts make them: prompts for Gemma, items with numbers that skip some."""
    text = "Title: {}\nDescription: (average rating: 4.5) About {}.\nCategory: ['Movies & TV', 'Kids']\nPrice: {}"
    items = [
        text.format(name, name, price) for name, price in (("Ran", "12.99"), ("Up", "None"), ("M", "3.0"))
    ]
    said = "The user has rated these.\n\n" + "\n\n".join(
        f"{item}\nReview from the user: (rating: {stars}) {review}"
        for item, stars, review in ((items[0], 5.0, "Great!\n\nBuy it."), (items[2], 1.0, "Bad."))
    )
    table = pl.DataFrame(
        {"index": [0, 5, 7], "item_descriptions": items, "item_description_tokens": [[1, 0]] * 3}
    )
    session = {
        "in_sess_item_idxs": [[0, 7]],
        "out_sess_item_idxs": [[5]],
        "dense_in_sesses": [[1.0] * 8],
        "sess_descriptions": [f"<start_of_turn>user\n{said}<end_of_turn>\n<start_of_turn>model"],
        "sess_description_gemma": [[2, 3]],
        "ref_responses": [items[2]],
        "ref_response_mxbai": [[1, 0]],
    } | columns
    (folder / "sessions" / "data").mkdir(parents=True)
    table.write_parquet(folder / "items.parquet")
    for split in ("train", "val", "test"):
        pl.DataFrame(session).drop(name for name, own in session.items() if own is None).write_parquet(
            folder / "sessions" / "data" / f"{split}-00000-of-00001-0f3a.parquet"
        )
    return folder / "items.parquet", folder / "sessions"


def test_as_the_public_scripts_write_them(tmp_path):
    found = Layout.read(*theirs(tmp_path))
    assert found.sessions["val"]["in_sess_item_idxs"].to_list() == [[0, 2]]
    dataset = found.dataset()
    assert dataset.items[c.TITLE].to_list() == ["Ran", "Up", "M"]
    assert dataset.items[c.DESCRIPTION].to_list() == ["About Ran.", "About Up.", "About M."]
    assert dataset.items[c.CATEGORIES].to_list() == [["Movies & TV", "Kids"]] * 3
    assert dataset.items[c.PRICE].to_list() == [12.99, None, 3.0]
    sessions = Sessions.of(dataset, SessionSettings(inputs=2, split="dataset", known=False))
    test = sessions.split("test")
    assert (test.inputs(0).tolist(), test.targets.tolist()) == ([0, 2], [1])
    assert test.ratings.tolist() == [5.0, 1.0]
    assert test.reviews.to_list() == ["Great!\n\nBuy it.", "Bad."]


def test_prompts_that_show_something_else(tmp_path):
    dataset = Layout.read(
        *theirs(tmp_path, sess_descriptions=["nothing"], out_sess_item_idxs=[[7]])
    ).dataset()
    assert dataset.notes == {"inputs without a rating in the prompt": 6, "sessions without a target": 3}


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"ref_responses": None}, "lacks the columns ref_responses"),
        ({"in_sess_item_idxs": [[0, 1]]}, "session 0 names item 1, which is not in the items' table"),
        ({"sess_description_llama": [[1]]}, "has 2 columns sess_description_…"),
        ({"ref_response_mxbai": None}, "has 0 columns ref_response_…"),
    ],
)
def test_faulty_tables(tmp_path, columns, told):
    with pytest.raises(DataError, match=told):
        Layout.read(*theirs(tmp_path, **columns))


def test_faulty_files(tmp_path):
    items, sessions = theirs(tmp_path)
    with pytest.raises(DataError, match="there is no"):
        Layout.read(tmp_path / "none", sessions)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no Parquet files, no dataset_dict\.json"):
        Layout.read(items, tmp_path / "empty")
    (tmp_path / "empty" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.arrow"}]}))
    with pytest.raises(DataError, match=r"a\.arrow, which its state\.json names"):
        Layout.read(tmp_path / "empty", sessions)
    (tmp_path / "empty" / "a.arrow").write_bytes(b"no arrow")
    with pytest.raises(DataError, match=r"a\.arrow can't be read"):
        Layout.read(tmp_path / "empty", sessions)
    (sessions / "data" / "extra-00000-of-00001.parquet").write_bytes(items.read_bytes())
    with pytest.raises(DataError, match="has a split 'extra'"):
        Layout.read(items, sessions)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="more than 20"):
        written(tmp_path, max_tokens=(20, 120))
    with pytest.raises(ConfigError, match="unknown form 'csv'"):
        written(tmp_path, form="csv")
    bare = family_tokenizer("qwen3")
    bare.pad_token = None
    with pytest.raises(ConfigError, match="no padding token"):
        written(tmp_path, embedder=bare)
    *_, lost = written(tmp_path, max_tokens=(700, 20))
    assert lost[-1] == "the ends of 8 items' texts, longer than 20 tokens"
