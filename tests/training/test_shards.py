"""A model that no rank holds: read from its folder in shards, trained, validated and written so."""

from __future__ import annotations

import filecmp
import gc
import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from itemic import train
from itemic.errors import ConfigError
from itemic.model import Model, new_model
from itemic.model.stored import Stored
from itemic.tasks import TASKS
from itemic.training.distribution import Distribution
from itemic.training.loop import Trainer
from itemic.training.partitioned import Partitioned
from itemic.training.ranks import joined
from itemic.training.sharded import Sharded
from itemic.training.steps import Step
from tests.stages import stage_of
from tests.training import processes
from tests.training.test_validation import INDEX, ITEMS, faithful

KEYS: dict[str, Any] = {
    "steps": 4,
    "data.tokens_per_step": 200,
    "data.block_tokens": 100,
    "learning_rate": 1e-2,
    "engine.precision": "float32",
    "logs.every": 1,
    "logs.trackers": (),
    "checkpoints.every": 2,
    "validation.task": "sequence",
    "validation.every": 2,
    "validation.requests": 5,  # not the same number on each rank
    "validation.beams": 10,
    "validation.samples": 1,
}
# steps of one block, which one rank computes and the other one joins with nothing: the sums of one process, bit by bit
ONE_BLOCK = KEYS | {"data.block_tokens": 200, "optimizer.clip": 0}
FSDP = Distribution("fsdp")
LAYERS = 24


def base(folder: Path, preset: str = "qwen3-pico", dtype: torch.dtype = torch.float32, **keys: Any) -> Path:
    titles = [f"thing {i}" for i in range(ITEMS)]
    new_model(preset, INDEX, titles, vocab_size=300, **keys).save(folder, dtype=dtype)
    return folder


def work(
    folder: str,
    source: str,
    keys: dict[str, Any],
    whole: bool = False,
    die_at: int = 0,
    options: Distribution = FSDP,
) -> None:
    """One rank; ``whole`` loads the model on each of them."""
    with joined() as ranks:
        model = Model.load(source, device="cpu" if whole else ranks.device_for(options))
        assert (model.lm.device.type == "meta") == (ranks.size > 1 and not whole)
        plain = Trainer._advance

        def dying(trainer: Trainer, step: Step, book: Any) -> None:
            plain(trainer, step, book)
            if trainer.place.step == die_at and trainer.checkpoints is not None:
                trainer.checkpoints.finish()
                os.kill(os.getpid(), signal.SIGKILL)

        if die_at and not ranks.main:
            Trainer._advance = dying  # type: ignore[method-assign,assignment]
        dataset = faithful()
        trained = train(
            model,
            TASKS["sequence"].build(dataset, INDEX),
            stage=stage_of(keys),
            dataset=dataset,
            output=folder,
            distribution=options,
        )
        if not whole and ranks.size > 1:
            assert all(weight.is_meta for weight in trained.lm.parameters())


def same_files(one: Path, other: Path, rounded: bool = False) -> None:
    """All of two models' folders but what tells of the runs; weights may be ``rounded`` in another place."""
    told = {"training.json", "log.jsonl"}
    names = {str(path.relative_to(one)) for path in one.rglob("*") if path.is_file()} - told
    assert (
        names - {"rank-0.txt"}
        == {str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()} - told
    )
    assert {"config.json", "tokenizer.json", "README.md", "model.safetensors"} <= names
    for name in sorted(names):
        if rounded and name.endswith(".safetensors"):
            ours, theirs = load_file(one / name), load_file(other / name)
            assert ours.keys() == theirs.keys()
            for key, weight in ours.items():
                torch.testing.assert_close(weight, theirs[key], rtol=2**-7, atol=2e-5, msg=key)
        else:
            assert filecmp.cmp(one / name, other / name, shallow=False), name


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def numbers(folder: Path, name: str) -> list[float]:
    return [line[name] for line in lines(folder) if name in line]


@pytest.mark.parametrize(
    ("keys", "made"),
    [
        ({}, {"tie": False}),
        ({"train.what": "embeddings", "optimizer.ema": 0.9}, {"dtype": torch.bfloat16}),
        ({"train.what": "lora", "train.rank": 4}, {"dtype": torch.bfloat16}),
    ],
    ids=["all", "embeddings", "lora"],
)
def test_the_folder_is_the_one_of_one_process(keys: Any, made: Any, tmp_path: Path) -> None:
    source = base(tmp_path / "base", **made)
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        processes.run(work, size, str(folder), str(source), ONE_BLOCK | keys, folder=tmp_path)
    same_files(tmp_path / "1", tmp_path / "2")
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "2" / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())
    alone, both = (lines(tmp_path / name) for name in ("1", "2"))
    assert numbers(tmp_path / "2", "loss") == numbers(tmp_path / "1", "loss")
    assert len(numbers(tmp_path / "2", "valid/ndcg@10")) == 2
    for name in ("valid/hr@10", "valid/ndcg@10", "valid/requests"):
        assert numbers(tmp_path / "2", name) == numbers(tmp_path / "1", name)
    assert [line["samples"] for line in both if "samples" in line] == [
        line["samples"] for line in alone if "samples" in line
    ]


