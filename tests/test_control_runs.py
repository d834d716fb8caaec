"""Whole runs with tasks of control, and lists that are asked of them."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from itemic import schema as c
from itemic.cli.app import call
from itemic.control.labels import Labels
from itemic.control.results import Results
from itemic.control.tests import USUAL
from itemic.control.want import PartOf, Want
from itemic.data import Dataset
from itemic.errors import ConfigError, ConstraintError
from itemic.pipeline import Run
from itemic.pipeline.wanted import read_want, recommend_list
from itemic.recipe import RecipeError, check_recipe
from itemic.sid.kinds import load_names
from tests.runs import RECIPE, write_recipe
from tests.server import Reply, completion, said, serving

TASKS = """\
teacher: {steps: 2, model: {width: 8, heads: 1, layers: 1}}
tasks:
  - {task: C, windows: [all]}
  - {task: SFTSeqRec, epochs: 2, topk: 4}
  - {task: SFTPersonalControlRec, samples: 20, numbered: false}
"""
CONTROL = RECIPE.replace("tasks:\n  - {task: C, windows: [all]}\n  - {task: A, limit: 40}\n", TASKS)
CONTROL = CONTROL.replace("epochs: 2\n    data", "steps: 2\n    data").replace(
    "vocab_size: 400", "vocab_size: 600"
)
TESTS = """\
evaluate:
  control: {users: 12, topk: 4, most: 6, k: [2, 4], candidates: 8, unwanted: teacher, price: true}
