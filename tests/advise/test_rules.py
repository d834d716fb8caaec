"""Each strategy: what calls for it, what it changes in the very recipe that is there, and when it is silent."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any, get_args

import pytest

from itemic.advise.advice import Advice, advice, consider
from itemic.advise.facts import Curve, Facts
from itemic.advise.patch import patched, plain, try_values
from itemic.advise.rules import RULES
from itemic.advise.write import improved_values
from itemic.analysis.analysis import Verdict
from itemic.analysis.detectors import DETECTORS
from itemic.errors import ConfigError
from itemic.recipe import check_recipe
from itemic.recipe.shipped import SHIPPED
from tests.advise.helpers import cause, recipe_of, report

SEQUENCE: dict[str, Any] = {
    "tasks": [{"task": "sequence", "source": "whole", "max_items": 20}],
    "evaluate": {"task": "sequence", "beams": 20, "k": [5, 10]},
}
TIMED = Facts(items=40, train=200, text=1.0, timed=True)


def keys(found: list[Advice]) -> dict[str, dict[str, Any]]:
    return {one.strategy: {change.key: change.value for change in one.changes} for one in found}


def kind(name: str, share: float = 0.3) -> Any:
    return cause(name, share, "kind")


def test_what_rules_read_exists() -> None:
    for rule in RULES.values():
        for name in rule.reads:
            assert name in DETECTORS or " " in name, f"{rule.name} reads {name}, which no detector finds"


def test_every_rule_says_all_of_itself() -> None:
    for name, rule in RULES.items():
        assert rule.name == name
        assert all([rule.title, rule.reads, rule.threshold, rule.why, rule.changes, rule.costs])


def test_long_tail_teaches_rare_items_by_their_words(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, SEQUENCE)
    (found,) = advice(report(cause("long_tail")), recipe, facts=TIMED, strategies=["long_tail"])
    made = patched(plain(recipe), found.changes)
    assert {"task": "A"} in made["tasks"]
    assert {"task": "B"} in made["tasks"]
    assert made["stages"][1]["data"]["sources"] == {"A": 0.1, "B": 0.1}
    assert made["model"]["vocab_size"] == 2048
    assert any("lift 2.00 [1.50, 2.50]" in text for text in found.evidence)


def test_cold_start_takes_words_for_more_than_behaviour(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, None, "index.encoder_options.collaborative_weight=0.5")
    found = keys(advice(report(cause("cold_start")), recipe, facts=TIMED))["cold_start"]
    assert found["index.encoder_options.collaborative_weight"] == 0.25
    assert found["tasks.0.history_text"] == "sid+title"
    assert found["model.init"] == "vectors"
    assert found["tasks.+"] == {"task": "B"}  # A is there already


def test_short_history_shows_short_histories(tmp_path: Path) -> None:
    found = keys(advice(report(cause("short_history")), recipe_of(tmp_path, SEQUENCE), facts=TIMED))
    assert found["short_history"]["stages.1.data.sources.short"] == 0.1
    found = keys(advice(report(cause("short_history")), recipe_of(tmp_path), facts=TIMED))
    assert found["short_history"]["tasks.0.windows"] == [1, 2, 3, "all"]


@pytest.mark.parametrize(
    ("overrides", "causes", "wrong", "expected"),
    [
        ([], [cause("collision")], (), {"index.levels": [16, 16]}),  # 64 for 40 items
        (
            ["index.collisions=keep"],
            [kind("found_namesake")],
            (),
            {"index.levels": [16, 16], "index.collisions": "reassign"},
        ),
        (
            ["index.collisions=keep", "index.levels=[16, 16]"],
            [cause("collision")],
            (),
            {"index.collisions": "reassign"},
        ),
        ([], [cause("crowded_prefix")], (), {"index.quantizer": "balanced"}),
        ([], [], (600, 100), {"index.encoder_options.collaborative_weight": 0.35}),
        ([], [], (100, 600), {"index.levels": [8, 16]}),
        (
            [],
            [kind("category_mismatch_target", 0.8)],
            (),
            {"index.encoder_options.collaborative_weight": 0.35},
        ),
    ],
)
def test_sid_quality_mends_the_codes_that_go_wrong(
    tmp_path: Path, overrides: list[str], causes: list[Any], wrong: tuple[int, ...], expected: dict[str, Any]
) -> None:
    recipe = recipe_of(tmp_path, None, "model.init=vectors", *overrides)
    found = keys(advice(report(*causes, first_wrong=wrong), recipe, facts=TIMED))
    assert found == {"sid_quality": expected}


def test_the_stronger_of_two_opposite_patterns_has_its_way(tmp_path: Path) -> None:
    both = report(cause("ignores_recent", 0.2), cause("only_recent", 0.3))
    recipe = recipe_of(tmp_path, None, "tasks.0.windows=[2, all]")
    assert keys(advice(both, recipe))["recency_bias"] == {"tasks.0.windows": ["all"]}
    both = report(cause("ignores_recent", 0.3), cause("only_recent", 0.2))
    found = keys(advice(both, recipe))["recency_bias"]
    assert found == {"tasks.0.windows": [1, 2, "all"], "evaluate.memory": {}}


def test_memory_then_a_blend_then_nothing(tmp_path: Path) -> None:
    said = report(kind("memory_knew"))
    assert keys(advice(said, recipe_of(tmp_path))) == {"memory": {"evaluate.memory": {}}}
    remembers = recipe_of(tmp_path, None, "evaluate.memory=true")
    assert keys(advice(said, remembers)) == {"memory": {"evaluate.blend": {"rankers": ["model", "ridge"]}}}
    blends = recipe_of(tmp_path, None, "evaluate.memory=true", "evaluate.blend=true")
    assert advice(said, blends) == []


def test_beams_grow_from_what_they_are_and_never_beyond_the_catalogue(tmp_path: Path) -> None:
    said = report(kind("pruned_by_beam", 0.01))
    assert keys(advice(said, recipe_of(tmp_path))) == {"beams": {"evaluate.beams": 40}}
    assert keys(advice(said, recipe_of(tmp_path), facts=Facts(items=30))) == {"beams": {"evaluate.beams": 30}}
    assert advice(said, recipe_of(tmp_path), facts=Facts(items=20)) == []


def test_popularity_rewards_what_is_shown_to_few(tmp_path: Path) -> None:
    learns = {"rl": [{"steps": 2, "rewards": {"hit": 1.0}}]}
    found = keys(advice(report(cause("popularity_bias")), recipe_of(tmp_path, learns)))["popularity"]
    assert found["rl.0.rewards.diversity"] == 0.1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], {"stages.1.epochs": 3}),
        ([0.1, 0.4, 0.3, 0.2], {"weight_decay", "dropout", "label_smoothing"}),
        ([0.1, 0.3, 0.4, 0.399], {}),
        ([0.1, 0.4], {}),
    ],
)
def test_hyperparameter_reads_validations(tmp_path: Path, values: list[float], expected: Any) -> None:
    curve = Curve("ndcg@10", [(i + 1) / len(values) for i in range(len(values))], values)
    found = keys(advice(report(), recipe_of(tmp_path), facts=Facts(curves={"all": curve})))
    got = found.get("hyperparameter", {})
    assert (got if isinstance(expected, dict) else {key.rpartition(".")[2] for key in got}) == expected


def test_a_stage_that_nobody_validates_is_validated(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"stages": [{"name": "all", "epochs": 1}]})
    assert keys(advice(None, recipe)) == {"hyperparameter": {"stages.0.validation.every": "epoch"}}


@pytest.mark.parametrize("verdict", [v for v in get_args(Verdict) if v not in ("cause", "kind")])
def test_what_is_no_cause_calls_for_nothing(tmp_path: Path, verdict: Verdict) -> None:
    said = report(*(cause(name, 0.4, verdict) for name in DETECTORS))
    assert advice(said, recipe_of(tmp_path)) == []


def test_what_is_hardly_at_stake_calls_for_nothing(tmp_path: Path) -> None:
    assert advice(report(*(cause(name, 0.004) for name in DETECTORS)), recipe_of(tmp_path)) == []


def test_causes_come_before_what_sorts_bad_cases(tmp_path: Path) -> None:
    said = report(kind("memory_knew", 0.9), cause("short_history", 0.1), cause("long_tail", 0.2))
    found = [one.strategy for one in advice(said, recipe_of(tmp_path, SEQUENCE))]
    assert found == ["long_tail", "short_history", "memory"]


def test_a_strategy_that_is_asked_for_needs_no_cause(tmp_path: Path) -> None:
    found = advice(
        report(cause("long_tail", 0.0, "no difference")), recipe_of(tmp_path), strategies=["long_tail"]
    )
    assert [one.strategy for one in found] == ["long_tail"]
    assert "no difference" in found[0].evidence[0]
    with pytest.raises(ConfigError, match="no strategy 'long_tale'; did you mean 'long_tail'"):
        advice(report(), recipe_of(tmp_path), strategies=["long_tale"])


def test_what_is_skipped_is_not_there_for_later_advice(tmp_path: Path) -> None:
    said = report(cause("long_tail", 0.3), cause("cold_start", 0.2))
    recipe = recipe_of(tmp_path, SEQUENCE)
    every = keys(advice(said, recipe, facts=TIMED))
    assert "tasks.+" not in every["cold_start"]  # long_tail brings A and B
    skipping = consider(
        said, recipe, lambda one, _: None if one.strategy == "long_tail" else one, facts=TIMED
    )
    assert keys(skipping)["cold_start"]["tasks.+"] == {"task": "B"}


def test_imported_codes_and_titles_are_left_alone(tmp_path: Path) -> None:
    titles = {"index": {"names": "title"}, "tasks": [{"task": "C"}], "stages": [{"name": "all", "epochs": 1}]}
    every = [cause(name, 0.4) for name in DETECTORS]
    found = keys(advice(report(*every, first_wrong=(700, 700)), recipe_of(tmp_path, titles), facts=TIMED))
    assert "sid_quality" not in found
    assert not any(key.startswith(("index", "tasks.+")) for changes in found.values() for key in changes)


# --------------------------------------------------------------------------------- all recipes, all rules


def shipped() -> list[str]:
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


@pytest.mark.parametrize("name", shipped())
def test_all_advice_to_every_shipped_recipe_leaves_it_sound(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("QWEN3_8B", "QWEN2_5", "OPENONEREC_BASE", "OPENONEREC_STAGE1", "OPENONEREC_STAGE2"):
        monkeypatch.setenv(variable, str(SHIPPED))
    for variable in ("LLAMA2", "RECLM_DATA", "SHAREGPT", "LLAMA3", "AMAZON_MOVIES"):
        monkeypatch.setenv(variable, str(SHIPPED))
    for variable in ("OPENONEREC_DATA", "OPENONEREC_GENERAL", "OPENONEREC_SFT"):
        monkeypatch.setenv(variable, str(SHIPPED / "*.yaml"))
    recipe, _ = check_recipe(name)
    if recipe.data is None:
        pytest.skip("without data nothing is ranked")
    if recipe.model is None:
        with pytest.raises(ConfigError, match="has no model that names items"):
            advice(report(), recipe, facts=TIMED, strategies=list(RULES))
        return
    found = advice(report(), recipe, facts=TIMED, strategies=list(RULES))
    assert found
    values: Any = improved_values(recipe, found)
    assert values["name"] == f"{recipe.name}-improved"
    for one in found:
        for change in one.changes:
            assert change.value != change.before
            if change.path[-1] == "+":
                assert change.value in values[str(change.path[0])]
            else:
                assert reduce(lambda here, key: here[key], change.path, values) == change.value
    untouched = {change.path[0] for one in found for change in one.changes} | {"name"}
    before = plain(recipe)
    assert {key: value for key, value in values.items() if key not in untouched} == {
        key: value for key, value in before.items() if key not in untouched
    }
    assert try_values(values)[1] == try_values(before)[1]
