"""Runs on conversation files that others made: without data, and beside what tasks build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from itemic.artifact import read_manifest
from itemic.cli.app import call
from itemic.errors import ArtifactError
from itemic.model import Model
from itemic.model.check import check_model
from itemic.pipeline import Run
from itemic.pipeline.recommend import recommend_one
from itemic.recipe import load_recipe
from itemic.sid.index import ItemIndex
from tests.model.helpers import family_folder

ALONE = """\
name: alone
index: {levels: [8, 8]}
model:
  preset: qwen3-pico
  vocab_size: 400
  overrides: {hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, head_dim: 16, intermediate_size: 32}
conversations:
  files: [FOLDER/list.json, FOLDER/general]
stages:
  - {name: rows, train: embeddings, steps: 2, data: {tokens_per_step: 256, sources: {general: 0.5}}}
  - {name: all, epochs: 1, data: {tokens_per_step: 256}, objective: {supervise: everything}}
"""


def talk(source: str, count: int, layers: str = "ab") -> pl.DataFrame:
    """OpenOneRec's columns, as its own files have them."""
    rows = []
    for number in range(count):
        codes = "".join(f"<s_{layer}_{number // 8**level % 8}>" for level, layer in enumerate(layers))
        sid = f"<|sid_begin|>{codes}<|sid_end|>"
        said = [
            {"role": "user", "content": [{"type": "text", "text": f"after {number}?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": sid}]},
        ]
        text = [{"type": "text", "text": f"{sid} and what {source} says of {number}"}]
        plain = number % 3 == 0
        rows.append(
            {
                "uuid": f"{source}-{number}",
                "source": source,
                "messages": None if plain else json.dumps(said),
                "segments": json.dumps(text) if plain else None,
                "metadata": "{}",
            }
        )
    return pl.DataFrame(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "general").mkdir()
    talk("general", 40).write_parquet(tmp_path / "general" / "part.parquet")
    talk("items", 30).write_parquet(tmp_path / "items.parquet")
    (tmp_path / "list.json").write_text(json.dumps([str(tmp_path / "items.parquet")]))
    (tmp_path / "alone.yaml").write_text(ALONE.replace("FOLDER", str(tmp_path)))
    return tmp_path


def run(folder: Path, *arguments: str) -> int:
    return call(["run", str(folder / "alone.yaml"), "-o", str(folder / "run"), *arguments])


def test_files_and_codes_alone(folder: Path) -> None:
    assert run(folder) == 0
    root = folder / "run"
    steps = ["index", "model", "train.rows", "train.all"]
    assert sorted(path.name for path in root.iterdir() if (path / "manifest.json").is_file()) == sorted(steps)
    model = Model.load(root / "train.all")
    assert len(model.index) == 0
    assert model.index.digest == ItemIndex.of_codes((8, 8)).digest
    record = json.loads((root / "train.all" / "training.json").read_text())
    assert record["rows"]["sources"] == {"general": 40, "items": 30}
    assert not list(folder.glob("*.tokens"))  # nothing is left beside files that aren't ours
    with pytest.raises(ArtifactError, match="without data"):
        recommend_one(root, items=["1"])


