"""The tutorial works as it stands: every line of it is done, in order, in an empty folder."""

from __future__ import annotations

import json
import runpy
import shlex
from pathlib import Path

import pytest

from itemic.cli.app import call
from tests.test_docs import FENCE, ROOT

TEXT = (ROOT / "docs" / "tutorial.md").read_text("utf-8")


@pytest.mark.slow
def test_every_line_of_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = []
    for language, body in FENCE.findall(TEXT):
        if language == "python":
            Path(body.partition("\n")[0].removeprefix("# ")).write_text(body, encoding="utf-8")
        elif language == "bash":
            for line in body.splitlines():
                head, *rest = shlex.split(line, comments=True)
                if head == "python":
                    runpy.run_path(rest[0])
                elif head == "itemic":
                    capsys.readouterr()
                    assert call(rest) == 0, line
                    done.append(rest[0])
    assert done[:3] == ["init", "check", "run"]
    answer = json.loads(capsys.readouterr().out)  # of the last command
    assert answer["user"] == "u7"
    assert len(answer["items"]) == 5
    assert all(item["title"] for item in answer["items"])


def test_the_four_commands_are_those_of_the_text() -> None:
    head = TEXT.partition("\n## ")[0]
    for command in ("pip install itemic", "itemic init my-shop -o my-shop.yaml", "itemic run my-shop.yaml"):
        assert f"`{command}`" in head
        assert f"\n{command}\n" in TEXT
