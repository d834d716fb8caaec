"""Test tasks: what they ask, how answers are judged, and who answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from itemic import schema as c
from itemic.control.evaluation import Asking
from itemic.control.form import ListForm
from itemic.control.judge import judge
from itemic.control.labels import Labels
from itemic.control.parse import parse
from itemic.control.questions import Drawer, Question
from itemic.control.results import Results
from itemic.control.terms import TermsOf
from itemic.control.tests import TRAINED, USUAL, ControlTest, ListTests, control_test
from itemic.control.want import PartOf, Want
from itemic.control.words import say
from itemic.control.writing import Spoken, Written
from itemic.data.dataset import Dataset
from itemic.errors import ArtifactError, ConfigError, DataError
from itemic.evaluate import ModelRanker
from itemic.recipe.control import CONTROL_OPTIONS
from tests.control.catalogues import dataset
from tests.control.models import model_of

ITEMS = 20
PATHS = [(("Film", "Drama"), ("Film", "Comedy"), ("Book",))[row % 3] for row in range(ITEMS)]
BRANDS = ["Nike" if row % 4 else "Puma" for row in range(ITEMS)]
HISTORIES = [
    [row % ITEMS, (3 * row + 1) % ITEMS, (7 * row + 2) % ITEMS, (5 * row + 3) % ITEMS] for row in range(12)
]
SPOKEN = Spoken(ListForm(), None, 2, 3, (c.CATEGORIES,), "SFTSeqRec")
ALL = (*USUAL, "TestWithCategoryRateMP_34")


def shop() -> Dataset:
    return dataset(PATHS, HISTORIES, **{"price": [float(row) for row in range(ITEMS)]})


def drawer(
    settings: ListTests, data: Dataset, some: slice = slice(None), columns: Sequence[str] = (c.CATEGORIES,)
) -> Drawer:
    labels = Labels.of(data, columns)
    requests = data.split("test")
    numbers = np.arange(len(requests))[some]
    usable = np.flatnonzero(labels.sizes < labels.items)
    return Drawer(settings, requests.take(numbers), numbers, labels, usable, seed=5)


# ------------------------------------------------------------------------------------------------- names


def test_tasks_go_by_their_names_and_others_are_told() -> None:
    assert control_test("SFT+TestPersonalControlRec") == ControlTest("SFT+TestPersonalControlRec", "with")
    rate = control_test("SFTTestPersonalCategoryRateLP_20")
    assert (rate.kind, rate.how, rate.portion) == ("share", "at most", 0.2)
    assert control_test("SFTTestPersonalCategoryRateMP_30").how == "at least"
    assert control_test("SFTTestPersonalCategoryRateEP_7").portion == 0.07
    assert len({test.kind for test in ListTests().tests}) == 6
    for wrong in (
        "SFTTestSeqRek",
        "SFTTestPersonalCategoryRateLP_101",
        "SFTTestPersonalCategoryRateXP_20",
        "",
    ):
        with pytest.raises(ConfigError, match="no test task"):
            control_test(wrong)
    with pytest.raises(ConfigError, match="did you mean 'SFTTestSeqRec'"):
        ListTests(tasks=("SFTTestSeqRek",))
    with pytest.raises(ConfigError, match="twice"):
        ListTests(tasks=("SFTTestSeqRec", "SFTTestSeqRec"))
    assert {name for some in TRAINED.values() for name in some} <= set(CONTROL_OPTIONS)


# --------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize("name", ALL)
def test_what_is_wanted_can_be_had_and_never_depends_on_what_is_to_be_found(name: str) -> None:
    data, test = shop(), control_test(name)
    settings = ListTests(candidates=8, most=6)
    own = drawer(settings, data)
    said = [np.array([0, 1, 3, 9], np.int32)] * len(own.requests)
    found = own.draw(test, 3, 2, said)
    assert len(found.asked) + found.skipped.total() == len(own.requests)
    assert len(found.asked) >= 8
    for one in found.asked:
        assert one.terms.count == one.want.count
        assert not set(one.terms.rows.tolist()) & set(own.requests.history(one.request).tolist())
        assert one.shown.tolist() == own.requests.history(one.request)[-2:].tolist()
    other = drawer(settings, data)
    other.requests = replace(other.requests, targets=np.roll(other.requests.targets, 5))
    again = other.draw(test, 3, 2, said)
    if test.kind == "ranking":
        for one in found.asked:
            assert len(one.want.candidates or ()) == 8
            assert int(own.requests.targets[one.request]) in (one.want.candidates or ())
    else:
        assert [one.want for one in again.asked] == [one.want for one in found.asked]
    part = drawer(settings, data, slice(4, 9)).draw(test, 3, 2, said)
    wants = {one.request: one.want for one in found.asked}
    assert [one.want for one in part.asked] == [wants[one.request + 4] for one in part.asked]


def test_each_kind_wants_what_its_rule_says() -> None:
    data, settings = shop(), ListTests(most=6)
    own = drawer(settings, data)
    labels = own.labels
    counts = [one.want.count for one in own.draw(control_test("SFTTestItemCount"), 3, 2).asked]
    assert set(counts) == {4, 5, 6}
    lists = [np.array([0, 1, 3, 4, 6, -1], np.int32)] * len(
        own.requests
    )  # three dramas, two comedies, and no item
    wants = [one.want for one in own.draw(control_test("SFT-TestPersonalControlRec"), 3, 2, lists).asked]
    assert {want.unwanted for want in wants} == {("Film > Drama",)}
    wants = [one.want for one in own.draw(control_test("SFT+TestPersonalControlRec"), 3, 2).asked]
    assert len({want.wanted for want in wants}) > 2
    for one in own.draw(control_test("SFTTestPersonalCategoryRateMP_30"), 3, 2).asked:
        (part,) = one.want.shares
        history = own.requests.history(one.request).tolist()
        assert (part.how, part.portion) == ("at least", 0.3)
        assert labels.number(part.label) in {int(n) for row in history for n in labels.numbers_of(row)}
    both = drawer(settings, data, columns=(c.CATEGORIES, "price"))
    for one in both.draw(control_test("TestWithCategoryRateMP_34"), 3, 2).asked:
        assert one.want.wanted
        assert one.want.shares[0].label not in one.want.wanted


def test_the_oracle_takes_categories_from_the_target() -> None:
    data = shop()
    own = drawer(ListTests(protocol="oracle"), data)
    lists = [np.array([0, 3, 6, 1, 2], np.int32)] * len(own.requests)
    for name in ("SFT+TestPersonalControlRec", "SFTTestPersonalCategoryRateEP_50"):
        for one in own.draw(control_test(name), 3, 2).asked:
            finest = own.labels.finest(int(own.requests.targets[one.request]))
            assert finest in {*one.want.wanted, *(part.label for part in one.want.shares)}
    for one in own.draw(control_test("SFT-TestPersonalControlRec"), 3, 2, lists).asked:
        finest = own.labels.finest(int(own.requests.targets[one.request]))
        assert one.want.unwanted != (finest,)
        assert finest == "Film > Drama" or one.want.unwanted == ("Film > Drama",)


def test_candidates_of_the_data_are_ranked_and_what_was_had_is_not_looked_for() -> None:
    data = shop()
    own = drawer(ListTests(candidates=5), data)
    user = str(own.requests.users[0])
    known = own.requests.history(0).tolist()
    target = int(own.requests.targets[0])
    others = [row for row in range(ITEMS) if row not in known and row != target][:9]
    own.candidates = {user: np.array(others, np.int32)}
    found = own.draw(control_test("SFTTestSeqRanking"), 3, 2)
    assert set(found.asked[0].want.candidates or ()) == {target, *others}
    assert all(len(one.want.candidates or ()) == 5 for one in found.asked[1:])
    own.requests = replace(own.requests, targets=own.requests.targets.copy())
    own.requests.targets[0], own.requests.targets[1] = known[0], -1
    less = own.draw(control_test("SFTTestSeqRanking"), 3, 2)
    assert less.skipped["there is nothing new to be found"] >= 2
    assert min(one.request for one in less.asked) > 1


# ------------------------------------------------------------------------------------------------- judging


def slow(one: Question, items: list[int], labels: Labels, target: int, k: int) -> dict[str, float]:
    """By the definitions, of one list."""
    first = items[:k]
    has = [{labels.names[n] for n in labels.numbers_of(row)} if row >= 0 else set() for row in items]
    found = {
        f"recall@{k}": float(target in first),
        f"mrr@{k}": 1 / (first.index(target) + 1) if target in first else 0.0,
        f"ndcg@{k}": 1 / math.log2(first.index(target) + 2) if target in first else 0.0,
        "count_correct": float(len(items) == one.want.count),
    }
    bad = [
        [row < 0 for row in first],
        [row >= 0 and row in first[:place] for place, row in enumerate(first)],
        [row >= 0 and row in one.shown.tolist() for row in first],
    ]
    for name, own in zip(("non_existing", "repeated", "in_history"), bad, strict=True):
        found[f"{name}@{k}"] = sum(own) / len(first) if first else 1.0
    named = set(one.want.wanted or one.want.unwanted)
    if named:
        fresh = [row not in items[:place] for place, row in enumerate(items)]
        have = sum(
            bool(named & own) and (not one.want.wanted or new)
            for own, new in zip(has[:k], fresh, strict=False)
        )
        found[f"target_category@{k}"] = have / len(first) if first else float(bool(one.want.unwanted))
        found[f"reclm_category@{k}"] = (
            sum(bool(named & own) for own in has[:k]) / len(first) if first else 0.0
        )
    if one.want.shares:
        (part,) = one.want.shares
        every = [row for row, own in zip(items, has, strict=True) if part.label in own]
        exact = part.portion * one.want.count
        if part.how == "at most":
            fine = len(every) <= math.floor(exact + 1e-9)
        elif part.how == "at least":
            fine = len(set(every)) >= math.ceil(exact - 1e-9)
        else:
            fine = len(every) <= round(exact) + 1 and len(set(every)) >= round(exact) - 1
        found["category_rate_correct"] = float(fine and bool(items))
        cut = items[: one.want.count]
        have, quota = sum(part.label in own for own in has[: one.want.count]), round(exact)
        as_theirs = {
            "at most": have + sum(row < 0 for row in cut) <= math.floor(exact + 1e-9),
            "at least": have >= math.ceil(exact - 1e-9),
            "about": abs(have - quota) <= 1,
        }
        found["reclm_rate_correct"] = float(as_theirs[part.how] and bool(items))
    return found


@pytest.mark.parametrize("kind", ["plain", "with", "without", "at most", "at least", "about"])
def test_lists_are_judged_by_the_definitions(kind: str) -> None:
    rng = np.random.default_rng(3)
    labels = Labels.of(shop())
    terms_of = TermsOf(labels)
    wants = {
        "plain": Want(count=4),
        "with": Want(count=4, wanted=("Film > Drama",)),
        "without": Want(count=4, unwanted=("Film > Comedy",)),
    }
    want = wants.get(kind) or Want(count=4, shares=(PartOf("Book", kind, 0.5),))  # type: ignore[arg-type]
    asked, lists = [], []
    for number in range(60):
        history = rng.choice(ITEMS, 3, replace=False)
        asked.append(Question(number, want, terms_of(want, history), history[1:].astype(np.int32)))
        lists.append(rng.integers(-1, ITEMS, rng.integers(0, 7)).astype(np.int32))
    for number in range(0, 60, 4):  # some that keep to it
        lists[number] = asked[number].terms.rows[: asked[number].terms.count]
    targets = rng.integers(0, ITEMS, 60).astype(np.int32)
    found = judge(asked, lists, labels, (2, 5), targets=targets)
    for number, (one, own) in enumerate(zip(asked, lists, strict=True)):
        for k in (2, 5):
            for name, value in slow(one, own.tolist(), labels, int(targets[number]), k).items():
                assert found[name][number] == pytest.approx(value), (name, number)
        assert found["obeyed"][number] == one.terms.kept_by(own)
        assert found["reachable"][number] == (targets[number] in one.terms.rows)
    unknown = judge(asked, lists, labels, (2,), targets=np.full(60, -1, np.int32))
    assert "recall@2" not in unknown
    assert len(unknown["count_correct"]) == 60
    half = np.where(np.arange(60) % 2, targets, -1).astype(np.int32)
    some = judge(asked, lists, labels, (2,), targets=half)
    assert some["recall@2"].tolist() == found["recall@2"][1::2].tolist()


def test_items_that_share_a_name_are_the_same() -> None:
    """Item 7 and item 12 share theirs: either is the target, either is in the history, and the one meant is judged."""
    labels = Labels.of(shop())
    names = np.arange(ITEMS)
    names[12] = names[7]
    assert (labels.finest(7), labels.finest(12)) == ("Film > Comedy", "Film > Drama")
    want = Want(count=2, wanted=("Film > Drama",))
    asked = [Question(0, want, TermsOf(labels, names=names)(want, [1]), np.array([1], np.int32))]
    lists = [np.array([7, 0], np.int32)]
    found = judge(asked, lists, labels, (2,), targets=np.array([12], np.int32), names=names)
    assert (
        found["recall@2"][0]
        == found["target_category@2"][0]
        == found["obeyed"][0]
        == found["reachable"][0]
        == 1
    )
    seen = [
        Question(
            0, Want(count=2), TermsOf(labels, names=names)(Want(count=2), [12]), np.array([12], np.int32)
        )
    ]
    assert (
        judge(seen, lists, labels, (1,), targets=np.array([7], np.int32), names=names)["in_history@1"][0] == 1
    )


# ------------------------------------------------------------------------------------------------- answers


def asking(file: Path, kind: str = "title", **settings: object) -> Asking:
    tests = ListTests(**({"tasks": USUAL, "most": 5, "candidates": 6, "k": (1, 3), "users": 6} | settings))  # type: ignore[arg-type]
    return Asking(shop(), Written(model_of(kind), file, most=5), lambda _: SPOKEN, tests)


@pytest.mark.parametrize("kind", ["title", "sid"])
def test_hard_lists_obey_and_all_modes_are_asked_the_same(kind: str, tmp_path: Path) -> None:
    hard = asking(tmp_path / "a.jsonl", kind, mode="hard")
    soft = asking(tmp_path / "a.jsonl", kind)
    for test in soft.settings.tests:
        assert [one.want for one in hard.questions(test).asked] == [
            one.want for one in soft.questions(test).asked
        ]
    results = hard.evaluate()
    assert [line.task for line in results.lines] == list(USUAL)
    for line in results.lines:
        assert line.metrics["obeyed"].value == line.metrics["count_correct"].value == 1
        assert line.failed == 0
        assert all(line.metrics[f"{bad}@3"].value == 0 for bad in ("non_existing", "repeated", "in_history"))
    assert results.lines[1].metrics["target_category@3"].value == 1
    assert results.lines[2].metrics["target_category@3"].value == 0
    assert all(line.metrics["category_rate_correct"].value == 1 for line in results.lines[3:6])
    for line in soft.evaluate().lines:
        assert line.metrics["non_existing@3"].value == 0
    told = str(results)
    assert "CategoryRateLP_20" in told
    results.save(tmp_path, "hard")
    assert Results.load(tmp_path / "hard.json") == results
    assert (tmp_path / "hard.md").read_text("utf-8").count("\n| SFT") == len(USUAL)
    (tmp_path / "hard.json").write_text("[]")
    with pytest.raises(ArtifactError, match="no results"):
        Results.load(tmp_path / "hard.json")


def test_free_lists_are_what_generate_writes_and_is_parsed(tmp_path: Path) -> None:
    own = asking(tmp_path / "a.jsonl", mode="free", users=3)
    model = model_of("title")
    test = control_test("SFT+TestPersonalControlRec")
    found = own.ask(test)
    kept = [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    form = ListForm()
    for one, items, text in zip(found.questions.asked, found.lists, kept, strict=True):
        said = say(
            one.want, own.drawer(test).labels, form=form, names=model.index.texts, history=one.shown.tolist()
        )
        prompt = torch.tensor([model.chat.prompt([{"role": "user", "content": said}])])
        written = model.lm.generate(prompt, max_new_tokens=40, do_sample=False)[0, prompt.shape[1] :]  # type: ignore[operator]
        plain = model.tokenizer.decode(written, skip_special_tokens=False)
        width = min(len(plain), len(text), 60)
        assert width > 0
        assert plain[:width] == text[:width]
        assert items.tolist() == parse(text, model.index, form, meant=one.terms.rows).items.tolist()


def test_answers_are_kept_and_what_is_missing_is_written_again(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    first = asking(file).evaluate()
    lines = file.read_text("utf-8").splitlines(keepends=True)
    assert len(lines) == len({json.loads(line)["key"] for line in lines})
    file.write_text("".join(lines[::2]) + '{"key": "to')
    again = asking(file)
    assert again.evaluate() == first
    kept = file.read_text("utf-8").splitlines(keepends=True)
    assert kept[: len(lines[::2])] == lines[::2]
    assert sorted(kept) == sorted(lines)
    assert asking(file).evaluate() == first
    assert file.read_text("utf-8").splitlines(keepends=True) == kept


def test_the_price_puts_all_ways_side_by_side(tmp_path: Path) -> None:
    own = asking(
        tmp_path / "a.jsonl", tasks=("SFTTestSeqRec", "SFT-TestPersonalControlRec"), unwanted="history"
    )
    everything = np.tile(np.arange(ITEMS, dtype=np.int32), (6, 1))
    own.ranked = lambda requests: everything[: len(requests)]
    results = own.price()
    assert [line.way for line in results.lines] == [
        "no control",
        "soft",
        "distinct",
        "hard",
        "hard, untold",
        "filtered",
        "filtered ranking",
    ]
    assert {line.task for line in results.lines} == {"SFT-TestPersonalControlRec"}
    obeyed = {line.way: line.metrics["obeyed"].value for line in results.lines}
    assert obeyed["hard"] == obeyed["hard, untold"] == obeyed["filtered"] == obeyed["filtered ranking"] == 1
    reachable = {line.metrics["reachable"].value for line in results.lines}
    assert len(reachable) == 1
    test = control_test("SFT-TestPersonalControlRec")
    targets = own.requests.targets
    hits = [
        float(targets[one.request] in [row for row in range(ITEMS) if row in one.terms.rows][:3])
        for one in own.questions(test).asked
    ]
    assert results.lines[6].metrics["recall@3"].value == pytest.approx(np.mean(hits))
    with pytest.raises(ConfigError, match="none of these"):
        asking(tmp_path / "a.jsonl", tasks=("SFTTestSeqRec",)).price()


@pytest.mark.parametrize("kind", ["title", "sid"])
def test_ranked_lists_are_the_best_of_the_ranking_that_obey(kind: str, tmp_path: Path) -> None:
    """Against all lists: place by place the best item with which some list that obeys begins."""
    own = asking(tmp_path / "a.jsonl", kind, mode="ranked")
    ranker = ModelRanker(model_of(kind), task="sequence", beams=ITEMS)
    own.among = ranker.rank_among
    own.ranked = lambda requests: ranker.rank(requests, ITEMS)[0]
    for test in own.settings.tests:
        questions = own.questions(test)
        rows = [one.request for one in questions.asked]
        best = ranker.rank(own.requests.take(np.array(rows)), ITEMS)[0].tolist()
        for one, order, found in zip(questions.asked, best, own.lists(questions, "ranked"), strict=True):
            terms = one.terms
            fine = [set(some) for some in combinations(range(ITEMS), terms.count) if terms.kept_by(some)]
            wanted: list[int] = []
            while len(wanted) < terms.count:
                wanted.append(
                    next(
                        row
                        for row in order
                        if row not in wanted and any({*wanted, row} <= some for some in fine)
                    )
                )
            assert found.tolist() == wanted
    results = own.evaluate()
    assert all(line.metrics["obeyed"].value == 1 for line in results.lines)
    price = {(line.task, line.way): line.metrics["recall@3"].value for line in own.price().lines}
    for task in {task for task, _ in price}:
        assert price[task, "ranked"] >= price[task, "filtered ranking"]
    own.among = None
    with pytest.raises(ConfigError, match="mode ranked asks a model"):
        own.evaluate()


def test_what_is_filtered_is_the_order_of_the_first_place_of_an_uncontrolled_list(tmp_path: Path) -> None:
    """Against the sum of the log-probabilities of each item's tokens behind the prompt and the first number."""
    own, model = asking(tmp_path / "a.jsonl"), model_of("title")
    test = control_test("SFT+TestPersonalControlRec")
    labels, asked = own.drawer(test).labels, own.questions(test).asked[:2]
    ranked = own.answerer.ranked(asked, SPOKEN, labels)
    assert ranked is not None
    for one, found in zip(asked, ranked, strict=True):
        want = Want(count=one.want.count)
        said = say(want, labels, form=ListForm(), names=model.index.texts, history=one.shown.tolist())
        prompt = model.chat.prompt([{"role": "user", "content": said}])
        number = model.tokenizer.encode(ListForm().before(0), add_special_tokens=False)
        scores = []
        for item in (model.item_rows[row].tolist() for row in range(ITEMS)):
            ids = torch.tensor([[*prompt, *number, *item]])
            with torch.no_grad():
                logs = model.lm(ids).logits[0].log_softmax(-1)
            start = ids.shape[1] - len(item) - 1
            scores.append(float(sum(logs[start + place, token] for place, token in enumerate(item))))
        assert [scores[row] for row in found] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)


