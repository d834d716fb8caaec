"""Runs that describe users in words: their steps, their tables, their page, and what their recipes can't ask for."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from itemic.cli.app import call
from itemic.errors import ArtifactError, ConfigError
from itemic.pipeline import Run
from itemic.pipeline.profiles import Told, described_job, evaluate_profiles, models_of, profile_results
from itemic.pipeline.steps import last_stage
from itemic.profile.evaluation_settings import ProfileTests
from itemic.profile.writer import Writer
from itemic.recipe import RecipeError, load_recipe
from itemic.recipe.check import check_recipe
from tests.runs import start
from tests.sid.encoders.models import bert

RECIPE = """\
name: told
data:
  simulate: {users: 60, items: 40, categories: 4, brands: 6, shortest: 4, longest: 8}
teacher: {epochs: 1, model: {width: 16, inner: 16, max_length: 6, layers: 1, heads: 1}}
profile:
  sessions: {inputs: 3, split: dataset, each: every, least: 1}
  words: {fields: [title], instruction: "Likes?\\n", max_tokens: 96}
  writer:
    preset: qwen3-pico
    vocab_size: 600
    max_length: 128
    overrides: {hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, head_dim: 16, intermediate_size: 32}
    taught: {steps: 20, learning_rate: 1.0e-2, data: {tokens_per_step: 512}}
  embedder: {model: BERT, max_length: 32, fields: [title]}
  turns:
    iterations: 2
    count: 16
    embedder: {learning_rate: 1.0e-3, data: {pairs_per_batch: 8, pairs_per_step: 8}, checkpoints: {every: 1}}
    writer:
      steps: 3
      rollout: {max_new_tokens: 8, epochs: 1}
      data: {prompts_per_step: 4}
      checkpoints: {every: 1}
  evaluate: {users: 20, k: [5, 10], drawing: {max_new_tokens: 8}, items: 2}
evaluate:
  published:
    - {name: somebody, metrics: {ndcg@10: 0.5}, source: a paper}
