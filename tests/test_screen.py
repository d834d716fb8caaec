"""A catalogue of titles with brackets, control codes and HTML, on everything that people see."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.text import Text

import itemic
from itemic import progress
from itemic.cli.app import _complain, call
from itemic.data import Dataset
from itemic.errors import DataError
from itemic.screen import Table, rendered
from tests.cases import case

TITLES = ["[bold]x[/bold] [/]", "[/]", "␛[31mred␛[0m", "[link=http://127.0.0.1]y", "\\u202eright to left"]
RECIPE = """\
name: markup
data: {{format: letter, path: {path}}}
index: {{levels: [4, 4]}}
model:
  preset: qwen3-pico
  vocab_size: 400
  overrides: {{hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, head_dim: 16, intermediate_size: 32}}
tasks: [{{task: C, windows: [all]}}, {{task: A}}]
stages: [{{epochs: 1, data: {{tokens_per_step: 512}}}}]
evaluate:
  beams: 8
  k: [5]
  published: [{{name: "[/] <b>", metrics: {{hr@5: 0.5}}, source: "[red]paper"}}]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the case's catalogue, whose paper has a name with brackets as well."""
    folder = tmp_path_factory.mktemp("markup")
    text = RECIPE.format(path=case("markup-titles") / "x")
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    assert call(["run", str(folder / "recipe.yaml"), "-o", str(folder / "run")]) == 0
    return folder / "run"


def screen(capfd: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> str:
    """What a command prints on both streams; no control code gets through."""
    capfd.readouterr()
    assert call([str(argument) for argument in arguments]) == status
    printed = capfd.readouterr()
    everything = printed.out + printed.err
    assert not {"\x1b", "\u202e", "\t"} & set(everything)
    return everything


def test_recommendations_show_titles_as_they_are(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = screen(capfd, "recommend", run, "--user", "u0", "-k", "8")
    for title in [*TITLES, "{braces} %s $HOME", "<script>alert(1)</script>"]:
        assert title in shown


def test_every_other_screen_does_too(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "users" in screen(capfd, "data", "describe", run, "--plot", tmp_path / "x.png")
    previews = screen(capfd, "tasks", "preview", run / "conversations", "-n", "40", "--index", run / "index")
    for title in ("[bold]x[/bold] [/]", "Title: [/]", "[link=http://127.0.0.1]y", "\\u202eright to left"):
        assert title in previews
    rows = ("--dataset", run, "--index", run)
    assert "all well" in screen(capfd, "tasks", "validate", run / "conversations", *rows)
    assert "collision_rate" in screen(capfd, "sid", "show", run)
    assert "perplexity" in screen(capfd, "sid", "report", run)
    table = screen(capfd, "compare", run / "report" / "model.json", "--markdown")
    assert table.startswith("| |")
    assert r"| [/] \<b\> |" in (run / "report" / "comparison.md").read_text()


def test_a_comparison_does_too(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = screen(capfd, "compare", run, run / "evaluate" / "popularity", "-o", tmp_path / "out")
    assert "minus" in shown
    shown += screen(capfd, "compare", run, run / "evaluate" / "popularity", "--markdown")
    assert "some of them" in shown
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert not {"\x1b", "\u202e"} & set(page + (tmp_path / "out" / "comparison.md").read_text())
    assert "<script" not in page
    assert "<b>" not in page.replace("<b>Figure", "")


def test_an_analysis_does_too(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hostile = "[/] <script>alert(1)</script>\x1b[31m\u202e $x$"
    users = Dataset.load(run / "data").split("test").users.tolist()
    columns = pl.DataFrame({"user_id": users, hostile: [f"{hostile} {at % 2}" for at in range(len(users))]})
    columns.write_parquet(tmp_path / "own.parquet")
    own = ("--slices", tmp_path / "own.parquet", "-o", tmp_path / "out")
    shown = screen(capfd, "analyze", run, "-k", "5", *own)
    assert "cases are bad at 5" in shown
    out = tmp_path / "out"
    summary = (out / "summary_report.txt").read_text()
    assert "␛" in summary
    assert not {"\x1b", "\u202e"} & set(summary)
    assert (out / "visualizations" / "slices.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert not {"\x1b", "\u202e"} & set(page)
    assert "<script>alert" not in page
    advised = screen(
        capfd, "advise", run, "--strategy", "long_tail", "--auto", "-o", tmp_path / "improved.yaml"
    )
    assert "long_tail" in advised


def test_the_page_of_semantic_ids_holds_titles_and_no_tags(run: Path, tmp_path: Path) -> None:
    assert call(["sid", "report", str(run), "--html", str(tmp_path / "sid.html")]) == 0
    page = (tmp_path / "sid.html").read_text()
    assert "␛[31mred␛[0m" in page
    assert "\\u202eright to left" in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert "<script" not in page


def test_the_page_of_a_run_does_too(run: Path, tmp_path: Path) -> None:
    assert call(["report", str(run), "-o", str(tmp_path / "run.html")]) == 0
    for page in ((tmp_path / "run.html").read_text(), (run / "report" / "report.html").read_text()):
        for title in ("[bold]x[/bold] [/]", "␛[31mred␛[0m", "\\u202eright to left", "&lt;script&gt;alert(1)"):
            assert title in page
        assert "[/] &lt;b&gt;: [red]paper" in page
        assert not {"\x1b", "\u202e"} & set(page)
        assert "<script" not in page


def test_errors_and_logs_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    _complain(DataError("no item '[/] \x1b[31m'", "Try [bold]\u202e[/]."))
    told = capsys.readouterr().err
    assert told == "error: no item '[/] ␛[31m'\n  → Try [bold]\\u202e[/].\n"
    with progress.console.capture() as captured:
        progress._Handler(console=progress.console, show_path=False, markup=False).emit(
            logging.makeLogRecord({"msg": "item [/] :smile: \x1b[31m\u202e"})
        )
    assert "item [/] :smile: ␛[31m\\u202e" in captured.get()


def test_bars_describe_with_text() -> None:
    bar = progress.make_progress()
    bar.add_task("[bold]x[/] {braces} \x1b", total=2)
    assert "[bold]x[/] {braces} ␛" in rendered(bar.make_tasks_table(bar.tasks), width=200)


def test_cells_headers_titles_and_captions_are_text() -> None:
    table = Table("[/]", title="[b]\x1b", caption="[/c]\nnext")
    table.add_column(":smile:")
    table.add_row("[bold]x", Text("styled", style="bold"))
    shown = rendered(table)
    for text in ("[/]", "[b]␛", "[/c]", "next", ":smile:", "[bold]x", "styled"):
        assert text in shown


def test_the_model_card_quotes_ids() -> None:
    from itemic.model.card import _example
    from itemic.sid.index import ItemIndex

    index = ItemIndex(["`a` <b>"], [[0]], (1,), "onerec", {})
    assert "(item ``` `a` <b> ```)" in _example(index) or "(item `` `a` <b> ``)" in _example(index)


def test_only_one_module_makes_tables_and_nobody_reads_markup() -> None:
    """What keeps the next table from reading brackets as tags."""
    root = Path(itemic.__file__).parent
    found: dict[str, set[str]] = {}
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names: Any = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                found.setdefault(name, set()).add(str(file.relative_to(root)))
    assert "rich.table.Table" not in found
    assert found["rich.table"] == {"screen.py"} if "rich.table" in found else True
    assert not [name for name in found if name.startswith(("rich.markup", "rich.markdown"))]
