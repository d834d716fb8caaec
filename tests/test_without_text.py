"""A source that has interactions alone, from its file to a ranking: items go by their ids throughout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from itemic.cli.app import call
from itemic.sid.index import ItemIndex
from tests.cases import case
from tests.runs import RECIPE, write_recipe

SIMULATED = "simulate: {users: 60, items: 40, categories: 4, brands: 6, shortest: 4, longest: 8}"


@pytest.mark.slow
def test_interactions_alone_are_learnt_and_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"{{format: recbole, path: {case('recbole-inter-only')}}}"
    text = RECIPE.replace(f"data:\n  {SIMULATED}", f"data: {source}").replace("k: [5, 10]", "k: [1, 5]")
    text = text.replace("{task: C, windows: [all]}", "{task: C, windows: [all], history_text: title}")
    run = tmp_path / "run"
    assert call(["run", str(write_recipe(tmp_path, text)), "-o", str(run)]) == 0
    index = ItemIndex.load(run / "index")
    assert index.origin["encoder"]["name"] == "collaborative"
    assert index.collisions.rate == 0
    capsys.readouterr()
    assert call(["tasks", "preview", str(run / "conversations"), "-n", "3"]) == 0
    assert "i3" in capsys.readouterr().out
    assert call(["recommend", str(run), "--user", "u1", "-k", "3", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [item["title"] for item in answer["history"]] == ["i1", "i2", "i3", "i4", "i5"]
    assert all(item["title"] == item["item_id"] for item in answer["items"])
