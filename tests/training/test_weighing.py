"""Rare items are shown more often, and count for more, exactly as the formulas say: against plain loops over texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic import train
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, DataError
from itemic.model import Model, new_model
from itemic.pipeline.steps import steps_of
from itemic.recipe import load_recipe
from itemic.sid.index import ItemIndex
from itemic.tasks import build_conversations, validate
from itemic.training.language.rows import training_rows
from itemic.training.language.stage import Stage
from itemic.training.language.stream import KeptRows, TrainingRows, block_forest, plan_epoch
from itemic.training.language.weighing import levelled, weighed
from tests.stages import stage_of
from tests.tasks.helpers import N, make_dataset, make_index

DAY = 86_400_000
TASKS = [{"task": "C", "windows": ["all"]}, "sequence", {"task": "A", "limit": 20}]
EPOCHS = 40


@cache
def model() -> Model:
    return new_model("qwen3-pico", make_index(), [f"item {i}" for i in range(N)], vocab_size=300)


def histories(users: int = 60) -> dict[str, list[int]]:
    """A few items are most of it, as in any shop."""
    rng = np.random.default_rng(1)
    chance = 1 / np.arange(1, N + 1) ** 1.2
    return {f"u{u}": rng.choice(N, 4 + u % 6, p=chance / chance.sum()).tolist() for u in range(users)}


def timed(dataset: Dataset) -> Dataset:
    """Each interaction a day after the one before, users beginning on days of their own."""
    table = dataset.interactions.with_row_index("n")
    when = (pl.col("n") * 7 % 400 // 20 * 20 + pl.int_range(pl.len()).over(c.USER_ID)) * DAY
    return replace(dataset, interactions=table.with_columns(when.cast(pl.Int64).alias(c.TIMESTAMP)).drop("n"))


@cache
def dataset() -> Dataset:
    return timed(make_dataset(histories()))


@cache
def conversations() -> pl.DataFrame:
    return build_conversations(dataset(), make_index(), TASKS, times=True).read()


def rows_of(table: pl.DataFrame, stage: Stage, **keys: Any) -> TrainingRows:
    encode = partial(model().chat.encode_table, supervise=stage.objective.supervise)
    rule = {"max_length": stage.data.max_length, "overlong": stage.data.overlong}
    rows = training_rows(table, encode, encoder="test", **rule, **keys)
    return weighed(rows, model(), stage)


def said(row: dict[str, Any]) -> list[str]:
    """The items that a conversation teaches, by their texts: found in the text, not in tokens."""
    item = r"<\|sid_begin\|>.*?<\|sid_end\|>"
    if row["messages"] is not None:
        return re.findall(item, json.loads(row["messages"])[-1]["content"])
    parts = json.loads(row["segments"])
    return [each for part in parts if part.get("loss", True) for each in re.findall(item, part["text"])]


def drawn(data: TrainingRows, stage: Stage, epochs: int = EPOCHS) -> np.ndarray[Any, Any]:
    """How often each row comes in some epochs, ``[epochs, R]``."""
    found = np.zeros((epochs, len(data.rows)), np.int64)
    for epoch in range(epochs):
        for step in plan_epoch(data, stage, 3, epoch):
            for block in step:
                np.add.at(found[epoch], block, 1)
    return found


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("packing", ["forest", "blocks"])
def test_answers_come_as_often_as_the_law_says(power: float, packing: str) -> None:
    table = conversations().filter(pl.col(c.SOURCE) == "C")
    keys = {"data.balance": {"power": power, "most": 100.0}, "data.packing": packing}
    stage = stage_of(keys)
    data = rows_of(table, stage)
    answers = [said(row)[0] for row in table.iter_rows(named=True)]
    counts = Counter(answers)
    times = drawn(data, stage)
    assert (times.sum(axis=1) == len(table)).all()  # an epoch keeps its size
    seen: Counter[str] = Counter()
    for answer, often in zip(answers, times.sum(axis=0).tolist(), strict=True):
        seen[answer] += often
    law = {item: count ** (1 - power) for item, count in counts.items()}
    scale = EPOCHS * len(table) / sum(law.values())
    for item, wanted in law.items():
        # each row is drawn by rounding up or down, so an item's count strays by less than a binomial's would
        assert abs(seen[item] - wanted * scale) < 5 * (wanted * scale) ** 0.5 + 5, item
    assert max(counts.values()) > 10 * min(counts.values())
    if power == 1:
        assert max(seen.values()) < 1.4 * min(seen.values())


def test_rows_with_several_items_and_rows_with_none() -> None:
    table, stage = conversations(), stage_of({"data.balance": {"power": 0.7, "most": 2.0}})
    data = rows_of(table, stage)
    counts: Counter[tuple[str, str]] = Counter()
    listed = [(row[c.SOURCE], said(row)) for row in table.iter_rows(named=True)]
    for source, items in listed:
        counts.update((source, item) for item in items)
    raw = [np.mean([counts[s, item] ** -0.7 for item in items]) if items else None for s, items in listed]
    assert data.draws is not None
    for source in ("A", "C", "sequence"):
        mine = [place for place, (name, _) in enumerate(listed) if name == source]
        draws = data.draws[mine]
        assert draws.mean() == pytest.approx(1)
        if source == "A":
            assert (draws == 1).all()  # it answers with words
            continue
        assert draws.max() <= 2 + 1e-9
        free = draws < 2 - 1e-9
        ratios = draws[free] / np.array([raw[place] for place in mine], float)[free]
        assert ratios.min() == pytest.approx(ratios.max())
    assert np.isclose(data.draws, 2).any()
    average = drawn(data, stage, 200).mean(axis=0)
    assert np.abs(average - data.draws).max() < 0.2


def test_sources_are_weighed_as_ever() -> None:
    stage = stage_of({"data.balance": {"power": 1.0}, "data.sources": {"C": 0.5, "A": 0}})
    data = rows_of(conversations(), stage)
    named = np.array(data.names)[data.sources]
    times = drawn(data, stage, 5)
    plain = drawn(rows_of(conversations(), Stage()), stage_of({"data.sources": {"C": 0.5, "A": 0}}), 5)
    for source in data.names:
        mine = named == source
        assert (times[:, mine].sum(axis=1) == plain[:, mine].sum(axis=1)).all()


def test_power_0_and_no_balance_are_the_same_epochs() -> None:
    stage = stage_of({"data.balance": {"power": 0.0}, "data.sources": {"C": 1.5}})
    plain = stage_of({"data.sources": {"C": 1.5}})
    one, two = rows_of(conversations(), stage), rows_of(conversations(), plain)
    assert two.draws is None
    for epoch in range(3):
        first, second = plan_epoch(one, stage, 0, epoch), plan_epoch(two, plain, 0, epoch)
        assert [[b.tolist() for b in s] for s in first] == [[b.tolist() for b in s] for s in second]


@given(
    st.lists(st.tuples(st.floats(1e-3, 1), st.floats(0.1, 5)), min_size=1, max_size=12),
    st.floats(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_levelled_like_a_search(pairs: list[tuple[float, float]], most: float) -> None:
    values, often = (np.array(part) for part in zip(*pairs, strict=True))
    found = levelled(values, often, most)
    low, high = 0.0, 1e9
    for _ in range(200):  # the scale whose bounded mean is 1, by halving
        middle = (low + high) / 2
        mean = np.average(np.minimum(most, middle * values), weights=often)
        low, high = (middle, high) if mean < 1 else (low, middle)
    assert found == pytest.approx(np.minimum(most, high * values), rel=1e-6, abs=1e-9)


def wanted_weights(
    table: pl.DataFrame, frequency: float, half_life: float | None, most: float
) -> list[list[tuple[str, float]]]:
    """The formula, by loops: of each conversation its items and the weights of their tokens."""
    listed = [said(row) for row in table.iter_rows(named=True)]
    times = [json.loads(row).get("time", []) for row in table[c.METADATA]]
    counts = Counter(item for items in listed for item in items)
    total = sum(counts.values())
    mean = sum(count * count**-frequency for count in counts.values()) / total
    newest = max(when for row in times for when in row)
    found = []
    for items, when in zip(listed, times, strict=True):
        assert not when or len(when) == len(items)
        rows = []
        for place, item in enumerate(items):
            weight = counts[item] ** -frequency / mean
            assert weight < most
            if half_life is not None:
                weight *= 2 ** (-(newest - when[place]) / DAY / half_life)
            rows.append((item, weight))
        found.append(rows)
    return found


@pytest.mark.parametrize(
    ("frequency", "half_life", "normalizer"),
    [(0.5, None, "token"), (0.0, 30.0, "token"), (0.7, 30.0, "row"), (0.0, None, "token")],
)
def test_losses_weigh_what_the_formula_says(
    frequency: float, half_life: float | None, normalizer: str
) -> None:
    table = conversations()
    keys = {"frequency": frequency, "most": 50.0} | ({"half_life": half_life} if half_life else {})
    stage = stage_of({"objective.weights": keys, "objective.normalizer": normalizer})
    data = rows_of(table, stage, times=stage.asks_times)
    plain = rows_of(table, Stage(objective=replace(stage.objective, weights=None)))
    read = model().tokenizer
    wanted = wanted_weights(table, frequency, half_life, 50.0)
    for row, items in enumerate(wanted):
        forest = block_forest(data, np.array([row]), normalizer)
        before = block_forest(plain, np.array([row]), normalizer)
        assert (forest.tokens == before.tokens).all()
        expected, at = before.weight.copy(), 0
        names = [read.encode(item, add_special_tokens=False) for item, _ in items]
        for name, (_, weight) in zip(names, items, strict=True):
            while (
                forest.tokens[at : at + len(name)].tolist() != name or before.weight[at + len(name) - 1] == 0
            ):
                at += 1
            expected[at : at + len(name)] *= weight
            at += len(name)
        assert forest.weight == pytest.approx(expected, rel=1e-5)
    if half_life is None and normalizer == "token":
        items = [weight for rows in wanted for _, weight in rows]
        assert np.mean(items) == pytest.approx(1)


def test_a_bound_on_weights() -> None:
    stage = stage_of({"objective.weights": {"frequency": 1.0, "most": 1.5}})
    data = rows_of(conversations().filter(pl.col(c.SOURCE) == "C"), stage)
    assert data.worth is not None
    assert data.worth.max() == pytest.approx(1.5)


def test_weights_count_what_an_epoch_shows() -> None:
    """Where all items come equally often, frequency weighs them alike."""
    table = conversations().filter(pl.col(c.SOURCE) == "C")
    keys = {"data.balance": {"power": 1.0, "most": 1000.0}, "objective.weights": {"frequency": 1.0}}
    data = rows_of(table, stage_of(keys))
    assert data.worth is not None
    assert data.worth == pytest.approx(1)


@pytest.mark.parametrize("overlong", ["keep-latest", "keep-end", "keep-start"])
def test_a_row_that_was_cut_keeps_the_times_of_what_is_left(overlong: str) -> None:
    table = conversations().filter(pl.col(c.SOURCE) == "sequence")
    keys = {"objective.weights": {"half_life": 5.0}, "data.overlong": overlong, "data.max_length": 17}
    data = rows_of(table, stage_of(keys), times=True)
    whole = wanted_weights(table, 0.0, 5.0, 2.0)
    assert data.worth is not None
    cut = 0
    for row, items in enumerate(whole):
        worth = data.worth[data.rows.offsets[row] : data.rows.offsets[row + 1]]
        found = [worth[at + 1] for at in np.flatnonzero(data.rows[row] == data.rows[0][0])]
        # whole items: a name of 5 tokens that is cut at an end is none
        kept = [weight for _, weight in (items[:3] if overlong == "keep-start" else items[-3:])]
        assert list(found[: len(kept)]) == pytest.approx(kept, rel=1e-5)
        cut += len(items) > 3
    assert cut > 10


def test_times_are_kept_with_the_rows(tmp_path: Path) -> None:
    stage = stage_of({"objective.weights": {"half_life": 9.0}})
    file = tmp_path / "c.parquet"
    conversations().write_parquet(file)
    encode = partial(model().chat.encode_table, supervise="all")
    first, again = (training_rows(file, encode, encoder="e", max_length=900, times=True) for _ in range(2))
    plain = training_rows(file, encode, encoder="e", max_length=900)
    assert isinstance(again.rows.tokens, np.memmap)
    assert first.digest == again.digest != plain.digest
    assert plain.times is None
    one, two = weighed(first, model(), stage), weighed(again, model(), stage)
    assert one.worth is not None
    assert two.worth is not None
    assert (one.worth == two.worth).all()


def test_nothing_is_said_of_times_unless_asked() -> None:
    usual = build_conversations(dataset(), make_index(), TASKS).read()
    asked = conversations()
    assert not any("time" in json.loads(row) for row in usual[c.METADATA])
    stripped = asked[c.METADATA].str.replace(r',"time":\[[\d,]*\]', "")
    assert stripped.equals(usual[c.METADATA])
    assert asked.drop(c.METADATA).equals(usual.drop(c.METADATA))
    report = validate(asked, dataset(), make_index(), max_target_share=1.0)
    assert report.ok, report.faults


def test_what_cannot_be_weighed() -> None:
    bare = make_dataset(histories(5))
    with pytest.raises(DataError, match="doesn't say when"):
        build_conversations(bare, make_index(), TASKS, times=True)
    stage = stage_of({"objective.weights": {"half_life": 1.0}})
    usual = build_conversations(bare, make_index(), ["C"]).read()
    with pytest.raises(DataError, match="says when its items were taken"):
        rows_of(usual, stage, times=True)
    for time, problem in (("[1,2,3]", ""), ("[1]", "teaches 2 items and has times of 1"), ('"x"', "no list")):
        text = [{"type": "text", "text": "".join(make_index().texts[:2])}]
        row = {"uuid": "a", "source": "s", "segments": json.dumps(text), "metadata": f'{{"time":{time}}}'}
        table = pl.DataFrame([row])
        if not problem:
            rows_of(table, stage, times=True)  # as if the first had been cut
            continue
        with pytest.raises(DataError, match=problem):
            rows_of(table, stage, times=True)
    words = build_conversations(bare, make_index(), ["A"]).read()
    with pytest.raises(DataError, match="no conversation has an item"):
        rows_of(words, stage_of({"data.balance": {}}))
    codes = new_model("qwen3-pico", ItemIndex.of_codes((4, 2)), ["text"] * 9, vocab_size=300)
    with pytest.raises(ConfigError, match="codes alone"):
        weighed(rows_of(usual, Stage()), codes, stage_of({"data.balance": {}}))
    for keys, problem in (
        ({"data.balance": {}, "data.stream": True}, "data.balance needs all conversations at hand"),
        ({"objective.weights": {}, "data.stream": True}, "objective.weights needs all conversations"),
        ({"objective.weights": {"half_life": 1.0}, "data.overlong": "split"}, "half_life: doesn't know"),
        ({"data.balance": {"most": 0.5}}, "data.balance.most"),
        ({"data.balance": {"power": 1.5}}, "data.balance.power"),
    ):
        with pytest.raises(ConfigError, match=problem):
            stage_of(keys)


def test_what_was_trained_before_is_known_again() -> None:
    """Keys that say nothing are no part of what a finished step is known by."""
    told = Stage().decisive()
    assert not [key for key in told if key.startswith(("data.balance", "objective.weights"))]
    assert "data.think_pattern" in told
    asked = stage_of({"data.balance": {}, "objective.weights": {}}).decisive()
    assert {"data.balance.power", "objective.weights.frequency"} <= set(asked)
    assert KeptRows(rows_of(conversations(), Stage()), Stage()).data.worth is None


def test_a_run_builds_times_where_a_stage_asks_for_them() -> None:
    plain, asked = (
        {step.name: step for step in steps_of(load_recipe("quickstart", keys))}
        for keys in ([], ["stages.0.objective.weights={half_life: 30.0}"])
    )
    assert "times" not in plain["conversations"].config
    assert asked["conversations"].config == plain["conversations"].config | {"times": True}


def test_training_by_these_keys(tmp_path: Path) -> None:
    keys = {"steps": 2, "data.tokens_per_step": 300, "engine.precision": "float32", "logs.every": 1}
    losses = []
    for more in ({}, {"data.balance": {"power": 1.0}}, {"objective.weights": {"half_life": 20.0}}):
        lm = new_model("qwen3-pico", make_index(), [f"item {i}" for i in range(N)], vocab_size=300)
        output = tmp_path / str(len(losses))
        train(lm, conversations(), stage=stage_of(keys | more), output=output)
        lines = (output / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line).get("loss") for line in lines])
    assert losses[0] != losses[1] != losses[2] != losses[0]
