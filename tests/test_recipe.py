"""Recipes: every fault at once with its line, overrides, variables, and names that the rooms really know."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from itemic.data.settings import FilterRule
from itemic.errors import ArtifactError
from itemic.recipe import RecipeError, check_recipe, dump_recipe, load_recipe, read_resolved, schema
from itemic.recipe.inputs import conversation_inputs
from itemic.recipe.tasks import TASK_OPTIONS, TaskOptions, options_of
from itemic.tasks import Conversations
from itemic.training.language.stage import Stage

TINY = """\
name: tiny
data:
  simulate: {users: 60}
model:
  preset: qwen3-pico
tasks:
  - task: C
stages:
  - name: one
    epochs: 2
evaluate:
  beams: 20
  k: [5, 10]
"""


def write(folder: Path, text: str = TINY) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def faults(file: Path, *overrides: str) -> dict[str, str]:
    """Place → key and problem of every fault."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, overrides)
    return {f"{fault.place} {'.'.join(map(str, fault.path))}": fault.problem for fault in caught.value.faults}


def test_a_sound_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert recipe.name == "tiny"
    assert recipe.evaluate.k == [5, 10]
    assert recipe.data.split == {}  # as the source has it
    assert recipe.stages == [Stage(name="one", epochs=2)]


def test_five_faults_are_all_told_with_their_lines(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """\
name: tiny
data:
  format: leter
  path: /nowhere/at/all
model:
  presett: qwen3-pico
tasks:
  - task: C
stages:
  - name: one
    epochs: two
evaluate:
  beams: 5
  k: [5, 10]
""",
    )
    found = faults(file)
    assert found == {
        f"{file}:3 data.format": "unknown format 'leter'; did you mean 'letter'?",
        f"{file}:4 data.path": "there is nothing at /nowhere/at/all",
        f"{file}:6 model.presett": "unknown key; did you mean 'preset'?",
        f"{file}:11 stages.0.epochs": "is 'two': input should be a valid integer",
        f"{file}:13 evaluate.beams": "5 beams can't rank k = 10 items",
    }


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        ({"name": "a/b"}, "1 name", "should match pattern"),
        ({"model": {}}, "2 model", "needs one of preset"),
        (
            {"data": {"format": "letter", "path": ".", "options": {"missing_text": "drop"}}},
            "6 data.options.missing_text",
            "in data itself",
        ),
        (
            {"data": {"format": "letter", "path": ".", "options": {"seed": 1}}},
            "6 data.options.seed",
            "at the top of the recipe",
        ),
        ({"model": {"preset": "qwen3-nan"}}, "3 model.preset", "did you mean 'qwen3-nano'?"),
        ({"model": {"preset": "qwen3-nano", "tie": True}}, "4 model.tie", "no meaning beside preset"),
        ({"model": {"preset": "qwen3-nano", "init": "moments"}}, "4 model.init", "unknown init"),
        (
            {"model": {"preset": "qwen3-nano", "overrides": {"layer": 2}}},
            "5 model.overrides.layer",
            "'layers'?",
        ),
        ({"model": {"base": "./no"}}, "3 model.base", "there is nothing at ./no"),
        ({"index": {"levels": [8]}}, "3 index.levels", "sizes of 2 to 8 levels"),
        ({"index": {"levels": [8] * 9}}, "3 index.levels", "sizes of 2 to 8 levels"),
        ({"index": {"levels": [8, 1]}}, "5 index.levels.1", "greater than or equal to 2"),
        ({"index": {"collisions": "reasign"}}, "3 index.collisions", "did you mean 'reassign'?"),
        ({"index": {"import": "/no"}}, "3 index.import", "there is nothing at /no"),
        ({"index": {"import": ".", "encoder": "lsa"}}, "4 index.encoder", "no meaning beside import"),
        ({"index": {"import": ".", "collisions": "reassign"}}, "4 index.collisions", "needs item vectors"),
        ({"tasks": [{"task": "Z"}]}, "3 tasks.0.task", "unknown task 'Z'"),
        ({"tasks": [{"task": "C", "max_item": 9}]}, "4 tasks.0.max_item", "did you mean 'max_items'?"),
        ({"tasks": [{"task": "C", "windows": [0]}]}, "5 tasks.0.windows.0", "is 0"),
        (
            {"tasks": [{"task": "C"}, {"task": "A", "kinds": ["titel"]}]},
            "6 tasks.1.kinds.0",
            "should be 'title'",
        ),
        (
            {"tasks": [{"task": "C"}, {"task": "B", "kinds": ["title"] * 2}]},
            "5 tasks.1.kinds",
            "names one twice",
        ),
        (
            {"tasks": [{"task": "C"}, {"task": "rationale", "says": ["why"]}]},
            "6 tasks.1.says.0",
            "should be 'category'",
        ),
        ({"tasks": []}, "2 tasks", "at least 1 item"),
        ({"tasks": [{"task": "A"}]}, "evaluate.task", "'C' is not among the tasks that are trained: A"),
        ({"stages": [{"epoch": 1}]}, "3 stages.0.epoch", "did you mean 'epochs'?"),
        ({"stages": [{"train": "head"}]}, "3 stages.0.train.what", "should be 'all', 'embeddings'"),
        ({"stages": [{"epochs": 1, "steps": 1}]}, "4 stages.0.steps", "and epochs as well"),
        ({"stages": [{"epochs": 1}, {"epochs": 1}]}, "4 stages.1.name", "the name of an earlier stage"),
        ({"stages": [{"name": "../x"}]}, "3 stages.0.name", "can't name a folder"),
        ({"stages": [{"validation": {"task": "Q"}}]}, "4 stages.0.validation.task", "unknown task 'Q'"),
        ({"stages": [{"schedule": {"warmup": -1}}]}, "4 stages.0.schedule.warmup", "is -1: input should be"),
        ({"stages": [{"schedule": "cosin"}]}, "3 stages.0.schedule.name", "did you mean 'cosine'?"),
        ({"stages": [{"warmup": 0.1}]}, "3 stages.0.warmup", "is schedule.warmup now"),
        ({"stages": [{"learning_rate": "1e-3 "}]}, "3 stages.0.learning_rate", "should be a valid number"),
        (
            {"stages": [{"schedule": {"min_lr": 1}}]},
            "4 stages.0.schedule.min_lr",
            "above learning_rate 0.001",
        ),
        ({"data": {"simulate": {}, "split": {"ratios": [0.5, 0.5]}}}, "split.ratios.2", "is missing"),
        ({"evaluate": {"memory": {"window": 0}}}, "4 evaluate.memory.window", "is 0: input should be"),
        ({"evaluate": {"memory": {"windw": 1}}}, "4 evaluate.memory.windw", "did you mean 'window'?"),
        ({"evaluate": {"beams": "20"}}, "3 evaluate.beams", "should be a valid integer"),
        ({"distribution": {"strategy": "deepspeed"}}, "2 distribution.config", "go together"),
        ({"data": {"simulate": {"user": 3}}}, "4 data.simulate.user", "did you mean 'users'?"),
        ({"data": {"simulate": {"users": 0}}}, "4 data.simulate.users", "is 0: input should be"),
        ({"data": {"simulate": {}, "path": "."}}, "4 data.path", "no meaning beside simulate"),
        ({"data": {"format": "letter"}}, "2 data", "needs a format and a path"),
        (
            {"data": {"simulate": {}, "split": {"method": "leave-two-out"}}},
            "5 data.split.method",
            "leave-one-out",
        ),
        ({"data": {"simulate": {}, "split": {"ratios": [0.5, 0.1, 0.1]}}}, "5 data.split.ratios", "not to 1"),
        (
            {"data": {"simulate": {}, "filters": {"user_core": 5}}},
            "5 data.filters.user_core",
            "'user_k_core'?",
        ),
        (
            {"data": {"simulate": {}, "filters": {"duplicates": "no"}}},
            "5 data.filters.duplicates",
            "is 'no'",
        ),
        ({"evaluate": {"split": "train"}}, "3 evaluate.split", "'valid' or 'test'"),
        (
            {"evaluate": {"baselines": ["pop"]}},
            "4 evaluate.baselines.0",
            "known are popularity, last-item, transitions",
        ),
        (
            {"evaluate": {"published": [{"name": "x", "metrics": {"auc": 1}, "source": "y"}]}},
            "6 evaluate.published.0.metrics.auc",
            "is no metric",
        ),
    ],
)
def test_each_fault_is_told_where_it_stands(
    tmp_path: Path, change: dict[str, Any], place: str, problem: str
) -> None:
    value = yaml.safe_load(TINY)
    rest = {key: each for key, each in value.items() if key not in change}
    text = yaml.safe_dump(change, sort_keys=False) + yaml.safe_dump(rest, sort_keys=False)
    if "name" not in change:
        text = yaml.safe_dump({"name": rest.pop("name")}) + yaml.safe_dump(change, sort_keys=False)
        text += yaml.safe_dump(rest, sort_keys=False)
    found = faults(write(tmp_path, text))
    matching = [key for key, each in found.items() if key.endswith(place) and problem in each]
    assert matching, found
    assert len(found) == 1, found


