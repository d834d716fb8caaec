"""Task rationale: thoughts against a slow loop, and against the hidden taste of simulated users."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.marketplace import CATEGORIES
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.model import new_model
from itemic.schema import THINK_END, THINK_START
from itemic.sid.index import ItemIndex
from itemic.tasks import make_task
from itemic.tasks.catalogue import Catalogue
from tests.tasks.helpers import make_dataset, make_index, make_items, make_sequences, messages, metadata

FUNCTION = {"with", "from", "your", "that", "this", "each", "pack", "size", "inch", "pieces", "piece"}


def thought_of(answer: str) -> str:
    start, thought, rest = re.split(f"{THINK_START}\n|\n{THINK_END}\n\n", answer)
    assert start == ""
    assert rest
    return thought


def most(values: list[str]) -> tuple[str, int, int]:
    """The most frequent value, the latest of equals, how often, and among how many."""
    known = [value for value in values if value]
    if not known:
        return "", 0, 0
    counts = Counter(known)
    last = {value: at for at, value in enumerate(known)}
    best = max(counts, key=lambda value: (counts[value], last[value]))
    return best, counts[best], len(known)


def slow_thoughts(dataset: Dataset, index: ItemIndex, latest: int, bare: bool) -> set[tuple[str, str, str]]:
    """Group, thought and target of every row, item by item."""
    fields = Catalogue(index, dataset.items).fields
    brand, path = fields[c.BRAND].to_list(), fields["path"].to_list()
    label = brand if bare else fields["leaf"].to_list()
    department = [each.split(" > ")[0] for each in path]
    words = [
        sorted(
            set(re.findall(r"[^\W\d_]{4,}", title.lower()))
            - set(re.findall(r"[^\W\d_]{4,}", f"{brand[i]} {path[i]}".lower()))
            - FUNCTION
        )
        for i, title in enumerate(fields[c.TITLE])
    ]
    hops: dict[str, Counter[str]] = {}
    sequences = [dataset.train[user].tolist() for user in range(len(dataset.train))]
    for items in sequences:
        for one, two in pairwise(items):
            if label[one] and label[two] and label[one] != label[two]:
                hops.setdefault(label[one], Counter())[label[two]] += 1
    found = set()
    for user, items in zip(dataset.train.users, sequences, strict=True):
        for stop in range(1, len(items)):
            seen, target = items[:stop], items[stop]
            recent = seen[-latest:]
            kind = most([label[i] for i in recent])
            wanted = department[label.index(kind[0])] if kind[0] else ""
            maker = most([brand[i] for i in recent if bare or department[i] == wanted])
            had = {
                word: [at for at, i in enumerate(recent) if word in words[i]]
                for i in recent
                for word in words[i]
            }
            word = min(had, key=lambda each: (-len(had[each]), -had[each][-1], each), default="")
            taste = [f"{kind[0]} ({kind[1]} of {kind[2]})"] if kind[0] else []
            taste += [f"by {maker[0]} ({maker[1]} of {maker[2]})"] if maker[0] not in ("", kind[0]) else []
            if word and len(had[word]) > 1:
                taste.append(f"{word} ({len(had[word])} of {sum(bool(words[i]) for i in recent)})")
            last = label[seen[-1]]
            then = [one for one, _ in sorted(hops.get(last, {}).items(), key=lambda hop: (-hop[1], hop[0]))][
                :2
            ]
            what = label[target] or "something"
            if brand[target] and brand[target] != label[target]:
                what += f" by {brand[target]}"
            why = "new"
            if target in seen:
                why = "again"
            elif label[target] and label[target] == kind[0]:
                why = "the same"
            elif label[target] and label[target] in then:
                why = "which follows"
            said = [f"Taste: {', '.join(taste) or 'mixed'}."]
            said += [f"After {last}: {', '.join(then)}."] if then else []
            found.add((f"user:{user}", " ".join([*said, f"Next: {what}, {why}."]), dataset.item_ids[target]))
    return found


@pytest.mark.parametrize("latest", [1, 5])
@pytest.mark.parametrize("bare", [False, True])
def test_thoughts_are_those_of_a_slow_loop(latest: int, bare: bool) -> None:
    items = make_items()
    if bare:  # brands stand for categories where there are none
        items = items.with_columns(pl.lit([], pl.List(pl.String)).alias(c.CATEGORIES))
    dataset, index = make_dataset(make_sequences(60), items), make_index()
    frame = make_task("rationale", latest=latest).build(dataset, index)
    rows = {
        (about["group"], thought_of(messages(row)[-1]), about["target"][0])
        for row, about in zip(frame[c.MESSAGES], metadata(frame), strict=True)
    }
    assert rows == slow_thoughts(dataset, index, latest, bare)
    for why in ("again", "the same", "which follows", "new"):
        assert any(thought.endswith(f", {why}.") for _, thought, _ in rows)


def test_prompts_and_answers_are_those_of_c() -> None:
    dataset, index = make_dataset(make_sequences()), make_index()
    thinking = make_task("rationale").build(dataset, index)
    silent = make_task("C", windows=["all"]).build(dataset, index)
    assert len(thinking) == len(silent)
    for one, two in zip(thinking[c.MESSAGES], silent[c.MESSAGES], strict=True):
        first, second = json.loads(one), json.loads(two)
        assert first[:-1] == second[:-1]
        assert first[-1]["content"].endswith(f"{THINK_END}\n\n{second[-1]['content']}")
        assert make_task("rationale").parse(first[-1]["content"], index) == index.texts.index(
            second[-1]["content"]
        )


@pytest.mark.parametrize(
    "says", [["category"], ["brand"], ["word"], ["follows"], ["next"], ["next", "brand"]]
)
def test_a_thought_says_what_it_is_told_to(says: list[str]) -> None:
    dataset, index = make_dataset(make_sequences()), make_index()
    whole = make_task("rationale").build(dataset, index)[c.MESSAGES]
    part = make_task("rationale", says=says).build(dataset, index)[c.MESSAGES]
    for long, short in zip(whole, part, strict=True):
        sentences = thought_of(messages(short)[-1]).split(". ")
        assert len(sentences) <= len(set(says))
        for sentence in sentences:
            words = sentence.removeprefix("Taste: ").rstrip(".")
            assert words in ("", "mixed") or words in thought_of(messages(long)[-1])


def test_in_the_think_pattern_the_user_asks_for_thoughts() -> None:
    dataset, index = make_dataset(make_sequences()), make_index()
    model = new_model("qwen3-pico", index, ["soap and oil"], vocab_size=300)
    model.think_pattern = True
    row = json.loads(make_task("rationale").build(dataset, index)[c.MESSAGES][0])
    ids, mask = model.chat.encode(row)
    text = str(model.tokenizer.decode(ids))
    assert "/think<" in text
    assert "/no_think" not in text
    prompt = model.chat.prompt(row[:-1], "think")
    assert ids[: len(prompt)] == prompt
    supervised = str(model.tokenizer.decode([i for i, learnt in zip(ids, mask, strict=True) if learnt]))
    assert supervised.startswith(row[-1]["content"])


def test_thoughts_name_the_hidden_taste_of_simulated_users() -> None:
    """The simulator draws from a current category and a favourite brand that no reader sees; and knows what follows."""
    world = simulate(SimulatorConfig(users=600, items=400), seed=1)
    dataset, count = world.dataset, len(world.dataset.items)
    codes = np.stack([np.arange(count) // 20, np.arange(count) % 20], axis=1).astype(np.int32)
    index = ItemIndex(dataset.item_ids, codes, (20, 20), "minionerec")
    frame = make_task("rationale").build(dataset, index)
    leaves = [leaf.name for leaf in CATEGORIES[:24]]
    departments = list(dict.fromkeys(leaf.path[0] for leaf in CATEGORIES[:24]))
    brand_of = dict(zip(world._catalogue.brand.tolist(), dataset.items[c.BRAND], strict=True))
    user_of = {f"user:{user}": number for number, user in enumerate(dataset.sequences.users)}
    place: Counter[str] = Counter()
    right, guessed, liked, follows = [], [], [], []
    for row, about in zip(frame[c.MESSAGES], metadata(frame), strict=True):
        user = user_of[about["group"]]
        place[about["group"]] += 1
        step = place[about["group"]]  # rows of a user come in the order of their targets
        thought = thought_of(messages(row)[-1])
        taste = re.match(r"Taste: (.+?) \(\d+ of \d+\)(?:, by (.+?) \()?", thought)
        assert taste is not None
        if step < 3:
            continue
        hidden = world.category[user, step]
        right.append(taste[1] == leaves[hidden])
        guessed.append(hidden)
        if taste[2] and taste[1] == leaves[hidden]:
            department = departments.index(CATEGORIES[hidden].path[0])
            liked.append(taste[2] == brand_of[int(world.favourite[user, step, department])])
        last, then = re.search(r"After (.+?): (.+?)\. Next", thought).groups()  # type: ignore[union-attr]
        known = CATEGORIES[leaves.index(last)].then
        follows.append(set(then.split(", ")) >= set(known) or not set(known) <= set(leaves))
    common = Counter(guessed).most_common(1)[0][1] / len(guessed)
    assert np.mean(right) > 0.45 > 4 * common  # a guess of the most common one
    assert np.mean(liked) > 0.5  # of six brands a department
    assert np.mean(follows) > 0.6
