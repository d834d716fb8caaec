"""The site of documents builds without a warning, has every public object, and fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import itemic

ROOT = Path(__file__).resolve().parents[1]
FETCHED = re.compile(r"<(?:script|img|link)[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


@pytest.mark.slow
def test_the_site_builds_strictly_and_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for document in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / document.stem / "index.html").is_file()
    pages = {page: page.read_text("utf-8") for page in tmp_path.rglob("*.html")}
    interface = "".join(text for page, text in pages.items() if "api" in page.parts)
    for name in itemic.__all__:
        assert f'id="{itemic._HOMES[name]}.{name}"' in interface, name
    assert not re.search(r":(class|func|meth|data|mod):", interface)
    for page, text in pages.items():
        assert not FETCHED.search(text), page