"""
STEPS = ["data", "teacher", "writer", "writer.taught", "embedder", "turns", "profiles", "report"]


def written(folder: Path, text: str = RECIPE) -> Path:
    file = folder / "told.yaml"
    file.write_text(text.replace("BERT", str(folder / "bert")), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    bert(folder / "bert")
    assert call(["run", str(written(folder)), "-o", str(folder / "run")]) == 0
    return folder


def test_the_steps_and_what_they_leave(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ran / "run"
    job = Run.of(load_recipe(ran / "told.yaml"), root)
    assert [planned.step.name for planned in job.plan()] == STEPS
    assert {planned.reason for planned in job.plan()} == {"up to date"}
    assert call(["run", str(ran / "told.yaml"), "-o", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "trained writer, trained embedder" in shown
    assert "somebody" not in shown or "other data" in shown
    results = profile_results(root)
    assert results is not None
    rows = [row.name for row in results.comparison.rows]
    assert rows[0] == "trained writer, trained embedder"
    assert {"untrained writer, untrained embedder", "sequential teacher", "random"} <= set(rows)
    assert {own.writer for own in results.judged} == {"trained", "untrained"}
    assert results.sessions == 20
    for file in ("comparison.md", "report.html"):
        text = (root / "report" / file).read_text(encoding="utf-8")
        assert "trained writer, trained embedder" in text
        assert "titles of the history, untrained embedder" in text
    # the taught writer, asked by transformers' own template, is the one that turns began with
    writers, embedders = models_of(described_job(root))
    assert [path.name for path in writers.values()] == ["writer", "writer.taught"]
    assert [path.name for path in embedders.values()] == ["embedder", "embedder"]
    before, after = (Writer.load(path).lm.state_dict() for path in reversed(writers.values()))
    assert any(not np.array_equal(before[name].numpy(), after[name].numpy()) for name in before)


def test_the_prompts_fit_the_writer(ran: Path) -> None:
    told = Told.of(described_job(ran / "run"))
    ground = told.ground("train", ran / "run" / "writer")
    assert len(ground.sessions) == len(ground.prompts) > 60
    assert int(ground.prompts.lengths.max()) <= 96
    assert not ground.sessions.labels.any()


def test_a_test_by_command_is_the_steps_own(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = evaluate_profiles(ran / "run", output=tmp_path / "again")
    theirs = profile_results(ran / "run")
    assert theirs is not None
    assert mine.comparison.rows == theirs.comparison.rows
    assert mine.judged == theirs.judged
    valid = evaluate_profiles(
        ran / "run", ProfileTests(users=5, k=(5,), judge=False), split="valid", output=tmp_path / "valid"
    )
    assert valid.sessions == 5
    assert not valid.judged
    assert call(["profile", "evaluate", str(ran / "run"), "--users", "5", "-k", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sessions"] == 5


@pytest.mark.slow
def test_killed_in_its_turns_it_ends_with_the_same_models(ran: Path, tmp_path: Path) -> None:
    root, phase = tmp_path / "run", "turn-001/embedder"
    shutil.copytree(ran / "run", root, ignore=shutil.ignore_patterns("turns", "profiles", "report"))
    victim = start("run", ran / "told.yaml", "-o", root)
    late = time.monotonic() + 120
    while victim.poll() is None and not list(root.glob(f"turns.partial/{phase}/checkpoints/*")):
        assert time.monotonic() < late, f"{phase} never came"
        time.sleep(0.02)
    victim.kill()
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    assert not (root / "turns").is_dir()
    again = start("run", ran / "told.yaml", "-o", root, "--until", "turns")
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert "goes on where it stopped" in " ".join(told.split())
    for name in ("writer", "embedder"):
        mine, theirs = (
            (folder / "turns" / "turn-001" / name / "model.safetensors").read_bytes()
            for folder in (root, ran / "run")
        )
        assert mine == theirs, name


def test_more_turns_go_on_with_those_that_are_there(ran: Path, tmp_path: Path) -> None:
    root, file = tmp_path / "run", tmp_path / "told.yaml"
    text = (ran / "told.yaml").read_text(encoding="utf-8")
    shutil.copytree(ran / "run", root, ignore=shutil.ignore_patterns("turns", "profiles", "report"))
    file.write_text(text.replace("iterations: 2", "iterations: 1"), encoding="utf-8")
    assert call(["run", str(file), "-o", str(root), "--until", "turns"]) == 0
    first = root / "turns" / "turn-000" / "writer"
    before = (first / "training.json").stat().st_ino  # a training writes it anew
    assert not (root / "turns" / "turn-001").exists()
    job = Run.of(load_recipe(ran / "told.yaml"), root)
    reason = next(planned.reason for planned in job.plan() if planned.step.name == "turns")
    assert reason == "iterations was 1, now 2; goes on where it stopped"
    for again in ({"force": True}, {"start": "turns"}):
        forced = next(planned for planned in job.plan(**again) if planned.step.name == "turns")  # type: ignore[arg-type]
        assert (forced.reason, forced.grows) == ("iterations was 1, now 2", None)
    assert call(["run", str(ran / "told.yaml"), "-o", str(root), "--until", "turns"]) == 0
    assert (first / "training.json").stat().st_ino == before
    for name in ("writer", "embedder"):  # of the last turn: models before it are not kept
        mine, theirs = (
            (folder / "turns" / "turn-001" / name / "model.safetensors").read_bytes()
            for folder in (root, ran / "run")
        )
        assert mine == theirs, name
    # fewer of them are other turns, which begin anew
    job = Run.of(load_recipe(file), root)
    reason = next(planned.reason for planned in job.plan() if planned.step.name == "turns")
    assert reason == "iterations was 2, now 1"


def test_without_turns_and_without_tests(ran: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("BERT", str(ran / "bert"))
    short = text[: text.index("  turns:")] + "  turns: null\n  evaluate: null\n"
    file = tmp_path / "short.yaml"
    file.write_text(short, encoding="utf-8")
    root = tmp_path / "run"
    shutil.copytree(ran / "run", root, ignore=shutil.ignore_patterns("turns", "profiles", "report"))
    assert call(["run", str(file), "-o", str(root)]) == 0
    assert not (root / "profiles").is_dir()
    writers, _ = models_of(described_job(root))
    assert list(writers) == ["untrained"]
    assert profile_results(root) is None
    assert (root / "report" / "report.html").is_file()


def test_questions_that_the_run_has_no_answer_to(ran: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no model that names items"):
        last_stage(load_recipe(ran / "told.yaml"))
    assert call(["recommend", str(ran / "run"), "--user", "u1"]) == 2
    with pytest.raises(ArtifactError, match="is not the folder of a run"):
        described_job(tmp_path)
    shutil.copytree(ran / "run", tmp_path / "half", ignore=shutil.ignore_patterns("turns"))
    with pytest.raises(ArtifactError, match="turns is missing"):
        described_job(tmp_path / "half")


@pytest.mark.parametrize(
    ("old", "new", "key", "problem"),
    [
        ("    preset: qwen3-pico\n", "", "profile.writer", "needs one of preset"),
        ("qwen3-pico", "qwen9-pico", "profile.writer.preset", "unknown preset"),
        (
            "steps: 20,",
            "steps: 20, validation: {every: 5},",
            "profile.writer.taught.validation.every",
            "leave it out",
        ),
        ("steps: 20,", "steps: 20, train: embeddings,", "profile.writer.taught.train", "a writer has none"),
        ("    taught: {", "    taughtt: {", "profile.writer.taughtt", "taught"),
        ("max_length: 128", "max_length: 100", "profile.writer.max_length", "has no room"),
        ("inputs: 3", "inputs: 0", "profile.sessions.inputs", ""),
        (
            "evaluate:\n  published",
            "evaluate:\n  beams: 10\n  published",
            "evaluate.beams",
            "the recipe has none",
        ),
        ("profile:\n", "index: {}\nprofile:\n", "index", "the recipe has none"),
        ("iterations: 2", "rewards: {ndgc: 1}", "profile.turns.rewards.ndgc", "is no reward"),
    ],
)
def test_faults_are_told_with_their_keys(
    ran: Path, tmp_path: Path, old: str, new: str, key: str, problem: str
) -> None:
    assert old in RECIPE
    file = tmp_path / "told.yaml"
    file.write_text(RECIPE.replace("BERT", str(ran / "bert")).replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(file)
    found = {".".join(map(str, fault.path)): fault.problem for fault in error.value.faults}
    assert key in found
    assert problem in found[key]


def test_a_recipe_needs_a_model_or_profiles(tmp_path: Path) -> None:
    file = tmp_path / "bare.yaml"
    file.write_text("name: bare\ndata: {simulate: {}}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(file)
    assert {"model", "stages"} <= {".".join(map(str, fault.path)) for fault in error.value.faults}


def test_a_base_that_is_only_a_name_on_the_hub_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "hub.yaml"
    file.write_text(
        "name: hub\ndata: {simulate: {}}\nprofile:\n  writer: {base: google/gemma-2b-it}\n", encoding="utf-8"
    )
    recipe, waiting = check_recipe(file)
    assert not waiting
    assert recipe.profile is not None
    assert recipe.trained == ["embedder and writer in turns"]
