"""``itemic run --interactive``, on a terminal: what is asked at each step, and what becomes of the answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from itemic.artifact import read_manifest
from itemic.cli.app import call
from tests.advise.terminal import Terminal
from tests.runs import made, write_recipe


def run(folder: Path, *arguments: str) -> Terminal:
    return Terminal("run", folder / "tiny.yaml", "-o", folder / "run", "--interactive", *arguments)


def test_a_change_is_checked_and_concerns_what_it_concerns(copied: Path) -> None:
    before = made(copied / "run")
    with run(copied) as screen:
        screen.answer("1/8 data: up to date(?s:.*)keep, rerun, change, stop", "c")
        screen.answer("KEY=VALUE", "evaluate.beams=3")
        screen.answer("3 beams can't rank k = 10(?s:.*)KEY=VALUE", "evaluate.beam=30")
        screen.answer("did you mean 'beams'(?s:.*)KEY=VALUE", "evaluate.beams=30")
        screen.expect("the first step that is to be made is evaluate")
        for step in ("data", "index", "conversations", "model", "train.rows", "train.all"):
            screen.answer(rf"/8 {step}: up to date(?s:.*)keep, rerun", "")
        screen.answer("7/8 evaluate: beams was 20, now 30(?s:.*)run, keep, change, stop", "")
        screen.answer(r"evaluate is done in(?s:.*)keep, rerun, change, stop", "keep")
        screen.answer("8/8 report: input evaluate changed(?s:.*)run, keep, change, stop", "run")
        screen.answer(r"report is done in(?s:.*)keep, rerun", "")
        screen.expect("popularity")  # the table at the end
        assert screen.ends() == 0, screen.text
    after = made(copied / "run")
    assert [step for step in after if after[step] != before[step]] == ["evaluate", "report"]
    manifest = read_manifest(copied / "run" / "evaluate")
    assert manifest is not None
    assert manifest.config["beams"] == 30
    assert "beams: 30" in (copied / "run" / "recipe.yaml").read_text()


def test_a_step_is_made_again_and_stopping_says_how_to_go_on(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    with run(tmp_path, "-s", "seed=1") as screen:
        screen.answer("1/8 data: not built yet(?s:.*)run, change, stop", "nonsense")
        screen.answer("is none of these(?s:.*)run, change, stop", "r")
        screen.answer("data is done in(?s:.*)keep, rerun, change, stop", "rerun")
        screen.answer("--from data(?s:.*)data is done in(?s:.*)keep, rerun", "change")
        screen.answer("KEY=VALUE", "")  # nothing, after all
        screen.answer("1/8 data: up to date(?s:.*)keep, rerun", "k")
        screen.answer("2/8 index: not built yet(?s:.*)run, change, stop", "stop")
        found = screen.expect(r"go on with: (itemic run .* -s seed=1 --interactive)")
        assert str(tmp_path / "run") in found[1]
        assert screen.ends() == 0, screen.text
    assert list(made(tmp_path / "run")) == ["data"]


def test_a_stale_step_may_be_kept(copied: Path) -> None:
    before = made(copied / "run")
    with run(copied, "-s", "stages.1.epochs=7") as screen:
        for _ in range(5):
            screen.answer("up to date(?s:.*)keep, rerun", "k")
        screen.answer("6/8 train.all: epochs was 2, now 7(?s:.*)run, keep, change, stop", "keep")
        screen.answer("7/8 evaluate: --from evaluate(?s:.*)run, keep, change, stop", "stop")
        assert screen.ends() == 0, screen.text
    assert made(copied / "run") == before


def test_without_a_terminal_it_says_so(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["run", str(finished / "tiny.yaml"), "-o", str(finished / "run"), "--interactive"]) == 2
    assert "no terminal to ask on" in capfd.readouterr().err


def test_what_is_asked_is_not_said_as_well(finished: Path) -> None:
    with run(finished, "--until", "index") as screen:
        screen.expect("--until has no meaning beside --interactive")
        assert screen.ends() == 2
