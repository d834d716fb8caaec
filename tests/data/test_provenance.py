"""What a description says of where the data come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from itemic.cli.app import call
from itemic.data import Dataset, FilterRule, apply_filters, describe, read
from itemic.data.provenance import provenance_rows
from tests.cases import case


def test_a_made_up_dataset_says_nothing_more() -> None:
    from itemic.data import SimulatorConfig, simulate

    dataset = simulate(SimulatorConfig(users=5, items=5, categories=2, brands=2), 0).dataset
    assert provenance_rows(describe(dataset)) == []


def test_what_was_read_limited_and_filtered(shared: Path) -> None:
    dataset = read("amazon-2018", shared / "amazon18", limit_users=100)
    dataset = apply_filters(dataset, FilterRule(user_k_core=3))
    found = describe(dataset)
    json.dumps(found)
    rows = dict(provenance_rows(found))
    filled = dataset.items["price"].is_not_null().mean()
    assert rows["format"] == "amazon-2018"
    assert f"items: price {filled:.1%}, main_category 100.0%" in rows["further columns"]
    assert "interactions: review" in rows["further columns"]
    assert rows["limits"].startswith("limit_users 100 (seed 0): 100 of 458 users")
    assert (
        rows["filter"]
        == f"k_core: {len(dataset.interactions)} of {found['history']['limits']['after']['interactions']} interactions"
    )


def test_missing_text_and_rows_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "x.inter").write_text("user_id:token\titem_id:token\na\t1\na\n" + "a\t2\na\t3\n")
    (folder / "x.item").write_text("item_id:token\ttitle:token_seq\n1\tSoap\n2\t\n")
    output = tmp_path / "made"
    assert call(["data", "import", str(folder), "-o", str(output), "--on-bad-row", "drop"]) == 0
    assert call(["data", "describe", str(output)]) == 0
    told = capsys.readouterr().out
    assert (
        told.count("1 item not in the metadata and 1 without a title (2 interactions): kept, known by id")
        == 2
    )
    assert "1 × broken line" in told
    assert "order of the rows" in told


def test_the_source_s_split_is_said_to_be_its_own(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from itemic.data import description_table

    Console(width=150).print(description_table(describe(read("auto", shared / "minionerec"))))
    assert "published by the source, last 10 items as history: train 13,678" in capsys.readouterr().out


def test_cases_without_metadata_are_described() -> None:
    found: Dataset = read("auto", case("no-metadata"))
    assert dict(provenance_rows(describe(found)))["missing text"].startswith("2 items not in the metadata")