def test_broken_yaml_and_missing_files(tmp_path: Path) -> None:
    file = write(tmp_path, "name: [tiny\ndata: {}\n")
    assert "not valid YAML" in next(iter(faults(file).values()))
    assert faults(tmp_path / "no.yaml") == {
        f"{tmp_path / 'no.yaml'} ": "can't be read: No such file or directory"
    }
    assert "is a mapping of keys" in next(iter(faults(write(tmp_path, "- a\n")).values()))
    assert "comes twice (again in line 2)" in next(
        iter(faults(write(tmp_path, "name: a\nname: b\n")).values())
    )
    assert "refers to itself" in next(iter(faults(write(tmp_path, "data: &a {x: *a}\n")).values()))
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    assert "can't be read" in next(iter(faults(tmp_path / "latin.yaml").values()))


def test_missing_sections_are_told(tmp_path: Path) -> None:
    found = faults(write(tmp_path, "name: x\n"))
    assert {key.split()[-1]: problem for key, problem in found.items()} == {
        "model": "is missing",
        "stages": "is missing",
        "tasks": "is missing: give tasks (which need data), conversations, or both",
    }


def test_overrides_reach_mappings_and_lists(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path),
        [
            "stages.0.epochs=5",
            "evaluate.beams=100",
            "index.levels=[16, 16]",
            "stages.0.learning_rate=1e-4",
            "seed=3",
        ],
    )
    assert recipe.stages[0] == Stage(name="one", epochs=5, learning_rate=1e-4)
    assert (recipe.evaluate.beams, recipe.index.levels, recipe.seed) == (100, [16, 16], 3)


