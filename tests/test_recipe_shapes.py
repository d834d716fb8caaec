"""Every shipped recipe for a real base model, worked out with that model's configuration; no weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from itemic.cli.app import call
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, ModelError
from itemic.model import new_model
from itemic.pipeline import Run
from itemic.pipeline.shapes import recipe_shapes
from itemic.recipe import check_recipe
from itemic.sid.index import ItemIndex
from tests.model.helpers import family_folder

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "tests" / "configs"
QWEN3 = 151_669
WIDTH = {"0.6b": (1024, 1), "1.7b": (2048, 1), "8b": (4096, 2)}  # and matrices of tokens
QWEN2_5 = 151_665
LAYERS_2_5 = 494_032_768 - 151_936 * 896  # of Qwen2.5-0.5B, as published, without its embeddings
LAYERS_8B = 36 * (4096 * (4096 + 1024 + 1024) + 4096 * 4096 + 3 * 4096 * 12288)


@pytest.mark.parametrize("size", WIDTH)
@pytest.mark.parametrize("stage", ["stage1", "stage2", "sft"])
def test_openonerec(stage: str, size: str) -> None:
    recipe, _ = check_recipe(f"openonerec-{stage}")
    found = recipe_shapes(recipe, CONFIGS / f"qwen3-{size}.json")
    assert (found.vocabulary, found.first, found.last) == (176_384, 151_669, 176_246)
    (shape,) = found.stages
    width, matrices = WIDTH[size]
    assert shape.learning == (24_578 * width * matrices if stage == "stage1" else found.parameters)
    assert (shape.tokens, shape.blocks) == (262_144, 8)


@pytest.mark.parametrize("train", ["all", "lora", "qlora"])
def test_onerec_think_8b(train: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITEMIC_SHARED", str(shared))
    recipe, _ = check_recipe("onerec-think-8b", [f"stages.1.train={train}"])
    steps = [planned.step.name for planned in Run.of(recipe, "/nowhere/at/all").plan()]
    assert steps[3:6] == ["model", "train.embeddings", "train.all"]
    found = recipe_shapes(recipe, CONFIGS / "qwen3-8b.json")
    assert (found.first, found.last, found.tied) == (QWEN3, QWEN3 + 4 * 256 + 1, False)
    assert found.vocabulary == 152_832  # 151,669 + 1,026 ids, to the next multiple of 256
    rows, second = found.stages
    assert rows.learning == 1026 * 4096 * 2
    adapters = 36 * 64 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288))
    expected = found.parameters if train == "all" else rows.learning + adapters
    assert second.learning == expected
    if train == "qlora":
        assert second.weights == pytest.approx(
            4 * (second.parameters - LAYERS_8B) + 0.516 * LAYERS_8B, rel=1e-3
        )


def test_minionerec(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids by the published index's three levels, behind the 151,665 of Qwen2.5's tokenizer."""
    monkeypatch.setenv("ITEMIC_SHARED", str(shared))
    recipe, _ = check_recipe("minionerec-industrial")
    steps = [planned.step.name for planned in Run.of(recipe, "/nowhere/at/all").plan()]
    trained = ["train.sft", "train.grpo"]
    assert steps == ["data", "teacher", "index", "conversations", "model", *trained, "evaluate", "report"]
    found = recipe_shapes(recipe, CONFIGS / "qwen2.5-0.5b.json", tokens=QWEN2_5)
    assert (found.first, found.last, found.tied) == (QWEN2_5, QWEN2_5 + 3 * 256 - 1, True)
    assert found.vocabulary == 152_576  # 152,433 ids, to the next multiple of 256
    shape, grpo = found.stages
    assert found.parameters == shape.learning == grpo.learning == LAYERS_2_5 + 152_576 * 896
    assert shape.blocks == 2
    # beside Adam's two moments the weights of the start, and those of the reference
    assert grpo.optimizer == shape.optimizer + 2 * 4 * grpo.learning


