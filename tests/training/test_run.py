"""``train`` from conversations to a model folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from itemic import train
from itemic.errors import ArtifactError, ConfigError
from itemic.model import Model, new_model
from itemic.sid.index import ItemIndex
from tests.stages import stage_of
from tests.training.helpers import copy_of

ITEMS = 12
INDEX = ItemIndex([f"i{i}" for i in range(ITEMS)], np.array([[i % 4, i // 4] for i in range(ITEMS)]), (4, 3))
STAGE: dict[str, Any] = {
    "steps": 6,
    "data.tokens_per_step": 200,
    "learning_rate": 1e-2,
    "checkpoints.every": 2,
    "engine.precision": "float32",
    "logs.every": 1,
}


@pytest.fixture
def model() -> Model:
    return fresh()


def fresh(**keys: Any) -> Model:
    return new_model(
        "qwen3-pico", INDEX, [f"item {i} of the shop" for i in range(ITEMS)], vocab_size=300, **keys
    )


def conversations() -> pl.DataFrame:
    """After each item the next one, and the catalogue's first items as a plain text."""
    chats = [
        [
            {"role": "user", "content": f"After {INDEX.text(i)}?"},
            {"role": "assistant", "content": INDEX.text((i + 1) % ITEMS)},
        ]
        for i in range(ITEMS)
    ]
    plain = [{"type": "text", "text": "".join(INDEX.texts[:3])}]
    return pl.DataFrame(
        {
            "uuid": [str(i) for i in range(ITEMS + 1)],
            "source": ["C"] * ITEMS + ["sequence"],
            "messages": [*(json.dumps(chat) for chat in chats), None],
            "segments": [*([None] * ITEMS), json.dumps(plain)],
            "metadata": [json.dumps({"group": str(i // 3)}) for i in range(ITEMS + 1)],
        }
    )


def test_the_output_is_a_plain_model_folder(model: Model, tmp_path: Path) -> None:
    table = conversations()
    table.write_parquet(tmp_path / "c.parquet")
    before = copy_of(model.lm)
    trained = train(model, tmp_path / "c.parquet", stage=stage_of(STAGE), output=tmp_path / "out")
    assert trained is model
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(plain.state_dict()[name], weight) for name, weight in copy_of(model.lm).items())
    assert not torch.equal(copy_of(model.lm)["model.norm.weight"], before["model.norm.weight"])
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids(INDEX.tokens[0]) is not None
    assert Model.load(tmp_path / "out").index.digest == INDEX.digest
    assert not (tmp_path / "out" / "checkpoints").exists()
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["finished"]
    assert record["threads"] == torch.get_num_threads()
    assert record["rows"]["sources"] == {"C": ITEMS, "sequence": 1}
    assert record["place"]["step"] == 6


def test_a_finished_run_is_loaded_and_another_one_refused(tmp_path: Path) -> None:
    first = train(fresh(), conversations(), stage=stage_of(STAGE), output=tmp_path)
    quiet = STAGE | {"logs.every": 3, "name": "other name"}  # nothing that the weights depend on
    again = train(fresh(), conversations(), stage=stage_of(quiet), output=tmp_path)
    weights = copy_of(first.lm)
    assert all(torch.equal(copy_of(again.lm)[name], weights[name]) for name in weights)
    with pytest.raises(ArtifactError, match=r"stage\.learning_rate was 0\.01, now 0\.02"):
        train(fresh(), conversations(), stage=stage_of(STAGE | {"learning_rate": 0.02}), output=tmp_path)
    with pytest.raises(ArtifactError, match="seed was 0, now 1"):
        train(fresh(), conversations(), stage=stage_of(STAGE), output=tmp_path, seed=1)
    with pytest.raises(ArtifactError, match="rows was"):
        train(fresh(), conversations()[:5], stage=stage_of(STAGE), output=tmp_path)
    with pytest.raises(ArtifactError, match="weights was"):
        train(fresh(seed=1), conversations(), stage=stage_of(STAGE), output=tmp_path)


def test_an_interrupted_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = STAGE | {"validation.every": 3, "objective.dropout": 0.1}
    straight = train(
        fresh(),
        conversations(),
        stage=stage_of(stage),
        output=tmp_path / "a",
        validate=lambda _: {"ndcg@10": 0},
    )

    def pull_the_plug(_: Model) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), conversations(), stage=stage_of(stage), output=tmp_path / "b", validate=pull_the_plug)
    assert list((tmp_path / "b" / "checkpoints").glob("step-*"))
    with caplog.at_level(logging.INFO, "itemic"):
        resumed = train(
            fresh(),
            conversations(),
            stage=stage_of(stage),
            output=tmp_path / "b",
            validate=lambda _: {"ndcg@10": 0},
        )
    assert "goes on from step 2 of 6" in caplog.text
    weights = copy_of(straight.lm)
    assert all(torch.equal(copy_of(resumed.lm)[name], weights[name]) for name in weights)


def test_the_think_pattern_is_trained_remembered_and_asked(tmp_path: Path) -> None:
    model, table = fresh(), conversations()
    plain = model.chat.encode_table(table)
    train(
        model, table, stage=stage_of(STAGE | {"data.think_pattern": True, "steps": 1}), output=tmp_path / "a"
    )
    again = Model.load(tmp_path / "a")
    rows = again.chat.encode_table(table)
    assert len(rows.tokens) > len(plain.tokens)
    question = [{"role": "user", "content": f"After {INDEX.text(0)}?"}]
    prompt = again.chat.prompt(question)
    assert rows[0][: len(prompt)].tolist() == prompt
    train(again, table, stage=stage_of(STAGE | {"steps": 1}), output=tmp_path / "b")
    assert Model.load(tmp_path / "b").think_pattern
    train(
        again, table, stage=stage_of(STAGE | {"steps": 1, "data.think_pattern": False}), output=tmp_path / "c"
    )
    assert not Model.load(tmp_path / "c").think_pattern


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_adapters_survive_an_interruption_and_stand_beside_the_model(kind: str, tmp_path: Path) -> None:
    """Interrupted and gone on with, the folder holds a plain model with the very weights of a run that wasn't, and
    the adapters on their own."""
    stage = STAGE | {"train.what": kind, "train.rank": 4, "validation.every": 2}
    calls = []

    def validate(_: Model) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"ndcg@10": 0.5}

    table = conversations()
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), table, stage=stage_of(stage), output=tmp_path / "cut", validate=validate)
    assert not (tmp_path / "cut" / "config.json").exists()
    train(fresh(), table, stage=stage_of(stage), output=tmp_path / "cut", validate=validate)
    calls[:] = [1, 1]
    train(fresh(), table, stage=stage_of(stage), output=tmp_path / "whole", validate=validate)
    cut, whole = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("cut", "whole")
    )
    assert cut.keys() == whole.keys()
    assert all(torch.equal(weight, whole[name]) for name, weight in cut.items())
    assert {path.name for path in (tmp_path / "cut" / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    def second(_: Model) -> dict[str, float]:
        with pytest.raises(ArtifactError, match="another run is working"):
            train(fresh(), conversations(), stage=stage_of(stage), output=tmp_path, validate=second)
        return {"ndcg@10": 0.0}

    stage = STAGE | {"validation.every": 6}
    train(fresh(), conversations(), stage=stage_of(stage), output=tmp_path, validate=second)


def test_embeddings_only_leaves_the_rest(model: Model) -> None:
    before = copy_of(model.lm)
    train(
        model,
        conversations(),
        stage=stage_of(STAGE | {"train.what": "embeddings", "optimizer.weight_decay": 0.5}),
    )
    start, stop = model.new_token_range
    for name, weight in copy_of(model.lm).items():
        if "embed" in name or "lm_head" in name:
            changed = torch.nonzero((weight != before[name]).any(1))[:, 0].tolist()
            assert changed == list(range(start, stop))
        else:
            assert torch.equal(weight, before[name])


def test_half_precision_weights_stay_what_they_are(model: Model) -> None:
    model.lm.to(torch.bfloat16)
    before = copy_of(model.lm)
    train(model, conversations(), stage=stage_of(STAGE | {"train.what": "embeddings"}))
    assert model.lm.dtype == torch.bfloat16
    after = copy_of(model.lm)
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])
    assert not torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_itemic_supervision_learns_from_item_tokens_alone(tmp_path: Path, model: Model) -> None:
    stage = STAGE | {"objective.supervise": "itemic", "steps": 1, "data.tokens_per_step": 9000}
    train(model, conversations(), stage=stage_of(stage), output=tmp_path)
    place = json.loads((tmp_path / "training.json").read_text())["place"]
    # begin, two codes and end of each answer; eleven of the plain text's twelve
    assert place["counts"]["targets"] == 4 * ITEMS + 11


