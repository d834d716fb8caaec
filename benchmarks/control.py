"""Lists under control: a grammar in arrays against ``generate`` with a trie in Python, and what hard control keeps to.

*Lists of 10* are written greedily, numbered, without repeats and without the history, by a Qwen3 of 6 M parameters with
random weights on the CPU in float32, for test histories of MovieLens latest small (9,742 films) that go by titles and
by semantic IDs. The peer is ``generate`` with a logits processor as RecLM-cgen has (its ``processor.py``): a trie of
dictionaries, counts of visits that block what the list has already, and a mask of the vocabulary; for every token it
goes through what the row has written from the beginning. A second, quicker one remembers where each row is in the trie
and looks at the last token alone. Prompts are left-padded, at the batch size that is best for each on the first
prompts. All sides give the same texts, which is checked. Seconds are process CPU seconds on one thread, all sides in
turn, with the making of our terms and sets. ``--lists`` does this part alone.

*Hard control* asks a model with random weights, which wants anything but that, for 2,000 lists on the simulated
marketplace: labels wanted and unwanted, shares of all three kinds, several at once. The texts are read again by the
parser, and judged by the definitions. A want that can't be met is refused, counted, and replaced by one without
control. ``--hard`` does this part alone.

*Recall under hard control* (``--recall`` alone) is that of the recipe ``control-simulated``'s model, which is trained
first where ``runs/control-simulated`` isn't there (``ITEMIC_RUN`` names another run). Its users ask for items of a
label, for none of one, and for shares, 2,000 requests together. Hard lists of ten stand against the post-filter: the
same model's ranking of the catalogue in answer to the same prompt without what is wanted, of which the list is what may
come. Once the lists' prompt says what is wanted, and once it is untold, and the grammar alone obeys. The interval is
that of the difference, paired by request. Beside it stands the filter of the ranking that the
recipe evaluates, in answer to a prompt that asks for one item: of all requests, and of those for which that filter's
list does obey, as hard lists always do.

    python benchmarks/control.py [--quick] [--lists] [--hard] [--recall] [--json FILE]
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import Row, main, shared_data
from transformers import LogitsProcessor, LogitsProcessorList

import itemic
from itemic.control.evaluation import UNTOLD
from itemic.control.form import ListForm
from itemic.control.labels import Labels
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.parse import parse
from itemic.control.terms import TermsOf
from itemic.control.tests import ListTests
from itemic.control.want import PartOf, Want
from itemic.control.words import WORDINGS, say
from itemic.data.dataset import Dataset
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.decode import Sampler
from itemic.errors import ConstraintError
from itemic.forest.rows import TokenRows
from itemic.metrics import bootstrap
from itemic.model import Model, new_model
from itemic.pipeline import Run
from itemic.pipeline.lists import asking_of_run
from itemic.pipeline.steps import last_stage
from itemic.recipe import load_recipe
from itemic.sid.build import build_index
from itemic.sid.names import ItemNames
from itemic.sid.titles import TitleNames
from itemic.sid.trie import Trie

COUNT = 10
FORM = ListForm()


# ------------------------------------------------------------------------------------------------- the peer


class Node:
    """Of a trie of dictionaries: the children by token, and how many items are below."""

    __slots__ = ("children", "items")

    def __init__(self) -> None:
        self.children: dict[int, Node] = {}
        self.items = 0


class Walk:
    """Where a row's list is."""

    def __init__(self, root: Node, seen: Sequence[Sequence[int]]) -> None:
        self.root = self.node = root
        self.number = self.at = 0
        self.path: list[Node] = []
        self.visits: dict[int, int] = {}
        for item in {tuple(item) for item in seen}:
            node = root
            self.visit(node)
            for token in item:
                node = node.children[token]
                self.visit(node)

    def visit(self, node: Node) -> None:
        self.visits[id(node)] = self.visits.get(id(node), 0) + 1