def test_reclm_gen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles need no new token: Llama-2-7b-chat is as it was published, and adapters alone learn."""
    for name in ("RECLM_DATA", "SHAREGPT", "LLAMA2"):
        monkeypatch.delenv(name, raising=False)
    found = recipe_shapes(check_recipe("reclm-gen")[0], CONFIGS / "llama-2-7b-chat.json", tokens=32_000)
    assert (found.parameters, found.vocabulary, found.tied) == (6_738_415_616, 32_000, False)
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11_008))
    actor = adapters // 4  # rank 4; the critic's adapters and head aren't the policy's
    assert [shape.learning for shape in found.stages] == [adapters, actor]

    talk = [{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}]
    (tmp_path / "talk.json").write_text(json.dumps(talk))
    (tmp_path / "base").mkdir()
    users = {f"u{n}": [f"i{(n + k) % 9}" for k in range(5)] for n in range(6)}
    (tmp_path / "sequential.json").write_text(json.dumps(users))
    meta = {f"i{n}": {"title": f"Film {n}", "title64_t": f"Film {n}"} for n in range(9)}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "category.json").write_text(json.dumps({"Action": ["i0", "i1"], "Action, Wars": ["i1"]}))
    monkeypatch.setenv("LLAMA2", str(tmp_path / "base"))
    monkeypatch.setenv("SHAREGPT", str(tmp_path / "talk.json"))
    recipe, faults = check_recipe("reclm-gen", [f"data.path={tmp_path}"])
    assert not faults
    run = Run.of(recipe, tmp_path / "run")
    trained = ["conversations", "model", "train.sft", "train.ppo"]
    steps = [planned.step.name for planned in run.plan()]
    assert steps == ["data", "teacher", "index", *trained, "evaluate", "lists", "report"]
    run.execute(until="data")
    assert "title64_t" in Dataset.load(tmp_path / "run" / "data").items.columns


def test_langptune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama-3-8B and Gemma-2B have the parameters that they were published with; last layers or adapters learn."""
    for name in ("LLAMA3", "AMAZON_MOVIES"):
        monkeypatch.delenv(name, raising=False)
    recipe, waiting = check_recipe("langptune")
    assert {fault.path for fault in waiting} == {("data", "path"), ("profile", "writer", "base")}
    found = recipe_shapes(recipe, CONFIGS / "llama-3-8b.json")
    assert (found.parameters, found.vocabulary, found.tied) == (8_030_261_248, 128_256, False)
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096
    assert [shape.learning for shape in found.stages] == [4 * layer + 4096]

    gemma = "{what: lora, rank: 1024, alpha: 2048}"
    other, _ = check_recipe(
        "langptune",
        [
            "name=langptune-gemma",
            f"profile.turns.writer.train={gemma}",
            "profile.turns.writer.learning_rate=1.0e-7",
            "profile.turns.writer.steps=800",
            "profile.turns.writer.objective.rebel.kl=0.2",
            "profile.turns.embedder.steps=200",
        ],
    )
    found = recipe_shapes(other, CONFIGS / "gemma-2b.json")
    assert (found.parameters, found.vocabulary, found.tied) == (2_506_172_416, 256_000, True)
    wide = (2048 + 2048) * 2 + (2048 + 256) * 2 + (2048 + 16_384) * 3
    assert [shape.learning for shape in found.stages] == [18 * 1024 * wide]

    for name in ("LLAMA3", "AMAZON_MOVIES"):
        monkeypatch.setenv(name, str(tmp_path))
    ready, faults = check_recipe("langptune")
    assert not faults
    steps = [planned.step.name for planned in Run.of(ready, tmp_path / "run").plan()]
    assert steps == ["data", "writer", "embedder", "turns", "profiles", "report"]


