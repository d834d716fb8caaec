"""Whole runs with tasks of control, and lists that are asked of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from itemic import schema as c
from itemic.cli.app import call
from itemic.control.want import PartOf, Want
from itemic.data import Dataset
from itemic.errors import ConfigError, ConstraintError
from itemic.pipeline.wanted import read_want, recommend_list
from itemic.recipe import RecipeError, check_recipe
from tests.runs import RECIPE, write_recipe

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
    assert call([*command, "--avoid", heads[0], "--share", f"{heads[1]}=.5"]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = [item["item_id"] for item in answer["items"]]
    assert len(set(found)) == 6
    seen = {data.item_ids[row] for row in users[0]}
    assert not seen & set(found)
    first = dict(zip(data.item_ids, data.items[c.CATEGORIES].list.first().to_list(), strict=True))
    assert [first[item] for item in found].count(heads[1]) == 3
    assert heads[0] not in {first[item] for item in found}
    assert all(item["score"] < 0 for item in answer["items"])
    soft = recommend_list(ran, want=Want(count=4), user=str(users.users[0]), soft=True)
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
    with pytest.raises(ConstraintError, match="40 items are wanted"):
        recommend_list(ran, want=Want(count=40), user=str(users.users[0]))
    with pytest.raises(ConfigError, match="a user or a history"):
        recommend_list(ran, want=Want(count=4))


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
    assert str(told.value).count("add teacher: true") == 2
    assert "topk" in str(told.value)
    assert "width" in str(told.value)
    random = CONTROL.replace(TASKS.splitlines()[0] + "\n", "").replace("SFTSeqRec,", "SFTControlRec,")
    random = random.replace("SFTPersonalControlRec", "SFTCategoryRate")
    check_recipe(write_recipe(tmp_path, random))