def test_overrides_of_parts_that_are_bare_words(tmp_path: Path) -> None:
    text = TINY.replace("epochs: 2", "train: {what: all, rank: 8}\n    schedule: linear")
    overrides = ["stages.0.schedule.warmup=0.1", "stages.0.train=lora", "stages.0.optimizer=muon"]
    stage = load_recipe(write(tmp_path, text), overrides).stages[0]
    assert (stage.schedule.name, stage.schedule.warmup) == ("linear", 0.1)
    assert (stage.train.what, stage.train.rank) == ("lora", 8)
    assert stage.optimizer.name == "muon"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed", "an override is KEY=VALUE"),
        (".a=1", "an override is KEY=VALUE"),
        ("stages.1.epochs=2", "is a list of 1; use a number from 0 to 0"),
        ("stages.one.epochs=2", "is a list of 1"),
        ("name.x=2", "name is a single value"),
        ("seed=[", "not valid YAML"),
        ("seed=-1", "greater than or equal to 0"),
        ("stages.0.epoch=2", "did you mean 'epochs'?"),
        ("stages.0.validate_every=2", "is validation.every now"),
        ("stages.0.schedule.warmpu=2", "did you mean 'warmup'?"),
    ],
)
def test_a_faulty_override_is_named_as_one(tmp_path: Path, override: str, problem: str) -> None:
    ((place, told),) = faults(write(tmp_path), override).items()
    assert place.startswith(f"-s {override}")
    assert problem in told


def test_variables_have_values_or_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TINY.replace("simulate: {users: 60}", "{format: letter, path: '${PLACE:-/no/where}/x'}")
    monkeypatch.setenv("PLACE", str(tmp_path))
    (tmp_path / "x").mkdir()
    assert load_recipe(write(tmp_path, text)).data.path == f"{tmp_path}/x"
    monkeypatch.setenv("PLACE", "")
    assert (
        "there is nothing at /no/where/x; set PLACE to where it is" in faults(write(tmp_path, text)).values()
    )
    told = faults(write(tmp_path, TINY.replace("tiny", "${NOT_SET_ANYWHERE}")))
    problem = "the environment variable NOT_SET_ANYWHERE is not set and has no default"
    assert told == {f"{tmp_path / 'recipe.yaml'}:1 name": problem}


