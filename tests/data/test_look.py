"""What a look at raw files tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from itemic.data.look import fitting_formats, look
from itemic.errors import DataError
from itemic.screen import rendered
from tests.cases import case

from .sources import CASES, Case


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def source(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_each_format_is_found_before_the_general_one(source: Case, tmp_path: Path) -> None:
    source.write(tmp_path)
    found = look(tmp_path)
    assert found.formats[0] == found.format == source.format
    assert found.formats in ((source.format,), (source.format, "table"))
    assert (found.counts["users"], found.counts["items"], found.counts["interactions"]) == (3, 4, 10)
    assert {name for name, _ in found.files} == {
        str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()
    }
    assert dict(found.files) == {name: (tmp_path / name).stat().st_size for name, _ in found.files}


def test_what_is_shown() -> None:
    text = rendered(*look(case("own-csv")).tables())
    for words in (
        "clicks.csv",
        "861 B",
        "2024-01-01T10:00 to 2024-05-06T10:04",
        "title 100%",
        "Kettle; no. 0",
    ):
        assert words in text
    assert "description" not in text  # no item has one
    alone = rendered(*look(case("recbole-inter-only")).tables())
    assert "known by id alone" in alone


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("user,item,time\na,x,1\na,,2\n,x,3\nb,y,4\n", encoding="utf-8")
    found = look(tmp_path)
    assert found.dropped == 2
    assert "missing user" in rendered(*found.tables())


def test_nothing_that_fits(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("when,what\n1,2\n", encoding="utf-8")
    assert fitting_formats(tmp_path) == ()
    with pytest.raises(DataError, match=r"notes\.csv \(when, what\)"):
        look(tmp_path)
    assert look(tmp_path, "table", {"user": "when", "item": "what"}).counts["users"] == 1