def test_long_histories_lose_their_oldest_items_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = asking(tmp_path / "a.jsonl", tasks=("SFTTestSeqRec",), users=4)
    (test,) = own.settings.tests
    written, labels = own.answerer, own.drawer(test).labels
    assert isinstance(written, Written)
    asked = own.questions(test).asked
    assert {len(one.shown) for one in asked} == {2}
    lengths = written.prompts(asked, SPOKEN, labels, False).lengths
    room = written.room(SPOKEN.form, 3)
    assert room is not None
    assert own.evaluate().notes == []
    config = written.model.lm.config
    monkeypatch.setattr(
        config, "max_position_embeddings", config.max_position_embeddings - room + int(lengths.max()) - 1
    )
    again = asking(tmp_path / "b.jsonl", tasks=("SFTTestSeqRec",), users=4)
    results = again.evaluate()
    assert again.answerer.shortened == (lengths == lengths.max()).sum()
    assert any("oldest items" in note for note in results.notes)
    assert (written.prompts(asked, SPOKEN, labels, False).lengths < lengths.max()).all()


def test_who_cannot_be_asked_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no teacher"):
        asking(tmp_path / "a.jsonl", unwanted="teacher").evaluate()
    with pytest.raises(DataError, match="can't ask any request"):
        asking(tmp_path / "a.jsonl", tasks=("SFT+TestPersonalControlRec",), topk=15).evaluate()
    with pytest.raises(ConfigError, match="no column 'color'"):
        asking(tmp_path / "a.jsonl", columns=("color",)).evaluate()