def test_numbers_and_dates_mean_what_they_look_like(tmp_path: Path) -> None:
    text = TINY.replace("simulate: {users: 60}", "{simulate: {}, filters: {start: 2016-10-01}}")
    recipe = load_recipe(write(tmp_path, text), ["stages.0.schedule.min_lr=1e-5"])
    assert recipe.data.filters == FilterRule(start="2016-10-01")
    assert recipe.stages[0].schedule.min_lr == 1e-5


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    text = TINY.replace(
        "  - name: one\n    epochs: 2\n", "  - &first {name: one, epochs: 2}\n  - {<<: *first, name: two}\n"
    )
    assert load_recipe(write(tmp_path, text)).stages[1] == Stage(name="two", epochs=2)


def test_the_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path), ["stages.0.learning_rate=3e-5", "index.levels=[4,4]"])
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert read_resolved(tmp_path / "again.yaml") == recipe
    (tmp_path / "again.yaml").write_text("name: [", encoding="utf-8")
    with pytest.raises(ArtifactError, match="not a run's recipe"):
        read_resolved(tmp_path / "again.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(
        ["data", "index", "model", "tasks", "stages", "evaluate", "seed", "name", "conversations"]
    ),
    st.sets(st.sampled_from(["data", "index", "tasks", "evaluate"])),
)
def test_no_value_breaks_the_checker(
    tmp_path_factory: pytest.TempPathFactory, value: Any, section: str, absent: set[str]
) -> None:
    """Whatever stands in a section, or is missing, the recipe is sound or has faults; nothing else is raised."""
    recipe = {key: each for key, each in yaml.safe_load(TINY).items() if key not in absent} | {section: value}
    file = tmp_path_factory.mktemp("any") / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with suppress(RecipeError):
        load_recipe(file)


def test_names_are_those_of_the_rooms() -> None:
    from itemic.data.readers import READERS
    from itemic.evaluate.baselines import BASELINES
    from itemic.model.build import INITS
    from itemic.model.expand import INITS as EXPAND_INITS
    from itemic.sid.collisions import COLLISIONS
    from itemic.sid.encoders import ENCODERS
    from itemic.sid.format import TOKEN_FORMATS
    from itemic.sid.quantizers import QUANTIZERS

    assert set(schema.FORMATS) == {"auto", *READERS}
    assert set(schema.ENCODERS) == {"auto", *ENCODERS}
    assert set(schema.QUANTIZERS) == set(QUANTIZERS)
    assert set(schema.COLLISIONS) == set(COLLISIONS)
    assert set(schema.TOKEN_FORMATS) == set(TOKEN_FORMATS)
    assert set(schema.NEW_INITS) == set(INITS)
    assert set(schema.EXPAND_INITS) == set(EXPAND_INITS)
    assert set(schema.BASELINES) == set(BASELINES)


def test_task_options_and_defaults_are_the_room_s() -> None:
    from itemic.control.tasks.table import CONTROL_TASKS
    from itemic.recipe.control import ASK_TEACHER, CONTROL_OPTIONS
    from itemic.tasks import TASKS

    assert set(TASK_OPTIONS) == set(TASKS)
    assert set(CONTROL_OPTIONS) == set(CONTROL_TASKS)
    assert set(ASK_TEACHER) == {name for name, task in CONTROL_TASKS.items() if task.asks_teacher}
    for name, task in (TASKS | CONTROL_TASKS).items():
        theirs = {
            key: list(value) if isinstance(value, tuple) else value for key, value in vars(task).items()
        }
        fields = {field.name for field in dataclasses.fields(task)}
        assert options_of(name, TASK_OPTIONS | CONTROL_OPTIONS) == {key: theirs[key] for key in fields}, name
    assert set(TaskOptions.model_fields) == {
        "task",
        "source",
        "limit",
        "weight",
        "seed",
        "templates",
        "system",
    }


def test_checking_a_recipe_imports_nothing_heavy(tmp_path: Path) -> None:
    """What makes ``itemic check`` instant, for a recipe with every kind of section."""
    file = write(tmp_path, TINY.replace("{users: 60}", "{users: 60}\n  filters: {user_k_core: 3}"))
    code = f"import sys; from itemic.cli.app import call; call(['check', {str(file)!r}]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "is sound" in done.stdout
    assert not {"torch", "transformers", "polars", "numpy", "rich"} & set(done.stdout.split())


# ------------------------------------------------------------ conversation files

FILES = """\
name: files
index:
  levels: [8, 8]
model:
  preset: qwen3-pico
conversations:
  files: {files}
stages:
  - name: one
"""


