"""The section rl of a recipe: its faults, its step, its model, and groups on a screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from itemic.cli.app import call
from itemic.data.dataset import Dataset
from itemic.data.held_out import held_out
from itemic.model import Model
from itemic.pipeline.run import Run
from itemic.recipe import RecipeError, load_recipe, read_resolved
from itemic.rl.settings import RLStage
from itemic.tasks.conversation import Conversations
from itemic.training.curves import read_logs
from tests.runs import write_recipe

RL = (
    "rl={steps: 2, learning_rate: 1.0e-3, data: {prompts_per_step: 4}, rollout: {answers: 4, normalize: level}, "
    "validation: {every: 1, requests: 20, beams: 10}, rewards: {hit: 1.0, teacher: {weight: 0.5}}, examples: 1}"
)
TEACHER = "teacher={epochs: 1, model: {width: 8, heads: 1, layers: 1}}"


def test_a_run_with_a_stage_of_reinforcement_learning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(write_recipe(tmp_path), [RL, TEACHER, "evaluate.exclude_history=true"])
    run = Run.of(recipe, tmp_path / "run")
    names = [planned.step.name for planned in run.plan()]
    assert names[-4:] == ["train.all", "train.rl", "evaluate", "report"]
    assert "teacher" in next(planned for planned in run.plan() if planned.step.name == "train.rl").step.needs
    run.execute()
    record = json.loads((tmp_path / "run" / "train.rl" / "training.json").read_text())
    assert record["stage"]["rollout"]["exclude_history"] is True  # as the evaluation does
    assert [task["task"] for task in record["stage"]["asks"]["tasks"]] == ["C"]
    model = Model.load(tmp_path / "run" / "train.rl")
    assert model.asked is not None
    groups = (tmp_path / "run" / "train.rl" / "groups.jsonl").read_text().splitlines()
    history = json.loads(groups[0])["prompt"]
    assert all(answer["name"] not in history for answer in json.loads(groups[0])["answers"])
    capsys.readouterr()
    assert call(["rl", "preview", str(tmp_path / "run"), "-n", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("wanted") == 2
    assert "advantage" in shown
    assert call(["rl", "preview", str(tmp_path / "run"), "-n", "3", "--trained", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert len(lines) == 3
    assert all(set(answer["rewards"]) == {"hit", "teacher"} for line in lines for answer in line["answers"])
    page = (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")
    assert "rl" in page
    logs = read_logs(tmp_path / "run")
    assert [log.name for log in logs] == ["rows", "all", "rl"]
    assert all("loss" not in line for line in logs[-1].lines)  # a group's cost is no token's loss
    assert any("loss" in line for line in logs[1].lines)
    assert call(["check", str(tmp_path / "run")]) == 0
    assert call(["rl", "preview", str(tmp_path / "run"), "--stage", "more"]) == 2
    assert "It has: rl" in capsys.readouterr().err


def test_conversations_leave_out_whom_a_stage_holds_out(tmp_path: Path) -> None:
    """Two stages: the larger share is kept out of conversations, which are made anew when it changes."""
    rl = "rl=[{name: one, asks: {held_out: 0.2}}, {name: two, asks: {held_out: 0.5}}]"
    run = Run.of(load_recipe(write_recipe(tmp_path), [rl]), tmp_path / "run")
    run.execute(until="conversations")
    users = Dataset.load(tmp_path / "run" / "data").train.users
    texts = Conversations.open(tmp_path / "run" / "conversations").read()["metadata"].to_list()
    told = {json.loads(text).get("group") for text in texts}
    out = held_out(users, 0.5)
    assert 0 < out.sum() < len(users)
    assert {f"user:{user}" for user in users[~out]} & told
    assert not {f"user:{user}" for user in users[out]} & told
    plain = Run.of(load_recipe(write_recipe(tmp_path), ["rl=true"]), tmp_path / "run")
    assert next(each for each in plain.plan() if each.step.name == "conversations").run


def test_a_stage_in_short_and_in_full(tmp_path: Path) -> None:
    def recipe(*said: str) -> Any:
        return load_recipe(write_recipe(tmp_path), said)

    assert recipe().rl == []
    assert recipe("rl=true").rl == [RLStage()]
    full = recipe("rl=[{name: one, rewards: hit, objective: dapo}, {name: two, train: lora}]")
    assert [stage.name for stage in full.trainings] == ["rows", "all", "one", "two"]
    assert full.rl[0].rewards == {"hit": 1.0}
    (tmp_path / "back.yaml").write_text(str(full), encoding="utf-8")
    assert read_resolved(tmp_path / "back.yaml").rl == full.rl


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("rl={rewards: {hits: 1}}", "unknown reward 'hits'; did you mean 'hit'"),
        ("rl={rewards: teacher}", "the recipe has none; add teacher: true"),
        (
            "rl={rewards: {blend: {rankers: {teacher: 1, memory: 1}}}}",
            "the recipe has none; add teacher: true",
        ),
        ("rl={rollout: {suggest: {teacher: 2}}}", "the recipe has none; add teacher: true"),
        ("rl={rollout: {replacement: true}}", "rl.0.rollout.replacement"),
        ("rl={rollout: {how: sample, replacement: true, normalize: level}}", "rl.0.rollout.normalize"),
        ("rl={rollout: {how: sample, replacement: true}, objective: expected}", "rl.0.objective.name"),
        ("rl={rewards: {}}", "rl.0.rewards"),
        ("rl={name: all}", "'all' is the name of an earlier stage"),
        ("rl={rollout: {answers: 1}}", "rl.0.rollout.answers"),
        ("rl={rollout: {normalize: legal, exclude_history: true}}", "rl.0.rollout.exclude_history"),
        ("rl={objective: ppo}", "rl.0.objective"),
        ("rl={asks: {tasks: [Z]}}", "unknown 0 'Z'"),
        ("rl={epochs: 1, steps: 3}", "rl.0.steps"),
        ("rl={learning_rate: 1.0e-5, schedule: {min_lr: 1.0e-3}}", "rl.0.schedule.min_lr"),
    ],
)
def test_faults_name_the_key(tmp_path: Path, said: str, fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(tmp_path), [said])
    assert fault in str(caught.value)


LISTS = (
    "rl={steps: 2, learning_rate: 1.0e-3, data: {prompts_per_step: 4}, objective: ppo, examples: 1, "
    "asks: {tasks: [RLSeqRec, {task: RLItemCount, share: 0.5, most: 12}], requests: 12}, "
    "rollout: {normalize: legal, lists: {samples: 2}}, validation: {every: 2, requests: 6}}"
)
TAUGHT = "tasks=[{task: C}, {task: SFTSeqRec, samples: 20, columns: [brand], templates: 1}]"


def test_a_run_whose_lists_are_rewarded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks have the options of those that taught them, the critic lies beside the model, and preview shows lists."""
    said = [LISTS, TEACHER, TAUGHT.replace(", columns: [brand]", "")]
    run = Run.of(load_recipe(write_recipe(tmp_path), said), tmp_path / "run")
    run.execute(until="train.rl")
    record = json.loads((tmp_path / "run" / "train.rl" / "training.json").read_text())
    asked = record["stage"]["asks"]["tasks"]
    assert [task["task"] for task in asked] == ["RLSeqRec", "RLItemCount"]
    assert asked[0]["templates"] == 1
    assert asked[1]["most"] == 12
    assert record["stage"]["rewards"] == {"items": 1.0, "list": 1.0}
    assert (tmp_path / "run" / "train.rl" / "critic.safetensors").is_file()
    capsys.readouterr()
    assert call(["rl", "preview", str(tmp_path / "run"), "-n", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("wanted") == 2
    assert "list 2" in shown
    assert "Want(" in shown
    assert call(["rl", "preview", str(tmp_path / "run"), "-n", "2", "--trained", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert [len(line["lists"]) for line in lines] == [2, 2]
    assert all(set(own["rewards"]) == {"items", "list"} for line in lines for own in line["lists"])


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (LISTS, "rl.0.rollout.lists"),
        (LISTS.replace("RLSeqRec", "RLSeqRek"), "unknown 0 'RLSeqRek'; did you mean 'RLSeqRec'"),
        ("rl={rollout: {lists: true}}", "rl.0.rollout.lists"),
        ("rl={rollout: {lists: {}}}", "names no task"),
        ("rl={rollout: {lists: {mode: free}, normalize: legal}}", "rl.0.rollout.lists.mode"),
        ("rl={rollout: {lists: {}, normalize: level}}", "rl.0.rollout.lists"),
        ("rl={rollout: {lists: {}, add_target: true}}", "have no add_target"),
        ("rl={rollout: {lists: {samples: 1}}}", "rl.0.objective.name"),
        ("rl={rollout: {lists: {}}, objective: expected}", "lists may come twice"),
        ("rl={rollout: {lists: {}}, rewards: hit}", "is a reward of items"),
        ("rl={rewards: list}", "is a reward of lists"),
        ("rl={rollout: {lists: {}}, asks: {places: ends}}", "draw their own places"),
        ("rl={rollout: {lists: {}, epochs: 2}, objective: ppo}", "objective.ppo.passes"),
        ("rl={rollout: {lists: {}}, objective: {name: ppo, kl: 0.1}}", "rl.0.objective.kl"),
    ],
)
def test_faults_of_lists_name_the_key(tmp_path: Path, said: str, fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(tmp_path), [said])
    assert fault in str(caught.value)
