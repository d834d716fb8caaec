"""The worked examples run, on tiny data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from transformers import AutoModelForCausalLM

import itemic
from itemic.model.model import Model

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KNOWN = ("own_csv", "own_model", "movielens")


@pytest.fixture(autouse=True)
def log_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemic.progress.setup_logging", lambda: None)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shop() -> itemic.Dataset:
    config = itemic.SimulatorConfig(users=40, items=30, categories=4, brands=4, shortest=5, longest=9)
    return itemic.simulate(config).dataset


def test_every_example_has_a_test() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(KNOWN)


def test_own_csv(shop: itemic.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = shop.interactions.select(session="user_id", product="item_id", row=pl.int_range(pl.len()))
    when = pl.format("2024-01-{}T10:{}:00Z", *(pl.col("row") // 60 % 28 + 1, pl.col("row") % 60))
    clicks = events.select("session", "product", when=when)
    clicks.write_csv(tmp_path / "clicks.csv", separator=";")
    shop.items.select(product="item_id", name="title").write_csv(tmp_path / "products.csv", separator=";")
    ranking = load("own_csv").main([str(tmp_path), "--epochs", "1"])
    shown = capsys.readouterr().out
    assert len(ranking) > 20
    assert "popularity" in shown
    top = ranking.table(0)["items"][0][0]
    title = dict(shop.items.select("item_id", "title").iter_rows())[top]
    assert f"  {top}  {title}" in shown


def test_own_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shop: itemic.Dataset
) -> None:
    small = itemic.SimulatorConfig(users=20, items=30, categories=4, brands=4, longest=8)
    monkeypatch.setattr(itemic, "SimulatorConfig", lambda **_: small, raising=False)
    example = load("own_model")
    made = example.main(["-o", str(tmp_path / "made"), "--steps", "2"])
    assert "made; AutoModelForCausalLM" in capsys.readouterr().out
    assert Model.load(tmp_path / "made").index.digest == made.index.digest
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "made").config.model_type == "llama"
    base = example.tiny_llama(tmp_path / "base", shop.items["title"].to_list())
    again = example.main([str(base), "-o", str(tmp_path / "again"), "--steps", "1"])
    assert again.index.digest == made.index.digest


def test_movielens(shop: itemic.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = {item: str(row) for row, item in enumerate(shop.item_ids)}
    seen = shop.interactions.with_row_index("row")
    films = pl.col("item_id").replace_strict(number).alias("movieId")
    ratings = seen.select(
        pl.col("user_id").alias("userId"), films, rating=4.5, timestamp=pl.col("row") + 10**9
    )
    ratings.write_csv(tmp_path / "ratings.csv")
    genres = pl.lit("Action|Comedy").alias("genres")
    shop.items.select(films, "title", genres).write_csv(tmp_path / "movies.csv")
    ranking = load("movielens").main([str(tmp_path), "--epochs", "1", "--k-core", "2"])
    assert len(ranking) > 20
    assert "transitions" in capsys.readouterr().out
