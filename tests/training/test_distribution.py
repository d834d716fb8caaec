"""Two processes train as one does: the same losses, the same weights, the same checkpoints."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from itemic.errors import ConfigError
from itemic.training.distribution import Distribution, read_deepspeed
from itemic.training.language.feed import Feed
from itemic.training.language.learning import learning
from itemic.training.language.stage import Stage
from itemic.training.loop import Trainer
from itemic.training.ranks import joined
from itemic.training.steps import Step
from tests.stages import stage_of, with_keys
from tests.training import processes
from tests.training.helpers import lm_trainer, tiny_lm, toy_rows

STAGE = stage_of(
    {
        "steps": 7,
        "data.tokens_per_step": 60,
        "data.block_tokens": 20,
        "learning_rate": 1e-2,
        "engine.precision": "float32",
        "logs.every": 1,
        "checkpoints.every": 2,
        "checkpoints.keep": 10,
        "validation.every": 4,
        "logs.trackers": (),
    }
)
KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "untied": {},
    "embeddings": {"train.what": "embeddings"},
    "untied embeddings": {"train.what": "embeddings"},
    "lora": {"train.what": "lora", "train.rank": 4, "engine.gradient_checkpointing": True},
    "optimizer.ema": {"optimizer.ema": 0.9, "optimizer.clip": 0.1},
    "last layers": {"train.what": "last-layers", "train.layers": 1},
    "dropout": {"objective.dropout": 0.3},  # drawn anew on each rank, so never the same as one process
}
STRATEGIES = ("ddp", "fsdp", "zero2", "zero3")


class Dying(Trainer):
    """Rank 1 (or the only one) is killed after so many steps, when the checkpoints so far are written."""

    die_at = 0

    def _advance(self, step: Step, book: Any) -> None:
        super()._advance(step, book)
        if self.place.step == self.die_at and self.checkpoints is not None:
            self.checkpoints.finish()
            if self.ranks.rank == self.ranks.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)


def options(strategy: str, folder: Path) -> Distribution:
    if strategy == "fsdp-keep":
        return Distribution("fsdp", reshard_after_forward=False)
    if not strategy.startswith("zero"):
        return Distribution(strategy)
    file = folder / f"{strategy}.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": int(strategy[-1])}}))
    return Distribution("deepspeed", config=str(file))


def work(folder: str, kind: str, distribution: Distribution, die_at: int = 0, without: bool = False) -> None:
    """One rank: trains and leaves its weights as ``final-N.safetensors``; ``without`` any where it is not the first."""
    stage, root = with_keys(STAGE, KINDS[kind]), Path(folder)
    with joined() as ranks:
        empty = without and not ranks.main
        with torch.device("meta" if empty else "cpu"):
            lm = tiny_lm(tied="untied" not in kind)
        torch.manual_seed(0)
        with learning(lm, stage, range(30, 50)) as learns:
            trainer = lm_trainer(
                lm,
                toy_rows(names=("a", "b")),
                stage,
                made=Dying,
                learns=learns,
                folder=root,
                ranks=ranks,
                distribution=distribution,
                # the best comes in the middle, and depends on the weights that would be saved
                validate=lambda: (
                    {"ndcg@10": -abs(float(lm.get_input_embeddings().weight.detach().std()) - 0.0215)}
                    if not empty
                    else {}
                ),
            )
            assert isinstance(trainer, Dying)
            trainer.die_at = die_at
            trainer.run()
        state = {name: weight.clone().contiguous() for name, weight in lm.state_dict().items()}
        assert all((weight.device.type == "meta") == empty for weight in state.values())
        if not empty:
            save_file(state, root / f"final-{ranks.rank}.safetensors")


def losses(folder: Path) -> list[float]:
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def trained(folder: Path, kind: str, strategy: str = "ddp", size: int = 1, die_at: int = 0) -> list[Any]:
    """The weights that each rank ends with; of a run that dies, the exit codes."""
    folder.mkdir(exist_ok=True)
    distribution = options(strategy, folder)
    if die_at:
        begun = processes.begin(work, size, str(folder), kind, distribution, die_at, folder=folder)
        with processes.ended(begun) as children:
            for child in children:
                child.join(120)
            return [child.exitcode for child in children]
    processes.run(work, size, str(folder), kind, distribution, folder=folder)
    return [load_file(folder / f"final-{rank}.safetensors") for rank in range(size)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one process makes of each kind, once."""
    root, made = tmp_path_factory.mktemp("alone"), {}

    def find(kind: str) -> tuple[list[float], dict[str, torch.Tensor]]:
        if kind not in made:
            (weights,) = trained(root / kind, kind)
            made[kind] = (losses(root / kind), weights)
        return made[kind]

    return find


