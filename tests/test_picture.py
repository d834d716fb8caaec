"""README's picture shows what stands in docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "docs" / "tools"
TABLES = """# Benchmarks

## Recipes

### Shop

| shop | HR@10 | NDCG@10 |
|---|---|---|
| **itemic**, one million parameters | **.36** [.34, .38] | .2 |
| popularity | .15 | |

#### More of it

| stage | steps |
|---|---|
| all | 2,900 |

## Speed

### Of this

| what | ours | peer |
|---|---|---|
| first: padding | 10 | 5 |
| second: other | 7 | 7 |
| against padding | 1,200 /s | 300 /s |
| time | 2.0 s | .5 min |
"""


@pytest.fixture
def picture(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    import picture

    return picture


def test_bars_are_read_from_tables(picture: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "benchmarks.md").write_text(TABLES, encoding="utf-8")
    monkeypatch.setattr(picture, "DOCS", tmp_path)
    wanted = (
        picture.Speed("rate", "Speed", "against padding", after="second"),
        picture.Speed("time", "Speed", "time", less=True),
    )
    monkeypatch.setattr(picture, "SPEEDS", wanted)
    assert picture.accuracy("Shop") == [
        picture.Bar("itemic", 0.36, True, (0.34, 0.38)),
        picture.Bar("popularity", 0.15, False),
    ]
    assert picture.speeds() == [picture.Bar("rate", 4.0), picture.Bar("time", 0.25)]


def test_the_benchmarks_have_all_of_it(picture: Any) -> None:
    for section in picture.RESULTS:
        bars = picture.accuracy(section)
        assert bars[0].ours
        assert {"popularity", "transitions, last ten"} <= {bar.label for bar in bars}
        assert all(0 < bar.value < 1 for bar in bars)
    assert len(picture.speeds()) == len(picture.SPEEDS)
    assert picture.PICTURE.is_file()
