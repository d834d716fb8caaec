"""Slices of requests against slow loops, and the user's own columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from itemic.analysis.evidence import Evidence, gather
from itemic.analysis.slicing import follows, slices_of
from itemic.errors import DataError
from itemic.evaluate.baselines import Popularity
from itemic.evaluate.stream import rank_all
from tests.evaluate.helpers import make_dataset, random_dataset


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    dataset = random_dataset(200)
    return gather(rank_all(Popularity(dataset), dataset.split("test"), dataset.item_ids), dataset)


def test_what_follows_what_in_training(evidence: Evidence) -> None:
    train = evidence.dataset.train
    pairs = {(a, b) for user in range(len(train)) for a, b in zip(train[user], train[user][1:], strict=False)}
    requests = evidence.requests
    expected = [
        (requests.history(at)[-1], requests.targets[at]) in pairs for at in range(len(requests))
    ]  # not (last item of one user, first of the next)
    assert follows(evidence).tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_slices_cover_all_requests_once(evidence: Evidence) -> None:
    found = slices_of(evidence)
    assert list(found) == ["history length", "target popularity", "target category", "target novelty"]
    for name, parts in found.items():
        assert (np.sum([inside for _, inside in parts], axis=0) == 1).all(), name
    lengths = np.diff(evidence.requests.offsets)
    assert dict(found["history length"])["5–9"].tolist() == ((lengths >= 5) & (lengths < 10)).tolist()


def test_a_target_counts_in_each_of_its_labels() -> None:
    import polars as pl

    from itemic import schema as c

    dataset = make_dataset({"a": ["x", "y", "z"], "b": ["y", "z", "x"]}, ["x", "y", "z"])
    tags = pl.Series(c.TAGS, [["red", "round"], [], ["red"]])
    dataset = type(dataset)(dataset.items.with_columns(tags), dataset.interactions, "tags")
    evidence = gather(
        rank_all(Popularity(dataset), dataset.split("test"), dataset.item_ids, k=2), dataset, k=2
    )
    found = {name: inside.tolist() for name, inside in slices_of(evidence)["target category"]}
    assert found == {"red": [True, True], "round": [False, True]}


def test_columns_of_one_s_own(evidence: Evidence, tmp_path: Path) -> None:
    users = evidence.requests.users.tolist()
    lines = [f"{user},{'NL' if at % 3 else 'BE'},{at}" for at, user in enumerate(users[1:])]
    (tmp_path / "users.csv").write_text("\n".join(["user_id,country,age", *lines]))
    items = [f"{item}\t{'cheap' if int(item[1:]) < 20 else 'dear'}" for item in evidence.dataset.item_ids]
    (tmp_path / "items.tsv").write_text("\n".join(["item_id\tband", *items]))
    found = slices_of(evidence, [tmp_path / "users.csv", tmp_path / "items.tsv"])
    country = {name: int(inside.sum()) for name, inside in found["country"]}
    assert country == {"NL": 132, "BE": 67, "unknown": 1}
    assert [int(inside.sum()) for _, inside in found["age"]] == [50, 49, 50, 50, 1]
    dear = dict(found["band"])["dear"]
    assert dear.tolist() == (evidence.requests.targets >= 20).tolist()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user_id\nu\n", "has the columns user_id"),
        ("user,country\nu,NL\n", "has the columns user, country"),
        ("user_id,item_id,x\nu,i,1\n", "has the columns"),
        ("user_id,x\nuser-1,a\nuser-1,b\n", "'user-1' more than once"),
        ("user_id,x\nnobody,a\n", "no user_id of .* is asked about: it has 'nobody'"),
        ("", "can't read"),
    ],
)
def test_tables_that_say_nothing_are_refused(
    evidence: Evidence, text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        slices_of(evidence, [tmp_path / "t.csv"])