def assert_same(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(weights) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(
            weights[name], weight, atol=2e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
        )


PAIRS = [
    ("all", "fsdp-keep"),
    *((kind, strategy) for kind in KINDS if kind != "dropout" for strategy in ("ddp", "fsdp")),
    *((kind, strategy) for kind in ("all", "untied embeddings", "lora") for strategy in ("zero2", "zero3")),
]


@pytest.mark.parametrize(("kind", "strategy"), PAIRS)
def test_two_ranks_are_one(alone: Any, kind: str, strategy: str, tmp_path: Path) -> None:
    expected, weights = alone(kind)
    found = trained(tmp_path / "two", kind, strategy, 2)
    assert losses(tmp_path / "two") == pytest.approx(expected, abs=1e-5)
    assert len(expected) == 7
    for each in found:
        assert_same(each, weights)
    lines = [json.loads(text) for text in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert {"loss/source a", "loss/source b"} <= set(lines[0])
    alone_lines = (tmp_path / "two" / "log.jsonl").read_text().count("\n")
    assert alone_lines == 7 + 2  # one rank alone writes


@pytest.mark.parametrize("kind", ["all", "untied embeddings", "lora", "optimizer.ema"])
def test_only_the_first_rank_needs_weights(alone: Any, kind: str, tmp_path: Path) -> None:
    """The other is killed, begins anew without any, and goes on from its shards of the checkpoint."""
    expected, weights = alone(kind)
    args = (str(tmp_path), kind, Distribution("fsdp"))
    with processes.ended(processes.begin(work, 2, *args, 5, True, folder=tmp_path)) as children:
        for child in children:
            child.join(120)
        assert children[-1].exitcode == -signal.SIGKILL
    processes.run(work, 2, *args, 0, True, folder=tmp_path)
    assert losses(tmp_path) == pytest.approx(expected, abs=1e-5)
    assert_same(load_file(tmp_path / "final-0.safetensors"), weights)
    assert not (tmp_path / "final-1.safetensors").exists()


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ("ddp", "rank 1 has a model without weights"),
        ("fsdp", "rank 1 has another model than rank 0: 25 weights"),
    ],
)
def test_weights_that_are_missing_are_told(strategy: str, text: str, tmp_path: Path) -> None:
    processes.run(lacking, 2, str(tmp_path), strategy, folder=tmp_path)
    assert text in (tmp_path / "told").read_text()


def lacking(folder: str, strategy: str) -> None:
    """One rank; the second one has no weights."""
    with joined() as ranks:
        lm = tiny_lm()
        if not ranks.main:
            lm.to("meta")  # type: ignore[arg-type]
        if strategy == "fsdp" or not ranks.main:
            with pytest.raises(ConfigError) as caught:
                lm_trainer(lm, toy_rows(), STAGE, ranks=ranks, distribution=Distribution(strategy))
            Path(folder, "told").write_text(caught.value.message)


def test_three_ranks_with_fewer_blocks_than_ranks(tmp_path: Path, alone: Any) -> None:
    _, weights = alone("all")  # steps of three blocks and, at the end of an epoch, fewer
    for each in trained(tmp_path / "three", "all", "fsdp", 3):
        assert_same(each, weights)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("fsdp", 2), ("ddp", 1)),
        (("ddp", 1), ("fsdp", 2)),
        (("zero3", 2), ("fsdp", 2)),
        (("ddp", 2), ("zero2", 2)),
        (("zero2", 2), ("zero3", 3)),
    ],
)
def test_a_killed_run_goes_on_on_other_ranks(
    alone: Any, before: tuple[str, int], after: tuple[str, int], tmp_path: Path
) -> None:
    expected, weights = alone("all")
    codes = trained(tmp_path / "run", "all", *before, die_at=5)
    assert codes[-1] == -signal.SIGKILL
    if before[1] == 2:
        assert codes[0] == 1
        assert "lost another rank" in (tmp_path / "run" / "rank-0.txt").read_text()
    steps = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert steps[-1] == "step-00000004"
    for each in trained(tmp_path / "run", "all", *after):
        assert_same(each, weights)
    assert losses(tmp_path / "run") == pytest.approx(expected, abs=1e-5)


def test_each_rank_writes_its_shards(tmp_path: Path) -> None:
    trained(tmp_path / "run", "all", "fsdp", 2)
    folder = tmp_path / "run" / "checkpoints" / "step-00000006"
    shards = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    assert len(shards) == 2
    sizes = [sum(tensor.numel() for tensor in shard.values()) for shard in shards]
    assert max(sizes) < 1.2 * min(sizes)
    assert json.loads((folder / "state.json").read_text())["ranks"] == 2


def test_dropout_differs_from_rank_to_rank_and_resumes(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "dropout", "fsdp", 2)
    trained(tmp_path / "killed", "dropout", "fsdp", 2, die_at=5)
    again = trained(tmp_path / "killed", "dropout", "fsdp", 2)
    for name, weight in whole[0].items():
        assert torch.equal(again[0][name], weight)  # bit for bit, also the random numbers of both ranks


