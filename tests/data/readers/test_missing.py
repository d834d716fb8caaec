"""Items that the metadata lack, and items without a title."""

from __future__ import annotations

from pathlib import Path

import pytest

from itemic import schema as c
from itemic.cli.app import call
from itemic.data import Dataset, read
from itemic.errors import DataError
from tests.cases import case


def test_reviews_of_items_without_metadata_are_kept() -> None:
    dataset = read("auto", case("no-metadata"))
    assert len(dataset.interactions) == 30
    titles = dict(zip(dataset.item_ids, dataset.items[c.TITLE], strict=True))
    assert sorted(titles) == [f"A{number}" for number in range(8)]
    assert [item for item, title in titles.items() if not title] == ["A2", "A6", "A7"]
    assert dataset.notes["read"]["missing_text"] == {
        "policy": "keep",
        "unlisted": 2,
        "untitled": 1,
        "interactions": 10,
    }


def test_they_are_dropped_or_refused_by_choice() -> None:
    folder = case("no-metadata")
    dropped = read("auto", folder, missing_text="drop")
    assert dropped.item_ids == ["A0", "A1", "A3", "A4", "A5"]
    assert len(dropped.interactions) == 20
    with pytest.raises(DataError, match=r"Gift_Cards_5.json.gz, line 15: user 'U2' has item 'A6'.*\(1 more"):
        read("auto", folder, missing_text="error")


def test_the_command_line_tells_and_leaves_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = case("no-metadata"), tmp_path / "made"
    assert call(["data", "import", str(folder), "-o", str(output), "--missing-text", "error"]) != 0
    assert list(tmp_path.iterdir()) == []
    assert call(["data", "import", str(folder), "-o", str(output)]) == 0
    assert len(Dataset.load(output).items) == 8
