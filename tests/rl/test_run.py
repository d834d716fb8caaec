"""Reinforcement learning from a small model to a folder, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import itemic
from itemic.data.dataset import Dataset
from itemic.data.held_out import held_out
from itemic.data.sequences import Requests
from itemic.errors import ArtifactError, ConfigError, DataError, IndexMismatchError
from itemic.evaluate.linear import Ridge
from itemic.model import Model
from itemic.rl.asks import Book, training_requests
from itemic.rl.objective import GroupObjective
from itemic.rl.rewards import Answered, Rewards, World
from itemic.rl.rolled import Policy
from itemic.rl.rollout import Roller
from itemic.rl.run import Knows, train_rl, world_of
from itemic.rl.scoring import Legal
from itemic.rl.settings import Asks, RLStage
from itemic.rl.source import GroupSteps
from itemic.sid.trie import Trie
from itemic.tasks.asking import remember_asked
from itemic.tasks.table import task_of
from tests.training.helpers import copy_of

STAGE: dict[str, Any] = {
    "steps": 4,
    "learning_rate": 1e-3,
    "data": {"prompts_per_step": 6},
    "rollout": {"answers": 6, "normalize": "level"},
    "rewards": {"hit": 1.0, "prefix": 0.5},
    "validation": {"every": 2, "requests": 20, "beams": 10},
    "checkpoints": {"every": 1},
    "logs": {"every": 1},
    "examples": 2,
}


def shop() -> Dataset:
    return itemic.simulate(itemic.SimulatorConfig(users=40, items=40), seed=0).dataset


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return shop()


def fresh(dataset: Dataset, **keys: Any) -> Model:
    index = itemic.build_index(dataset, levels=[8, 8], format="minionerec")
    model = itemic.new_model("qwen3-pico", index, ["a shop"], vocab_size=300, **keys)
    remember_asked(model, task_of("sequence"))
    return model


def lines(folder: Path, name: str = "log.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def test_a_stage_leaves_a_model_its_numbers_and_groups_to_read(dataset: Dataset, tmp_path: Path) -> None:
    model = fresh(dataset)
    before = copy_of(model.lm)
    stage = STAGE | {"objective": {"name": "grpo", "kl": 0.01}}
    trained = train_rl(model, dataset, stage=stage, output=tmp_path / "out")
    assert trained is model
    loaded = Model.load(tmp_path / "out")
    assert all(
        torch.equal(loaded.lm.state_dict()[name], weight) for name, weight in copy_of(model.lm).items()
    )
    log = lines(tmp_path / "out")
    assert log[0]["step"] == 0
    assert "valid/ndcg@10" in log[0]  # the model as it was found is validated
    steps = [line for line in log if "loss" in line]
    told = {"reward", "reward/hit", "reward/prefix", "reward_at/1", "reward_at/2-4", "reward_at/5-6"}
    told |= {"without_signal", "found", "entropy", "kl", "clipped", "ratio", "rollout_seconds", "tried"}
    told |= {"kl_of_answers/p50", "kl_of_answers/p99", "answers", "groups"}
    assert told <= set(steps[0])
    # the same numbers in rollout and update: ratios are 1, and the reference is the policy itself
    assert steps[0]["ratio"] < 1e-4
    assert abs(steps[0]["kl"]) < 1e-4
    assert steps[-1]["kl"] > steps[0]["kl"]
    groups = lines(tmp_path / "out", "groups.jsonl")
    assert {line["step"] for line in groups} == {0, 2}
    answers = groups[0]["answers"]
    assert len(answers) == 6
    assert {answer["item"] for answer in answers} <= set(dataset.item_ids)
    assert sum(answer["advantage"] for answer in answers) == pytest.approx(0, abs=1e-3)
    for answer in answers:
        wanted = answer["rewards"]["hit"] + 0.5 * answer["rewards"]["prefix"]
        assert answer["reward"] == pytest.approx(wanted, abs=1e-3)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["finished"]
    best, kept = record["place"]["best_step"], record["full_validation"]
    unchanged = all(torch.equal(before[name], weight) for name, weight in copy_of(model.lm).items())
    assert unchanged == (best == 0 or kept["kept"] == "start")
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_targets_are_those_of_the_same_place(dataset: Dataset) -> None:
    """Of a user's places with equal histories each keeps its own target, and none is of another split."""
    requests, train = training_requests(dataset), dataset.train
    number = 0
    for user in range(len(train)):
        items = train[user]
        for place in range(1, len(items)):
            assert requests.users[number] == train.users[user]
            assert requests.targets[number] == items[place]
            np.testing.assert_array_equal(requests.history(number), items[:place][-dataset.rule.history :])
            number += 1
    assert number == len(requests)
    book = Book(fresh(dataset), dataset, Asks(tasks=("sequence", {"task": "B", "share": 0.5})), seed=0)
    place, task = book.order(0)
    assert sorted(place.tolist()) == list(range(len(requests)))
    asked = book.ask(place[:40], task[:40])
    np.testing.assert_array_equal(asked.requests.targets, requests.targets[place[:40][asked.rows]])
    np.testing.assert_array_equal(asked.of_history, task[:40][asked.rows] == 0)
    assert {0, 1} == set(task[:40].tolist())