"""
CONTROL = CONTROL.replace("evaluate:\n", TESTS)
TITLES = CONTROL.replace("index:\n  levels: [8, 8]\n", "index: {names: title, max_tokens: 8}\n").replace(
    "  - name: rows\n    train: embeddings\n    steps: 2\n    data: {tokens_per_step: 512}\n", ""
)


@pytest.fixture(scope="module", params=["sid", "title"])
def ran(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    file = write_recipe(folder, CONTROL if request.param == "sid" else TITLES)
    assert call(["run", str(file), "-o", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_teaches_lists_and_hard_mode_keeps_to_what_is_wanted(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((ran / "conversations" / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["inputs"]) == {"data", "teacher", "index"}
    made = json.loads((ran / "conversations" / "conversations.json").read_text(encoding="utf-8"))
    assert made["counts"]["SFTSeqRec"] > made["counts"]["SFTPersonalControlRec"] > 10
    data = Dataset.load(ran / "data")
    heads = data.items[c.CATEGORIES].list.first().unique().sort().to_list()
    users = data.sequences
    capsys.readouterr()
    command = ["recommend", str(ran), "--user", str(users.users[0]), "-k", "6", "--json"]
    assert call([*command, "--avoid", heads[0], "--share", f"{heads[1]}=.5", "--written"]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = [item["item_id"] for item in answer["items"]]
    assert len(set(found)) == 6
    seen = {data.item_ids[row] for row in users[0]}
    assert not seen & set(found)
    first = dict(zip(data.item_ids, data.items[c.CATEGORIES].list.first().to_list(), strict=True))
    assert [first[item] for item in found].count(heads[1]) == 3
    assert heads[0] not in {first[item] for item in found}
    assert all(item["score"] < 0 for item in answer["items"])
    soft = recommend_list(ran, want=Want(count=4), user=str(users.users[0]), mode="soft")
    assert 1 <= len(soft.items) <= 4
    by_items = recommend_list(ran, want=Want(count=3, wanted=(heads[1],)), items=[data.item_ids[0]])
    assert {first[item.item_id] for item in by_items.items} == {heads[1]}
    assert call([*command, "--want", "nothing of the kind"]) == 2
    assert "no item has the label" in capsys.readouterr().err
    assert call([*command, "--want", heads[0], "--think", "2"]) == 2
    capsys.readouterr()
    for width in ("1", "7"):
        assert call([*command[:-3], "-k", "3", "--json", "--want", heads[1], "--beams", width]) == 0
        items = json.loads(capsys.readouterr().out)["items"]
        assert {first[item["item_id"]] for item in items} == {heads[1]}
        assert len({item["item_id"] for item in items}) == 3
    assert call([*command, "--avoid", heads[0], "--share", f"{heads[1]}=.5"]) == 0
    ranked = json.loads(capsys.readouterr().out)["items"]
    assert [first[item["item_id"]] for item in ranked].count(heads[1]) == 3
    assert heads[0] not in {first[item["item_id"]] for item in ranked}
    assert not seen & {item["item_id"] for item in ranked}
    assert call([*command[:-3], "-k", "1", "--json", "--want", heads[1]]) == 0
    best = json.loads(capsys.readouterr().out)["items"][0]
    assert call([*command[:-3], "-k", "30", "--json", "--beams", "40", "--exclude-history"]) == 0
    plain = json.loads(capsys.readouterr().out)["items"]
    top = next(item for item in plain if first[item["item_id"]] == heads[1])
    assert (best["item_id"], best["score"]) == (top["item_id"], pytest.approx(top["score"], abs=1e-4))
    with pytest.raises(ConfigError, match="ranked lists aren't written"):
        recommend_list(ran, want=Want(count=4), user=str(users.users[0]), mode="ranked", beams=4)
    with pytest.raises(ConstraintError, match="40 items are wanted"):
        recommend_list(ran, want=Want(count=40), user=str(users.users[0]))
    with pytest.raises(ConfigError, match="a user or a history"):
        recommend_list(ran, want=Want(count=4))


def test_lists_are_written_where_nothing_taught_the_ranking(ran: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(ran, folder)
    file = folder / "recipe.yaml"
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    user = str(Dataset.load(ran / "data").sequences.users[0])
    kept = told["tasks"]

    def answers(tasks: list[dict[str, Any]], **options: Any) -> tuple[Any, ...]:
        file.write_text(yaml.safe_dump(told | {"tasks": tasks}), encoding="utf-8")
        answer = recommend_list(folder, want=Want(count=4), user=user, **options)
        return [(item.item_id, item.score) for item in answer.items], " ".join(answer.notes)

    assert answers(kept)[0] == answers(kept, mode="ranked")[0] != answers(kept, mode="hard")[0]
    lists = [task for task in kept if task["task"] != "C"]
    assert answers(lists) == answers(lists, mode="hard")
    assert "No task of control" not in answers(lists)[1]
    plain = [task for task in kept if task["task"] == "C"]
    assert answers(plain) == answers(plain, mode="ranked")
    assert "No task of control" in answers(plain, mode="hard")[1]


def test_the_step_lists_is_in_the_report_and_goes_on_with_its_answers(ran: Path) -> None:
    results = Results.load(ran / "lists" / "results.json")
    assert [line.task for line in results.lines] == list(USUAL)
    assert results.lines[1].worded == "SFTPersonalControlRec"
    assert results.lines[3].worded is None
    price = Results.load(ran / "lists" / "price.json")
    assert [line.way for line in price.lines] == [
        "no control",
        "soft",
        "distinct",
        "hard",
        "hard, untold",
        "ranked",
        "filtered",
        "filtered ranking",
    ] * 5
    assert all(
        line.metrics["obeyed"].value == 1
        for line in price.lines
        if line.way in ("hard", "ranked", "filtered", "filtered ranking")
    )
    manifest = json.loads((ran / "lists" / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["inputs"]) == {"data", "teacher", "train.all"}
    told = (ran / "report" / "comparison.md").read_text(encoding="utf-8")
    assert results.markdown() in told
    assert price.markdown() in told
    page = (ran / "report" / "report.html").read_text(encoding="utf-8")
    assert "Lists under control" in page
    assert "SFTTestPersonalCategoryRateEP_50, filtered" in page
    recipe = check_recipe(ran / "recipe.yaml", ["evaluate.k=[10]"])[0]
    plan = Run.of(recipe, ran).plan()
    assert [planned.step.name for planned in plan if planned.run] == ["report"]
    other = check_recipe(ran / "recipe.yaml", ["evaluate.control.users=13"])[0]
    assert [planned.step.name for planned in Run.of(other, ran).plan() if planned.run] == ["lists", "report"]
    without = check_recipe(ran / "recipe.yaml", ["evaluate.control=null"])[0]
    assert [planned.step.name for planned in Run.of(without, ran).plan() if planned.run] == ["report"]


def test_a_run_and_one_of_its_models_are_tested(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--users", "5", "-k", "2,4", "-s", "topk=4", "--json", "-o", str(tmp_path / "out")]
    some = ["--task", "SFTTestSeqRec", "--task", "SFTTestPersonalCategoryRateEP_50"]
    capsys.readouterr()
    assert call(["control", "evaluate", str(ran), "--mode", "hard", *few, *some]) == 0
    (hard,) = [Results.from_json(each) for each in json.loads(capsys.readouterr().out)]
    assert all(line.metrics["obeyed"].value == 1 for line in hard.lines)
    assert call(["control", "evaluate", str(ran), "--mode", "hard", "--split", "valid", *few, *some]) == 0
    (valid,) = [Results.from_json(each) for each in json.loads(capsys.readouterr().out)]
    assert Results.load(tmp_path / "out" / "hard-valid.json") == valid != hard
    assert Results.load(tmp_path / "out" / "hard.json") == hard
    same = [
        "control",
        "evaluate",
        str(ran / "train.all"),
        "--dataset",
        str(ran),
        "--mode",
        "hard",
        *few,
        *some,
    ]
    assert call(same) == 0
    (again,) = [Results.from_json(each) for each in json.loads(capsys.readouterr().out)]
    assert again.lines == hard.lines
    assert (tmp_path / "out" / "train.all-hard.md").is_file()
    brands = [
        "--columns",
        "brand,popularity",
        "--task",
        "SFT+TestPersonalControlRec",
        "--task",
        "TestWithCategoryRateLP_50",
    ]
    assert call(["control", "evaluate", str(ran), "--mode", "hard", *few, *brands]) == 0
    (found,) = [Results.from_json(each) for each in json.loads(capsys.readouterr().out)]
    assert found.settings["columns"] == ["brand", "popularity"]
    assert all(line.metrics["obeyed"].value == 1 for line in found.lines)
    assert call(["control", "evaluate", str(ran), "--mode", "free", *few, *some]) == 0
    capsys.readouterr()
    for wrong, told in (
        ([], "Give one of RUN and --endpoint"),
        ([str(ran / "train.all")], "--dataset"),
        ([str(ran), "--task", "SFTTestNothing"], "no test task"),
        ([str(ran), "--mode", "harder"], "harder"),
        ([str(ran), "--columns", "colour"], "no column 'colour'"),
        ([str(ran), "--plain"], "about a server"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--dataset", str(ran)], "--model"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--model", "m"], "knows no users"),
        ([str(ran), "-s", "topk=60", *some[2:]], "can't ask any request"),
    ):
        assert call(["control", "evaluate", *wrong, "--users", "2"]) == 2, wrong
        assert told in capsys.readouterr().err, wrong


@pytest.mark.parametrize("way", [[], ["--written"]], ids=["ranked", "written"])
def test_any_column_can_be_asked_for_and_turns_follow_each_other(
    ran: Path, way: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = Dataset.load(ran / "data")
    user = str(data.sequences.users[0])
    brand = data.items[c.BRAND].value_counts(sort=True)[c.BRAND][0]
    brands = dict(zip(data.item_ids, data.items[c.BRAND].to_list(), strict=True))
    capsys.readouterr()
    command = ["recommend", str(ran), "--user", user, "-k", "4", "--json", *way]
    assert call([*command, "--want", f"brand={brand}", "--avoid", "popularity=low"]) == 0
    found = [item["item_id"] for item in json.loads(capsys.readouterr().out)["items"]]
    labels = Labels.of(data, ["popularity"])
    low, high = (
        {data.item_ids[row] for row in labels.rows(f"popularity={third}")} for third in ("low", "high")
    )
    assert {brands[item] for item in found} == {brand}
    assert not set(found) & low
    first = recommend_list(ran, want=Want(count=4), user=user, mode="hard" if way else "ranked")
    had = sum(brands[item.item_id] == brands[first.items[0].item_id] for item in first.items)
    own = brands[first.items[0].item_id]
    assert call([*command, "--turn", f"fewer of brand={own}", "--turn", "only popularity=high"]) == 0
    answer = json.loads(capsys.readouterr().out)
    last = [item["item_id"] for item in answer["items"]]
    assert sum(brands[item] == own for item in last) <= had // 2
    assert set(last) <= high
    assert f"Of 4 items {had} were." in " ".join(answer["notes"])
    assert call([*command, "--turn", "only popularity=high"]) == 0
    turned = json.loads(capsys.readouterr().out)["items"]
    assert call([*command, "--want", "popularity=high"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == turned
    assert call([*command, "--turn", "less Drama"]) == 2
    assert call([*command, "--turn", "fewer of brand=Nobody"]) == 2
    assert "no item has the label" in capsys.readouterr().err


def test_a_server_is_tested_and_failures_stay_in_the_table(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers a third of the users with a list as wanted, a third with nonsense, and refuses a third."""
    names = load_names(ran / "index").texts
    lying = threading.Event()

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        if lying.is_set():
            return 200, {}, {"choices": []}
        if attempt == 1 and len(said(body)) % 2:
            return 503, {"Retry-After": "0"}, {"error": "busy"}
        way = len(said(body)) % 3
        shown = [name for name in names if name in said(body)]
        fresh = [name for name in names if name not in shown]
        if way == 2:
            return 400, {}, {"error": "too long"}
        return completion(
            "\n".join(f"{n}. {name}" for n, name in enumerate(fresh[:4], 1)) if way else "I can't say."
        )

    command = [
        "control",
        "evaluate",
        "--dataset",
        str(ran),
        "--model",
        "org/m",
        "--users",
        "30",
        "-s",
        "topk=4",
    ]
    command += ["-k", "4", "--task", "SFTTestSeqRec", "--json", "-o", str(tmp_path), "--endpoint"]
    capsys.readouterr()
    with serving(reply) as server:
        assert call([*command, server.url]) == 0
        (found,) = [Results.from_json(each) for each in json.loads(capsys.readouterr().out)]
        (line,) = found.lines
        kinds = Counter(len(text) % 3 for text in server.asked)
        assert sum(kinds.values()) == line.asked  # every user has a history of their own
        assert len(kinds) == 3
        assert line.failed == line.asked - kinds[1]
        assert line.metrics["count_correct"].value == pytest.approx(kinds[1] / line.asked)
        assert line.metrics["non_existing@4"].value == pytest.approx(1 - kinds[1] / line.asked)
        assert all(body["temperature"] == 0 for body in server.bodies)
        assert {"free"} == {line.way}
        assert Results.load(tmp_path / "org_m.json") == found
        asked = Counter(server.asked)
        assert call([*command, server.url]) == 0  # but those that were refused are not asked again
        assert {text for text in asked if server.asked[text] > asked[text]} == {
            t for t in asked if len(t) % 3 == 2
        }
        obeys = [
            "--task",
            "SFTTestPersonalCategoryRateMP_30",
            "--unwanted",
            "history",
            "--price",
            "--users",
            "20",
        ]
        capsys.readouterr()
        assert call([*command, server.url, *obeys]) == 0
        _, price = [Results.from_json(each) for each in json.loads(capsys.readouterr().out)]
        assert [line.way for line in price.lines] == [
            "no control",
            "free",
        ]  # nobody else's ranking is filtered
        lying.set()
        assert call([*command, server.url, "--seed", "1", "--users", "40"]) == 2
        assert "no chat completion" in capsys.readouterr().err
    nobody = [*command, "http://127.0.0.1:9/v1", "--retries", "0", "--users", "31"]
    assert call(nobody) == 2
    assert "can't be reached" in capsys.readouterr().err


