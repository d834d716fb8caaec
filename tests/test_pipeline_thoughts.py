"""`evaluate.thoughts` and `recommend --think`: rows, rankings, notes and thoughts of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic.cli.app import call
from itemic.data import Dataset
from itemic.evaluate import ModelRanker, Ranking, Report, ThinkingRanker, ThinkingSettings
from itemic.evaluate.thinking import read_thoughts
from itemic.model import Model
from itemic.pipeline.recommend import recommend_one
from itemic.recipe import RecipeError, load_recipe
from itemic.recipe.write import read_resolved
from itemic.tasks.asking import remember_asked
from itemic.tasks.table import task_of
from tests.runs import write_recipe

TASK = {"task": "C", "windows": ["all"]}
THOUGHTS = "evaluate.thoughts={count: 2, max_tokens: 6, temperature: 0.9}"
TOLD = ThinkingSettings(2, 6, 0.9)


def again(folder: Path, *arguments: str) -> int:
    return call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run"), *arguments])


def ranked(root: Path, name: str) -> np.ndarray:
    return np.concatenate([part.items for part in Ranking.load(root / "evaluate" / name).arrays()])


def test_three_rows_one_input(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = copied / "run"
    assert again(copied, "-s", THOUGHTS) == 0
    assert "model with thoughts" in capfd.readouterr().out
    data, model = Dataset.load(root / "data"), Model.load(root / "train.all")
    test = data.split("test")
    off = ModelRanker(model, task=TASK, beams=20, dataset=data)
    empty = ModelRanker(model, task=TASK, beams=20, dataset=data, thinking="empty")
    own = ThinkingRanker(off, TOLD)
    found = own.consider(test, 10)
    # parts are other batches
    assert (ranked(root, "model") == off.rank(test, 10)[0]).mean() > 0.99
    assert (ranked(root, "empty") == empty.rank(test, 10)[0]).mean() > 0.99
    assert (ranked(root, "thoughts") == found.items).mean() > 0.99
    heads = [Ranking.load(root / "evaluate" / name).head for name in ("model", "empty", "thoughts")]
    assert len({head.digest for head in heads}) == 1
    reserved = 6 + own.marks.count
    assert all(head.config["alike"] == [[None, 0], ["empty", 0], ["think", reserved]] for head in heads)
    kept = read_thoughts(root / "evaluate" / "thoughts")
    assert kept["user_id"].to_list() == test.users.tolist()
    same = [
        row == [thought.text for thought in thoughts]
        for row, thoughts in zip(kept["thoughts"].to_list(), found.thoughts, strict=True)
    ]
    assert np.mean(same) > 0.95
    table = json.loads((root / "report" / "comparison.json").read_text(encoding="utf-8"))
    names = ["model with empty block", "model with thoughts"]
    assert [row["name"] for row in table["rows"]][:3] == ["model", *names]
    assert table["variants"] == names
    cut = sum(kept["cut"].explode())
    note = f"{cut} of {2 * len(test)} thoughts ({cut / 2 / len(test):.1%}) didn't end in time and were closed"
    assert any(note in text for text in Report.load(root / "report" / "thoughts.json").notes)
    for start in (
        "model with thoughts is",
        "model with empty block is",
        "model is asked without a think block",
        "model with thoughts: 2 thoughts of up to 6 tokens a request (temperature 0.9, top-p 1), merged by mass",
    ):
        assert any(text.startswith(start) for text in table["notes"]), start
    paired = [text for text in table["notes"] if text.startswith("model with thoughts is")]
    assert (
        "model with empty block" in paired[1]
    )  # own thoughts against model, empty block, strongest baseline
    assert len(paired) == 3
    assert "model with thoughts" in (root / "report" / "report.html").read_text(encoding="utf-8")
    capfd.readouterr()
    assert again(copied, "-s", THOUGHTS) == 0
    assert "evaluate: up to date" in capfd.readouterr().err
    assert call(["check", str(root)]) == 0


def test_killed_among_thoughts(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stood before is kept, and what is left gives what an evaluation in one go does."""
    said = ("-s", THOUGHTS, "-s", "evaluate.baselines=[]", "-s", "evaluate.thinking=empty")
    whole = tmp_path / "whole"
    shutil.copytree(copied, whole)
    assert again(whole, *said) == 0
    with monkeypatch.context() as patch:
        patch.setattr("itemic.decode.ThoughtSearch.rank", _stopped)
        assert again(copied, *said) != 0
    partial = copied / "run" / "evaluate.partial"
    before = (partial / "no-think" / "part-00000.parquet").stat().st_mtime_ns
    assert not (partial / "thoughts" / "part-00000.parquet").exists()
    assert again(copied, *said) == 0
    made = copied / "run" / "evaluate"
    assert (made / "no-think" / "part-00000.parquet").stat().st_mtime_ns == before
    for name in ("model", "no-think", "thoughts"):
        for file in sorted((made / name).glob("*.parquet")):
            other = whole / "run" / "evaluate" / name / file.name
            assert pl.read_parquet(file).equals(pl.read_parquet(other)), (name, file.name)
    notes = Report.load(copied / "run" / "report" / "no-think.json").notes
    assert any(note.startswith("model is asked behind an empty think block") for note in notes)


