"""Limits, against slow loops."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from itemic import schema as c
from itemic.cli.app import call
from itemic.data import Dataset, SplitRule, apply_filters, read
from itemic.data.limits import apply_limits
from itemic.data.settings import FilterRule
from itemic.errors import ConfigError, DataError
from itemic.recipe import load_recipe
from itemic.recipe.check import RecipeError
from tests.data.test_filters import left
from tests.data.test_split import make
from tests.runs import RECIPE, write_recipe

rng = np.random.default_rng(5)
HISTORIES = {f"u{k}": rng.zipf(1.6, int(rng.integers(1, 9))).clip(1, 9).tolist() for k in range(30)}


@pytest.fixture
def dataset() -> Dataset:
    return make(HISTORIES, SplitRule())


def slow(users: int | None, items: int | None, rows: int | None, seed: int) -> dict[str, list[int]]:
    """The same by loops."""
    found = dict(HISTORIES)
    if users is not None:
        chosen = np.random.default_rng(seed).permutation(len(found))[:users]
        found = {user: items for k, (user, items) in enumerate(found.items()) if k in chosen}
    if items is not None:
        counts = Counter(item for history in found.values() for item in history)
        best = sorted(counts, key=lambda item: (-counts[item], CATALOGUE.index(item)))[:items]
        found = {user: [item for item in history if item in best] for user, history in found.items()}
        found = {user: history for user, history in found.items() if history}
    if rows is not None:
        names, room, taken = list(found), rows, set()
        for k in np.random.default_rng(seed).permutation(len(names)):
            room -= len(found[names[k]])
            if room < 0:
                break
            taken.add(names[k])
        found = {user: history for user, history in found.items() if user in taken}
    return found


CATALOGUE = [int(item) for item in make(HISTORIES, SplitRule()).item_ids]


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(
    ("users", "items", "rows"),
    [(5, None, None), (None, 3, None), (None, None, 40), (12, 4, None), (20, 5, 25), (99, 99, 999)],
)
def test_limits_equal_loops(
    dataset: Dataset, users: int | None, items: int | None, rows: int | None, seed: int
) -> None:
    limited = apply_limits(dataset, limit_users=users, limit_items=items, limit_rows=rows, seed=seed)
    expected = slow(users, items, rows, seed)
    assert left(limited) == expected
    assert list(dict.fromkeys(limited.interactions[c.USER_ID])) == list(expected)
    used = {item for history in expected.values() for item in history}
    assert [int(item) for item in limited.item_ids] == [item for item in CATALOGUE if item in used]
    after = limited.notes["limits"]["after"]
    assert after["interactions"] == sum(map(len, expected.values()))
    assert (after["users"], after["items"]) == (len(expected), len(used))


def test_a_smaller_sample_is_part_of_a_larger_one(dataset: Dataset) -> None:
    small, large = (apply_limits(dataset, limit_users=n) for n in (4, 9))
    assert set(small.sequences.users) < set(large.sequences.users)
    assert set(small.sequences.users) != set(apply_limits(dataset, limit_users=4, seed=1).sequences.users)


def test_no_limit_changes_nothing(dataset: Dataset) -> None:
    assert apply_limits(dataset) is dataset


def test_limits_that_cannot_work(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="limit_items is 0"):
        apply_limits(dataset, limit_items=0)
    wide = make({"a": [1, 2, 3]}, SplitRule())
    with pytest.raises(DataError, match="limit_rows is 2, and the first user drawn has 3"):
        apply_limits(wide, limit_rows=2)


def test_limits_come_before_filters(tmp_path: Path, shared: Path) -> None:
    raw, output = shared / "scientific", tmp_path / "made"
    limited = read("letter", raw, limit_users=200, seed=3)
    expected = apply_filters(limited, FilterRule(user_k_core=6))
    command = ["data", "import", str(raw), "-o", str(output), "--limit-users", "200", "--seed", "3"]
    assert call([*command, "-f", "user_k_core=6"]) == 0
    assert Dataset.load(output).interactions.equals(expected.interactions)
    assert len(limited.sequences) == 200


def test_limits_in_a_recipe(tmp_path: Path, shared: Path) -> None:
    raw = RECIPE.replace(
        "simulate: {users: 60, items: 40, categories: 4, brands: 6, shortest: 4, longest: 8}",
        f"{{format: letter, path: {shared / 'scientific'}, limit_users: 50, limit_items: 300}}",
    ).replace("data:\n  ", "data: ")
    recipe = write_recipe(tmp_path, raw)
    assert load_recipe(recipe).data.limit_users == 50  # type: ignore[union-attr]
    assert call(["run", str(recipe), "-o", str(tmp_path / "run"), "--until", "data"]) == 0
    made = Dataset.load(tmp_path / "run" / "data")
    expected = read("letter", shared / "scientific", limit_users=50, limit_items=300)
    assert made.interactions.equals(expected.interactions)
    with pytest.raises(RecipeError, match="limit_users: has no meaning beside simulate"):
        load_recipe(write_recipe(tmp_path), ["data.limit_users=5"])
