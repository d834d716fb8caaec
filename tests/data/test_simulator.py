from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.marketplace import CATEGORIES
from itemic.data.settings import SimulatorConfig, SplitRule
from itemic.data.simulator import Simulation, simulate
from itemic.errors import ConfigError, DataError
from itemic.metrics import hit_rate, mrr, ndcg, ranks_of

SMALL = SimulatorConfig(users=400, items=80, categories=12, brands=12, shortest=3, longest=10)


@pytest.fixture(scope="module")
def small() -> Simulation:
    return simulate(SMALL, seed=1)


def every_step(simulation: Simulation, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    user, step = np.nonzero(simulation.history >= 0)
    return user[step >= first], step[step >= first]


def slow_probabilities(simulation: Simulation, user: int, step: int) -> np.ndarray:
    """The four habits as the module's first lines tell them, in loops and from the catalogue's columns."""
    config, items = simulation.config, simulation.dataset.items
    leaf = [path[-1] for path in items[c.CATEGORIES]]
    brand = items[c.BRAND].to_list()
    weight = simulation._catalogue.weight
    names = [category.name for category in CATEGORIES[: config.categories]]
    brand_of = dict(zip(simulation._catalogue.brand.tolist(), brand, strict=True))
    n = len(leaf)

    def scaled(values: list[float]) -> np.ndarray:
        return np.array(values) / sum(values)

    here = names[simulation.category[user, step]]
    departments = list(dict.fromkeys(category.path[0] for category in CATEGORIES[: config.categories]))
    favourite = {d: brand_of.get(simulation.favourite[user, step, i]) for i, d in enumerate(departments)}
    taste = []
    for item in range(n):
        likes = simulation.likes[user, names.index(leaf[item])] * (1 - config.focus)
        affinity = likes + config.focus * (leaf[item] == here)
        boost = config.loyalty if favourite[items[c.CATEGORIES][item][0]] == brand[item] else 1.0
        taste.append(affinity * boost * weight[item])
    parts = [(1 - config.follow_up - config.repeat - config.noise, scaled(taste)), (config.noise, weight)]
    past = simulation.history[user, :step][::-1]
    if step:
        then = CATEGORIES[names.index(leaf[past[0]])].then
        for name, share in zip(then, (2 / 3, 1 / 3), strict=True):
            assert name in names, "the slow version knows no neighbours"
            match = [
                (config.loyalty if brand[i] == brand[past[0]] else 1.0) * weight[i] * (leaf[i] == name)
                for i in range(n)
            ]
            parts.append((config.follow_up * share, scaled(match)))
        again = np.zeros(n)
        for back, item in enumerate(past[: config.memory]):
            again[item] += 0.8**back
        parts.append((config.repeat, again / again.sum()))
    total = sum(share * chance for share, chance in parts)
    return np.asarray(total / total.sum())


def test_probabilities_equal_their_definition() -> None:
    simulation = simulate(replace(SMALL, users=5, items=120, categories=len(CATEGORIES)), seed=3)
    users, steps = every_step(simulation)
    fast = simulation.next_item_probabilities(users, steps)
    slow = [slow_probabilities(simulation, user, step) for user, step in zip(users, steps, strict=True)]
    assert np.allclose(fast, slow, atol=1e-12)


def test_items_are_drawn_from_the_stated_distribution(small: Simulation) -> None:
    """Chi-square over items, over ranks, and the mean surprise: each would notice another distribution."""
    users, steps = every_step(small)
    targets = small.history[users, steps]
    chance = small.next_item_probabilities(users, steps)
    assert np.allclose(chance.sum(axis=1), 1)
    rows = np.arange(len(users))

    variance = (chance * (1 - chance)).sum(axis=0)
    deviation = (np.bincount(targets, minlength=80) - chance.sum(axis=0)) ** 2 / variance
    assert stats.chi2.sf(deviation.sum(), 79) > 1e-3

    ranked = np.argsort(-chance, axis=1)
    places = (ranked == targets[:, None]).argmax(axis=1)
    expected = -np.sort(-chance, axis=1)
    kept = expected.sum(axis=0) > 5
    observed = np.bincount(places, minlength=80)[kept]
    assert (
        stats.chi2.sf(
            ((observed - expected.sum(axis=0)[kept]) ** 2 / expected.sum(axis=0)[kept]).sum(), kept.sum() - 1
        )
        > 1e-3
    )

    surprise = -np.log(chance)
    entropy = (chance * surprise).sum(axis=1)
    spread = np.sqrt(((chance * surprise**2).sum(axis=1) - entropy**2).sum())
    assert abs((surprise[rows, targets] - entropy).sum()) < 4 * spread


@pytest.mark.parametrize("method", ["leave-one-out", "leave-last-out", "temporal"])
def test_the_best_is_what_the_true_distribution_measures(small: Simulation, method: str) -> None:
    simulation = small.with_split(SplitRule(method))
    valid = simulation.dataset.split("valid")
    users, steps = simulation._events("valid")
    assert (simulation.history[users, steps] == valid.targets).all()
    ranked = np.argsort(-simulation.next_item_probabilities(users, steps), axis=1).astype(np.int32)
    ranks = ranks_of(ranked, valid.targets)
    best = simulation.best([1, 5, 10], "valid")
    for name, metric in (("hr", hit_rate), ("ndcg", ndcg), ("mrr", mrr)):
        for k in (1, 5, 10):
            values = metric(ranks, k)
            error = values.std() / np.sqrt(len(values))
            assert abs(values.mean() - best[f"{name}@{k}"]) < 4 * error + 1e-9
    stored = simulation.dataset.notes["simulation"]["best"][method]["valid"]
    assert stored["requests"] == len(valid)
    assert stored["metrics"]["ndcg@10"] == pytest.approx(best["ndcg@10"])


def test_no_other_ranker_gets_past_the_true_distribution(small: Simulation) -> None:
    users, steps = small._events("test")
    targets = small.dataset.split("test").targets
    chance = small.next_item_probabilities(users, steps)
    popularity = np.bincount(small.dataset.train.items, minlength=80)
    last = small.history[users, steps - 1]
    follow = small._catalogue.follow[small._catalogue.pair[last]]

    def measured(scores: np.ndarray) -> float:
        ranked = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
        return float(ndcg(ranks_of(ranked, targets), 10).mean())

    for other in (
        np.tile(popularity, (len(users), 1)),
        follow,
        chance + np.random.default_rng(0).normal(0, 0.05, chance.shape),
    ):
        assert measured(chance) > measured(other) + 0.02


def test_the_unlabelled_split_asks_for_what_would_come_next(small: Simulation) -> None:
    late = small.with_split(SplitRule("leave-last-out"))
    users, steps = late._events("test")
    assert len(users) == len(late.dataset.split("test"))
    assert np.allclose(late.next_item_probabilities(users, steps).sum(axis=1), 1)
    with pytest.raises(ConfigError, match="beyond"):
        late.next_item_probabilities(users, steps + 1)


def test_same_seed_same_bytes(small: Simulation, tmp_path: Path) -> None:
    small.save(tmp_path / "a")
    simulate(SMALL, seed=1).save(tmp_path / "b")
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == ["dataset.json", "interactions.parquet", "items.parquet", "simulation.json"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = simulate(SMALL, seed=2)
    assert not other.dataset.interactions.equals(small.dataset.interactions)


def test_more_users_leave_the_catalogue_as_it_is(small: Simulation) -> None:
    assert simulate(replace(SMALL, users=9), seed=1).dataset.items.equals(small.dataset.items)


def test_blocks_do_not_change_the_market(small: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemic.data.simulator.CELLS", 80 * 7)
    assert simulate(SMALL, seed=1).dataset.interactions.equals(small.dataset.interactions)


def test_loads_again_with_its_hidden_state(small: Simulation, tmp_path: Path) -> None:
    small.save(tmp_path)
    again = Simulation.load(tmp_path)
    assert again.best(10) == small.best(10)
    assert Dataset.load(tmp_path).notes["simulation"]["best"]["leave-one-out"]["test"]["metrics"]["hr@10"] > 0
    small.dataset.interactions.head(50).write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(DataError, match="other data"):
        Simulation.load(tmp_path)
    (tmp_path / "simulation.json").unlink()
    with pytest.raises(DataError, match="not a simulation"):
        Simulation.load(tmp_path)


def test_drift_moves_users_between_categories() -> None:
    def stays(drift: float) -> float:
        simulation = simulate(replace(SMALL, drift=drift, follow_up=0, repeat=0, noise=0), seed=5)
        leaf = simulation._catalogue.category[simulation.history]
        used = simulation.history[:, 1:] >= 0
        return float((leaf[:, 1:] == leaf[:, :-1])[used].mean())

    assert stays(0.0) > stays(0.3) + 0.1 > stays(1.0) + 0.2


def test_repeats_and_follow_ups_show_in_the_data() -> None:
    def repeats(share: float) -> float:
        simulation = simulate(replace(SMALL, repeat=share), seed=6)
        users, steps = every_step(simulation, first=1)
        past = [simulation.history[user, :step] for user, step in zip(users, steps, strict=True)]
        return float(
            np.mean(
                [target in row for target, row in zip(simulation.history[users, steps], past, strict=True)]
            )
        )

    def follow_ups(share: float) -> float:
        simulation = simulate(replace(SMALL, follow_up=share, categories=len(CATEGORIES)), seed=6)
        leaf = simulation._catalogue.category[simulation.history]
        names = [category.name for category in CATEGORIES]
        then = np.array([[names.index(name) for name in category.then] for category in CATEGORIES])
        hit = (then[leaf[:, :-1]] == leaf[:, 1:, None]).any(axis=2)
        return float(hit[simulation.history[:, 1:] >= 0].mean())

    assert repeats(0.4) > repeats(0.0) + 0.15
    assert follow_ups(0.8) > follow_ups(0.0) + 0.5


def test_popularity_is_skewed_as_asked() -> None:
    counts = [
        np.sort(
            np.bincount(simulate(replace(SMALL, popularity=p), seed=7).dataset.sequences.items, minlength=80)
        )
        for p in (0.0, 1.5)
    ]
    flat, steep = (float(each[-8:].sum() / each.sum()) for each in counts)
    assert steep > 2 * flat


def test_the_catalogue_reads_like_one(small: Simulation) -> None:
    items = small.dataset.items
    assert items[c.TITLE].n_unique() == items[c.ITEM_ID].n_unique() == len(items)
    assert items[c.DESCRIPTION].str.len_chars().min() > 60
    assert not items.select(
        pl.any_horizontal(pl.col(c.TITLE, c.DESCRIPTION).str.contains(r"[{}|]")).any()
    ).item()
    assert all(brand in title for brand, title in items.select(c.BRAND, c.TITLE).iter_rows())
    assert set(items[c.CATEGORIES].list.len()) <= {2, 3}
    assert items[c.CATEGORIES].list.last().n_unique() == SMALL.categories


def test_every_follow_up_is_a_category_of_its_department() -> None:
    names = {category.name: category.path[0] for category in CATEGORIES}
    assert len(names) == len(CATEGORIES)
    for category in CATEGORIES:
        assert {names[name] for name in category.then} == {category.path[0]}


def test_times_rise_within_a_user(small: Simulation) -> None:
    sequences = small.dataset.sequences
    assert sequences.timestamps is not None
    inside = np.ones(len(sequences.items) - 1, bool)
    inside[sequences.offsets[1:-1] - 1] = False
    assert (np.diff(sequences.timestamps)[inside] > 0).all()
    lengths = np.diff(sequences.offsets)
    assert (lengths.min(), lengths.max()) == (SMALL.shortest, SMALL.longest)


def test_all_faults_of_a_configuration_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        SimulatorConfig(users=0, drift=2, follow_up=0.9, repeat=0.9)
    for word in ("users is 0", "drift is 2", "more than 1 together"):
        assert word in str(caught.value)
