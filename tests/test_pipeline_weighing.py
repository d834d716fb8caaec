"""A run whose stages look at items and whose prompts look at users, from files to recommendations."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import itemic
from itemic import schema as c
from itemic.cli.app import call
from itemic.data.settings import SimulatorConfig
from itemic.pipeline.recommend import recommend_one
from tests.runs import RECIPE

KEYS = """\
data:
  format: table
  path: {folder}
  options: {{users: people.csv}}
"""
TASKS = """\
tasks:
  - {task: C, windows: [all], user_text: [mood], limit: 150}
  - {task: sequence, beginnings: 2}
  - {task: E, kinds: [next, together]}
"""
STAGE = """\
    steps: 3
    objective: {weights: {frequency: 0.5, half_life: 30.0}}
"""


def write_shop(folder: Path) -> None:
    dataset = itemic.simulate(
        SimulatorConfig(users=60, items=40, categories=4, brands=6, shortest=4, longest=8), 0
    ).dataset
    events = dataset.interactions.with_row_index("n").select(
        "user_id", "item_id", timestamp=1_600_000_000 + pl.col("n") * 86_400
    )
    folder.mkdir()
    events.write_csv(folder / "events.csv")
    dataset.items.select("item_id", "title").write_csv(folder / "items.csv")
    users = dataset.interactions[c.USER_ID].unique(maintain_order=True)
    moods = [["merry", "calm", ""][number % 3] for number in range(len(users))]
    pl.DataFrame({"user_id": users, "mood": moods}).write_csv(folder / "people.csv")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weighing")
    write_shop(folder / "shop")
    head, _, rest = RECIPE.partition("data:\n")
    tail = rest.partition("index:")[2]
    before, _, after = tail.partition("tasks:\n")
    stages = after.partition("stages:")[2].replace("    epochs: 2\n", STAGE)
    stages = stages.replace(
        "data: {tokens_per_step: 512}", "data: {tokens_per_step: 512, balance: {power: 0.7}}"
    )
    text = f"{head}{KEYS.format(folder=folder / 'shop')}index:{before}{TASKS}stages:{stages}"
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    assert call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run")]) == 0
    return folder / "run"


def test_the_step_of_conversations_says_what_stages_ask(run: Path) -> None:
    rows = pl.read_parquet(run / "conversations" / "C" / "*.parquet")
    assert all(len(json.loads(row)["time"]) == 1 for row in rows[c.METADATA])
    dataset = itemic.Dataset.load(run / "data")
    assert dataset.users is not None
    moods = dict(dataset.users.select(c.USER_ID, "mood").iter_rows())
    for row, metadata in rows.select(c.MESSAGES, c.METADATA).iter_rows():
        mood = moods[json.loads(metadata)["group"].removeprefix("user:")]
        assert (f"(user: mood {mood})" in row) == bool(mood)


def test_it_is_evaluated_and_asked_as_it_was_trained(run: Path) -> None:
    record = json.loads((run / "train.all" / "training.json").read_text())
    assert record["identity"]["stage.data.balance.power"] == 0.7
    assert record["identity"]["stage.objective.weights.half_life"] == 30.0
    asked = json.loads((run / "train.all" / "config.json").read_text())["itemic"]["asked"]["task"]
    assert asked["user_text"] == ["mood"]
    dataset = itemic.Dataset.load(run / "data")
    assert dataset.users is not None
    user = dataset.users.filter(pl.col("mood") == "merry")[c.USER_ID][0]
    of_run = recommend_one(run, user=user, k=5, beams=20)
    of_model = recommend_one(run / "train.all", user=user, k=5, beams=20, dataset=run / "data")
    assert [(item.item_id, item.score) for item in of_run.items] == [
        (item.item_id, item.score) for item in of_model.items
    ]


def test_a_second_run_does_nothing(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["run", str(run.parent / "tiny.yaml"), "-o", str(run), "--dry-run"]) == 0
    assert "not built" not in capfd.readouterr().out


def test_conversations_with_times_by_hand(run: Path, tmp_path: Path) -> None:
    def built(name: str, *more: str) -> str:
        made = ["tasks", "build", str(run / "data"), "--index", str(run / "index"), "-t", "sequence", *more]
        assert call([*made, "-o", str(tmp_path / name)]) == 0
        return str(tmp_path / name)

    def trained(conversations: str) -> int:
        keys = ["steps=1", "data.tokens_per_step=256", "objective.weights.half_life=9.0"]
        told = [part for key in keys for part in ("-s", key)]
        given = [str(run / "model"), "--conversations", conversations, "-o", str(tmp_path / "model")]
        return call(["train", *given, *told])

    assert trained(built("without")) != 0  # which says how to build them
    assert trained(built("with", "--times")) == 0
