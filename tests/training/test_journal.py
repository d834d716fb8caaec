"""What a person reads of a run that nobody watches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from itemic.training import journal as module
from itemic.training.journal import journal


@pytest.mark.parametrize(
    ("every", "total", "losses", "validations"), [(1, 1000, 10, 10), (10, 40, 4, 2), (2, 3, 1, 0)]
)
def test_about_ten_lines_whatever_the_length(
    every: int, total: int, losses: int, validations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(module.log, "info", lambda text, *values: lines.append(text % values))
    numbers = {"loss": 1.5, "loss/text": 2.0, "grad_norm": 1.0, "tokens_per_second": 1234}
    with journal(tmp_path, "all", 0, total) as book:
        for step in range(every, total + 1, every):
            book.write(step, step / total, numbers)
            if step % 20 == 0:
                book.write(step, step / total, {"valid/ndcg@10": 0.25, "samples": []})
    assert sum("loss 1.5" in line for line in lines) == losses
    assert sum("valid/ndcg@10 0.25" in line for line in lines) == validations
    assert not any("grad_norm" in line or "text" in line for line in lines)
    assert all(len(line) < 100 for line in lines)
    written = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum("grad_norm" in line for line in written) == total // every


def test_a_run_that_goes_on_shows_the_tenths_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(module.log, "info", lambda text, *values: lines.append(text % values))
    with journal(tmp_path, "all", 75, 100) as book:
        for step in range(76, 101):
            book.write(step, 1.0, {"loss": 1.0})
    assert [line.split()[1] for line in lines] == ["80", "90", "100"]