def test_changed_files_are_seen_and_moved_ones_do_not_matter(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(folder) == 0
    before = read_manifest(folder / "run" / "train.all")
    assert before is not None
    given = [name for name in before.inputs if name.startswith("conversations ")]
    assert given == [f"conversations {folder}/list.json", f"conversations {folder}/general"]
    shutil.move(folder / "items.parquet", folder / "moved.parquet")
    (folder / "list.json").write_text(json.dumps([str(folder / "moved.parquet")]))
    assert run(folder, "--dry-run") == 0
    assert "input conversations" not in capfd.readouterr().out
    talk("general", 41).write_parquet(folder / "general" / "part.parquet")
    assert run(folder, "--dry-run") == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert f"input conversations {folder}/general changed" in shown


def test_files_beside_what_tasks_build(folder: Path) -> None:
    """A catalogue's conversations and general text in one stage, evaluated as ever."""
    more = f"conversations: {{files: {folder}/general}}\n"
    from tests.runs import RECIPE

    (folder / "tiny.yaml").write_text(RECIPE + more)
    found = load_recipe(
        folder / "tiny.yaml", ["stages.1.epochs=1", "stages.1.data.sources={A: 0.5, general: 2}"]
    )
    plan = Run(found, folder / "both").execute()
    assert [planned.step.name for planned in plan][-3:] == ["train.all", "evaluate", "report"]
    record = json.loads((folder / "both" / "train.all" / "training.json").read_text())
    assert record["rows"]["sources"]["general"] == 40
    assert {"A", "C"} <= set(record["rows"]["sources"])


def test_a_run_on_items_begins_with_the_rows_of_a_run_on_codes(folder: Path) -> None:
    """Pretraining on codes alone, then a table of items under these codes: the rows are gone on with."""
    assert run(folder, "--until", "train.rows") == 0
    table = pl.DataFrame({"pid": [4, 9, 2], "sid": [[0, 0], [3, 1], [7, 7]]})
    table.write_parquet(folder / "pid2sid.parquet")
    text = ALONE.replace("FOLDER", str(folder)).replace(
        "{levels: [8, 8]}", f"{{import: {folder}/pid2sid.parquet, levels: [8, 8]}}"
    )
    head, _, rest = text.partition("model:\n")
    rest = rest.partition("conversations:")[2]
    base = f"model: {{base: {folder}/run/train.rows}}\nconversations:"
    (folder / "alone.yaml").write_text(head + base + rest)
    assert call(["run", str(folder / "alone.yaml"), "-o", str(folder / "next"), "--until", "model"]) == 0
    first, second = Model.load(folder / "run/train.rows"), Model.load(folder / "next/model")
    assert second.index.item_ids == ["4", "9", "2"]
    for name, weight in first.lm.named_parameters():
        rows = second.lm.get_parameter(name)
        assert (rows[: len(weight)] == weight).all(), name


def test_a_catalogue_with_no_tasks_but_conversations_of_others(folder: Path) -> None:
    """The files teach, the catalogue's users are asked: with a task's defaults, as no entry says others."""
    text = ALONE.replace("FOLDER", str(folder)).replace("name: alone", "name: asked")
    market = "data: {simulate: {users: 30, items: 24, categories: 4, brands: 4, shortest: 4, longest: 8}}\n"
    (folder / "asked.yaml").write_text(f"{text}{market}evaluate: {{beams: 10, k: [5], task: sequence}}\n")
    found = load_recipe(
        folder / "asked.yaml", ["stages.1.validation.every=epoch", "stages.1.validation.beams=10"]
    )
    plan = Run(found, folder / "asked").execute()
    steps = ["data", "index", "model", "train.rows", "train.all", "evaluate", "report"]
    assert [planned.step.name for planned in plan] == steps
    asked = read_manifest(folder / "asked" / "evaluate")
    assert asked is not None
    assert asked.config["task"] == {"task": "sequence"}


def test_the_shipped_stages_run_one_after_the_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenOneRec's three recipes as they are, but for sizes: each begins with the model that the one before left."""
    monkeypatch.chdir(folder)
    talk("general", 40, "abc").write_parquet(folder / "general" / "part.parquet")
    base = family_folder(folder, "qwen3")
    (folder / "files.json").write_text(json.dumps(["general/part.parquet"]))
    for name in ("DATA", "GENERAL", "SFT"):
        monkeypatch.setenv(f"OPENONEREC_{name}", "files.json")
    monkeypatch.setenv("OPENONEREC_BASE", str(base))
    for name in ("STAGE1", "STAGE2"):
        monkeypatch.delenv(f"OPENONEREC_{name}", raising=False)
    sizes = {
        "data.max_length": 128,
        "data.block_tokens": 256,
        "data.tokens_per_step": 512,
        "schedule.steps": 3,
        "schedule.warmup": 1,
    }
    smaller = [f"stages.0.{key}={value}" for key, value in (sizes | {"epochs": 1}).items()]
    changes = [word for each in (*smaller, "index.levels=[8,8,8]") for word in ("-s", each)]
    models = {}
    for name in ("stage1", "stage2", "sft"):
        recipe = f"openonerec-{name}"
        assert call(["run", str(recipe), *changes]) == 0
        models[name] = Model.load(folder / "runs" / f"openonerec-{name}" / f"train.{name}")
        begun = Model.load(folder / "runs" / f"openonerec-{name}" / "model")
        first, stop = begun.new_token_range
        for key, weight in models[name].lm.named_parameters():
            same = weight == begun.lm.get_parameter(key)
            if name == "stage1" and "embed_tokens" in key:
                assert same[:first].all()
                assert same[stop:].all()
                assert not same[first:stop].all()
            elif name == "stage1":
                assert same.all(), key
            else:
                assert not same.all(), key
        assert models[name].think_pattern == (name == "sft")
        assert all(proof.ok for proof in check_model(folder / f"runs/openonerec-{name}/train.{name}"))
    for before, after in (("stage1", "stage2"), ("stage2", "sft")):
        begun = Model.load(folder / "runs" / f"openonerec-{after}" / "model")
        for key, weight in models[before].lm.named_parameters():
            assert (begun.lm.get_parameter(key) == weight).all(), key
