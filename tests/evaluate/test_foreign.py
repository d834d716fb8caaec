"""Others' tables of recommendations become rankings, or are refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from itemic.data.dataset import Dataset
from itemic.data.settings import SplitRule
from itemic.errors import DataError
from itemic.evaluate.baselines import Transitions
from itemic.evaluate.foreign import is_recommendations, read_recommendations
from itemic.evaluate.predictions import export_csv, export_json
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.report import score
from itemic.evaluate.stream import rank_all
from tests.evaluate.helpers import make_dataset, random_dataset


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return random_dataset(150)


@pytest.fixture(scope="module")
def ranking(dataset: Dataset) -> Ranking:
    return rank_all(Transitions(dataset), dataset.split("test"), dataset.item_ids)


def reco(ranking: Ranking) -> pd.DataFrame:
    """RecTools' table of a ranking."""
    rows = [
        (user, item, value, rank)
        for table in ranking.tables()
        for user, items, scores in table.select("user_id", "items", "scores").rows()
        for rank, (item, value) in enumerate(zip(items, scores, strict=True), 1)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "score", "rank"])


def arrays(ranking: Ranking) -> tuple[Any, Any]:
    parts = list(ranking.arrays())
    return tuple(np.concatenate([getattr(part, name) for part in parts]) for name in ("items", "scores"))  # type: ignore[return-value]


def same(one: Ranking, other: Ranking) -> bool:
    return one.head.digest == other.head.digest and (arrays(one)[0] == arrays(other)[0]).all()


@pytest.mark.parametrize("shape", ["csv", "tsv", "parquet", "no rank", "order alone", "shuffled"])
def test_rectools_tables(dataset: Dataset, ranking: Ranking, shape: str, tmp_path: Path) -> None:
    table, file = reco(ranking), tmp_path / "reco.csv"
    if shape == "no rank":
        table = table.drop(columns="rank")
    elif shape == "order alone":
        table = table.drop(columns=["rank", "score"])
    elif shape == "shuffled":
        table = table.sample(frac=1, random_state=0)
    if shape == "parquet":
        table.to_parquet(file := tmp_path / "reco.parquet")
    elif shape == "tsv":
        table.to_csv(file := tmp_path / "reco.tsv", sep="\t", index=False)
    else:
        table.to_csv(file, index=False)
    found = read_recommendations(file, dataset, "test")
    assert is_recommendations(file)
    assert found.head.name == "reco"
    assert found.head.config["notes"] == []
    assert same(found, ranking)
    assert score(found, dataset).item == score(ranking, dataset).item
    if shape != "order alone":
        np.testing.assert_allclose(arrays(found)[1], arrays(ranking)[1], rtol=1e-6)


def test_recbole_files(dataset: Dataset, ranking: Ranking, tmp_path: Path) -> None:
    table = reco(ranking)
    names = {"user_id": "user_id:token", "item_id": "item_id:token", "score": "score:float"}
    table.drop(columns="rank").rename(columns=names).to_csv(tmp_path / "top.inter", sep="\t", index=False)
    assert same(read_recommendations(tmp_path / "top.inter", dataset), ranking)
    lists = table.groupby("user_id", sort=False)["item_id"].agg(" ".join).reset_index()
    lists.columns = ["user_id:token", "item_id:token_seq"]
    lists.to_csv(tmp_path / "lists.inter", sep="\t", index=False)
    assert same(read_recommendations(tmp_path / "lists.inter", dataset, name="bole"), ranking)