def test_wants_as_commands_say_them() -> None:
    want = read_want(4, ["A"], ["B"], ["brand=Nike<=.5", "C=25%", "D >= 1"])
    parts = (PartOf("brand=Nike", "at most", 0.5), PartOf("C", "about", 0.25), PartOf("D", "at least", 1.0))
    assert want == Want(count=4, wanted=("A",), unwanted=("B",), shares=parts)
    for wrong in (["Drama"], ["=.5"], ["Drama=1.5"]):
        with pytest.raises(ConfigError):
            read_want(4, [], [], wrong)
    with pytest.raises(ConfigError, match="is wanted as well"):
        read_want(4, ["A"], ["A"], [])


def test_a_recipe_without_a_teacher_and_with_wrong_options_is_told(tmp_path: Path) -> None:
    text = CONTROL.replace(TASKS.splitlines()[0] + "\n", "").replace("topk: 4", "topk: 0, width: 3")
    with pytest.raises(RecipeError) as told:
        check_recipe(write_recipe(tmp_path, text))
    assert str(told.value).count("add teacher: true") == 3
    assert "is the teacher's, and the recipe has none" in str(told.value)
    assert "topk" in str(told.value)
    assert "width" in str(told.value)
    random = CONTROL.replace(TASKS.splitlines()[0] + "\n", "").replace("SFTSeqRec,", "SFTControlRec,")
    random = random.replace("SFTPersonalControlRec", "SFTCategoryRate").replace(
        "unwanted: teacher", "unwanted: own"
    )
    check_recipe(write_recipe(tmp_path, random))
