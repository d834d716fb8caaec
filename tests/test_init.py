"""``itemic init``: what it chooses, what it writes, and that it runs."""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from itemic.cli.app import call
from itemic.data.look import look
from itemic.errors import DataError
from itemic.recipe import check_recipe
from itemic.recipe.init import Machine, code_levels, draft_recipe, plan_recipe
from tests.cases import case

CPU = Machine(2, 8 << 30, ())
GPU = Machine(16, 128 << 30, ("NVIDIA H100",))
Write = Callable[..., Path]


@pytest.fixture
def clicks(tmp_path: Path) -> Write:
    """Writes users with so many interactions each, all items equally often."""

    def write(users: int, each: int, items: int, *, times: bool = True, name: str = "clicks") -> Path:
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        lines = ["user,item,time" if times else "user,item"]
        for user in range(users):
            for i in range(each):
                item = (user * each + i) % items
                lines.append(
                    f"u{user},i{item},{1_600_000_000 + 60 * (user + i)}" if times else f"u{user},i{item}"
                )
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    return write


@pytest.mark.parametrize(
    ("items", "levels"),
    [
        (1, (2, 2)),
        (8, (8, 4)),
        (1000, (64, 64)),
        (4344, (256, 128)),
        (12_101, (256, 256)),
        (1_000_000, (256, 128, 128)),
    ],
)
def test_four_semantic_ids_for_every_item(items: int, levels: tuple[int, ...]) -> None:
    """8 items: 32 = 8 × 4; a million: 2²² = 256 × 128 × 128."""
    assert code_levels(items) == levels


class TestChoices:
    def test_items_without_text_are_known_by_behaviour(self, clicks: Write) -> None:
        assert plan_recipe(look(clicks(30, 6, 20)), CPU).encoder == "collaborative"
        assert plan_recipe(look(case("shop")), CPU).encoder == "lsa"

    def test_a_k_core_that_loses_little(self, clicks: Write) -> None:
        assert plan_recipe(look(clicks(30, 6, 20)), CPU).core == 5
        assert plan_recipe(look(clicks(30, 4, 20)), CPU).core == 3
        assert plan_recipe(look(clicks(30, 2, 20)), CPU).core == 0

    def test_few_interactions_of_a_user_are_split_by_time(self, clicks: Write) -> None:
        assert plan_recipe(look(clicks(60, 3, 20)), CPU).split == "temporal"
        assert plan_recipe(look(clicks(60, 3, 20, times=False)), CPU).split == "leave-one-out"
        assert plan_recipe(look(clicks(60, 6, 20)), CPU).split == "leave-one-out"

    def test_a_gpu_takes_a_larger_model(self, clicks: Write) -> None:
        found = look(clicks(30, 6, 20))
        assert plan_recipe(found, CPU).preset == "qwen3-pico"
        assert plan_recipe(found, GPU).preset == "qwen3-nano"

    def test_items_that_come_again_are_not_left_out(self, clicks: Write) -> None:
        assert plan_recipe(look(clicks(30, 6, 20)), CPU).exclude_history
        assert not plan_recipe(look(clicks(30, 30, 20)), CPU).exclude_history

    def test_too_little_to_ask_about(self, clicks: Write) -> None:
        with pytest.raises(DataError, match="split is empty"):
            plan_recipe(look(clicks(3, 1, 3, times=False)), CPU)

    def test_gpus_are_those_that_the_driver_lists(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\necho 'NVIDIA A100'\necho 'NVIDIA L4'\n", encoding="utf-8")
        tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert Machine.here().gpus == ("NVIDIA A100", "NVIDIA L4")
        tool.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
        assert Machine.here().gpus == ()


class TestWritten:
    @pytest.mark.parametrize("name", ["own-csv", "shop", "recbole-inter-only", "milliseconds", "no-metadata"])
    def test_it_passes_check(self, name: str, tmp_path: Path) -> None:
        file = tmp_path / "recipe.yaml"
        file.write_text(draft_recipe(look(case(name)), CPU, file), encoding="utf-8")
        recipe, waiting = check_recipe(file, [])
        assert not waiting
        assert recipe.data is not None
        assert recipe.data.path == str(case(name))
        assert f"itemic run {file}" in file.read_text(encoding="utf-8")

    def test_bad_rows_and_options_are_in_it(self, clicks: Write) -> None:
        folder = clicks(30, 6, 20)
        with (folder / "clicks.csv").open("a") as file:
            file.write("u1,,7\n")
        data = yaml.safe_load(draft_recipe(look(folder, "table", {"timestamp": False}), CPU))["data"]
        assert data["on_bad_row"] == "drop"
        assert data["options"] == {"timestamp": False}


class TestCommand:
    def test_it_writes_and_never_overwrites(
        self, clicks: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, recipe = clicks(30, 6, 20), tmp_path / "new" / "mine.yaml"
        assert call(["init", str(folder), "-o", str(recipe)]) == 0
        shown = capsys.readouterr().out
        assert "user = user, item = item, timestamp = time, times are in seconds" in shown
        assert f"itemic run {recipe}" in shown
        assert call(["check", str(recipe)]) == 0
        first = recipe.read_text(encoding="utf-8")
        assert call(["init", str(folder), "-o", str(recipe), "-s", "timestamp=false"]) == 2
        assert "--force" in capsys.readouterr().err
        assert recipe.read_text(encoding="utf-8") == first
        assert call(["init", str(folder), "-o", str(recipe), "-s", "timestamp=false", "--force"]) == 0
        assert "timestamp" in recipe.read_text(encoding="utf-8")

    def test_it_asks_on_a_terminal(
        self, tmp_path: Path, clicks: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = clicks(30, 6, 20)
        text = (folder / "clicks.csv").read_text(encoding="utf-8")
        lines = [f"{line},{'shelf' if i == 0 else i % 9}" for i, line in enumerate(text.splitlines())]
        (folder / "clicks.csv").write_text("\n".join(lines), encoding="utf-8")
        answers = io.StringIO(f"table\n\nshelf\n\n{tmp_path / 'asked.yaml'}\n")
        monkeypatch.setattr(answers, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", answers)
        assert call(["init", str(folder)]) == 0
        data = yaml.safe_load((tmp_path / "asked.yaml").read_text(encoding="utf-8"))["data"]
        assert (data["format"], data["options"]) == ("table", {"item": "shelf"})

    def test_nothing_is_written_where_nothing_is_found(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(["init", str(tmp_path / "none"), "-o", str(tmp_path / "r.yaml")]) == 2
        assert "none" in capsys.readouterr().err
        assert not (tmp_path / "r.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own-csv", "recbole-inter-only"])
def test_what_it_writes_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert call(["init", str(case(name)), "-o", str(recipe)]) == 0
    assert call(["run", str(recipe), "-o", str(tmp_path / "run"), "-s", "stages.0.epochs=8"]) == 0
    shown = capsys.readouterr().out
    assert "popularity" in shown
    assert "6 requests" in shown
