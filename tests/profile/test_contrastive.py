"""InfoNCE against one text at a time; training against a plain loop, on several ranks, killed and gone on with."""

from __future__ import annotations

import copy
import json
import random
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from itemic.errors import ArtifactError, ConfigError
from itemic.profile.contrastive import InfoNCE
from itemic.profile.embedder import Embedder, item_vectors
from itemic.profile.pairs import Pairs, PairSteps, Written, hard_negatives
from itemic.profile.rewards import Scorer, SessionScorer
from itemic.profile.run_embedder import EmbedderLearner, Sought, measured, train_embedder
from itemic.profile.settings import EmbedderSettings, EmbedderStage, InfoNCESettings, RewardSettings
from itemic.training.ranks import ALONE
from itemic.training.schedule import learning_rate
from tests.profile.test_find import rows_of
from tests.sid.encoders.models import bert
from tests.training import processes
from tests.training.test_resume import kill_at_flush

COLOURS, THINGS = ["red", "green", "blue", "white", "pink"], ["soap", "shampoo", "brush", "towel", "mirror"]
ITEMS = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS] + ["red soap", "blue towel", ""]
SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "learning_rate": 3e-3,
    "schedule": {"warmup": 1},
    "data": {"pairs_per_batch": 6, "pairs_per_step": 12},
    "objective": {"temperature": 0.2, "learned": True},
    "optimizer": {"weight_decay": 0.1},
    "engine": {"precision": "float32"},
    "checkpoints": {"every": 1},
    "logs": {"every": 1},
}
KILLED = SETTINGS | {
    "epochs": 3,
    "objective": SETTINGS["objective"] | {"dropout": True, "hard_negatives": 2},
    "optimizer": {"ema": 0.8},
    "validation": {"every": 3},
}