def test_users_who_are_held_out_are_asked_about_and_nobody_tells_of_them(dataset: Dataset) -> None:
    train, out = dataset.train, held_out(dataset.train.users, 0.4)
    assert 0 < out.sum() < len(out)
    shuffled = np.random.default_rng(0).permutation(len(out))
    np.testing.assert_array_equal(held_out(train.users[shuffled], 0.4), out[shuffled])
    assert held_out(train.users, 0.7)[out].all()  # a larger share holds out the same users, and more
    for places in ("known", "ends", "both"):
        asked = training_requests(dataset, places=places, held_out=0.4)
        everyone = training_requests(dataset, places=places)
        others = set(train.users[out].tolist())
        assert set(asked.users.tolist()) <= others
        assert len(asked) == sum(user in others for user in everyone.users.tolist())
        assert places == "ends" or (asked.targets >= 0).any()
    index = itemic.build_index(dataset, levels=[8, 8], format="minionerec")
    tasks = ["C", "sequence", "rationale"]
    groups = [
        {json.loads(row)["group"].split(":")[1] for row in built.read()["metadata"]}
        for built in (
            itemic.build_conversations(dataset, index, tasks, held_out=0.4),
            itemic.build_conversations(dataset, index, tasks),
        )
    ]
    assert groups[1] >= others
    assert groups[0] == groups[1] - others
    with pytest.raises(ConfigError, match="nothing to ask about: of a share of 1e-09 no user"):
        Book(fresh(dataset), dataset, Asks(held_out=1e-9), 0)
    with pytest.raises(ConfigError, match="a share of 2 of the users"):
        held_out(train.users, 2)


def test_what_two_ranks_left_of_a_rollout_one_goes_on_with(dataset: Dataset) -> None:
    stage = RLStage.of(STAGE | {"rollout": STAGE["rollout"] | {"steps_per_rollout": 2}})
    model = fresh(dataset)
    legal = Legal(Trie.build(model.item_rows), "level")
    rewards = Rewards(STAGE["rewards"], world_of(model, dataset, Knows()))
    source = GroupSteps(Book(model, dataset, Asks(), 0), stage, rewards, legal)
    source.begin(Policy(model, GroupObjective(model.lm, legal)))
    states = [next(source.steps(None, rank, 2)).state for rank in range(2)]
    merged = json.loads(json.dumps(source.merged(states)))
    kept = source._kept(merged, 0, 1)
    assert kept is not None
    assert kept.request.tolist() == list(range(12))  # both ranks began theirs at 0
    step = next(source.steps(merged, 0, 1))
    assert step.sizes.weight == 6 * STAGE["rollout"]["answers"]
    assert step.state["done"] == 0


def test_worse_weights_don_t_stay(dataset: Dataset, tmp_path: Path) -> None:
    """A validation that only ever falls: the stage ends with the weights it began with, bit for bit."""
    model = fresh(dataset)
    before, falling = copy_of(model.lm), iter(range(100, 0, -1))
    train_rl(
        model, dataset, stage=STAGE, output=tmp_path, validate=lambda _: {"ndcg@10": float(next(falling))}
    )
    assert all(torch.equal(before[name], weight) for name, weight in copy_of(model.lm).items())
    assert json.loads((tmp_path / "training.json").read_text())["place"]["best_step"] == 0


def test_ends_of_histories_have_no_target(dataset: Dataset, tmp_path: Path) -> None:
    train = dataset.train
    ends = training_requests(dataset, places="ends")
    assert (ends.targets == -1).all()
    assert ends.users.tolist() == train.users.tolist()
    for number in range(len(ends)):
        np.testing.assert_array_equal(ends.history(number), train[number][-dataset.rule.history :])
    both = training_requests(dataset, places="both")
    assert len(both) == len(ends) + len(training_requests(dataset))
    np.testing.assert_array_equal(both.history(len(both) - 1), ends.history(len(ends) - 1))
    stage = STAGE | {
        "asks": {"places": "ends"},
        "rewards": "memory",
        "validation": {"every": None},
        "examples": 1,
    }
    train_rl(fresh(dataset), dataset, stage=stage | {"steps": 2}, output=tmp_path)
    assert all(line["target"] is None for line in lines(tmp_path, "groups.jsonl"))
    step = next(line for line in lines(tmp_path) if "loss" in line)
    assert step["found"] == 0
    assert step["reward"] > 0
    with pytest.raises(ConfigError, match="have no item to ask about"):
        train_rl(fresh(dataset), dataset, stage=stage | {"asks": {"places": "ends", "tasks": ["B"]}})


