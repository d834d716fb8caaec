"""Losses by kind of token and by source, against sums over rows computed one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from itemic.sid.index import ItemIndex
from itemic.training.language.breakdown import TokenKinds
from tests.stages import stage_of
from tests.training.helpers import VOCABULARY, lm_trainer, tiny_lm, toy_rows
from tests.training.test_run import INDEX, STAGE, conversations, fresh

FIRST = 40


def test_kinds_follow_the_order_of_the_tokens() -> None:
    index = ItemIndex(["a", "b"], np.array([[0, 1, 0], [2, 0, 1]]), (3, 2, 2))  # onerec: begin and end
    kinds = TokenKinds.of_index(index, FIRST, VOCABULARY)
    assert kinds.names == ("text", "level 1", "level 2", "level 3", "frame")
    assert len(index.tokens) == 9
    assert kinds.of.tolist() == [0] * 40 + [1] * 3 + [2] * 2 + [3] * 2 + [4] * 2 + [0] * 15


@pytest.mark.parametrize("normalizer", ["token", "row"])
def test_parts_are_those_of_single_rows(normalizer: str, tmp_path: Path) -> None:
    """One step over all rows: every part is the weighted mean that plain forward passes of the rows give."""
    index = ItemIndex(["a", "b"], np.array([[0, 1], [9, 8]]), (10, 9), "minionerec")
    kinds = TokenKinds.of_index(index, FIRST, VOCABULARY)
    data = toy_rows(names=("a", "b", "c"))
    lm = tiny_lm()
    sums: dict[str, list[float]] = {}
    with torch.no_grad():
        for row, tokens in enumerate(data.rows):
            ids = torch.from_numpy(tokens.astype(np.int64))
            logits = lm(ids[None], use_cache=False).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
            begin, stop = data.rows.offsets[row], data.rows.offsets[row + 1]
            assert data.rows.weights is not None
            weights = data.rows.weights[begin:stop][1:]
            weights = weights / weights.sum() if normalizer == "row" else weights
            for token, loss, weight in zip(tokens[1:], losses.tolist(), weights.tolist(), strict=True):
                kind = kinds.names[kinds.of[token]]
                names = [
                    kind,
                    f"source {data.names[data.sources[row]]}",
                    *(["itemic"] if kind != "text" else []),
                ]
                for name in names:
                    total = sums.setdefault(f"loss/{name}", [0.0, 0.0])
                    total[0] += loss * weight
                    total[1] += weight
    stage = stage_of(
        {
            "steps": 1,
            "data.tokens_per_step": 10_000,
            "data.block_tokens": 60,
            "engine.precision": "float32",
            "objective.normalizer": normalizer,
            "logs.every": 2,
        }
    )
    trainer = lm_trainer(lm, data, stage, kinds=kinds, folder=tmp_path)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    logged = {name: value for name, value in lines[0].items() if name.startswith("loss/")}
    expected = {name: loss / weight for name, (loss, weight) in sums.items() if weight}
    assert logged == pytest.approx(expected, rel=1e-4)
    assert set(expected) == {
        *(f"loss/{name}" for name in ("text", "level 1", "level 2", "itemic")),
        *(f"loss/source {name}" for name in "abc"),
    }


def test_a_run_logs_them(tmp_path: Path) -> None:
    from itemic import train

    train(fresh(), conversations(), stage=stage_of(STAGE), output=tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    parts = {name for name in lines[-1] if name.startswith("loss/")}
    levels = {f"loss/level {level + 1}" for level in range(INDEX.levels)}
    assert parts >= {"loss/itemic", "loss/text", "loss/frame", "loss/source C"} | levels
    assert all(0 < lines[-1][name] < 20 for name in parts)