def test_a_killed_run_goes_on_in_one_process(tmp_path: Path) -> None:
    source, folder = base(tmp_path / "base"), tmp_path / "run"
    args = (str(folder), str(source), KEYS | {"steps": 6, "validation.samples": 0})
    with processes.ended(processes.begin(work, 2, *args, False, 5, folder=tmp_path)) as children:
        for child in children:
            child.join(120)
        assert children[-1].exitcode == -signal.SIGKILL
    assert (folder / "checkpoints" / "step-00000004").is_dir()
    processes.run(work, 1, *args, folder=tmp_path)
    processes.run(work, 2, str(tmp_path / "straight"), *args[1:], folder=tmp_path)
    assert numbers(folder, "loss") == pytest.approx(numbers(tmp_path / "straight", "loss"), abs=1e-5)
    straight = load_file(tmp_path / "straight" / "model.safetensors")
    for name, weight in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(weight, straight[name], atol=2e-5, rtol=0)


def alive() -> int:
    """Bytes of all tensors that Python knows, views of the same storage once."""
    found = {}
    for each in gc.get_objects():
        if issubclass(type(each), torch.Tensor) and not each.is_meta:
            storage = (each.to_local() if isinstance(each, DTensor) else each).untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def measure(folder: str, source: str, whole: bool, options: Distribution = FSDP) -> None:
    """One rank; leaves the most bytes of tensors that there were beside those at the beginning: whenever the layer in
    the middle computes for a validation, when a weight has been read, and when one has been gathered."""
    most = {"computing": 0, "reading": 0, "gathering": 0}
    before, count = alive(), itertools.count()

    def look(when: str) -> None:
        most[when] = max(most[when], alive() - before)

    def computing(module: torch.nn.Module, _: Any) -> None:
        if type(module).__name__ != "Qwen3Attention":
            return
        middle = module.layer_idx == module.config.num_hidden_layers // 2
        if middle and not torch.is_grad_enabled():  # else there is what the backward pass needs as well
            look("computing")

    def looking(when: str, of: Any) -> Any:
        def call(*args: Any) -> Any:
            found = of(*args)
            if next(count) % 20 == 0:
                look(when)
            return found

        return call

    Stored.read = looking("reading", Stored.read)  # type: ignore[method-assign]
    for strategy in (Sharded, Partitioned):
        strategy.gather = looking("gathering", strategy.gather)  # type: ignore[method-assign]
    handle = torch.nn.modules.module.register_module_forward_pre_hook(computing)
    with joined() as ranks:
        stage = stage_of(
            KEYS | {"steps": 1, "train.what": "embeddings", "validation.requests": 2, "validation.samples": 0}
        )
        train(
            Model.load(source, device="cpu" if whole else ranks.device_for(options)),
            TASKS["sequence"].build(faithful(), INDEX),
            stage=stage,
            dataset=faithful(),
            output=f"{folder}/run",
            distribution=options,
        )
        Path(folder, f"{ranks.rank}.json").write_text(json.dumps(most))
    handle.remove()


def test_no_rank_holds_the_model(tmp_path: Path) -> None:
    source, found = base(tmp_path / "base", layers=LAYERS), {}
    size = (source / "model.safetensors").stat().st_size
    for whole in (False, True):
        folder = tmp_path / str(whole)
        folder.mkdir()
        processes.run(measure, 2, str(folder), str(source), whole, folder=tmp_path)
        found[whole] = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    layer = size / LAYERS
    for mine, theirs in zip(found[False], found[True], strict=True):
        assert theirs["computing"] > 1.4 * size  # whole, and a half in shards
        assert 0.5 * size < mine["computing"] < 0.52 * size + 4 * layer  # a layer, and what is gathered
        assert 0 < mine["reading"] < 0.52 * size
        assert 0.5 * size < mine["gathering"] < 0.52 * size + layer
    same_files(tmp_path / "False" / "run", tmp_path / "True" / "run")


def refused(folder: str, source: str, keys: dict[str, Any]) -> None:
    with joined() as ranks:
        model, stage = Model.load(source, device=ranks.device_for(FSDP)), stage_of(keys)
        conversations = TASKS["sequence"].build(faithful(), INDEX)
        with pytest.raises(ConfigError) as caught:
            train(model, conversations, stage=stage, output=folder, distribution=FSDP)
        Path(folder, "told").write_text(caught.value.message)


def test_four_bits_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    source = base(tmp_path / "base")
    keys = {"steps": 1, "train.what": "qlora"}
    processes.run(refused, 2, str(tmp_path), str(source), keys, folder=tmp_path)
    assert "can't share out weights in 4 bits" in (tmp_path / "told").read_text()
