"""What sources know of users: read, filtered, limited, saved, told and written alike, whatever the format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import itemic
from itemic import schema as c
from itemic.data import Dataset, FilterRule, apply_filters, describe, read
from itemic.data.limits import apply_limits
from itemic.data.statistics import description_rows
from itemic.data.writers import WRITERS
from itemic.errors import DataError
from itemic.recipe.inputs import data_inputs
from itemic.recipe.schema import DataPart
from itemic.sid.export import export_dataset

from .sources import CASES, SEQUENCES, write_text
from .test_writer_contract import DATA, export


@dataclass(frozen=True)
class Known:
    """A format with users in it.

    Attributes:
        case: the marketplace in this format.
        write: adds a file of the users 7 and 9, and of one who is nowhere else; 8 isn't in it.
        users: what is read of them.
        file: its name.
        again: one more line of user 9.
        nobody: a line without an id.
        options: for ``read``.
    """

    case: str
    write: Callable[[Path], None]
    users: list[dict[str, Any]]
    file: str
    again: str
    nobody: str
    options: dict[str, Any] = field(default_factory=dict)


def _writes(file: str, *lines: str) -> Callable[[Path], None]:
    return lambda folder: write_text(folder / file, "".join(f"{line}\n" for line in lines))


PEOPLE = [
    {c.USER_ID: "7", "country": "New Zealand", "age": 31},
    {c.USER_ID: "9", "country": None, "age": 25},
]
TABLE = [line.split(",") for line in ("7,New Zealand,31", "9,,25", "5,Peru,60")]
FORMATS = {
    "movielens": Known(
        "movielens-dat",
        _writes("users.dat", "7::F::18::4::90210", "9::M::56::99::", "5::M::1::0::1"),
        [
            {
                c.USER_ID: "7",
                "gender": "F",
                "age": "18-24",
                "occupation": "college/grad student",
                "zip_code": "90210",
            },
            {c.USER_ID: "9", "gender": "M", "age": "56+", "occupation": "99", "zip_code": None},
        ],
        "users.dat",
        "9::F::1::0::1",
        "::F::1::0::1",
    ),
    "recbole": Known(
        "recbole",
        _writes(
            "tiny.user",
            "user_id:token\tcountry:token\tage:float\tlikes:token_seq",
            "7\tNew Zealand\t31\tx y",
            "9\t\t25\t",
            "5\tPeru\t60\tz",
        ),
        [{**PEOPLE[0], "likes": ["x", "y"]}, {**PEOPLE[1], "likes": []}],
        "tiny.user",
        "9\tPeru\t60\tz",
        "\tPeru\t60\tz",
    ),
    "table": Known(
        "table",
        _writes("people.csv", "userId;country;age", *(";".join(row) for row in TABLE)),
        PEOPLE,
        "people.csv",
        "9;Peru;60",
        ";Peru;60",
        {"users": "people.csv"},
    ),
    "table, other names": Known(
        "table",
        _writes("people.csv", "who,country,age", *(",".join(row) for row in TABLE)),
        PEOPLE,
        "people.csv",
        "9,Peru,60",
        ",Peru,60",
        {"users": "people.csv", "users_key": "who"},
    ),
    "table, id alone": Known(
        "table",
        _writes("people.csv", "id,country,age", *(",".join(row) for row in TABLE)),
        PEOPLE,
        "people.csv",
        "9,Peru,60",
        ",Peru,60",
        {"users": "people.csv"},
    ),
}


@pytest.fixture(params=FORMATS.values(), ids=FORMATS.keys())
def known(request: pytest.FixtureRequest, tmp_path: Path) -> Known:
    found: Known = request.param
    CASES[found.case].write(tmp_path)
    found.write(tmp_path)
    return found


def data_of(known: Known, folder: Path, **options: Any) -> Dataset:
    return read(CASES[known.case].format, folder, **known.options, **options)


def test_users_are_read_and_nothing_else_changes(known: Known, tmp_path: Path) -> None:
    data = data_of(known, tmp_path)
    assert data.users is not None
    assert data.users.to_dicts() == known.users
    (tmp_path / known.file).unlink()
    plain = read(CASES[known.case].format, tmp_path)
    assert plain.users is None
    assert plain.items.equals(data.items)
    assert plain.interactions.equals(data.interactions)


def test_users_are_kept_with_the_dataset(known: Known, tmp_path: Path) -> None:
    data = data_of(known, tmp_path)
    assert data.users is not None
    data.save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved")
    assert again.users is not None
    assert again.users.equals(data.users)
    replace(data, users=None).save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").users is None


def test_who_is_filtered_out_is_gone(known: Known, tmp_path: Path) -> None:
    data = data_of(known, tmp_path)
    kept = apply_filters(data, FilterRule(user_k_core=4))  # user 7 alone has as many
    assert kept.users is not None
    assert kept.users[c.USER_ID].to_list() == ["7"]
    for seed in range(4):
        some = apply_limits(data, limit_users=1, seed=seed)
        assert some.users is not None
        assert set(some.users[c.USER_ID]) == set(some.interactions[c.USER_ID]) - {"8"}


def test_users_are_told(known: Known, tmp_path: Path) -> None:
    data = data_of(known, tmp_path)
    told = describe(data)
    shares = told["further_columns"]["users"]
    assert set(shares) == set(known.users[0]) - {c.USER_ID}
    for column, share in shares.items():
        assert share == sum(user[column] not in (None, []) for user in known.users) / 2
    assert any("users: " in value for name, value in description_rows(told) if name == "further columns")
    assert "users" not in describe(replace(data, users=None))["further_columns"]


def test_bad_users_are_named(known: Known, tmp_path: Path) -> None:
    whole = (tmp_path / known.file).read_text()
    for line, kind in ((known.again, "duplicate user"), (known.nobody, "missing user id")):
        write_text(tmp_path / known.file, f"{whole}{line}\n")
        count = len(whole.splitlines()) + 1
        with pytest.raises(DataError, match=f"{known.file}, line {count}"):
            data_of(known, tmp_path)
        data = data_of(known, tmp_path, on_bad_row="drop")
        assert data.users is not None
        assert data.users.to_dicts() == known.users
        assert data.notes["read"]["dropped"] == {kind: 1}


def test_a_table_of_users_without_ids(tmp_path: Path) -> None:
    CASES["table"].write(tmp_path)
    write_text(tmp_path / "people.csv", "country,age\nPeru,3\n")
    with pytest.raises(DataError, match=r"people\.csv has no column that looks like the user"):
        read("table", tmp_path, users="people.csv")


def test_tables_in_memory() -> None:
    events = [{"user": user, "item": item} for user, items in SEQUENCES.items() for item in items]
    people = pl.DataFrame({"user": [7, 9, 5], "country": ["New Zealand", None, "Peru"], "age": [31, 25, 60]})
    data = itemic.dataset(events, users=people)
    assert data.users is not None
    assert data.users.to_dicts() == PEOPLE
    renamed = itemic.dataset(events, users=people.rename({"user": "person"}), users_key="person")
    assert renamed.users is not None
    assert renamed.users.equals(data.users)


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_writers_keep_users_or_say_so(form: str, tmp_path: Path) -> None:
    users = pl.DataFrame(
        {
            c.USER_ID: ["u7", "lone"],
            "country": ['"New" Zealand', None],
            "age": [31.5, None],
            "likes": [["a", "b"], []],
        }
    )
    lost = export(replace(DATA, users=users), tmp_path / "made", form)
    assert ("what is known of users" in lost) == (not WRITERS[form].users)
    assert "what is known of users" not in export_dataset(DATA, tmp_path / "plain", "recbole")
    if WRITERS[form].users:
        again = read("auto", tmp_path / "made").users
        assert again is not None
        escaped = users.with_columns(country=pl.Series(['&quot;New" Zealand', None]))
        assert again.sort(c.USER_ID).equals(escaped.sort(c.USER_ID))


def test_a_step_reads_the_users_that_stand_beside_a_file(tmp_path: Path) -> None:
    CASES["table"].write(tmp_path)
    FORMATS["table"].write(tmp_path)
    options = {"users": "people.csv", "items": "items.csv"}
    part = DataPart(format="table", path=str(tmp_path / "events.csv"), options=options)
    assert data_inputs(part) == {
        "path": str(tmp_path / "events.csv"),
        "items": [str(tmp_path / "items.csv")],
        "users": [str(tmp_path / "people.csv")],
    }
    data = read("table", tmp_path / "events.csv", **options)
    assert data.users is not None
    assert data.users.to_dicts() == PEOPLE