def test_our_own_exports(tmp_path: Path) -> None:
    """Users ask several times there; the exports say which request a row answers."""
    plain = random_dataset(60)
    when = pl.int_range(pl.len()).over("user_id") * 1000
    events = plain.interactions.with_columns(when.cast(pl.Int64).alias("timestamp"))
    dataset = replace(plain, interactions=events, rule=SplitRule("temporal", ratios=(0.5, 0.2, 0.3)))
    requests = dataset.split("test")
    assert len(set(requests.users)) < len(requests)
    ranking = rank_all(Transitions(dataset), requests, dataset.item_ids)
    export_csv(ranking, dataset, tmp_path / "a.csv")
    export_json(ranking, score(ranking, dataset), dataset, tmp_path / "a.json")
    for name in ("a.csv", "a.json"):
        found = read_recommendations(tmp_path / name, dataset, "test")
        assert same(found, ranking)
        assert is_recommendations(tmp_path / name)
    score(ranking).save(tmp_path / "report.json")
    assert not is_recommendations(tmp_path / "report.json")
    pl.read_csv(tmp_path / "a.csv").drop("request").unique(["user", "item"]).drop("rank").write_csv(
        tmp_path / "b.csv"
    )
    with pytest.raises(DataError, match=r"asks \d times .* doesn't say which"):
        read_recommendations(tmp_path / "b.csv", dataset, "test")
    with pytest.raises(DataError, match="which the valid split doesn't have"):
        read_recommendations(tmp_path / "a.csv", dataset, "valid")


def test_strangers_are_counted_and_named(dataset: Dataset, tmp_path: Path) -> None:
    users = dataset.split("test").users
    target = dataset.item_ids[int(dataset.split("test").targets[0])]
    lines = ["user_id,item_id,rank", f"{users[0]},who,1", f"{users[0]},{target},2", "nobody,i1,1"]
    (tmp_path / "r.csv").write_text("\n".join(lines))
    found = read_recommendations(tmp_path / "r.csv", dataset)
    first, second, third = found.head.config["notes"]
    assert first == "1 user(s) of the file is unknown here ('nobody'): left out."
    assert "'who'" in second
    assert third.startswith(f"{len(users) - 1:,} requests have no recommendations")
    report = score(found, dataset, k=[1, 2])
    assert report.item["hr@1"].value == 0  # the unknown item keeps the first place
    assert report.item["hr@2"].value == pytest.approx(1 / len(users))


def test_numbers_are_ids_too(tmp_path: Path) -> None:
    dataset = make_dataset({"1": ["10", "20", "30"], "2": ["20", "30", "10"]}, ["10", "20", "30"])
    pd.DataFrame({"user_id": [1.0, 2.0], "item_id": [30, 20], "score": [0.5, 0.1]}).to_parquet(
        tmp_path / "r.parquet"
    )
    found = read_recommendations(tmp_path / "r.parquet", dataset)
    assert arrays(found)[0].tolist() == [[2], [1]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user_id,item_id,rank\nuser-0,i1,1\nuser-0,i1,2\n", "the item 'i1' more than once"),
        ("user_id,item_id,rank\nuser-0,i1,1\nuser-0,i2,1\n", "the rank 1 more than once"),
        ("user_id,item_id,rank\nuser-0,i1,first\n", "has the rank 'first'"),
        ("user_id,item_id,score\nuser-0,i1,\n", "has the score None"),
        ("user_id,item_id\n,i1\n", "row 1 .* names no user"),
        ("user_id,score\nuser-0,1\n", "lacks the item: it has user_id, score"),
        ("user_id,item_id\n", "recommends nothing"),
        ("", "can't read"),
        ("user_id,item_id\nA,i1\n", "no user of .*'A'.*'user-0'"),
        ("user_id,item_id\nuser-0,B001\n", "no item of .*'B001'.*'i0'"),
    ],
)
def test_what_fits_nothing_is_refused(dataset: Dataset, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        read_recommendations(tmp_path / "r.csv", dataset)


def test_files_that_are_no_tables(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "r.xlsx").write_bytes(b"PK")
    (tmp_path / "r.parquet").write_bytes(b"no")
    (tmp_path / "r.json").write_text('{"metrics": {}}')
    for name, says in (("r.xlsx", "no table"), ("r.parquet", "can't read"), ("r.json", "can't read")):
        with pytest.raises(DataError, match=says):
            read_recommendations(tmp_path / name, dataset)
    with pytest.raises(DataError, match="can't read"):
        read_recommendations(tmp_path / "absent.csv", dataset)