@pytest.mark.parametrize("how", ["sample", "both"])
@pytest.mark.parametrize("objective", ["expected", "dapo"])
def test_drawn_answers_and_several_passes(dataset: Dataset, how: str, objective: str) -> None:
    model = fresh(dataset)
    stage = STAGE | {"objective": objective, "validation": {"every": None}}
    stage["rollout"] = STAGE["rollout"] | {"how": how, "steps_per_rollout": 2, "epochs": 2, "oversample": 2}
    before = copy_of(model.lm)
    train_rl(model, dataset, stage=stage)
    assert not torch.equal(copy_of(model.lm)["model.norm.weight"], before["model.norm.weight"])


def test_drawn_with_replacement_answers_may_repeat(dataset: Dataset, tmp_path: Path) -> None:
    stage = STAGE | {"validation": {"every": None}, "steps": 2, "examples": 1}
    stage["rollout"] = {"answers": 30, "how": "sample", "replacement": True, "temperature": 0.3}
    train_rl(fresh(dataset), dataset, stage=stage, output=tmp_path)
    items = [answer["item"] for answer in lines(tmp_path, "groups.jsonl")[0]["answers"]]
    assert len(items) == 30 > len(set(items))


def test_the_target_is_put_in_and_counted(dataset: Dataset, tmp_path: Path) -> None:
    stage = STAGE | {"validation": {"every": None}, "steps": 1, "examples": 1, "rewards": "hit"}
    stage["rollout"] = STAGE["rollout"] | {"add_target": True}
    train_rl(fresh(dataset), dataset, stage=stage, output=tmp_path)
    step = next(line for line in lines(tmp_path) if "loss" in line)
    assert step["found"] == 1
    assert step["targets_added"] > 0
    assert step["without_signal"] == 0
    assert step["ratio"] < 1e-4  # its log-probability is that of the moment, too
    for group in lines(tmp_path, "groups.jsonl"):
        assert group["target"] in {answer["item"] for answer in group["answers"]}


def test_others_suggest_answers(dataset: Dataset, tmp_path: Path) -> None:
    stage = STAGE | {"validation": {"every": None}, "steps": 1, "examples": 1, "asks": {"places": "ends"}}
    stage |= {"rewards": {"blend": {"rankers": {"ridge": 1.0}, "log": True}}, "objective": "expected"}
    stage["rollout"] = STAGE["rollout"] | {"suggest": {"ridge": 4}, "exclude_history": True}
    train_rl(fresh(dataset), dataset, stage=stage, output=tmp_path)
    step = next(line for line in lines(tmp_path) if "loss" in line)
    assert step["ratio"] < 1e-4  # their log-probabilities are those of the moment, too
    assert step["suggested"] > 0
    ridge = Ridge(dataset)
    for group in lines(tmp_path, "groups.jsonl"):
        user = dataset.train.users.tolist().index(group["user"])
        history = dataset.train[user][-dataset.rule.history :]
        request = Requests(
            np.array([group["user"]], object), np.array([0, len(history)]), history, np.array([-1], np.int32)
        )
        best, _ = ridge.rank(request, 4, True)
        items = [answer["item"] for answer in group["answers"]]
        assert {dataset.item_ids[row] for row in best[0].tolist()} <= set(items)
        assert len(items) == len(set(items)) == 6
        assert not set(items) & {dataset.item_ids[row] for row in history.tolist()}
    with pytest.raises(ConfigError, match=r"rollout\.suggest asks the ranker 'nobody'"):
        train_rl(fresh(dataset), dataset, stage=stage | {"rollout": {"answers": 6, "suggest": {"nobody": 1}}})
    with pytest.raises(ConfigError, match="takes the place of all 6 answers"):
        RLStage.of({"rollout": {"answers": 6, "suggest": {"ridge": 6}}})


