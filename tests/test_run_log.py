"""What a run says: plain lines that fit a terminal, and ``run.log`` in its folder, call after call."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from itemic.cli.app import call
from itemic.pipeline import Run
from itemic.progress import log, log_to, setup_logging
from itemic.recipe import load_recipe
from tests.runs import STEPS, write_recipe

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
SMALL = ["-s", "data.simulate={users: 30, items: 20, categories: 4, brands: 4, longest: 8}"]


def log_of(root: Path) -> list[str]:
    lines = (root / "run.log").read_text(encoding="utf-8").splitlines()
    assert all(re.match(TIME, line) for line in lines)
    return [re.sub(TIME, "", line) for line in lines]


def test_run_log_grows_with_each_call(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    assert call(["run", "tiny.yaml", "--until", "index", *SMALL]) == 0
    first = log_of(Path("runs/tiny"))
    assert first[0].startswith("$ itemic run tiny.yaml --until index -s 'data.simulate={users: 30")
    assert re.fullmatch(r"recipe tiny, digest [0-9a-f]{16}, seed 0", first[1])
    assert re.match(r"python 3\S+, itemic \S+, torch \S+", first[2])
    assert first[3] == "1/2 data: starts (not built yet)"
    assert re.fullmatch(r"done after \d+ s", first[-1])
    on_screen = [line.split(" ", 1)[1] for line in capfd.readouterr().err.splitlines()]
    assert on_screen == first[3:-1]

    assert call(["run", "tiny.yaml", "--until", "index", *SMALL, "-s", "seed=1"]) == 0
    both = log_of(Path("runs/tiny"))
    assert both[: len(first)] == first
    assert both[len(first) + 1] != first[1]  # another recipe's digest
    assert "1/2 data: starts (seed was 0, now 1)" in both[len(first) :]


def test_an_end_that_was_no_good_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.of(load_recipe(write_recipe(tmp_path)), tmp_path / "run")
    monkeypatch.setattr("itemic.data.simulator.simulate", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.execute(until="data")
    lines = log_of(tmp_path / "run")
    assert lines[0] == "$ (from Python)"
    assert lines[-2:] == ["ZeroDivisionError: division by zero", "failed after 0 s"]

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("itemic.data.simulator.simulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.execute(until="data")
    assert log_of(tmp_path / "run")[-2:] == [
        "warning: interrupted in the step data",
        "interrupted after 0 s",
    ]


def test_a_whole_run_says_no_more_than_a_person_reads(finished: Path) -> None:
    lines = log_of(finished / "run")
    steps = [line.split(" ")[1] for line in lines if "starts (not built yet)" in line]
    assert steps == [f"{step}:" for step in STEPS]
    ours = [line for line in lines[3:] if not line.startswith(("step ", "ranking "))]
    assert len(ours) < 30
    assert max(map(len, ours)) <= 100 - len("12:34:56 ")


def test_lines_where_nobody_looks_are_plain(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No padding, no colour, no wrapping; what others wrote can't break out of its line."""
    setup_logging()
    with log_to(tmp_path / "log") as write:
        log.info("%s", "long " * 60 + "[bold]\x1b[31m")
        log.warning("two\nlines")
        write("for the file alone")
    shown = capfd.readouterr().err.splitlines()
    assert shown[0][9:] == "long " * 60 + "[bold]␛[31m"
    assert [line[9:] for line in shown[1:]] == ["warning: two", "lines"]
    assert shown[2].startswith(" " * 9)
    assert (tmp_path / "log").read_text().splitlines()[-1].endswith(" for the file alone")


def test_a_file_hears_what_no_console_shows(tmp_path: Path) -> None:
    level, handlers = log.level, log.handlers[:]
    try:
        log.setLevel(logging.NOTSET)
        log.handlers[:] = []
        with log_to(tmp_path / "log"):
            log.info("a line")
        assert log.level == logging.NOTSET
        assert log.handlers == []
    finally:
        log.setLevel(level)
        log.handlers[:] = handlers
    assert (tmp_path / "log").read_text().endswith("a line\n")
