"""RecLM-gen's files: categories as paths or tags, further fields, candidates."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.cli.app import call
from itemic.data import Dataset, FilterRule, apply_filters, describe, detect_format, read
from itemic.data.categories import named_rows, path_of, paths_of
from itemic.data.limits import apply_limits
from itemic.data.statistics import description_rows
from itemic.data.writers import WRITERS
from itemic.errors import DataError
from itemic.sid.export import export_dataset

from ...sid.helpers import make_dataset
from ..sources import write_reclm_gen
from ..test_writer_contract import DATA, export

USERS = {"a": ["1", "2", "3"], "b": ["3", "2", "1"]}
META = {item: {"title": f"Title {item}"} for item in "1234"}


def write(folder: Path, **files: Any) -> Path:
    """The two files that must be there, and others by their names."""
    for name, content in ({"sequential": USERS, "meta": META} | files).items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(content))
    return folder


def filed(folder: Path, categories: Mapping[str, list[str]]) -> Dataset:
    return read("reclm-gen", write(folder, category=categories))


def test_cumulative_categories_are_paths(tmp_path: Path) -> None:
    """The order of the file says nothing, and a comma may be part of a name."""
    items = filed(
        tmp_path,
        {
            "Movies, Action, Wars": ["2"],
            "Movies, Action": ["1", "2"],
            "Movies": ["1", "2", "3"],
            "Movies, Shorts": ["3"],
        },
    ).items
    assert items[c.CATEGORIES].to_list() == [
        ["Movies", "Action"],
        ["Movies", "Action", "Wars"],
        ["Movies", "Shorts"],
        [],
    ]
    assert c.TAGS not in items.columns


@pytest.mark.parametrize("separator", [", ", " > ", "|", "/"])
def test_prefixes_are_joined_by_one_of_these(separator: str, tmp_path: Path) -> None:
    named = {"A": ["1", "2"], separator.join("AB"): ["1"], separator.join("ABC"): ["1"]}
    assert filed(tmp_path, named).items[c.CATEGORIES].to_list() == [["A", "B", "C"], ["A"], [], []]


@pytest.mark.parametrize(
    "categories",
    [
        {"Comedy": ["1", "2"], "Drama": ["1"]},
        {"A": ["1"], "A, B": ["1"], "A, C": ["1"]},  # two paths of one item
        {"A": ["1", "2"], "A, B": ["1"], "A|C": ["2"]},
        {"A, B": ["1"], "A, B, C": ["1"], "D": ["1"]},
    ],
)
def test_other_categories_stay_names_beside_each_other(
    categories: dict[str, list[str]], tmp_path: Path
) -> None:
    items = filed(tmp_path, categories).items
    assert not items[c.CATEGORIES].list.len().sum()
    for item, tags in zip(items[c.ITEM_ID], items[c.TAGS].to_list(), strict=True):
        assert tags == [name for name, listed in categories.items() if item in listed]
    assert {
        name: [items[c.ITEM_ID][int(row)] for row in rows] for name, rows in named_rows(items).items()
    } == categories


names = st.text(st.sampled_from("ab, >|/"), min_size=1, max_size=5)


@given(st.lists(names, min_size=1, max_size=4), st.sampled_from([", ", " > ", "|", "/"]))
def test_any_path_comes_back_from_its_prefixes(path: list[str], separator: str) -> None:
    whole = [separator.join(path[: i + 1]) for i in range(len(path))]
    assert path_of(whole[::-1], separator) == path
    assert path_of([*whole, f"x{whole[-1]}"], separator) is None
    assert paths_of([whole, []]) is not None


@settings(max_examples=60, deadline=None)
@given(
    tags=st.lists(
        st.lists(names.map(str.strip).filter(bool), max_size=3, unique=True), min_size=1, max_size=4
    )
)
def test_any_tags_come_back_or_are_said_to_be_lost(
    tags: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = make_dataset([f"t{i}" for i in range(len(tags))], {"u": [0]})
    data = replace(data, items=data.items.with_columns(pl.Series(c.TAGS, tags, pl.List(pl.String))))
    folder = tmp_path_factory.mktemp("tags") / "made"
    lost = export_dataset(data, folder, "reclm-gen")
    again = read("reclm-gen", folder)
    here = again.items[c.TAGS].to_list() if c.TAGS in again.items.columns else [[]] * len(tags)
    told = any("paths or tags" in words or "white space" in words for words in lost)
    assert told or list(map(set, here)) == list(map(set, tags))
    assert any("white space" in words for words in lost) == any(
        tag != " ".join(tag.split()) for each in tags for tag in each
    )


def test_paths_beside_tags_are_said_to_be_lost(tmp_path: Path) -> None:
    tags = pl.Series(c.TAGS, [["new"], [], [], []])
    lost = export(replace(DATA, items=DATA.items.with_columns(tags)), tmp_path / "made", "reclm-gen")
    assert [words for words in lost if "paths or tags" in words]
    named = pickle.loads((tmp_path / "made" / "category.pickle").read_bytes())
    assert named["new"] == ["4"]
    assert named["Beauty, Tapes,Glue & More"] == named["Beauty"] == ["4"]


def test_further_fields_travel_as_they_are(tmp_path: Path) -> None:
    meta: dict[str, dict[str, Any]] = {
        "1": {"title": "Jaws &amp; more", "title64_t": " Jaws &amp; more ", "price": "$3.50", "also": ["2"]},
        "2": {"title": "Cars", "title64_t": "Cars", "price": "", "year": 2006, "item_id": "B2"},
        "3": {"title": "Up", "description": ["old", "man"], "brand": "P", "year": 2009.5, "mixed": 1},
        "4": {"title": "Up (1)", "mixed": "x", "flag": True, "large": 1 << 90},
    }
    data = read("reclm-gen", write(tmp_path, meta=meta))
    assert data.items.columns == [*c.ITEM_COLUMNS, "title64_t", "year", "source_item_id", c.PRICE]
    assert data.items[c.TITLE].to_list() == ["Jaws & more", "Cars", "Up", "Up (1)"]
    assert data.items["title64_t"].to_list() == [" Jaws &amp; more ", "Cars", None, None]
    assert data.items["year"].to_list() == [None, 2006.0, 2009.5, None]
    assert data.items[c.PRICE].to_list() == [3.5, None, None, None]
    assert data.items[c.DESCRIPTION].to_list() == ["", "", "old man", ""]
    assert not [
        words for words in export_dataset(data, tmp_path / "again", "reclm-gen") if "title64" in words
    ]
    again = read("reclm-gen", tmp_path / "again")
    assert again.items.select(data.items.columns).equals(data.items)


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    data = read(
        "auto",
        write(
            tmp_path,
            sequential={5: [1, 2]},
            meta={1: {"title": "a"}, 2: {"title": "b"}},
            category={"A": [2]},
            ranking_candidate={5: [2, 1]},
        ),
    )
    assert data.item_ids == ["1", "2"]
    assert data.items[c.CATEGORIES].to_list() == [[], ["A"]]
    assert data.candidate_rows["5"].tolist() == [1, 0]


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    for files in ({"meta": META | {"1": {"title": "\ud800"}}}, {"sequential": {"\udfff": ["1"]}}):
        with pytest.raises(DataError, match="surrogates"):
            read("reclm-gen", write(tmp_path, **files))


def test_what_is_no_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"meta\.pickle holds no dict, but a list"):
        read("reclm-gen", write(tmp_path, meta=["1"]))


def test_a_file_in_both_forms_is_ambiguous(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps(META))
    assert detect_format(tmp_path) == "reclm-gen"
    with pytest.raises(DataError, match=r"several files meta\.pickle or meta\.json"):
        read("auto", tmp_path)


def test_the_command_imports_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    write_reclm_gen(tmp_path / "raw")
    line = ["data", "import", str(tmp_path / "raw"), "--format", "reclm-gen", "-o", str(tmp_path / "data")]
    assert call(line) == 0
    assert "candidates" in capsys.readouterr().out
    assert Dataset.load(tmp_path / "data").candidate_rows["8"].tolist() == [3, 2]


# ---------------------------------------------------------------------------------- candidates


@pytest.fixture
def ranked(tmp_path: Path) -> Dataset:
    write_reclm_gen(tmp_path)
    return read("reclm-gen", tmp_path)


def test_candidates_are_read(ranked: Dataset) -> None:
    assert ranked.candidates is not None
    assert ranked.candidates.to_dicts() == [
        {c.USER_ID: "7", c.CANDIDATES: ["2", "1"]},
        {c.USER_ID: "8", c.CANDIDATES: ["4", "3"]},
    ]
    assert {user: rows.tolist() for user, rows in ranked.candidate_rows.items()} == {"7": [1, 0], "8": [3, 2]}


def test_candidates_are_kept_with_the_dataset(ranked: Dataset, tmp_path: Path) -> None:
    ranked.save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved").candidates
    assert again is not None
    assert again.equals(ranked.candidates)
    replace(ranked, candidates=None).save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").candidates is None
    assert not Dataset.load(tmp_path / "saved").candidate_rows


def test_a_table_of_candidates_without_lists_is_refused(ranked: Dataset, tmp_path: Path) -> None:
    ranked.save(tmp_path / "saved")
    pl.DataFrame({c.USER_ID: ["7"]}).write_parquet(tmp_path / "saved" / "candidates.parquet")
    with pytest.raises(DataError, match=r"candidates\.parquet lacks the columns candidates"):
        Dataset.load(tmp_path / "saved")


def test_candidates_of_users_and_items_that_go_go_too(ranked: Dataset, tmp_path: Path) -> None:
    kept = apply_filters(ranked, FilterRule(user_k_core=4))  # user 7 alone has as many
    assert list(kept.candidate_rows) == ["7"]
    less = apply_limits(ranked, limit_items=3)  # item 4 is the rarest
    assert less.candidates is not None
    assert less.candidates[c.CANDIDATES].to_list() == [["2", "1"], ["3"]]
    none = apply_limits(ranked, limit_users=1, seed=_seed_that_draws(ranked, "9"))
    assert none.candidates is None
    silent = read("reclm-gen", tmp_path, missing_text="drop")  # item 4 has no title
    assert silent.candidates is not None
    assert silent.candidates[c.CANDIDATES].to_list() == [["2", "1"], ["3"]]


def _seed_that_draws(data: Dataset, user: str) -> int:
    drawn = (apply_limits(data, limit_users=1, seed=seed).interactions[c.USER_ID][0] for seed in range(99))
    return next(seed for seed, first in enumerate(drawn) if first == user)


def test_candidates_are_told(ranked: Dataset) -> None:
    told = describe(ranked)
    assert told["candidates"] == {"users": 2, "mean": 2.0}
    assert ("candidates to rank", "of 2 users, 2.0 each") in description_rows(told)
    assert describe(replace(ranked, candidates=None))["candidates"] is None


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_writers_keep_candidates_or_say_so(form: str, tmp_path: Path) -> None:
    lists = pl.DataFrame({c.USER_ID: ["lone", "u7"], c.CANDIDATES: [["4"], ["007", "11"]]})
    lost = export(replace(DATA, candidates=lists), tmp_path / "made", form)
    assert ("the candidates to rank" in lost) == (not WRITERS[form].candidates)
    assert "the candidates to rank" not in export(DATA, tmp_path / "plain", form)
    if WRITERS[form].candidates:
        again = read("auto", tmp_path / "made").candidates
        assert again is not None
        assert again.equals(lists)