def test_thoughts_are_a_group_and_so_are_the_answers_behind_each(dataset: Dataset, tmp_path: Path) -> None:
    model = fresh(dataset)
    remember_asked(model, task_of("C"))
    stage = STAGE | {"validation": {"every": None}, "steps": 2, "examples": 1}
    stage["rollout"] = {
        "answers": 4,
        "normalize": "level",
        "thoughts": {"count": 3, "max_tokens": 150},
    }
    train_rl(model, dataset, stage=stage, output=tmp_path)
    step = next(line for line in lines(tmp_path) if "loss" in line)
    # at random a thought of 150 tokens of 300 ends, or doesn't
    assert 0 < step["thoughts_cut"] < 1
    assert 1 < step["thought_tokens"] <= 150
    assert step["ratio"] < 1e-4  # the sampler's log-probabilities are the update's
    thoughts = [thought for group in lines(tmp_path, "groups.jsonl") for thought in group["thoughts"]]
    assert {thought["ended"] for thought in thoughts} == {True, False}
    legal = Legal(Trie.build(model.item_rows), "level")
    roller = Roller(
        Policy(model, GroupObjective(model.lm, legal)),
        RLStage.of(stage).rollout,
        RLStage.of(stage).objective,
        Rewards(STAGE["rewards"], world_of(model, dataset, Knows())),
        legal,
    )
    book = Book(model, dataset, Asks(), 0, "think")
    place, task = book.order(0)
    rolled = roller.roll(book.ask(place[:5], task[:5]), range(5))
    assert rolled.thought is not None
    ended = rolled.thought.ended
    groups = rolled.groups
    assert len(groups) == 5 + ended.sum()
    # a prompt's thoughts, and behind it the answers of each that ended
    for request in range(5):
        own = np.flatnonzero(groups.request == request)
        counts = [int((groups.group == group).sum()) for group in own]
        assert counts == [3, *[4] * int(ended[3 * request : 3 * request + 3].sum())]
        for group in own[1:]:
            behind = groups.prompts[int(group)].tolist()
            assert behind[: groups.prompts.lengths[own[0]]] == groups.prompts[int(own[0])].tolist()
    for thought in thoughts:
        assert bool(thought["answers"]) == thought["ended"]
        best = max((answer["reward"] for answer in thought["answers"]), default=0.0)
        assert thought["worth"] == pytest.approx(best, abs=1e-3)  # one that was cut off is worth 0
        assert thought["text"].endswith("</think>") == thought["ended"]
        advantages = [answer["advantage"] for answer in thought["answers"]]
        assert sum(advantages) == pytest.approx(0, abs=1e-3)


def test_thoughts_that_never_end_are_worth_nothing(dataset: Dataset, tmp_path: Path) -> None:
    model = fresh(dataset)
    remember_asked(model, task_of("C"))
    stage = STAGE | {"validation": {"every": None}, "steps": 2}
    stage["rollout"] = {"answers": 4, "thoughts": {"count": 2, "max_tokens": 1}}
    before = copy_of(model.lm)
    train_rl(model, dataset, stage=stage, output=tmp_path)
    step = next(line for line in lines(tmp_path) if "loss" in line)
    assert step["thoughts_cut"] == 1
    assert all(torch.equal(before[name], weight) for name, weight in copy_of(model.lm).items())


class Broken:
    """Rewards of a user's own that go wrong."""

    @staticmethod
    def raises(answered: Answered, world: World) -> Any:
        raise KeyError("price")

    @staticmethod
    def nan(answered: Answered, world: World) -> Any:
        return np.full(answered.items.shape, np.nan)

    @staticmethod
    def shape(answered: Answered, world: World) -> Any:
        return np.zeros(3)


raises, nan, shape = Broken.raises, Broken.nan, Broken.shape