class QuickProcessor(LogitsProcessor):
    """Masks what may not come next, row by row and token by token."""

    def __init__(
        self, root: Node, tokens: ListTokens, seen: Sequence[Sequence[Sequence[int]]], start: int
    ) -> None:
        self.text = [tokens.before[k].tolist() for k in range(COUNT)] + [tokens.end.tolist()]
        self.walks, self.start = [Walk(root, own) for own in seen], start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        mask = torch.full_like(scores, -torch.inf)
        for row, walk in enumerate(self.walks_at(input_ids)):
            mask[row, self.allowed(walk)] = 0
        return scores + mask

    def walks_at(self, input_ids: torch.Tensor) -> list[Walk]:
        if input_ids.shape[1] > self.start:
            for walk, token in zip(self.walks, input_ids[:, -1].tolist(), strict=True):
                self.step(walk, token)
        return self.walks

    def allowed(self, walk: Walk) -> list[int]:
        text = self.text[walk.number]
        if walk.at < len(text):
            return [text[walk.at]]
        if walk.number == COUNT:
            return [text[-1]]  # done; generate pads
        visits = walk.visits
        return [t for t, child in walk.node.children.items() if child.items > visits.get(id(child), 0)]

    def step(self, walk: Walk, token: int) -> None:
        if walk.at < len(self.text[walk.number]):
            walk.at += 1
            return
        if walk.number == COUNT:
            return
        walk.node = walk.node.children[token]
        walk.path.append(walk.node)
        if not walk.node.children:
            for node in (walk.root, *walk.path):
                walk.visit(node)
            walk.path, walk.node, walk.at = [], walk.root, 0
            walk.number += 1


class TrieProcessor(QuickProcessor):
    """The same, as RecLM-cgen does it: nothing is remembered, and for every token each row's list is gone through."""

    def walks_at(self, input_ids: torch.Tensor) -> list[Walk]:
        found = []
        for row, begin in zip(input_ids, self.walks, strict=True):
            walk = copy(begin)
            walk.visits, walk.path = dict(begin.visits), []
            for at in range(self.start, len(row)):
                self.step(walk, row[at].item())
            found.append(walk)
        return found


PEERS = {"RecLM-cgen's trie": TrieProcessor, "a quicker trie": QuickProcessor}


def trie_of(rows: TokenRows) -> Node:
    root = Node()
    for item in {tuple(rows[row].tolist()) for row in range(len(rows))}:
        node = root
        node.items += 1
        for token in item:
            node = node.children.setdefault(token, Node())
            node.items += 1
    return root


# ---------------------------------------------------------------------------------------------- lists of 10


class Bench:
    """A model and what it is asked."""

    def __init__(self, dataset: Dataset, names: ItemNames, requests: int) -> None:
        texts = [*names.texts, *(wording for some in WORDINGS.values() for wording in some)]
        titles = dataset.items["title"].to_list()
        self.model: Model = new_model("qwen3-micro", names, titles, corpus=texts, seed=0)
        self.model.lm.train(False)
        self.names = names
        self.labels = Labels.of(dataset, ["tags"])
        asked = dataset.split("test")[:requests]
        self.histories = [asked.history(row)[-10:].tolist() for row in range(len(asked))]
        self.want = Want(COUNT)
        said = [
            say(self.want, self.labels, names=names.texts, form=FORM, history=own) for own in self.histories
        ]
        rows = self.model.chat.prompt_batch([[{"role": "user", "content": text}] for text in said])
        self.prompts = [rows[row].tolist() for row in range(len(rows))]
        self.tokens = ListTokens.of(self.model, FORM, COUNT)
        self.trie, self.root = Trie.build(self.model.item_rows), trie_of(self.model.item_rows)

    def ours(self, some: slice = slice(None)) -> list[list[int]]:
        terms_of = TermsOf(self.labels, names=self.names.name_numbers)
        histories = self.histories[some]
        terms = terms_of.many([self.want] * len(histories), histories)
        grammar = ListGrammar(self.trie, self.tokens, terms)
        sampler = Sampler(
            self.model.lm,
            max_new_tokens=grammar.most_tokens,
            grammar=grammar,
            temperature=0,
            normalize="legal",
        )
        found = sampler.sample(TokenRows.of(self.prompts[some])).tokens
        return [found[row].tolist() for row in range(len(found))]

    def generate(self, kind: type[QuickProcessor], batch: int, some: slice = slice(None)) -> list[list[int]]:
        items = self.model.item_rows
        prompts, histories = self.prompts[some], self.histories[some]
        end, longest = (
            int(self.tokens.end[-1]),
            len(self.tokens.before.tokens) + COUNT * int(items.lengths.max()),
        )
        out: list[list[int]] = []
        for first in range(0, len(prompts), batch):
            ids, mask = padded(prompts[first : first + batch])
            seen = [[items[row].tolist() for row in own] for own in histories[first : first + batch]]
            peer = kind(self.root, self.tokens, seen, ids.shape[1])
            found = self.model.lm.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=longest + len(self.tokens.end),
                eos_token_id=end,
                pad_token_id=end,
                logits_processor=LogitsProcessorList([peer]),
            )
            out += [row[: row.index(end) + 1] for row in found[:, ids.shape[1] :].tolist()]
        return out


def padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def seconds(run: Callable[[], Any]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def rate(bench: Bench, kind: type[QuickProcessor], batch: int, few: int) -> float:
    """Requests a CPU second of a peer."""
    some = slice(0, max(few, batch))
    return len(bench.prompts[some]) / seconds(lambda: bench.generate(kind, batch, some))


def lists_of_ten(name: str, bench: Bench, batches: Sequence[int], few: int, repeats: int) -> list[Row]:
    some = slice(0, few)
    wanted, best = bench.ours(some), {}
    for peer, kind in PEERS.items():
        same = wanted == bench.generate(kind, max(batches), some)
        rates = {batch: rate(bench, kind, batch, few) for batch in batches}
        best[peer] = max(rates, key=lambda batch: rates[batch]), same
        print(f"{name}, {peer}: the same text: {same}; requests a second by batch: {rates}", flush=True)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for _ in range(repeats):
        ours.append(len(bench.prompts) / seconds(bench.ours))
        for peer, kind in PEERS.items():
            theirs[peer].append(rate(bench, kind, best[peer][0], 2 * few))
    us, rows = statistics.median(ours), []
    for number, (peer, (batch, same)) in enumerate(best.items()):
        them = statistics.median(theirs[peer])
        how = f"generate with {peer} ({batch} a batch; same text: {same})"
        label = f"{name}, {len(bench.prompts)} prompts, against {how}"
        target = (None, None) if number else ("≥ 10 ×", same and us / them >= 10)
        rows.append(Row(label, us, them, "requests/CPU s", us / them, *target))
        print(f"{label}: {us:.2f} and {them:.2f}, {us / them:.1f} ×", flush=True)
    return rows


# --------------------------------------------------------------------------------------------- hard control


def wants_of(labels: Labels, histories: Sequence[Sequence[int]], rng: np.random.Generator) -> list[Want]:
    """Of every kind of control, about labels of the history's items."""
    found = []
    for number, history in enumerate(histories):
        own = [int(n) for row in history for n in labels.numbers_of(row)] or [0]
        one, other = (labels.names[n] for n in rng.choice(own, 2))
        count, portion = int(rng.integers(1, 16)), float(rng.integers(1, 10)) / 10
        part = PartOf(one, ("at most", "at least", "about")[number % 3], portion)  # type: ignore[arg-type]
        wants = (
            Want(count),
            Want(count, wanted=(one,)),
            Want(count, unwanted=(one,)),
            Want(count, shares=(part,)),
            Want(count, shares=(part, PartOf(other, "at least", 0.2))),
            Want(count, unwanted=(other,), shares=(part,) if one != other else ()),
        )
        found.append(wants[number % len(wants)])
    return found


def keeps_to(
    want: Want, history: Sequence[int], rows: Sequence[int], labels: Labels, count: int
) -> dict[str, bool]:
    """By the definitions, of a list that was read from text."""
    has = [{labels.names[n] for n in labels.numbers_of(row)} if row >= 0 else set() for row in rows]
    shares = []
    for part in want.shares:
        there, exact = sum(part.label in own for own in has), part.portion * count
        fits = {"at most": there <= exact + 1e-6, "at least": there >= exact - 1e-6}
        shares.append(fits.get(part.how, abs(there - exact) <= 0.5 + 1e-6))
    return {
        "legal": all(set(want.wanted) & own or not want.wanted for own in has)
        and not any(set(want.unwanted) & own for own in has)
        and not set(rows) & set(history),
        "existing": all(row >= 0 for row in rows),
        "no repeats": len(set(rows)) == len(rows),
        "count": len(rows) == count,
        "share": all(shares),
    }


def hard_control(requests: int) -> list[Row]:
    simulation = simulate(SimulatorConfig(users=requests, items=1500), seed=0)
    dataset = simulation.dataset
    labels = Labels.of(dataset, ["categories", "brand"])
    asked = dataset.split("test")[:requests]
    histories = [asked.history(row)[-10:].tolist() for row in range(len(asked))]
    wants = wants_of(labels, histories, np.random.default_rng(0))
    rows = []
    for kind in ("titles", "semantic IDs"):
        names = TitleNames.of(dataset) if kind == "titles" else build_index(dataset, levels=(64, 64, 64))
        half = range(0, requests, 2) if kind == "titles" else range(1, requests, 2)
        rows += judged(kind, dataset, names, labels, [wants[n] for n in half], [histories[n] for n in half])
    return rows


def judged(
    kind: str,
    dataset: Dataset,
    names: ItemNames,
    labels: Labels,
    wants: Sequence[Want],
    histories: Sequence[Sequence[int]],
) -> list[Row]:
    model = new_model("qwen3-pico", names, dataset.items["title"].to_list(), seed=0)
    terms_of = TermsOf(labels, names=names.name_numbers, shorter=True)
    refused, terms = 0, []
    for want, own in zip(wants, histories, strict=True):
        try:
            terms.append(terms_of(want, own))
        except ConstraintError:
            refused += 1
            terms.append(terms_of(Want(want.count), own))
    wants = [own.want for own in terms]
    tokens = ListTokens.of(model, FORM, max(own.count for own in terms))
    grammar = ListGrammar(Trie.build(model.item_rows), tokens, terms)
    sampler = Sampler(model.lm, max_new_tokens=grammar.most_tokens, grammar=grammar, normalize="legal")
    said = [
        say(want, labels, names=names.texts, form=FORM, history=own)
        for want, own in zip(wants, histories, strict=True)
    ]
    prompts = model.chat.prompt_batch([[{"role": "user", "content": text}] for text in said])
    started = time.process_time()
    written = sampler.sample(prompts).tokens
    spent = time.process_time() - started
    texts = [
        model.tokenizer.decode(written[row][: -len(tokens.end)], skip_special_tokens=False)
        for row in range(len(written))
    ]
    found: dict[str, list[bool]] = {}
    for text, want, history, own in zip(texts, wants, histories, terms, strict=True):
        rows = parse(text, names, FORM, meant=own.rows).items.tolist()
        for name, holds in keeps_to(want, history, rows, labels, own.count).items():
            found.setdefault(name, []).append(holds)
    shorter = sum(own.short > 0 for own in terms)
    about = (
        f"hard, {kind}, {len(wants)} lists ({shorter} shorter, as so many can't be had; {refused} refused)"
    )
    print(f"{about}: {spent:.1f} CPU s", flush=True)
    return [
        Row(f"{about}: {name}", 100 * float(np.mean(all_)), None, "%", None, "100 %", all(all_))
        for name, all_ in found.items()
    ]


# ----------------------------------------------------------------------------------------- recall under control

CONTROLS = (
    "SFT+TestPersonalControlRec",
    "SFT-TestPersonalControlRec",
    "SFTTestPersonalCategoryRateLP_20",
    "SFTTestPersonalCategoryRateMP_30",
    "SFTTestPersonalCategoryRateEP_50",
)
SAME, OTHER = "the post-filter", "the filtered ranking of the evaluation"
PAIRS = (("hard", SAME), (UNTOLD, SAME), ("ranked", SAME), ("ranked", OTHER), ("hard", OTHER))
SMALL = (
    "data.simulate.users=80",
    "data.simulate.items=60",
    "teacher.steps=5",
    "index.levels=[8,8]",
    "stages.0.data.tokens_per_step=1024",
)


def trained(quick: bool, scratch: Path) -> Path:
    """A run of the recipe: the one that is there, or a new one."""
    named = os.environ.get("ITEMIC_RUN")
    if named is not None:
        return Path(named)
    run = scratch / "small" if quick else Path("runs/control-simulated")
    recipe = load_recipe("control-simulated", SMALL if quick else ())
    if quick:
        stages = [replace(recipe.stages[0], steps=5, epochs=None)]
        recipe = recipe.model_copy(update={"stages": stages, "rl": []})
    last = last_stage(recipe)
    if not (run / last / "config.json").is_file():
        Run.of(recipe, run).execute(until=last)
    return run


def recall_under_control(run: Path, requests: int) -> list[Row]:
    """Hard lists against the filter, test by test and together."""
    settings = ListTests(
        tasks=CONTROLS, mode="hard", users=max(1, requests // len(CONTROLS)), k=(10,), price=True
    )
    with TemporaryDirectory() as folder:
        own = asking_of_run(run, settings, Path(folder))
        assert own.ranked is not None
        ranked = own.ranked(own.requests)
        rows: list[Row] = []
        found: dict[str, list[Any]] = {}
        obeying: list[Any] = []  # whether the filtered ranking's list does
        for test in settings.tests:
            asked = own.questions(test)
            same = own.filtered(asked)
            assert same is not None
            untold = own.lists(asked, "hard", plain=True)
            ways = {
                "hard": own.lists(asked, "hard"),
                UNTOLD: untold,
                "ranked": own.lists(asked, "ranked"),
                SAME: same,
                OTHER: own.filtered_from(asked, ranked),
            }
            for way, lists in ways.items():
                values = own.judged(asked, lists).values
                found.setdefault(way, []).append(values["recall@10"])
            obeying.append(values["obeyed"] == 1)
            rows += _recall_rows(test.name, {way: every[-1] for way, every in found.items()})
            print(*rows[-len(PAIRS) :], sep="\n", flush=True)
    together = {way: np.concatenate(every) for way, every in found.items()}
    both = np.concatenate(obeying)
    name = f"ranked lists against {OTHER}, where those obey"
    last = _recall_row(name, together["ranked"][both], together[OTHER][both], "ranked", OTHER)
    return [*rows, *_recall_rows("all of them", together), last]


def _recall_rows(name: str, found: dict[str, Any]) -> list[Row]:
    return [
        _recall_row(f"{ours} lists against {peer}, {name}", found[ours], found[peer], ours, peer)
        for ours, peer in PAIRS
    ]


def _recall_row(name: str, ours: Any, peer: Any, mine: str, way: str) -> Row:
    low, high = bootstrap(ours - peer, 0)
    about = f"{name}, {len(ours)} requests; difference [{low:.4f}, {high:.4f}]"
    us, them = float(ours.mean()), float(peer.mean())
    target = ("not below", bool(high >= 0)) if way == SAME or mine == "ranked" else (None, None)
    return Row(about, us, them, "recall@10", None, *target)


def recall(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        return recall_under_control(trained(quick, Path(folder)), 50 if quick else 2000)


def hard(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    return hard_control(60 if quick else 2000)


def lists(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    dataset = itemic.read("movielens", shared_data() / "ml-latest-small")
    requests, few, repeats = (16, 4, 1) if quick else (128, 16, 3)
    batches = (4,) if quick else (1, 32, 128)
    rows = []
    for kind in ("titles", "semantic IDs"):
        names = TitleNames.of(dataset) if kind == "titles" else build_index(dataset, levels=(256,) * 3)
        bench = Bench(dataset, names, requests)
        rows += lists_of_ten(f"lists of 10, {kind}", bench, batches, few, repeats)
    return rows


def measure(quick: bool) -> list[Row]:
    return [*lists(quick), *hard(quick), *recall(quick)]


if __name__ == "__main__":
    main("Lists under control, CPU", measure, __doc__, {"lists": lists, "hard": hard, "recall": recall})