def written(count: int = 30, seed: int = 0) -> Written:
    """People who like a colour and a thing, in words; what they were written from; one of them said nothing."""
    rng = np.random.default_rng(seed)
    texts, targets, seen = [], [], []
    for _ in range(count):
        colour, thing = rng.integers(0, 5, 2)
        texts.append(f"number {rng.integers(0, 9)} brand {COLOURS[colour]} {THINGS[thing]} home")
        targets.append(int(rng.choice([colour * 5 + thing, 25, 26])))
        seen.append(rng.choice(len(ITEMS), 4, replace=False).tolist())
    return Written(["…", *texts], np.array([3, *targets]), rows_of([[], *seen]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("contrastive") / "bert")


def vector(embedder: Embedder, text: str) -> Tensor:
    """By the model alone, one text, no padding."""
    ids = embedder.tokenizer(text, return_tensors="pt")["input_ids"]
    return torch.nn.functional.normalize(embedder.lm(input_ids=ids).last_hidden_state[0].mean(0), dim=0)


def reference(
    embedder: Embedder,
    temperature: Tensor | float,
    data: Written,
    batch: list[int],
    more: dict[int, list[int]],
) -> Tensor:
    """The cost of a batch: each profile against the distinct texts of the batch's items, but for what it was written
    from."""
    total = torch.zeros(())
    texts = {ITEMS[data.targets[row]] for row in batch}
    texts |= {ITEMS[item] for row in batch for item in more.get(row, [])}
    for row in batch:
        right = ITEMS[data.targets[row]]
        start, stop = data.seen.offsets[row : row + 2]
        barred = {ITEMS[item] for item in data.seen.items[start:stop]}
        profile = vector(embedder, data.texts[row])
        near = {text: profile @ vector(embedder, text) / temperature for text in sorted(texts)}
        against = [near[text] for text in sorted(texts) if text == right or text not in barred]
        total = total + torch.logsumexp(torch.stack(against), 0) - near[right]
    return total


@pytest.mark.parametrize("learned", [False, True])
def test_cost_and_gradients_are_those_of_one_text_at_a_time(folder: Path, learned: bool) -> None:
    embedder, data = Embedder.load(str(folder)), written()
    negatives = np.full((31, 2), -1)
    negatives[[2, 5, 9]] = [[7, 25], [8, -1], [27, 1]]  # a twin of another item, and one without words
    pairs = Pairs.of(embedder, data, ITEMS, negatives)
    assert (len(pairs), pairs.left_out) == (30, 1)
    settings = InfoNCESettings(temperature=0.2, learned=learned)
    objective = InfoNCE(embedder, settings)
    other = copy.deepcopy(embedder)
    batch = [1, 4, 8, 2, 11, 20, 29]  # rows of pairs; the one left out stood in front of them
    block = PairSteps(pairs, EmbedderStage(), 0).block(np.array(batch))
    cost = objective(block)
    cost.sum.backward()
    heat = torch.tensor(0.2).log().requires_grad_()
    more = {2: [7, 25], 5: [8], 9: [1]}
    expected = reference(other, heat.exp(), data, [row + 1 for row in batch], more)
    expected.backward()  # type: ignore[no-untyped-call]
    assert cost.weight == 7
    assert cost.sum.item() == pytest.approx(expected.item(), abs=1e-4)
    for (name, ours), theirs in zip(embedder.named_parameters(), other.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3, msg=name)
    assert ("heat" in objective.learning()) is learned
    if learned:
        assert heat.grad is not None
        torch.testing.assert_close(objective.heat.grad, heat.grad[None], atol=1e-4, rtol=1e-4)
    assert float(cost.numbers["temperature"][0]) == pytest.approx(0.2 * 7)
    assert 0 <= float(cost.numbers["accuracy"][0]) <= 7
    with torch.no_grad():
        alone = objective(objective.nothing())
    assert alone.sum.item() == 0


def plain(folder: Path, settings: EmbedderStage) -> tuple[list[float], dict[str, Tensor]]:
    """One text at a time, torch's own optimizer."""
    embedder, data = Embedder.load(str(folder)), written()
    heat = torch.tensor([settings.objective.temperature]).log().requires_grad_()
    named = {f"embedder.{name}": weight for name, weight in embedder.named_parameters()} | {"heat": heat}
    matrices = [w for n, w in named.items() if w.ndim == 2 and "embeddings" not in n]
    others = [w for n, w in named.items() if w.ndim != 2 or "embeddings" in n]
    groups = [
        {"params": matrices, "weight_decay": settings.optimizer.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=settings.optimizer.betas, foreach=False)
    losses, total = [], 2 * 3
    for epoch in range(2):
        order = np.random.default_rng([0, epoch]).permutation(30) + 1
        batches = np.array_split(order, 5)
        for number, step in enumerate((batches[:1], batches[1:3], batches[3:])):
            optimizer.zero_grad()
            loss = sum(
                (reference(embedder, heat.exp()[0], data, batch.tolist(), {}) for batch in step),
                torch.zeros(()),
            )
            loss = loss / sum(map(len, step))
            loss.backward()  # type: ignore[no-untyped-call]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, epoch * 3 + number, total)
            torch.nn.utils.clip_grad_norm_(list(named.values()), settings.optimizer.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses, {name: weight.detach() for name, weight in embedder.lm.named_parameters()}


def work(
    base: str, output: str, settings: dict[str, Any], strategy: str = "ddp", die_at: int | None = None
) -> None:
    """One process, or one rank: trains, or is killed at that flush to disk."""
    torch.set_num_threads(1)
    if die_at is not None:
        kill_at_flush(die_at)
    valid = written(8, 5) if "validation" in settings else None
    train_embedder(
        Embedder.load(base),
        written(),
        ITEMS,
        settings=settings,
        output=output,
        valid=valid,
        distribution={"strategy": strategy},
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def expected(folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    return plain(folder, EmbedderStage.of(SETTINGS))


@pytest.mark.parametrize(("strategy", "ranks"), [("ddp", 1), ("ddp", 2), ("fsdp", 2)])
def test_trained_as_by_a_plain_loop(
    folder: Path, expected: tuple[list[float], dict[str, Tensor]], strategy: str, ranks: int, tmp_path: Path
) -> None:
    """The one loop, alone and on two ranks that share each batch, against one text at a time."""
    losses, weights = expected
    processes.run(work, ranks, str(folder), str(tmp_path / "e"), SETTINGS, strategy, folder=tmp_path)
    found = lines(tmp_path / "e")
    assert [line["loss"] for line in found] == pytest.approx(losses, abs=1e-3)
    assert losses[-1] < losses[0]
    assert found[-1]["pairs"] == 60
    state = load_file(tmp_path / "e" / "model.safetensors")
    assert set(state) == set(weights)
    for name, weight in weights.items():
        torch.testing.assert_close(state[name], weight, atol=3e-3, rtol=1e-3, msg=name)
    assert not (tmp_path / "e" / "checkpoints" / "step-00000002").exists()


def test_killed_it_ends_bit_for_bit_the_same(folder: Path, tmp_path: Path) -> None:
    """With dropout, hard negatives, averages and a best validation in between."""
    processes.run(work, 1, str(folder), str(tmp_path / "whole"), KILLED, folder=tmp_path)
    expected = (tmp_path / "whole" / "model.safetensors").read_bytes()
    draw, kills = random.Random(0), 0
    while not (tmp_path / "killed" / "model.safetensors").exists():
        arguments = str(folder), str(tmp_path / "killed"), KILLED, "ddp", draw.randrange(4, 14)
        with processes.ended(processes.begin(work, 1, *arguments, folder=tmp_path)) as (child,):
            child.join(120)
            assert child.exitcode in (0, -signal.SIGKILL)
            kills += child.exitcode != 0
    assert kills >= 2
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == expected
    again = train_embedder(
        Embedder.load(str(folder)),
        written(),
        ITEMS,
        settings=KILLED,
        output=tmp_path / "killed",
        valid=written(8, 5),
    )  # finished: it is loaded
    state = load_file(tmp_path / "killed" / "model.safetensors")
    assert all(torch.equal(weight, state[name]) for name, weight in again.lm.state_dict().items())


def test_the_best_is_kept(folder: Path, tmp_path: Path) -> None:
    """What is validated is what the folder's embedder gives."""
    told = KILLED | {"validation": {"every": 2, "first": True, "metric": "mrr"}, "optimizer": {}}
    embedder, valid = Embedder.load(str(folder)), written(20, 5)
    begun = measured(embedder, valid, ITEMS, ALONE)
    train_embedder(embedder, written(), ITEMS, settings=told, output=tmp_path / "e", valid=valid)
    found = [line["valid/mrr"] for line in lines(tmp_path / "e") if "valid/mrr" in line]
    assert found[0] == pytest.approx(begun["mrr"])
    for ours in (embedder, Embedder.load(str(tmp_path / "e"))):
        assert measured(ours, valid, ITEMS, ALONE)["mrr"] == pytest.approx(max(found))
    assert max(found) > begun["mrr"]


def test_a_phase_is_from_folder_to_folder(folder: Path, tmp_path: Path) -> None:
    """By sessions, in another order, of which one profile can't be used: the same as by hand."""
    data = written()
    order = np.random.default_rng(1).permutation(31)
    usable = np.ones(31, np.bool_)
    usable[4] = False
    profiles = SimpleNamespace(sessions=order, texts=[data.texts[row] for row in order], usable=usable)
    learner = EmbedderLearner(
        ITEMS,
        Sought(data.targets, data.seen),
        stage=EmbedderStage.of(SETTINGS),
        encoder=EmbedderSettings(max_length=20),
    )
    learner(folder, profiles, None, tmp_path / "first", 3)
    kept = order[usable]
    by_hand = Written([data.texts[row] for row in kept], data.targets[kept], data.seen.take(kept))
    started = Embedder.load(EmbedderSettings(model=str(folder), max_length=20))
    expected = train_embedder(started, by_hand, ITEMS, settings=SETTINGS, seed=3)
    learner(tmp_path / "first", profiles, None, tmp_path / "second", 4)
    first, second = Embedder.load(str(tmp_path / "first")), Embedder.load(str(tmp_path / "second"))
    assert first.identity == expected.identity != second.identity
    assert second.max_length == 20
    items = item_vectors(first, ITEMS)
    score = SessionScorer(Scorer(first, items, RewardSettings()), data.targets, data.seen)
    found = items.find(
        first.encode(data.texts[4:5], "profile"),
        targets=data.targets[4:5],
        seen=data.seen.take(np.array([4])),
    )
    assert score([data.texts[4], ""], np.array([4, 4])).tolist() == [1 / np.log2(found.ranks[0] + 1), 0]


def test_hard_negatives_are_what_is_found_first(folder: Path) -> None:
    embedder, data = Embedder.load(str(folder)), written()
    items = item_vectors(embedder, ITEMS)
    vectors = embedder.encode(data.texts, "profile")
    found = hard_negatives(items, vectors, data, 3)
    scores = vectors.astype(np.float64) @ items.vectors.T.astype(np.float64)
    for row in range(1, len(data)):
        start, stop = data.seen.offsets[row : row + 2]
        barred = set(data.seen.items[start:stop].tolist()) | {27}
        order = [int(item) for item in np.argsort(-scores[row], kind="stable") if item not in barred]
        wanted = [item for item in order[:4] if ITEMS[item] != ITEMS[data.targets[row]]][:3]
        got = [int(item) for item in found[row] if item >= 0]
        assert [ITEMS[item] for item in got] == [ITEMS[item] for item in wanted]
    few = hard_negatives(items, vectors[1:2], Written(data.texts[1:2], data.targets[1:2], rows_of([[]])), 40)
    assert few.shape == (1, 40)
    assert (
        sorted(few[0].tolist())[:14] == [-1] * 14
    )  # one can't be found, one or two are right, 12 there are not


def test_steps_are_every_pair_once_an_epoch_on_any_ranks(folder: Path) -> None:
    source = PairSteps(Pairs.of(Embedder.load(str(folder)), written(), ITEMS), EmbedderStage.of(SETTINGS), 3)
    assert source.total_steps() == 2 * 3
    alone = source.steps()
    shared = [source.steps(None, rank, 3) for rank in range(3)]
    pairs = 0
    for number in range(3):
        step, parts = next(alone), [next(each) for each in shared]
        assert [part.sizes.blocks for part in parts] == [step.sizes.blocks] * 3
        assert step.sizes.weight == sum(part.sizes.weight for part in parts)
        for at, block in enumerate(step.blocks):
            blocks = [part.blocks[at] for part in parts]
            assert len({each.columns for each in blocks}) == 1
            assert sum(blocks[0].columns) == sum(block.columns)
            assert torch.cat([each.target for each in blocks]).equal(block.target)
            assert torch.cat([each.barred for each in blocks]).equal(block.barred)
        pairs += step.sizes.counts["pairs"]
        assert step.after.epoch == (number == 2)
    assert pairs == 30
    later = source.steps({"epoch": 1, "index": 0})
    assert next(later).blocks[0].profiles.tokens.equal(next(alone).blocks[0].profiles.tokens)
    with pytest.raises(ConfigError, match="batches of 6 profiles for 7 processes"):
        next(source.steps(None, 0, 7))


def test_faults(folder: Path, tmp_path: Path) -> None:
    embedder, data = Embedder.load(str(folder)), written()
    for wrong, said in (
        ({"objective": {"temperature": 0.001}}, r"below \.01"),
        ({"objective": {"temprature": 0.1}}, "did you mean 'temperature'"),
        ({"epochs": 1, "steps": 1}, "steps is given, and epochs"),
        ({"validation": {"patience": 1}}, "needs validations"),
        ({"validation": {"every": 2}}, "no profiles to validate"),
    ):
        with pytest.raises(ConfigError, match=said):
            train_embedder(embedder, data, ITEMS, settings=wrong)
    with pytest.raises(ConfigError, match="no profile with words"):
        train_embedder(embedder, Written([""], np.array([0]), rows_of([[]])), ITEMS)
    with pytest.raises(ConfigError, match="31 profiles, 30 targets"):
        train_embedder(embedder, Written(data.texts, data.targets[1:], data.seen), ITEMS)
    with pytest.raises(ConfigError, match="there are 9 items"):
        train_embedder(embedder, data, ITEMS[:9])
    train_embedder(embedder, data, ITEMS, settings=SETTINGS | {"epochs": None, "steps": 1}, output=tmp_path)
    other, told = Embedder.load(str(folder)), SETTINGS | {"epochs": None, "steps": 2}
    with pytest.raises(ArtifactError, match=r"holds another embedder: [\s\S]*steps was 1, now 2"):
        train_embedder(other, data, ITEMS, settings=told, output=tmp_path)