def test_a_validation_without_anything_to_ask(model: Model) -> None:
    with pytest.raises(ConfigError, match="nothing to validate on"):
        train(model, conversations(), stage=stage_of(STAGE | {"validation.every": 2}))
    with pytest.raises(ConfigError, match="no prompts"):
        train(model, conversations(), stage=stage_of(STAGE | {"validation.samples": 2}))
    with pytest.raises(ConfigError, match=r"no metric 'ndcg@10'.*\n.*hr@5"):
        train(
            model,
            conversations(),
            stage=stage_of(STAGE | {"validation.every": 2}),
            validate=lambda _: {"hr@5": 1.0},
        )
    with pytest.raises(ConfigError, match="sources names D"):
        train(model, conversations(), stage=stage_of(STAGE | {"data.sources": {"D": 1}}))


def test_adapters_over_a_base_in_half_precision(tmp_path: Path) -> None:
    """Its weights stay what they are, bit by bit; what learns is float32; the losses are those of a float32 base."""
    keys = STAGE | {
        "steps": 12,
        "engine.precision": "bfloat16",
        "train.what": "lora",
        "train.rank": 4,
        "train.targets": ["q_proj"],
        "validation.every": 6,
        "checkpoints.every": 6,
        "checkpoints.keep": "all",
    }
    losses, seen = {}, {}
    for name, dtype in (("half", torch.bfloat16), ("whole", torch.float32)):
        model = fresh()
        model.lm.to(torch.bfloat16).to(dtype)  # the same numbers
        before = copy_of(model.lm)

        def measure(
            each: Model, name: str = name, before: dict[str, torch.Tensor] = before
        ) -> dict[str, float]:
            named = dict(each.lm.named_parameters())
            seen[name] = {
                "adapters": {weight.dtype for key, weight in named.items() if "lora_" in key},
                "others": {weight.dtype for key, weight in named.items() if "lora_" not in key},
                "learned": not torch.equal(
                    each.lm.get_input_embeddings().weight, before["model.embed_tokens.weight"]
                ),
            }
            return {"ndcg@10": 0.0}

        train(model, conversations(), stage=stage_of(keys), output=tmp_path / name, validate=measure)
        lines = [json.loads(text) for text in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        losses[name] = [line["loss"] for line in lines if "loss" in line]
        changed = {key for key, weight in copy_of(model.lm).items() if not torch.equal(weight, before[key])}
        tied = {"model.embed_tokens.weight", "lm_head.weight"}
        assert {key for key in changed if "q_proj" not in key} == tied
        rows = (copy_of(model.lm)["lm_head.weight"] != before["lm_head.weight"]).any(1)
        first, stop = model.new_token_range
        assert not rows[:first].any()
        assert not rows[stop:].any()
        assert rows[first:stop].any()
    assert seen["half"] == {"adapters": {torch.float32}, "others": {torch.bfloat16}, "learned": True}
    assert seen["whole"] == {"adapters": {torch.float32}, "others": {torch.float32}, "learned": True}
    assert losses["half"] == pytest.approx(losses["whole"], rel=0.02)
    assert losses["half"][-1] < 0.9 * losses["half"][0]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto")
    assert saved.dtype == torch.bfloat16
    step = next((tmp_path / "half" / "checkpoints" / "step-00000012").glob("*.safetensors"))
    assert {weight.dtype for key, weight in load_file(step).items() if key.startswith("weights/")} == {
        torch.float32
    }
