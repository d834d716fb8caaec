"""What prompts say of items: paths and tags, and ids where there is no name."""

from __future__ import annotations

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.sid.text import item_texts
from itemic.tasks.catalogue import Catalogue
from tests.sid.helpers import make_dataset, make_index

PATHS = [["Home", "Soap"], ["Home", "Soap"], ["Home", "Lamps"], [], [], [], [], []]
TAGS = [[], [], ["red"], ["Comedy", "Horror"], ["Comedy"], ["Drama", "Comedy"], ["A, B"], []]
TITLES = ["Bar", "Cube", "Lamp", "Scream", "Mask", "Tragedy", "Odd", ""]
IDS = ["1", "2", "3", "4", "5", "6", "7", "<|sid_begin|> x  8"]
ITEMS = make_dataset(TITLES, categories=PATHS, ids=IDS).items.with_columns(
    pl.Series(c.TAGS, TAGS, pl.List(pl.String))
)
INDEX = make_index([[row, 0] for row in range(8)], (8, 2))


def catalogue() -> Catalogue:
    index = make_index([[row, 0] for row in range(8)], (8, 2))
    index.item_ids[:] = IDS
    return Catalogue(index, ITEMS)


def test_paths_are_joined_by_arrows_and_tags_by_commas() -> None:
    fields = catalogue().fields
    assert fields["path"].to_list() == [
        "Home > Soap",
        "Home > Soap",
        "Home > Lamps",
        "Comedy, Horror",
        "Comedy",
        "Drama, Comedy",
        "A, B",
        "",
    ]
    assert fields["leaf"].to_list()[2:5] == ["Lamps", "Comedy, Horror", "Comedy"]
    assert catalogue().contexts[2] == "Title: Lamp\nCategory: Home > Lamps\nTags: red"
    assert catalogue().contexts[3] == "Title: Scream\nCategory: Comedy, Horror"


def test_encoders_read_tags() -> None:
    texts = item_texts(ITEMS)
    assert texts[2] == "Title: Lamp\nCategories: Home > Lamps; red"
    assert texts[3] == "Title: Scream\nCategories: Comedy, Horror"
    assert texts[7] == ""


def test_an_item_without_a_name_goes_by_its_clean_id() -> None:
    titles, _ = catalogue().lines("title")
    assert titles.to_list() == [*TITLES[:7], "x 8"]
    both, _ = catalogue().lines("sid+title")
    assert both[7] == f"{INDEX.texts[7]} x 8"
    assert make_dataset(TITLES, ids=IDS).titles.to_list() == [*TITLES[:7], IDS[7]]


def test_the_shared_category_of_tags_is_the_most_frequent_one() -> None:
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    found = dict(catalogue().shared_category(groups).iter_rows())
    assert found == {0: "Home > Soap", 1: "Comedy", 2: "A, B"}
