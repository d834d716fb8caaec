"""New items without retraining, from the command line: assign semantic IDs, hand them to a model, recommend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import itemic
from itemic import schema as c
from itemic.cli.app import call
from itemic.data.dataset import Dataset
from itemic.data.settings import SimulatorConfig
from itemic.errors import IndexMismatchError
from itemic.model.model import Model
from itemic.sid.index import ItemIndex


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue without its last five items, an index and a model of it; and the whole catalogue."""
    root = tmp_path_factory.mktemp("shop")
    whole = itemic.simulate(SimulatorConfig(users=60, items=40), 0).dataset
    late = whole.items[c.ITEM_ID].to_list()[-5:]
    old = Dataset(
        whole.items[:-5], whole.interactions.filter(~whole.interactions[c.ITEM_ID].is_in(late)), name="old"
    )
    whole.save(root / "whole")
    old.save(root / "old")
    run("sid", "build", root / "old", "-o", root / "index", "--levels", "8,16")
    run(
        *("model", "new", "qwen3-pico", "--index", root / "index", "--dataset", root / "old"),
        *("-o", root / "model", "--vocab-size", "400", "-s", "layers=1"),
    )
    return root


def run(*arguments: str | Path) -> None:
    assert call([str(argument) for argument in arguments]) == 0


def test_new_items_from_catalogue_to_recommendation(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("sid", "assign", shop / "index", shop / "whole", "-o", tmp_path / "more")
    told = capsys.readouterr().out
    assert "5 new items, 35 known before" in told
    assert "farthest from the codebooks" in told
    before, after = ItemIndex.load(shop / "index"), ItemIndex.load(tmp_path / "more")
    assert after.item_ids[:35] == before.item_ids
    assert (after.codes[:35] == before.codes).all()
    assert after.collisions.collided == 0

    run("model", "reindex", shop / "model", "--index", tmp_path / "more", "-o", tmp_path / "model")
    old, new = Model.load(shop / "model"), Model.load(tmp_path / "model")
    assert len(new.index) == 40
    for name, weight in old.lm.state_dict().items():
        assert (new.lm.state_dict()[name] == weight).all()
    assert old.index.digest == before.digest  # the model that it was made from is as it was
    ranking = itemic.recommend(
        new, Dataset.load(shop / "whole").split("test")[:5], task="sequence", beams=40, k=40
    )
    items = np.concatenate([part.items for part in ranking.arrays()])
    assert set(range(35, 40)) <= set(items.ravel().tolist())


def test_drift_as_json(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run("sid", "assign", shop / "index", shop / "whole", "-o", tmp_path / "more", "--json")
    out = capsys.readouterr().out
    found: dict[str, Any] = json.loads(out[out.index("{") :])
    assert (found["new"], found["known"]) == (5, 35)
    assert found["drift"]["items"] == 5


def test_an_index_without_its_encoder_is_refused(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ItemIndex.load(shop / "index").save(tmp_path / "bare")
    assert (
        call(["sid", "assign", str(tmp_path / "bare"), str(shop / "whole"), "-o", str(tmp_path / "x")]) == 2
    )
    assert "not the encoder that new items need" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()


def test_a_model_takes_no_other_index(shop: Path, tmp_path: Path) -> None:
    model = Model.load(shop / "model")
    run("sid", "build", shop / "old", "-o", tmp_path / "wide", "--levels", "8,17")
    with pytest.raises(IndexMismatchError, match="other tokens"):
        model.with_index(ItemIndex.load(tmp_path / "wide"))
    run("sid", "build", shop / "old", "-o", tmp_path / "other", "--levels", "8,16", "--seed", "5")
    with pytest.raises(IndexMismatchError, match=r"names item .* otherwise"):
        model.with_index(ItemIndex.load(tmp_path / "other"))
