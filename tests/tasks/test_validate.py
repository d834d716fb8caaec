"""Each fault, planted in a good file, is found; the good file passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from itemic import schema as c
from itemic.errors import DataError, IndexMismatchError
from itemic.tasks import TASKS, build_conversations, validate
from tests.tasks.helpers import make_dataset, make_index

SEQUENCES = {f"u{u}": [(u * 3 + step * (u % 4 + 1)) % 38 for step in range(4 + u % 5)] for u in range(24)}
SEQUENCES["u0"][-2:] = [38, 39]  # bought by nobody else, and by u0 only as targets
DATASET, INDEX = make_dataset(SEQUENCES), make_index()
GOOD = build_conversations(DATASET, INDEX, [{"task": name} for name in TASKS]).read()
Row = dict[str, Any]


def with_row(
    source: str, change: Callable[[Row], Row | None], where: Callable[[Row], bool] | None = None
) -> pl.DataFrame:
    """The good file with one row of a source changed."""
    rows = list(GOOD.iter_rows(named=True))
    about = [json.loads(row[c.METADATA]) for row in rows]
    place = next(
        i
        for i, row in enumerate(rows)
        if row[c.SOURCE] == source and (where is None or where(about[i] | row))
    )
    new = change(dict(rows[place]))
    assert new is not None
    rows[place] = new
    return pl.DataFrame(rows, schema=GOOD.schema)


def turns(change: Callable[[list[dict[str, str]]], Any]) -> Callable[[Row], Row]:
    def apply(row: Row) -> Row:
        said = json.loads(row[c.MESSAGES])
        return row | {c.MESSAGES: json.dumps(change(said) or said)}

    return apply


def say(turn: int, text: str) -> Callable[[Row], Row]:
    return turns(
        lambda said: [t | {"content": text} if i == turn % len(said) else t for i, t in enumerate(said)]
    )


def about(**change: Any) -> Callable[[Row], Row]:
    return lambda row: row | {c.METADATA: json.dumps(json.loads(row[c.METADATA]) | change)}


def both(*changes: Callable[[Row], Row]) -> Callable[[Row], Row]:
    def apply(row: Row) -> Row:
        for change in changes:
            row = change(row)
        return row

    return apply


def test_the_good_file_passes(tmp_path: Path) -> None:
    report = validate(GOOD, DATASET, INDEX)
    assert report.ok, report.faults
    assert report.rows == len(GOOD)
    assert dict(report.sources) == dict(GOOD[c.SOURCE].value_counts().iter_rows())
    built = build_conversations(
        DATASET, INDEX, [{"task": n} for n in TASKS], output=tmp_path, rows_per_part=50
    )
    assert validate(tmp_path, DATASET, INDEX).to_json() == report.to_json() | {
        "sources": dict(validate(tmp_path, DATASET, INDEX).sources)
    }
    assert built.counts == dict(report.sources)


PLANTED: dict[str, tuple[str, str, Callable[[Row], Row]]] = {
    "a uuid twice": ("uuid", "C", lambda row: row | {c.UUID: GOOD[c.UUID][0]}),
    "no uuid": ("uuid", "C", lambda row: row | {c.UUID: None}),
    "broken JSON": ("form", "A", lambda row: row | {c.MESSAGES: row[c.MESSAGES][:-2]}),
    "nothing said": ("form", "A", lambda row: row | {c.MESSAGES: None}),
    "a number as content": ("form", "A", turns(lambda said: [*said[:2], said[2] | {"content": 5}])),
    "another kind of segment": (
        "form",
        "sequence",
        lambda row: row | {c.SEGMENTS: row[c.SEGMENTS].replace('"text"', '"image"', 1)},
    ),
    "metadata of another form": ("form", "A", lambda row: row | {c.METADATA: '{"target": "i3"}'}),
    "no answer": ("roles", "A", turns(lambda said: said[:2])),
    "roles out of order": ("roles", "B", turns(lambda said: [said[1], said[0], said[2]])),
    "an unknown role": ("roles", "A", turns(lambda said: [said[0], said[1], said[2] | {"role": "model"}])),
    "an empty question": ("empty", "A", say(1, " \n")),
    "no turns": ("empty", "A", lambda row: row | {c.MESSAGES: "[]"}),
    "a novel": ("length", "A", say(2, "word " * 5000)),
    "an item that isn't there": ("sid", "D", say(2, "<|sid_begin|><s_a_0><s_b_1><s_c_77><|sid_end|>")),
    "a semantic ID cut short": ("sid", "A", say(1, "What is <|sid_begin|><s_a_0><s_b_1>?")),
    "a stray token": ("sid", "A", say(2, "soap <s_b_1>")),
    "the prefix of no item": ("sid", "D", say(1, "Which items? <|sid_begin|><s_a_9>")),
    "a target of another catalogue": ("target", "C", about(target=["zzz"])),
    "an answer that isn't the target": ("target", "B", say(2, INDEX.text(21))),
    "a row twice": ("duplicate", "A", lambda row: GOOD.row(1, named=True) | {c.UUID: row[c.UUID]}),
    "a target as the answer": (
        "leakage",
        "C",
        both(say(2, INDEX.text(39)), about(target=["i39"], group="user:u0")),
    ),
    "a target in a history": (
        "leakage",
        "C",
        both(say(1, f"Next? {INDEX.text(38)}"), about(group="user:u0")),
    ),
    "a target behind titles": (
        "leakage",
        "C",
        both(say(1, "soap, cream"), say(2, INDEX.text(38)), about(target=["i38"], group="user:u0")),
    ),
    "a held-out hop": (
        "leakage",
        "E",
        both(say(1, f"Next? {INDEX.text(38)}"), say(2, INDEX.text(39)), about(target=["i39"], kind="next")),
    ),
    "a held-out hop backwards": (
        "leakage",
        "E",
        both(
            say(1, f"Before? {INDEX.text(39)}"), say(2, INDEX.text(38)), about(target=["i38"], kind="before")
        ),
    ),
    "a row of test": ("leakage", "A", about(split="test")),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_where_it_is(fault: str) -> None:
    check, source, change = PLANTED[fault]
    where = (lambda row: row["kind"] == "category") if "prefix" in fault else None
    frame = with_row(source, change, where)
    report = validate(frame, DATASET, INDEX)
    assert not report.ok
    found = [found for found in report.faults if found.check == check]
    assert found, report.faults
    changed = [i for i, (a, b) in enumerate(zip(frame.iter_rows(), GOOD.iter_rows(), strict=True)) if a != b]
    assert len(changed) == 1
    rows = {row.row for row in found}
    if check in ("uuid", "duplicate") and fault != "no uuid":
        twin = {"uuid": 0, "duplicate": 1}[check]
        assert rows == {max(changed[0], twin)}
    else:
        assert rows == set(changed)
        assert found[0].uuid == frame[c.UUID][changed[0]]
    assert set(report.counts) <= {check, "target", "duplicate"}


def test_a_repeated_item_is_no_leak_but_its_held_out_step_is() -> None:
    """u has 1 2 3 in training and 2 as the test target: naming 2 is fine, 3 followed by 2 is not."""
    dataset = make_dataset({"u": [1, 2, 3, 4, 2], "v": [5, 6, 7, 8, 9]})
    frame = TASKS["C"].build(dataset, INDEX)
    assert validate(frame, dataset, INDEX).ok
    row = frame.row(0, named=True)
    told = [
        {"role": "user", "content": f"After {INDEX.text(4)}?"},
        {"role": "assistant", "content": INDEX.text(2)},
    ]
    for group, leaks in (("user:u", True), ("user:v", False)):
        note = {"task": "C", "group": group, "target": ["i2"], "split": "train"}
        bad = row | {c.MESSAGES: json.dumps(told), c.METADATA: json.dumps(note)}
        counts = validate(pl.DataFrame([bad], schema=GOOD.schema), dataset, INDEX).counts
        assert (counts["leakage"] > 0) == leaks


def test_balance() -> None:
    rows = [r for r in GOOD.iter_rows(named=True) if r[c.SOURCE] == "B"]
    answer = json.loads(rows[0][c.METADATA])["target"]
    text = INDEX.text(int(answer[0][1:]))
    changed = pl.DataFrame(
        [both(say(2, text), about(target=answer))(row) for row in rows], schema=GOOD.schema
    )
    report = validate(changed, DATASET, INDEX)
    assert report.counts["balance"] == 1
    assert report.balance["B"].top_share == 1
    assert report.balance["B"].top_item == answer[0]
    assert validate(changed, DATASET, INDEX, max_target_share=1.0).counts["balance"] == 0
    even = validate(GOOD.filter(GOOD[c.SOURCE] == "B"), DATASET, INDEX).balance["B"]
    assert 0.9 < even.evenness <= 1


def test_faults_are_counted_in_all_and_listed_in_part() -> None:
    bad = GOOD.with_columns(
        pl.col(c.METADATA).str.replace('"split":"train"', '"split":"valid"', literal=True)
    )
    report = validate(bad, DATASET, INDEX, listed=3)
    assert report.counts["leakage"] == len(GOOD)
    assert len(report.faults) == 3
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(report)
    text = console.export_text()
    assert "leakage" in text
    assert f"{len(GOOD) - 3:,} more" in text


def test_foreign_rows_with_nested_contents_are_read() -> None:
    def nest(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in said]

    assert validate(with_row("C", turns(nest)), DATASET, INDEX).ok
    bare = GOOD.with_columns(pl.lit(None, pl.String).alias(c.METADATA))
    assert validate(bare.filter(bare[c.SOURCE] == "A"), DATASET, INDEX).ok


def test_what_can_not_be_checked_is_an_error() -> None:
    with pytest.raises(DataError, match="lacks the columns"):
        validate(GOOD.drop(c.SOURCE), DATASET, INDEX)
    other = make_index()
    object.__setattr__(other, "item_ids", other.item_ids[::-1])
    with pytest.raises(IndexMismatchError):
        validate(GOOD, DATASET, other)
    assert not validate(GOOD.head(0), DATASET, INDEX).ok
