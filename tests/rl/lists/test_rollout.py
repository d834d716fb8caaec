"""Rollouts of lists: what they say, what that is worth and where, and the numbers that an update has for them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from itemic.control.answers import Answers
from itemic.control.parse import parse
from itemic.control.rewards import item_rewards, list_rewards
from itemic.errors import ConfigError, DataError
from itemic.rl.lists.asks import ListAsked, ListBook
from itemic.rl.lists.rollout import ListRoller, RolledLists
from itemic.rl.lists.worth import ListRewards
from itemic.rl.objective import GroupObjective
from itemic.rl.rolled import Policy
from itemic.rl.scoring import Legal
from itemic.rl.settings import Asks, GroupSettings, ListSettings, RolloutSettings
from itemic.sid.trie import Trie
from tests.rl.lists.helpers import TASKS, teacher
from tests.rl.test_run import fresh, shop

MODES = [
    ("soft", "legal"),
    ("soft", "vocab"),
    ("distinct", "legal"),
    ("hard", "legal"),
    ("hard", "vocab"),
    ("free", "vocab"),
]
DATASET = shop()


@lru_cache(maxsize=1)
def model() -> Any:
    return fresh(DATASET)


def roller(mode: str, normalize: str, **keys: Any) -> tuple[ListRoller, ListBook]:
    asks = Asks(tasks=tuple(TASKS), requests=8)
    book = ListBook(model(), DATASET, asks, 5, teacher())
    lists = ListSettings(mode=mode, samples=3, **keys)  # type: ignore[arg-type]
    settings = RolloutSettings(normalize=normalize, lists=lists)  # type: ignore[arg-type]
    objective = GroupObjective(model().lm, Legal(Trie.build(model().item_rows), normalize))
    rewards = ListRewards({"items": 1.0, "list": 1.0})
    return ListRoller(Policy(model(), objective), settings, GroupSettings(), rewards, book), book


@lru_cache(maxsize=8)
def rolled(mode: str, normalize: str) -> tuple[RolledLists, ListRoller, ListBook]:
    own, book = roller(mode, normalize, max_new_tokens=40) if mode == "free" else roller(mode, normalize)
    asked = book.ask(*book.order(0))
    return own.roll(asked, list(range(len(asked)))), own, book


@pytest.mark.parametrize(("mode", "normalize"), MODES)
def test_an_update_finds_the_rollout_s_log_probabilities(mode: str, normalize: str) -> None:
    """Ratios are 1: over the legal set or over the vocabulary, the same on both sides. Against plain rows as well, with
    sets that are walked anew, list by list."""
    found, own, _ = rolled(mode, normalize)
    groups = found.groups
    scores = own.policy.objective.score_all(groups, 500)
    np.testing.assert_allclose(scores, groups.log_probs, atol=2e-5)
    assert groups.choice.any()
    grammar = own._grammar(found.asked)
    lm = model().lm
    for number in range(0, len(groups.answers), 5):
        prompt = groups.prompts[int(groups.group[number])].tolist()
        answer = groups.answers[number].tolist()
        with torch.no_grad():
            logits = lm(torch.tensor([prompt + answer]), use_cache=False).logits[0].float()
        first = int(groups.answers.offsets[number])
        state = None if grammar is None else grammar.start(int(groups.request[groups.group[number]]))
        for at, token in enumerate(answer):
            line = logits[len(prompt) + at - 1]
            legal = None if grammar is None else grammar.allowed(state).tolist()  # type: ignore[arg-type]
            chosen = legal is None or len(legal) > 1
            assert groups.choice[first + at] == chosen
            if chosen:
                over = line if normalize == "vocab" or legal is None else line[legal]
                wanted = float(line[token] - over.logsumexp(-1))
                assert groups.log_probs[first + at] == pytest.approx(wanted, abs=2e-5)
            if grammar is not None:
                state = grammar.step(state, token)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "normalize"), MODES)
def test_lists_are_what_their_text_says_and_worth_what_the_rewards_say(mode: str, normalize: str) -> None:
    found, own, book = rolled(mode, normalize)
    asked, written = found.asked, found.written
    each, index = own.settings.samples, model().index
    texts = [
        model().tokenizer.decode([token for token in row if token != own.tokens.end[0]])
        for row in (written.tokens[number].tolist() for number in range(len(written.tokens)))
    ]
    for number, (text, items) in enumerate(zip(texts, written.read.items, strict=True)):
        terms = asked.terms[number // each]
        parsed = parse(text, index, book.form, meant=terms.rows)
        assert [index.text(row) if row >= 0 else None for row in items.tolist()] == [
            index.text(row) if row >= 0 else None for row in parsed.items.tolist()
        ]
        ends = written.read.ends[number]
        tokens = written.tokens[number].tolist()
        for row, end in zip(items.tolist(), ends.tolist(), strict=True):
            if row >= 0:  # up to there its text is complete, and a token before it isn't
                upto, before = (model().tokenizer.decode(tokens[:stop]) for stop in (end + 1, end))
                assert upto.count(index.text(row)) == before.count(index.text(row)) + 1
        if mode == "hard":
            assert terms.kept_by(items)
        if mode == "distinct":
            ends = {index.text(row) for row in asked.requests.history(number // each).tolist()}
            texts_of = [index.text(row) for row in items.tolist()]
            assert len(set(texts_of)) == len(texts_of)
            assert not ends & set(texts_of)
    rows = np.repeat(np.arange(len(asked)), each).tolist()
    names = index.name_numbers  # items that share a name stand for each other
    lowest = {int(name): int(np.flatnonzero(names == name)[0]) for name in names}
    meant = [
        {int(names[row]): int(row) for row in asked.terms[request].rows.tolist()}
        for request in range(len(asked))
    ]

    def same(row: int, request: int) -> int:
        return row if row < 0 else meant[request].get(int(names[row]), lowest[int(names[row])])

    answers = Answers.of(
        [
            [same(row, at) for row in items.tolist()]
            for items, at in zip(written.read.items, rows, strict=True)
        ],
        [asked.wants[row] for row in rows],
        book.labels,
        targets=[same(int(asked.requests.targets[row]), row) for row in rows],
        ranked=[asked.ranked[row] for row in rows],
        histories=[[same(one, row) for one in asked.requests.history(row).tolist()] for row in rows],
    )
    items, lists = item_rewards(answers), list_rewards(answers)
    np.testing.assert_allclose(found.total.ravel(), items.sum(1) + lists)
    np.testing.assert_allclose(found.apart["list"].ravel(), lists)
    # the choices of a list have all of it, and each entry's on the last choice that made it
    groups = found.groups
    given = np.add.reduceat(groups.numbers["rewards"], groups.answers.offsets[:-1])
    np.testing.assert_allclose(given, groups.rewards, atol=1e-4)
    assert not groups.numbers["rewards"][~groups.choice].any()
    np.testing.assert_allclose(
        found.advantages,
        (found.total - found.total.mean(1, keepdims=True)) / found.total.std(1, keepdims=True).clip(1e-6),
        atol=1e-6,
    )


def test_a_list_of_another_length_has_no_reward_for_its_count() -> None:
    answers = rolled("hard", "legal")[0].written.answers  # a hard list has its count
    rewards = ListRewards({"list": 1.0, "count": 5.0})
    _, lists, apart = rewards(answers)
    assert (apart["count"] == 1).all()
    np.testing.assert_allclose(lists, list_rewards(answers) + 5)
    other = replace(answers, counts=answers.counts + 1)  # of what one more was asked for
    _, lists, apart = rewards(other)
    assert (apart["count"] == 0).all()
    np.testing.assert_allclose(lists, list_rewards(other))


def test_shares_are_rewarded_end_to_end() -> None:
    """The branches of "at most" and "at least": lists that are met are worth more than lists that aren't."""
    found, _, _ = rolled("soft", "legal")
    kinds = set(found.written.answers.kinds)
    assert {"at most", "at least", "about"} & kinds
    hard, _, _ = rolled("hard", "legal")
    for kind in {"at most", "at least", "about"} & kinds:
        total, weight = hard.numbers[f"worth/{kind}"]
        assert total == weight > 0  # by the grammar each is met
        assert found.numbers[f"worth/{kind}"][0] < found.numbers[f"worth/{kind}"][1]