def constant(answered: Answered, world: World) -> Any:
    return np.ones(answered.items.shape)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "fails: KeyError: 'price'"),
        ("nan", "is nan for answer 0 of user"),
        ("shape", r"has shape \(3,\)"),
    ],
)
def test_a_reward_that_goes_wrong_is_named(dataset: Dataset, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        train_rl(fresh(dataset), dataset, stage=STAGE | {"rewards": f"tests.rl.test_run:{name}"})


def test_a_constant_reward_is_told_and_ends(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from itemic.rl import steps

    monkeypatch.setattr(steps, "HOPELESS", 3)
    stage = STAGE | {"rewards": "tests.rl.test_run:constant", "validation": {"every": None}}
    with pytest.raises(ConfigError, match="in 3 rollouts no group had answers of different worth"):
        train_rl(fresh(dataset), dataset, stage=stage)
    model = fresh(dataset)
    before = copy_of(model.lm)
    train_rl(model, dataset, stage=stage | {"steps": 2})  # two such rollouts are no error, and change nothing
    assert all(torch.equal(before[name], weight) for name, weight in copy_of(model.lm).items())


def test_faults_that_are_known_at_once(dataset: Dataset, tmp_path: Path) -> None:
    model = fresh(dataset)
    with pytest.raises(ConfigError, match="500 answers to a prompt, and the catalogue has 40 items"):
        train_rl(model, dataset, stage=STAGE | {"rollout": {"answers": 500}})
    with pytest.raises(ConfigError, match="there is no reward 'hits'"):
        train_rl(model, dataset, stage=STAGE | {"rewards": "hits"})
    with pytest.raises(ConfigError, match="a reward asks the ranker 'teacher', which isn't there"):
        train_rl(model, dataset, stage=STAGE | {"rewards": "teacher"})
    with pytest.raises(ConfigError, match="task A asks for no item"):
        train_rl(model, dataset, stage=STAGE | {"asks": {"tasks": ["A"]}})
    with pytest.raises(ConfigError, match="9999 prompts to a rollout, and there are"):
        train_rl(model, dataset, stage=STAGE | {"data": {"prompts_per_step": 9999}})
    with pytest.raises(ConfigError, match=r"exclude_history is true under normalize legal"):
        RLStage.of({"rollout": {"normalize": "legal", "exclude_history": True}})
    other = itemic.simulate(itemic.SimulatorConfig(users=40, items=41), seed=1).dataset
    with pytest.raises(IndexMismatchError):
        train_rl(model, other, stage=STAGE)
    train_rl(model, dataset, stage=STAGE | {"steps": 1, "validation": {"every": None}}, output=tmp_path)
    with pytest.raises(ArtifactError, match=r"stage.learning_rate was 0.001, now 0.1"):
        train_rl(
            fresh(dataset),
            dataset,
            stage=STAGE | {"steps": 1, "validation": {"every": None}, "learning_rate": 0.1},
            output=tmp_path,
        )


@pytest.mark.parametrize("what", ["lora", "embeddings"])
def test_adapters_and_rows_learn(dataset: Dataset, what: str) -> None:
    model = fresh(dataset)
    stage = STAGE | {"train": what, "objective": {"name": "grpo", "kl": 0.1}, "validation": {"every": None}}
    before = copy_of(model.lm)
    train_rl(model, dataset, stage=stage, knows=Knows())
    after = copy_of(model.lm)
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    matrix = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(before[matrix], after[matrix]) == (what == "embeddings")


def test_a_reference_may_be_another_model(dataset: Dataset, tmp_path: Path) -> None:
    start = fresh(dataset)
    start.save(tmp_path / "start")
    other = fresh(dataset)
    with torch.no_grad():
        for weight in other.lm.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    other.save(tmp_path / "other")
    kept = (tmp_path / "other" / "model.safetensors").read_bytes()

    def learned(reference: str, name: str) -> list[float]:
        stage = STAGE | {
            "objective": {"name": "grpo", "kl": 0.5, "reference": reference},
            "optimizer": "adafactor",  # where there is no gradient AdamW makes a whole step of a rounding
            "validation": {"every": None},
        }
        model = Model.load(tmp_path / "start")
        train_rl(model, dataset, stage=stage, output=tmp_path / name)
        return [line["kl"] for line in lines(tmp_path / name) if "loss" in line]

    own = learned("start", "own")
    same = learned(str(tmp_path / "start"), "same")
    assert same[:2] == pytest.approx(
        own[:2], rel=1e-3, abs=1e-9
    )  # the same weights, lying elsewhere in memory
    apart = learned(str(tmp_path / "other"), "apart")
    assert apart[0] > 0.01 > own[0]
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == kept


def test_a_reference_of_other_items_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    index = itemic.build_index(dataset, levels=[4, 16], format="minionerec")
    itemic.new_model("qwen3-pico", index, ["a shop"], vocab_size=300).save(tmp_path / "other")
    stage = STAGE | {"objective": {"name": "grpo", "kl": 0.5, "reference": str(tmp_path / "other")}}
    with pytest.raises(IndexMismatchError, match=r"objective\.reference.*was made for the index"):
        train_rl(fresh(dataset), dataset, stage=stage, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    index = itemic.build_index(dataset, levels=[8, 8], format="minionerec")
    itemic.new_model("qwen3-pico", index, ["other words"] * 50, vocab_size=400).save(tmp_path / "words")
    stage["objective"]["reference"] = str(tmp_path / "words")
    with pytest.raises(IndexMismatchError, match="another vocabulary"):
        train_rl(fresh(dataset), dataset, stage=stage, output=tmp_path / "out")