def _stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_recommend_shows_the_thoughts(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = finished / "run"
    data, model = Dataset.load(root / "data"), Model.load(root / "train.all")
    user = str(data.sequences.users[4])
    history = ",".join(data.item_ids[row] for row in data.sequences[4])

    def asked(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        status = call(["recommend", *map(str, arguments)])
        shown = capfd.readouterr()
        return status, shown.out, " ".join(shown.err.split())

    own = ThinkingRanker(ModelRanker(model, task=TASK, beams=20, dataset=data), ThinkingSettings(count=3))
    request = data.split("test")[4:5]
    everything = type(request)(
        np.array([user], object),
        np.array([0, len(data.sequences[4])]),
        data.sequences[4],
        np.array([-1], np.int32),
        request.catalogue,
    )
    wanted = own.consider(everything, 5)
    status, out, _ = asked(root, "--user", user, "-k", "5", "--think", "3", "--json")
    assert status == 0
    answer = json.loads(out)
    assert [item["item_id"] for item in answer["items"]] == [data.item_ids[row] for row in wanted.items[0]]
    texts = {idea["number"]: idea["text"] for idea in answer["thoughts"]}
    assert [texts[item["thought"]] for item in answer["items"]] == [
        wanted.thoughts[0][number].text for number in wanted.behind[0]
    ]
    first_seen = list(dict.fromkeys(item["thought"] for item in answer["items"]))
    assert first_seen == list(texts) == list(range(1, len(texts) + 1))
    status, shown, _ = asked(root, "--user", user, "-k", "5", "--think")
    assert status == 0
    assert "What the model thought" in shown
    status, again_, _ = asked(root, "--think", "--user", user, "-k", "5")
    assert again_ == shown
    usual = recommend_one(root, user=user, k=5, think=4)
    assert str(usual) == str(recommend_one(root, user=user, k=5, think=0))
    status, out, _ = asked(root / "train.all", "--history", history, "--think=2", "-k", "3", "--json")
    assert status == 0
    assert {item["thought"] for item in json.loads(out)["items"]} <= {1, 2}
    status, out, _ = asked(root, "--user", user, "--json")
    assert "thought" not in out
    status, _, err = asked(root, "--user", user, "--think", "-3")
    assert status == 2
    assert "--think" in err


def test_a_model_of_plain_texts_is_not_asked_to_think(finished: Path, tmp_path: Path) -> None:
    model = Model.load(finished / "run" / "train.all")
    remember_asked(model, task_of("sequence"))
    model.save(tmp_path / "plain")
    ids = model.index.item_ids[:2]
    assert recommend_one(tmp_path / "plain", items=ids, k=2).items
    assert call(["recommend", str(tmp_path / "plain"), "--history", ",".join(ids), "--think"]) == 2


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("evaluate.thoughts={count: 0}", "evaluate.thoughts.count"),
        ("evaluate.thoughts={tokens: 3}", "evaluate.thoughts.tokens"),
        ("evaluate.thoughts={merge: mean}", "evaluate.thoughts.merge"),
        ("evaluate.thoughts={temperature: 0}", "evaluate.thoughts.temperature"),
        ("evaluate.thoughts=deep", "evaluate.thoughts"),
        ("evaluate.task=sequence", "plain texts, which have no turns"),
    ],
)
def test_faults_name_the_key(tmp_path: Path, said: str, fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(tmp_path), ["evaluate.thoughts=true", said])
    assert fault in str(caught.value)


def test_the_section_in_short_and_in_full(tmp_path: Path) -> None:
    def recipe(*said: str) -> Any:
        return load_recipe(write_recipe(tmp_path), said)

    assert recipe().evaluate.thoughts is recipe("evaluate.thoughts=false").evaluate.thoughts is None
    assert recipe("evaluate.thoughts=true").evaluate.thoughts == ThinkingSettings()
    full = recipe(THOUGHTS)
    assert full.evaluate.thoughts == TOLD
    (tmp_path / "back.yaml").write_text(str(full), encoding="utf-8")
    assert read_resolved(tmp_path / "back.yaml").evaluate.thoughts == TOLD