def test_conversation_files_are_enough(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    recipe = load_recipe(write(tmp_path, FILES.replace("{files}", str(tmp_path / "*.parquet"))))
    assert recipe.conversations is not None
    assert recipe.conversations.files == [str(tmp_path / "*.parquet")]
    assert (recipe.data, recipe.tasks) == (None, [])
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert read_resolved(tmp_path / "again.yaml") == recipe


def test_all_that_conversation_files_can_lack_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps(["/no/1.parquet", "s3://no/2.parquet", "/no/3.parquet"]))
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "nested.json").write_text(json.dumps([f"{tmp_path}/broken.json", f"{tmp_path}/nested.json"]))
    lists = [f"{tmp_path}/{name}.json" for name in ("list", "broken", "nested")]
    names = ["/no/where", "/no/*.parquet", *lists, "s3://a/b", "s3://a/list.json"]
    found = faults(write(tmp_path, FILES.replace("{files}", json.dumps(names))))
    told = {key.split()[-1]: problem for key, problem in found.items()}
    assert told == {
        "conversations.files.4": f"{tmp_path}/nested.json lists itself",
        "conversations.files.0": "there is nothing at /no/where",
        "conversations.files.1": "there is nothing at /no/*.parquet",
        "conversations.files.2": f"{tmp_path}/list.json lists files that are not there: /no/1.parquet and 1 more",
        "conversations.files.3": f'{tmp_path}/broken.json: is no list of paths, ["a.parquet", …]',
    }


def test_all_that_needs_data_is_told_at_once(tmp_path: Path) -> None:
    text = """\
name: files
index: {encoder: lsa, collisions: rank}
model: {base: ., init: text}
conversations: {files: .}
tasks:
  - task: C
stages:
  - {name: one, validation: {every: 3, samples: 2}}
evaluate: {beams: 30}
"""
    told = {key.split()[-1] for key in faults(write(tmp_path, text))}
    keys = {"tasks", "evaluate", "index", "index.encoder", "index.collisions", "model.init"}
    assert told == keys | {"stages.0.validation.every", "stages.0.validation.samples"}


def test_an_imported_index_may_resolve_collisions_without_data(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").touch()
    text = FILES.replace("{files}", str(tmp_path / "t.parquet"))
    imported = f"{{import: {tmp_path}/t.parquet, collisions: rank}}"
    load_recipe(write(tmp_path, text.replace("\n  levels: [8, 8]", f" {imported}")))


def test_files_at_the_default_of_a_variable_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILES.replace("{files}", "'${MY_TALK:-/no/where}/*.parquet'")
    monkeypatch.delenv("MY_TALK", raising=False)
    recipe, waiting = check_recipe(write(tmp_path, text))
    assert recipe.name == "files"
    (fault,) = waiting
    assert fault.problem == "there is nothing at /no/where/*.parquet; set MY_TALK to where it is"
    assert fault.place == f"{tmp_path / 'recipe.yaml'}:7"
    with pytest.raises(RecipeError, match="set MY_TALK to where it is"):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError) as caught:  # a fault of another kind tells both
        check_recipe(tmp_path / "recipe.yaml", ["stages.0.epoch=1"])
    assert len(caught.value.faults) == 2
    monkeypatch.setenv("MY_TALK", "/not/there/either")
    with pytest.raises(RecipeError) as caught:  # said outright: a fault
        check_recipe(tmp_path / "recipe.yaml")
    assert caught.value.faults[0].problem == "there is nothing at /not/there/either/*.parquet"


@given(st.permutations(["b", "a", "c"]), st.booleans())
def test_lists_globs_and_folders_name_their_files(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], nested: bool
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for name in names:
        (folder / f"{name}.parquet").touch()
    paths = [str(folder / f"{name}.parquet") for name in names]
    (folder / "list.json").write_text(json.dumps(paths))
    (folder / "lists.json").write_text(json.dumps([str(folder / "list.json"), "s3://x/y.parquet"]))
    assert conversation_inputs(str(folder / "*.parquet")) == sorted(paths)
    assert conversation_inputs(str(folder)) == [str(folder)]
    expected = [*paths, "s3://x/y.parquet"] if nested else paths
    assert conversation_inputs(str(folder / ("lists.json" if nested else "list.json"))) == expected
    local = [path for path in expected if "://" not in path]
    assert Conversations.open(folder / "list.json").parts == local
