"""Curves of a run: what is drawn is what the logs say, stage after stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from itemic.errors import ArtifactError
from itemic.training.curves import plot_curves, read_logs


def write(folder: Path, lines: list[dict[str, float]]) -> None:
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text + '{"step": 9, "lo')  # and a line that is being written


def test_stages_come_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("stages: [{name: rows}, {name: all}, {name: chat}]")
    write(tmp_path / "train.all", [{"tokens": 50, "loss": 2.0}, {"tokens": 90, "loss": 1.5}])
    write(tmp_path / "train.chat", [{"valid/hr@10": 0.5}])
    write(tmp_path / "train.rows", [{"tokens": 10, "loss": 3.0}])
    found = read_logs(tmp_path)
    assert [(log.name, log.tokens, len(log.lines)) for log in found] == [
        ("rows", 10, 1),
        ("all", 90, 2),
        ("chat", 0, 1),
    ]
    assert [log.name for log in read_logs(tmp_path / "train.all")] == ["all"]


@pytest.mark.parametrize("validated", [False, True])
def test_a_picture_with_the_colors_of_its_lines(tmp_path: Path, validated: bool) -> None:
    lines = [{"tokens": 1000 * n, "loss": 5.0 / n, "loss/itemic": 4.0 / n} for n in range(1, 9)]
    if validated:
        lines.insert(4, {"valid/hr@10": 0.1, "valid/ndcg@10": 0.05})
        lines.append({"valid/hr@10": 0.2, "valid/ndcg@10": 0.1})
    write(tmp_path / "train.all", lines)
    plot_curves(tmp_path, tmp_path / "plots" / "curves.png")
    picture = Image.open(tmp_path / "plots" / "curves.png").convert("RGB")
    assert (picture.width > 1.5 * picture.height) == validated or picture.width > picture.height
    colors = {color for _, color in picture.getcolors(10**7) or []}
    assert {(0x1F, 0x6F, 0xB4), (0x8A, 0x8A, 0x8A)} <= colors
    assert ((0xD9, 0x82, 0x2B) in colors) == validated  # there is no text loss, but an NDCG


def test_no_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no log\.jsonl"):
        plot_curves(tmp_path, tmp_path / "curves.png")
