"""A seeded marketplace that knows its own next-item distribution.

A user's next item comes from a mixture of four habits, whose shares are known exactly:

- **taste**: an item of a category that the user likes now, by popularity, with a weakness for the user's
favourite
  brand. The current category drifts, and so does the favourite brand.
- **follow-up**: an item of a category that goes with that of the last item (a tent, then a sleeping bag),
mostly of
  the same brand.
- **repeat**: one of the last items once more.
- **noise**: anything, by popularity.

So the best that any recommender could reach is a number and not a guess, see :meth:`Simulation.best`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.artifact import write_json
from itemic.data.dataset import Dataset
from itemic.data.marketplace import CATEGORIES, Category, brand_names, describe_item
from itemic.data.settings import SimulatorConfig, SplitRule
from itemic.data.split import CODES
from itemic.errors import ConfigError, DataError

Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

FILE = "simulation.json"
CUTS = (1, 5, 10, 20, 50)
CELLS = 2_000_000  # probabilities that are held at once
DAY = 86_400_000
START = 1_640_995_200_000  # 2022-01-01, in milliseconds


@dataclass(frozen=True)
class _Catalogue:
    """What the simulator needs to know of items: their category, department, brand and weight, as arrays."""

    category: Int64  # [n]
    department: Int64  # [categories]
    brand: Int64  # [n]
    brands_of: list[Int64]  # by department
    weight: Float64  # [n], adds up to 1
    follow: Float64  # [pairs, n]: what follows an item of a pair of category and brand
    pair: Int64  # [n]: the row of an item in ``follow``


@dataclass(frozen=True)
class Simulation:
    """A simulated dataset together with the hidden state that made it.

    Attributes:
        dataset: the marketplace as a recommender sees it; its notes hold the configuration and the best
            metrics.
        config: what was asked for.
        seed: of all random numbers.
        history: int32 ``[U, T]``, each user's items in time order, -1 after the last one.
        lengths: int64 ``[U]``.
        likes: float64 ``[U, categories]``, the lasting likes.
        category: int16 ``[U, T + 1]``, the current category before each step.
        favourite: int16 ``[U, T + 1, departments]``, the favourite brand in each department before each step.
    """

    dataset: Dataset
    config: SimulatorConfig
    seed: int
    history: Int32
    lengths: Int64
    likes: Float64
    category: Int16
    favourite: Int16
    _catalogue: _Catalogue

    def __repr__(self) -> str:
        return f"<Simulation of {self.dataset!r}, seed {self.seed}>"

    def next_item_probabilities(self, users: npt.ArrayLike, steps: npt.ArrayLike) -> Float64:
        """The true distribution that a user's item number ``step`` was drawn from, float64 ``[R, n]``.

        Args:
            users: numbers of users, ``[R]``, in the order of ``dataset.sequences``.
            steps: 0-based places in their sequences, ``[R]``; the length itself asks what would have come
                next.

        Raises:
            ConfigError: a step lies beyond a user's sequence.
        """
        user, step = np.asarray(users, np.int64), np.asarray(steps, np.int64)
        if (step < 0).any() or (step > self.lengths[user]).any():
            raise ConfigError(
                "a step beyond a user's sequence", "Ask for steps from 0 to the sequence's length."
            )
        places = step[:, None] - 1 - np.arange(self.config.memory)
        recent = np.where(places >= 0, self.history[user[:, None], np.maximum(places, 0)], -1)
        state = (self.likes[user], self.category[user, step], self.favourite[user, step])
        return _probabilities(self.config, self._catalogue, *state, recent)

    def best(self, k: int | Sequence[int] = 10, split: str = "test") -> dict[str, float]:
        """What a recommender that knows the true distribution reaches on average on the requests of a split.

        Ranking by probability maximises every metric here, and its expectation under that distribution is
        exact: ``HR@k = Σ p_(i)`` and ``NDCG@k = Σ p_(i) / log2(i + 1)`` over the ``k`` likeliest items,
            averaged over the
        requests. It knows the user's hidden state, so no recommender that sees histories alone gets quite
        there.

        Returns:
            ``hr@k``, ``ndcg@k`` and ``mrr@k`` for each k.
        """
        cuts = [k] if isinstance(k, int) else list(k)
        users, steps = self._events(split)
        widest = min(max(cuts), self.config.items)
        curve = np.zeros(widest)
        for rows in _chunks(len(users), self.config.items):
            chance = self.next_item_probabilities(users[rows], steps[rows])
            curve += np.sort(np.partition(chance, -widest, axis=1)[:, -widest:], axis=1)[:, ::-1].sum(axis=0)
        curve /= len(users)
        places = np.arange(1, widest + 1)
        gains = {"hr": curve, "ndcg": curve / np.log2(places + 1), "mrr": curve / places}
        return {f"{name}@{cut}": float(gain[:cut].sum()) for name, gain in gains.items() for cut in cuts}

    def _events(self, split: str) -> tuple[Int64, Int64]:
        """User and step of each request of a split, in its order."""
        if split not in ("valid", "test"):
            raise ConfigError(f"unknown split {split!r}", "Ask for 'valid' or 'test'.")
        if self.dataset.rule.method == "leave-last-out" and split == "test":
            return np.arange(len(self.lengths)), self.lengths
        offsets = self.dataset.sequences.offsets
        place = np.flatnonzero(self.dataset.labels == CODES[split])
        user = np.searchsorted(offsets, place, "right") - 1
        step = place - offsets[user]
        return user[step > 0], step[step > 0]

    def with_split(self, rule: SplitRule) -> Simulation:
        """The same marketplace, split otherwise."""
        return replace(self, dataset=self.dataset.with_split(rule))

    def save(self, folder: str | Path) -> None:
        """Write the dataset and ``simulation.json``, from which :meth:`load` makes the same again."""
        self.dataset.save(folder)
        write_json(Path(folder) / FILE, self.dataset.notes["simulation"])

    @classmethod
    def load(cls, folder: str | Path) -> Simulation:
        """Simulate again what :meth:`save` wrote, and make sure that it is the same.

        Raises:
            DataError: the folder has no simulation, or the dataset in it is another one by now.
        """
        file = Path(folder) / FILE
        try:
            notes = json.loads(file.read_text(encoding="utf-8"))
            again = simulate(SimulatorConfig(**notes["config"]), notes["seed"])
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{file} is not a simulation: {error}", "Run `itemic data simulate` again."
            ) from error
        found = Dataset.load(folder)
        same = found.items.equals(again.dataset.items) and found.interactions.equals(
            again.dataset.interactions
        )
        if not same:
            raise DataError(
                f"{folder} holds other data than {FILE} makes", "Run `itemic data simulate` again."
            )
        return again.with_split(found.rule)


def simulate(config: SimulatorConfig | None = None, seed: int = 0) -> Simulation:
    """Make a marketplace: the same bytes for the same configuration and seed.

    Users, items and steps have random numbers of their own, so that more users leave the catalogue as it is.
    Time is one pass over the steps with all users at once; memory is one block of users times items.
    """
    config = config or SimulatorConfig()
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    items, catalogue = _make_catalogue(config, streams[0])
    lengths = streams[1].integers(config.shortest, config.longest + 1, config.users)
    likes, category, favourite = _make_users(config, catalogue, streams[1])
    history = np.full((config.users, config.longest), -1, np.int32)
    for step in range(config.longest):
        chance = streams[2].random(config.users)
        active = np.flatnonzero(lengths > step)
        for rows in _chunks(len(active), config.items):
            user = active[rows]
            recent = history[user][:, max(0, step - config.memory) : step][:, ::-1]
            state = (likes[user], category[user, step], favourite[user, step])
            upto = np.cumsum(_probabilities(config, catalogue, *state, recent), axis=1)
            history[user, step] = (upto < (chance[user] * upto[:, -1])[:, None]).sum(axis=1)
    events = _make_events(config, items[c.ITEM_ID], history, lengths, streams[3])
    dataset = Dataset(items, events, "marketplace")
    simulation = Simulation(dataset, config, seed, history, lengths, likes, category, favourite, catalogue)
    dataset.notes["simulation"] = {"config": asdict(config), "seed": seed, "best": _best_of_all(simulation)}
    return simulation


def _probabilities(
    config: SimulatorConfig,
    items: _Catalogue,
    likes: Float64,
    category: Int16,
    favourite: Int16,
    recent: Int32,
) -> Float64:
    """The mixture ``[R, n]`` of users in a state.

    ``recent``, ``[R, ≤ memory]``, holds the last items, latest first, -1 where there are none.
    """
    rows = np.arange(len(likes))
    affinity = likes * (1 - config.focus)
    affinity[rows, category] += config.focus
    wanted = favourite[:, items.department[items.category]] == items.brand
    taste = np.where(wanted, config.loyalty, 1.0) * items.weight
    taste *= affinity[:, items.category]
    taste /= taste.sum(axis=1, keepdims=True)
    total = taste * (1 - config.follow_up - config.repeat - config.noise)
    total += config.noise * items.weight
    if not recent.shape[1]:
        return np.asarray(total / total.sum(axis=1, keepdims=True))
    fresh = recent[:, 0] < 0
    total += np.where(fresh[:, None], 0.0, config.follow_up * items.follow[items.pair[recent[:, 0]]])
    decay = np.where(recent >= 0, 0.8 ** np.arange(recent.shape[1]), 0.0)
    decay *= config.repeat / np.maximum(decay.sum(axis=1, keepdims=True), 1e-300)
    for back in range(recent.shape[1]):  # one column at a time, since an item may stand there twice
        total[rows, recent[:, back]] += decay[:, back]
    return np.asarray(total / total.sum(axis=1, keepdims=True))


def _make_catalogue(config: SimulatorConfig, rng: np.random.Generator) -> tuple[pl.DataFrame, _Catalogue]:
    leaves = CATEGORIES[: config.categories]
    departments = list(dict.fromkeys(leaf.path[0] for leaf in leaves))
    department = np.array([departments.index(leaf.path[0]) for leaf in leaves])
    category = rng.permutation(np.arange(config.items) % len(leaves))
    shared = [np.arange(start, config.brands, len(departments)) for start in range(len(departments))]
    brands_of = [own if len(own) else np.arange(config.brands) for own in shared]
    brand = np.array([rng.choice(brands_of[department[leaf]]) for leaf in category])
    weight = np.asarray((1.0 + rng.permutation(config.items)) ** -config.popularity, np.float64)
    weight /= weight.sum()
    names = brand_names(config.brands, rng)
    draws = rng.integers(0, 10_000, (config.items, 11)).tolist()
    texts = [
        describe_item(leaves[leaf], names[make], number, draw)
        for number, (leaf, make, draw) in enumerate(zip(category, brand, draws, strict=True))
    ]
    table = pl.DataFrame(
        {
            c.ITEM_ID: [f"{leaves[leaf].path[0][:3].upper()}{n:06d}" for n, leaf in enumerate(category)],
            c.TITLE: [title for title, _ in texts],
            c.DESCRIPTION: [text for _, text in texts],
            c.BRAND: [names[make] for make in brand],
            c.CATEGORIES: [list(leaves[leaf].path) for leaf in category],
        }
    )
    pairs, pair = np.unique(np.stack([category, brand]), axis=1, return_inverse=True)
    follow = _follow_ups(config, _next_categories(leaves), category, brand, weight, pairs)
    return table, _Catalogue(category, department, brand, brands_of, weight, follow, pair.reshape(-1))


def _next_categories(leaves: Sequence[Category]) -> Int64:
    """The two categories that follow each, ``[categories, 2]``; a neighbour stands in for a missing one."""
    number = {leaf.name: place for place, leaf in enumerate(leaves)}
    return np.array(
        [
            [number.get(name, (place + 1 + way) % len(leaves)) for way, name in enumerate(leaf.then)]
            for place, leaf in enumerate(leaves)
        ]
    )


def _follow_ups(
    config: SimulatorConfig, following: Int64, category: Int64, brand: Int64, weight: Float64, pairs: Int64
) -> Float64:
    """What follows each pair of category and brand, ``[pairs, n]``.

    Two thirds go to the first category that goes with it, one third to the second.
    """
    share = np.zeros((len(following), len(following)))
    np.add.at(share, (np.arange(len(following)), following[:, 0]), 2 / 3)
    np.add.at(share, (np.arange(len(following)), following[:, 1]), 1 / 3)
    liked = np.where(brand == pairs[1][:, None], config.loyalty, 1.0) * weight
    within = np.zeros((len(liked), len(following)))
    for leaf in range(len(following)):
        within[:, leaf] = liked[:, category == leaf].sum(axis=1)
    return np.asarray(liked * (share[pairs[0]] / np.maximum(within, 1e-300))[:, category])


def _make_users(
    config: SimulatorConfig, items: _Catalogue, rng: np.random.Generator
) -> tuple[Float64, Int16, Int16]:
    """Lasting likes, and the category and favourite brands of every user before every step."""
    likes = rng.dirichlet(np.full(config.categories, config.likes), config.users)
    upto = np.cumsum(likes, axis=1)
    departments = len(items.brands_of)
    category = np.empty((config.users, config.longest + 1), np.int16)
    favourite = np.empty((config.users, config.longest + 1, departments), np.int16)
    for step in range(config.longest + 1):
        drawn = (upto < (rng.random(config.users) * upto[:, -1])[:, None]).sum(axis=1)
        brands = np.stack([rng.choice(own, config.users) for own in items.brands_of], axis=1)
        moves, changes = rng.random((2, config.users))
        if step == 0:
            category[:, 0], favourite[:, 0] = drawn, brands
            continue
        category[:, step] = np.where(moves < config.drift, drawn, category[:, step - 1])
        here = items.department[category[:, step]][:, None] == np.arange(departments)
        new = here & (changes < config.brand_drift)[:, None]
        favourite[:, step] = np.where(new, brands, favourite[:, step - 1])
    return likes, category, favourite


def _make_events(
    config: SimulatorConfig, ids: pl.Series, history: Int32, lengths: Int64, rng: np.random.Generator
) -> pl.DataFrame:
    used = history >= 0
    gaps = rng.exponential(9 * DAY, history.shape) + 60_000
    gaps[:, 0] += rng.random(config.users) * 365 * DAY
    digits = len(str(config.users))
    names = pl.Series([f"u{number:0{digits}d}" for number in range(config.users)])
    return pl.DataFrame(
        {
            c.USER_ID: names.gather(np.repeat(np.arange(config.users), lengths)),
            c.ITEM_ID: ids.gather(history[used].astype(np.int64)),
            c.TIMESTAMP: START + np.cumsum(gaps.astype(np.int64), axis=1)[used],
            c.RATING: pl.Series(
                rng.choice([2, 3, 4, 5], int(lengths.sum()), p=[0.05, 0.15, 0.3, 0.5]), dtype=pl.Float32
            ),
            c.SPLIT: pl.Series([None] * int(lengths.sum()), dtype=pl.String),
        }
    )


def _best_of_all(simulation: Simulation) -> dict[str, Any]:
    """The best metrics of every split method, so that a report needs nothing but the dataset's notes."""
    found: dict[str, Any] = {}
    for method in ("leave-one-out", "leave-last-out", "temporal"):
        resplit = simulation.with_split(SplitRule(method))
        for split in ("valid", "test"):
            requests = len(resplit._events(split)[0])
            if requests:
                figures = {"requests": requests, "metrics": resplit.best(CUTS, split)}
                found.setdefault(method, {})[split] = figures
    return found


def _chunks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, CELLS // width)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