def test_the_shapes_are_those_of_the_model_that_is_made(tmp_path: Path) -> None:
    """A base of which all is there: ids and rows by its own tokenizer, compared with the expansion itself."""
    from itemic.model.expand import expand

    for family in ("qwen3", "qwen2", "llama"):  # qwen2 has no chat template and gets turn tokens
        base = family_folder(tmp_path, family)
        text = f"""\
name: t
index: {{levels: [4, 5], format: onerec}}
model: {{base: {base}, pad_to: 8}}
conversations: {{files: {base}}}
stages: [{{name: all}}]
"""
        (tmp_path / "t.yaml").write_text(text)
        found = recipe_shapes(check_recipe(tmp_path / "t.yaml")[0])
        made = expand(base, ItemIndex.of_codes((4, 5)), pad_to=8)
        assert (found.first, found.last) == (made.item_tokens[0], made.item_tokens[-1])
        assert found.vocabulary == made.lm.config.vocab_size
        assert found.parameters == made.lm.num_parameters() == found.stages[0].learning
        made.save(tmp_path / "expanded")
        again = recipe_shapes(check_recipe(tmp_path / "t.yaml", [f"model.base={tmp_path}/expanded"])[0])
        assert (again.first, again.vocabulary) == (found.first, found.vocabulary)
        shutil.rmtree(tmp_path / "expanded")


def test_a_new_model(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        """\
name: t
index: {levels: [4, 5], format: minionerec}
model: {preset: qwen3-pico, vocab_size: 300}
conversations: {files: s3://a/b}
stages: [{name: all}]
"""
    )
    found = recipe_shapes(check_recipe(tmp_path / "t.yaml")[0])
    made = new_model("qwen3-pico", ItemIndex.of_codes((4, 5), "minionerec"), vocab_size=300)
    assert found.parameters == made.lm.num_parameters()
    assert found.vocabulary == made.lm.config.vocab_size == 320


def test_what_can_not_be_known_says_what_to_give(tmp_path: Path) -> None:
    text = """\
name: t
data: {simulate: {}}
index: {levels: [4, 5]}
model: {base: BASE}
tasks: [{task: C}]
stages: [{name: all}]
""".replace("BASE", "'${NOT_SET_HERE:-/no/where}'")
    (tmp_path / "t.yaml").write_text(text)
    recipe, waiting = check_recipe(tmp_path / "t.yaml")
    assert len(waiting) == 1
    with pytest.raises(ConfigError, match="base model /no/where is not there") as caught:
        recipe_shapes(recipe)
    assert "--config" in caught.value.remedy
    ranked, _ = check_recipe(tmp_path / "t.yaml", ["index.collisions=rank"])
    with pytest.raises(ConfigError, match="known only when it is built"):
        recipe_shapes(ranked, CONFIGS / "qwen3-8b.json")
    llama = json.loads((CONFIGS / "qwen3-0.6b.json").read_text()) | {"model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(llama))
    with pytest.raises(ConfigError, match="how many tokens") as caught:
        recipe_shapes(recipe, tmp_path / "config.json")
    assert caught.value.remedy == "Give --tokens."
    assert recipe_shapes(recipe, tmp_path / "config.json", 128_256).first == 128_256
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="can't be used"):
        recipe_shapes(recipe, tmp_path / "config.json")


def test_the_command_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENONEREC_BASE", "OPENONEREC_DATA"):
        monkeypatch.delenv(name, raising=False)
    recipe, config = "openonerec-stage1", CONFIGS / "qwen3-0.6b.json"
    assert call(["check", str(recipe), "--shapes", "--config", str(config)]) == 0
    shown = capfd.readouterr().out
    assert "176,384 rows" in shown
    assert "151669 to 176246" in shown
    assert "25,167,872" in shown  # 24,578 rows of 1,024
    assert call(["check", str(recipe), "--config", str(config), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["shapes"]["stages"][0]["learning"] == 25_167_872
    assert found["stages"] == ["stage1"]
    assert len(found["waits_for"]) == 2
    assert call(["check", str(recipe), "--shapes"]) == 2
