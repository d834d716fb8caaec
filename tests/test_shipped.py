"""The recipes that come with the package: found by name from any folder, listed, shown and copied."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import pytest

from itemic.cli.app import call
from itemic.recipe import RecipeError, check_recipe, load_recipe
from itemic.recipe.shipped import SHIPPED, companion_names, describe_recipe, find_recipe, recipe_names


def test_a_name_finds_the_shipped_recipe_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart", ["seed=3"]).seed == 3
    (tmp_path / "quickstart").mkdir()  # a folder is no recipe
    assert find_recipe("quickstart") == SHIPPED / "quickstart.yaml"
    (tmp_path / "quickstart").rmdir()
    (tmp_path / "quickstart").write_text("name: mine")
    assert find_recipe("quickstart") == Path("quickstart")


@pytest.mark.parametrize("name", ["quickstart.yaml", "recipes/quickstart", "quikstart"])
def test_a_missing_file_is_never_another_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=f"{name}: can't be read: No such file.*did you mean 'quickstart'"):
        check_recipe(name)


def test_a_run_goes_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = "data.simulate={users: 30, items: 20, categories: 4, brands: 4, longest: 8}"
    assert call(["run", "quickstart", "--until", "data", "-s", small]) == 0
    assert (tmp_path / "runs" / "quickstart" / "data" / "manifest.json").is_file()


def test_list_says_what_each_is_for_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(recipe_names())]] == recipe_names()
    assert "quickstart" in recipe_names()
    for name in recipe_names():
        assert 20 < len(describe_recipe(name)) <= 100
        assert describe_recipe(name).endswith("."), name
    assert [line.strip() for line in lines[-len(companion_names()) :]] == companion_names()
    assert call(["recipe", "list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["recipes"]) == recipe_names()


def test_show_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    for name, file in (("beauty", "beauty.yaml"), ("launch/zero2.json", "launch/zero2.json")):
        assert call(["recipe", "show", name]) == 0
        assert capsys.readouterr().out == (SHIPPED / file).read_text(encoding="utf-8")
    assert call(["recipe", "show", "launch"]) == 2
    assert "itemic recipe copy launch" in capsys.readouterr().err


def test_copy_writes_a_recipe_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["recipe", "copy", "quickstart"]) == 0
    assert load_recipe("quickstart.yaml") == load_recipe("quickstart")
    assert call(["recipe", "copy", "quickstart"]) == 2
    assert "quickstart.yaml is there already" in capsys.readouterr().err
    assert call(["recipe", "copy", "quickstart", "-o", "mine/own.yaml"]) == 0
    assert load_recipe("mine/own.yaml") == load_recipe("quickstart")
    assert call(["recipe", "copy", "launch"]) == 0
    names = [file.name for file in (SHIPPED / "launch").iterdir()]
    assert filecmp.cmpfiles(SHIPPED / "launch", "launch", names, shallow=False)[0] == names


def test_an_unknown_name_says_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["recipe", "copy", "scientfic"]) == 2
    assert "did you mean 'scientific'" in capsys.readouterr().err
