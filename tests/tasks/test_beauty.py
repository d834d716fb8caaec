"""Counts on the real Beauty files."""

from __future__ import annotations

from pathlib import Path

import pytest

from itemic.data.readers import read
from itemic.sid.published import import_index
from itemic.tasks import build_conversations, make_task, validate
from itemic.tasks.catalogue import Catalogue


@pytest.mark.slow
def test_all_of_beauty_is_built_and_valid(shared: Path, tmp_path: Path) -> None:
    dataset = read("onerec-think", shared / "beauty")
    index = import_index(dataset, shared / "beauty" / "Beauty.pretrain.json")
    tasks = [{"task": name} for name in ("A", "B", "C", "D", "E", "sequence")]
    built = build_conversations(dataset, index, tasks, output=tmp_path)
    assert built.counts["A"] == 48_404
    assert 48_404 < built.counts["B"] <= 72_606
    assert 10_000 < built.counts["D"] < 12_500
    assert built.counts["E"] > 200_000
    assert built.counts["sequence"] == 22_363
    report = validate(tmp_path, dataset, index)
    assert report.ok, report.faults


def test_every_split_point_of_beauty(shared: Path) -> None:
    dataset = read("onerec-think", shared / "beauty")
    index = import_index(dataset, shared / "beauty" / "Beauty.pretrain.json")
    catalogue = Catalogue(index, dataset.items)
    plan = make_task("C", windows=["all"]).planned(catalogue, dataset.train, 0)
    assert len(plan) == len(dataset.train.items) - len(dataset.train) == 194_687 - 3 * 22_363