FEED = stage_of(
    {
        "epochs": 2,
        "data.tokens_per_step": 600,
        "data.block_tokens": 200,
        "data.packing": "blocks",  # the same few rows come often
        "data.stream": True,
        "data.shuffle_buffer": 64,
        "learning_rate": 3e-4,  # forty steps at a high rate blow float noise up
        "engine.precision": "float32",
        "logs.every": 1,
        "checkpoints.every": 2,
        "checkpoints.keep": 100,
        "logs.trackers": (),
    }
)


def fed(folder: str, files: str, distribution: Distribution, die_at: int = 0) -> None:
    """One rank that is fed from files."""
    from tests.training.test_run import fresh

    model, root = fresh(), Path(folder)
    with joined() as ranks:
        feed = Feed(files, model.chat.encode_table, FEED, encoder="test", seed=3)
        trainer = lm_trainer(
            model.lm, feed, FEED, seed=3, made=Dying, folder=root, ranks=ranks, distribution=distribution
        )
        assert isinstance(trainer, Dying)
        trainer.die_at = die_at
        trainer.run()
        state = {name: weight.clone().contiguous() for name, weight in model.lm.state_dict().items()}
        save_file(state, root / f"final-{ranks.rank}.safetensors")


def test_a_stream_is_the_same_for_any_number_of_ranks(tmp_path: Path) -> None:
    from tests.training.test_run import conversations

    files = tmp_path / "files"
    files.mkdir()
    table = pl.concat([conversations()] * 20)
    for number, part in enumerate(table.iter_slices(-(-len(table) // 3))):
        part.write_parquet(files / f"{number}.parquet", row_group_size=16)
    made = {}
    for size, die_at in ((1, 0), (2, 0), (3, 5)):
        folder = tmp_path / f"{size}"
        folder.mkdir()
        strategy = Distribution("fsdp" if size == 2 else "ddp")
        if die_at:  # it dies on three ranks, and goes on on two
            begun = processes.begin(fed, size, str(folder), str(files), strategy, die_at, folder=folder)
            with processes.ended(begun) as children:
                for child in children:
                    child.join(120)
                assert children[-1].exitcode == -signal.SIGKILL
            size = 2
        processes.run(fed, size, str(folder), str(files), strategy, folder=folder)
        lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
        data = [(line["tokens"], line["row_tokens"], line["targets"]) for line in lines if "loss" in line]
        made[folder.name] = (data, losses(folder), load_file(folder / f"final-{size - 1}.safetensors"))
    data, expected, weights = made["1"]
    assert len(expected) > 20
    for seen, found, each in made.values():
        assert seen == data  # the same rows in every step
        assert found == pytest.approx(expected, abs=2e-5)
        assert_same(each, weights)


def refused(folder: str, stage: Stage, distribution: Distribution) -> None:
    with joined() as ranks:
        lm = tiny_lm()
        with pytest.raises(ConfigError) as caught, learning(lm, stage, range(30, 50)) as learns:
            lm_trainer(lm, toy_rows(), stage, learns=learns, ranks=ranks, distribution=distribution)
        Path(folder, "told").write_text(caught.value.message)


@pytest.mark.parametrize(
    ("strategy", "stage", "text"),
    [
        ("fsdp", with_keys(STAGE, {"optimizer.name": "muon"}), "optimizer muon needs whole matrices"),
        (
            "zero2",
            with_keys(STAGE, {"optimizer.name": "adafactor"}),
            "optimizer adafactor needs whole matrices",
        ),
        ("zero2", with_keys(STAGE, {"optimizer.ema": 0.9}), "keeps no moving average"),
    ],
)
def test_what_can_not_be_shared_out_is_refused(
    strategy: str, stage: Stage, text: str, tmp_path: Path
) -> None:
    processes.run(refused, 2, str(tmp_path), stage, options(strategy, tmp_path), folder=tmp_path)
    assert text in (tmp_path / "told").read_text()


def test_distribution_tells_its_faults() -> None:
    with pytest.raises(ConfigError, match=r"strategy is 'dp': input should be 'ddp', 'fsdp' or 'deepspeed'"):
        Distribution("dp")
    with pytest.raises(ConfigError, match=r"go together"):
        Distribution("deepspeed")
    with pytest.raises(ConfigError, match=r"go together"):
        Distribution("fsdp", config="ds.json")
    with pytest.raises(ConfigError, match=r"shards: unknown key; known are strategy"):
        Distribution.of({"shards": 2})


def test_deepspeeds_file_tells_its_faults(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    with pytest.raises(ConfigError, match=r"ds.json is no configuration"):
        read_deepspeed(file)
    file.write_text('{"zero_optimization": {"stage": 5}}')
    with pytest.raises(ConfigError, match=r"stage is 5"):
        read_deepspeed(file)
    file.write_text('{"zero_optimization": {"stage": 2}, "optimizer": {}, "gradient_clipping": 1}')
    with pytest.raises(ConfigError, match=r"sets optimizer, gradient_clipping"):
        read_deepspeed(file)