def test_the_greedy_list_is_the_most_probable_one_and_others_are_drawn_among_the_best() -> None:
    found, own, _ = rolled("soft", "legal")
    asked = found.asked
    again = own.write(asked, [0] * len(asked), greedy=True)
    for number in range(len(asked)):
        assert again.tokens[number].tolist() == found.written.tokens[3 * number].tolist()
    first = own.roll(asked, list(range(len(asked))))
    np.testing.assert_array_equal(first.written.tokens.tokens, found.written.tokens.tokens)
    other = own.roll(asked, list(range(5, 5 + len(asked))))
    assert not np.array_equal(other.written.tokens.tokens, found.written.tokens.tokens)
    narrow, _ = roller("soft", "legal", top_k=1, greedy=False)
    drawn = narrow.roll(asked, [3] * len(asked))
    for number in range(len(drawn.written.tokens)):
        assert drawn.written.tokens[number].tolist() == again.tokens[number // 3].tolist()
    assert (drawn.advantages == 0).all()
    assert not drawn.alive.any()


def test_lists_that_are_cut_off_count_and_keep_what_is_complete() -> None:
    own, book = roller("soft", "legal", max_new_tokens=6, greedy=False)
    asked = book.ask(*book.order(0))
    found = own.roll(asked, [1] * len(asked))
    assert found.written.cut.any()
    assert (found.written.tokens.lengths <= 6).all()
    np.testing.assert_allclose(
        np.add.reduceat(found.groups.numbers["rewards"], found.groups.answers.offsets[:-1]),
        found.groups.rewards,
        atol=1e-4,
    )


def test_nobody_asked_is_nothing() -> None:
    own, book = roller("soft", "legal")
    asked = book.ask(*(part[:0] for part in book.order(0)))
    assert isinstance(asked, ListAsked)
    found = own.roll(asked, [])
    assert len(found.groups) == 0


def constant(answers: Answers) -> np.ndarray[Any, Any]:
    return np.full(len(answers.items), 2.0)


def wrong_shape(answers: Answers) -> np.ndarray[Any, Any]:
    return np.zeros(len(answers.items) + 1)


def test_rewards_of_one_s_own() -> None:
    found, _, _ = rolled("soft", "legal")
    answers = found.written.answers
    entries, lists, apart = ListRewards({"items": 0.5, "tests.rl.lists.test_rollout:constant": 3.0})(answers)
    assert (lists == 6).all()
    np.testing.assert_allclose(entries, 0.5 * item_rewards(answers))
    assert set(apart) == {"items", "tests.rl.lists.test_rollout:constant"}
    with pytest.raises(DataError, match="has shape"):
        ListRewards({"tests.rl.lists.test_rollout:wrong_shape": 1.0})(answers)
    with pytest.raises(ConfigError, match="no reward 'hit' of lists"):
        ListRewards({"hit": 1.0})
    with pytest.raises(ConfigError, match="takes no power"):
        ListRewards({"items": {"power": 2}})
