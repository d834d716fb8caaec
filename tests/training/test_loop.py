"""The loop against an independent one: row by row, padded, unshared, with torch's plain optimizer."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from itemic.errors import ArtifactError, ItemicError
from itemic.training.language.stage import Stage
from itemic.training.language.stream import TrainingRows, plan_epoch
from itemic.training.loop import Trainer
from itemic.training.schedule import learning_rate
from tests.stages import stage_of, with_keys
from tests.training.helpers import copy_of, lm_trainer, tiny_lm, toy_rows

STAGE = stage_of(
    {
        "steps": 6,
        "data.tokens_per_step": 60,
        "data.block_tokens": 60,
        "learning_rate": 1e-2,
        "schedule.warmup": 2,
        "engine.precision": "float32",
        "logs.every": 1,
    }
)


def reference(lm: PreTrainedModel, data: TrainingRows, stage: Stage, seed: int = 0) -> list[float]:
    """Losses of padded training, one row after the other; ``lm`` is trained in place."""
    named = dict(lm.named_parameters())
    matrices = [w for n, w in named.items() if n.endswith("proj.weight")]
    others = [w for n, w in named.items() if not n.endswith("proj.weight")]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": stage.optimizer.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=stage.optimizer.betas,
        foreach=False,
    )
    losses, step = [], 0
    lm.train()
    while step < int(stage.steps or 0):
        for blocks in plan_epoch(data, stage, seed, step // 10**6):
            rows = [int(row) for block in blocks for row in block]
            total, weight = torch.zeros(()), 0.0
            width = max(len(data.rows[row]) for row in rows)
            for row in rows:
                tokens = torch.from_numpy(data.rows[row].astype("int64"))
                begin, end = data.rows.offsets[row], data.rows.offsets[row + 1]
                assert data.rows.weights is not None
                weights = torch.from_numpy(data.rows.weights[begin:end])[1:]
                padded = torch.nn.functional.pad(tokens, (0, width - len(tokens)))[None]
                mask = (torch.arange(width) < len(tokens)).long()[None]
                logits = lm(input_ids=padded, attention_mask=mask, use_cache=False).logits[
                    0, : len(tokens) - 1
                ]
                loss = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none")
                total = total + (loss * weights).sum()
                weight += float(weights.sum())
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step, int(stage.steps or 0))
            (total / weight).backward()
            torch.nn.utils.clip_grad_norm_(lm.parameters(), stage.optimizer.clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(total.detach()) / weight)
            step += 1
            if step == stage.steps:
                break
    return losses


def logged(folder: Path, key: str) -> list[float]:
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


@pytest.mark.parametrize(("kind", "tied"), [("qwen3", True), ("qwen3", False), ("llama", False)])
def test_same_losses_and_weights_as_padded_rows(kind: str, tied: bool, tmp_path: Path) -> None:
    data = toy_rows(users=40)
    ours, theirs = tiny_lm(kind=kind, tied=tied), tiny_lm(kind=kind, tied=tied)
    lm_trainer(ours, data, STAGE, folder=tmp_path).run()
    losses = reference(theirs, data, STAGE)
    assert logged(tmp_path, "loss") == pytest.approx(losses, abs=2e-5)
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, atol=5e-4, rtol=0)


def test_accumulating_blocks_changes_nothing(tmp_path: Path) -> None:
    # blocks of one group each, so that one block or three make the same step
    data = toy_rows(users=30)
    whole, parts = tiny_lm(), tiny_lm()
    many = with_keys(STAGE, {"data.tokens_per_step": 30, "data.block_tokens": 10, "steps": 4})
    plan = plan_epoch(data, many, 0, 0)
    assert {len(step) for step in plan} == {3}
    one = with_keys(many, {"data.block_tokens": 30})
    assert [sorted(r for b in s for r in b) for s in plan_epoch(data, one, 0, 0)] == [
        sorted(r for b in s for r in b) for s in plan
    ]
    lm_trainer(parts, data, many, folder=tmp_path / "parts").run()
    lm_trainer(whole, data, one, folder=tmp_path / "whole").run()
    assert logged(tmp_path / "parts", "loss") == pytest.approx(logged(tmp_path / "whole", "loss"), abs=1e-5)
    assert logged(tmp_path / "parts", "grad_norm") == pytest.approx(
        logged(tmp_path / "whole", "grad_norm"), abs=1e-4
    )


def test_the_row_normalizer_counts_rows(tmp_path: Path) -> None:
    data = toy_rows()
    stage = with_keys(
        STAGE,
        {
            "steps": 1,
            "objective.normalizer": "row",
            "data.tokens_per_step": 10_000,
            "data.block_tokens": 10_000,
        },
    )
    lm = tiny_lm()
    with torch.no_grad():
        per_row = []
        for row in range(len(data.rows)):
            tokens = torch.from_numpy(data.rows[row].astype("int64"))
            logits = lm(input_ids=tokens[None], use_cache=False).logits[0, -3:-1]
            per_row.append(torch.nn.functional.cross_entropy(logits, tokens[-2:]).item())
    lm_trainer(lm, data, stage, folder=tmp_path).run()
    assert logged(tmp_path, "loss") == pytest.approx([sum(per_row) / len(per_row)], abs=1e-5)


def test_same_seed_same_weights_other_seed_others() -> None:
    stage = with_keys(STAGE, {"objective.dropout": 0.2, "optimizer.ema": 0.9})

    def end(seed: int) -> dict[str, torch.Tensor]:
        lm = tiny_lm()
        torch.manual_seed(seed)
        lm_trainer(lm, toy_rows(), stage, seed=seed).run()
        return copy_of(lm)

    one, two, other = end(1), end(1), end(2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_epochs_see_every_row_as_often_as_asked(tmp_path: Path) -> None:
    data = toy_rows()
    stage = replace(STAGE, steps=None, epochs=3)
    place = lm_trainer(tiny_lm(), data, stage, folder=tmp_path).run()
    assert place.epoch == 3
    assert place.counts["row_tokens"] == 3 * len(data.rows.tokens)
    assert place.counts["tokens"] == 3 * 20 * 10  # each user's rows are prefixes of the longest
    assert place.counts["targets"] == 3 * 20 * 8
    assert logged(tmp_path, "epoch")[-1] == 3.0


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_best_validation_wins_and_patience_ends_it(on_disk: bool, ema: float, tmp_path: Path) -> None:
    lm, seen = tiny_lm(), []
    scores = iter([0.1, 0.3, 0.2, 0.25, 0.9])

    def validate() -> dict[str, float]:
        assert not lm.training
        seen.append(copy_of(lm))
        return {"ndcg@10": next(scores), "hr@10": 0.0}

    stage = with_keys(
        STAGE,
        {
            "steps": 20,
            "validation.every": 2,
            "validation.patience": 2,
            "optimizer.ema": ema,
            "checkpoints.every": 3,
            "checkpoints.keep": 1,
        },
    )
    trainer = lm_trainer(lm, toy_rows(), stage, folder=tmp_path if on_disk else None, validate=validate)
    place = trainer.run()
    assert (place.step, place.best_step, place.best, place.stopped) == (8, 4, 0.3, True)
    assert all(torch.equal(copy_of(lm)[name], seen[1][name]) for name in seen[1])
    assert any(not torch.equal(seen[1][name], seen[3][name]) for name in seen[1])


def test_averaged_weights_are_what_is_left(tmp_path: Path) -> None:
    raw, averaged = tiny_lm(), tiny_lm()
    stage = replace(STAGE, steps=2)
    history = []

    class Recorder(Trainer):
        def _goes_on(self) -> bool:
            if not history or self.place.step == len(history):
                history.append(copy_of(self.objective.lm))
            return super()._goes_on()

    lm_trainer(raw, toy_rows(), stage, made=Recorder).run()
    lm_trainer(averaged, toy_rows(), with_keys(stage, {"optimizer.ema": 0.9})).run()
    # decays 1/10 and 2/11 on the way from the first weights
    for name, weight in copy_of(averaged).items():
        first = 0.1 * history[0][name] + 0.9 * history[1][name]
        expected = 2 / 11 * first + 9 / 11 * history[2][name]
        torch.testing.assert_close(weight, expected)


def test_a_loss_that_is_no_number_stops_at_once() -> None:
    lm = tiny_lm()
    with pytest.raises(ItemicError, match=r"step \d has loss .* norm (nan|inf)"):
        lm_trainer(lm, toy_rows(), with_keys(STAGE, {"learning_rate": 1e30, "optimizer.clip": 0.0})).run()


@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_an_interrupt_leaves_a_checkpoint_and_the_run_goes_on_to_the_same_end(
    tmp_path: Path, asking: signal.Signals
) -> None:
    stage = with_keys(
        STAGE, {"steps": 9, "checkpoints.every": 100, "validation.every": 4, "objective.dropout": 0.1}
    )
    straight = tiny_lm()
    torch.manual_seed(0)
    lm_trainer(straight, toy_rows(), stage, validate=lambda: {"ndcg@10": 0.0}).run()

    def interrupt() -> dict[str, float]:
        signal.raise_signal(asking)
        return {"ndcg@10": 0.0}

    first = tiny_lm()
    handler = signal.getsignal(asking)
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        lm_trainer(first, toy_rows(), stage, folder=tmp_path, validate=interrupt).run()
    assert signal.getsignal(asking) is handler
    lm = tiny_lm(seed=5)  # all of it comes from the checkpoint
    place = lm_trainer(lm, toy_rows(), stage, folder=tmp_path, validate=lambda: {"ndcg@10": 0.0}).run()
    assert place.step == 9
    assert [int(step) for step in logged(tmp_path, "step")] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 9]
    straight_weights = copy_of(straight)
    assert all(torch.equal(copy_of(lm)[name], straight_weights[name]) for name in straight_weights)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    stage = with_keys(STAGE, {"steps": 2, "checkpoints.every": 1})
    lm_trainer(tiny_lm(), toy_rows(), stage, folder=tmp_path, identity="one").run()
    with pytest.raises(ArtifactError, match="another run"):
        lm_trainer(tiny_lm(), toy_rows(), stage, folder=tmp_path, identity="two").run()


def test_trains_outside_the_main_thread() -> None:
    lm = tiny_lm()
    before = copy_of(lm)
    thread = threading.Thread(target=lambda: lm_trainer(lm, toy_rows(), STAGE).run())
    thread.start()
    thread.join()
    assert not torch.equal(lm.get_input_embeddings().weight, before["model.embed_tokens.weight"])


def test_bfloat16_learns_like_float32(tmp_path: Path) -> None:
    data = toy_rows()
    stage = replace(STAGE, steps=30)
    lm_trainer(tiny_lm(), data, stage, folder=tmp_path / "full").run()
    lm = tiny_lm()
    lm_trainer(lm, data, with_keys(stage, {"engine.precision": "bfloat16"}), folder=tmp_path / "half").run()
    full, half = logged(tmp_path / "full", "loss"), logged(tmp_path / "half", "loss")
    assert half == pytest.approx(full, rel=0.05)
    assert half != full
    assert lm.dtype == torch.float32


def test_tensorboard_has_the_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stage = with_keys(STAGE, {"logs.trackers": ("tensorboard",)})
    lm_trainer(tiny_lm(), toy_rows(), stage, folder=tmp_path).run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(logged(tmp_path, "loss"))


def test_a_disk_that_fills_while_training(small_disk: Path) -> None:
    stage = with_keys(
        STAGE, {"steps": 8, "checkpoints.every": 1, "checkpoints.keep": 1, "optimizer.ema": 0.5}
    )
    ballast = small_disk / "ballast"
    first = tiny_lm()
    torch.manual_seed(0)

    def fill() -> dict[str, float]:
        assert trainer.checkpoints is not None
        trainer.checkpoints.finish()  # that of step 3 is there before the disk fills
        ballast.write_bytes(b"x" * 1_100_000)
        return {"ndcg@10": 0.0}

    trainer = lm_trainer(
        first, toy_rows(), with_keys(stage, {"validation.every": 4}), folder=small_disk, validate=fill
    )
    with pytest.raises(ArtifactError, match=r"disk is full; the checkpoint of step 3 is intact"):
        trainer.run()
    ballast.unlink()
    place = lm_trainer(
        tiny_lm(),
        toy_rows(),
        with_keys(stage, {"validation.every": 4}),
        folder=small_disk,
        validate=lambda: {"ndcg@10": 0.0},
    ).run()
    assert place.step == 8


def test_the_weights_of_another_run_alone(tmp_path: Path) -> None:
    data, first = toy_rows(), with_keys(STAGE, {"checkpoints.every": 3, "optimizer.ema": 0.5})
    lm_trainer(tiny_lm(), data, first, folder=tmp_path / "first").run()
    taken = tmp_path / "first" / "checkpoints" / "step-00000003"
    average = {
        name.removeprefix("average/"): weight
        for name, weight in load_file(next(taken.glob("*.safetensors"))).items()
        if name.startswith("average/")
    }
    expected = tiny_lm(seed=1)
    with torch.no_grad():
        for name, weight in expected.named_parameters():
            weight.copy_(average[name])
    lm_trainer(expected, data, with_keys(STAGE, {"optimizer.ema": 0.5}), seed=5).run()
    ours = tiny_lm(seed=1)
    second = with_keys(STAGE, {"weights": str(taken), "optimizer.ema": 0.5})
    place = lm_trainer(ours, data, second, seed=5, folder=tmp_path / "second").run()
    assert place.step == 6  # all steps anew, at the rates of the beginning
    for name, weight in expected.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight)


def test_weights_that_do_not_fit_or_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no checkpoint"):
        lm_trainer(tiny_lm(), toy_rows(), replace(STAGE, weights=str(tmp_path / "step-7"))).run()
    lm_trainer(tiny_lm(), toy_rows(), with_keys(STAGE, {"checkpoints.every": 3}), folder=tmp_path).run()
    taken = str(tmp_path / "checkpoints" / "step-00000003")
    with pytest.raises(ArtifactError, match=r"nothing for weights/lm_head\.weight"):
        lm_trainer(tiny_lm(tied=False), toy_rows(), replace(STAGE, weights=taken)).run()
