"""Reinforcement learning: answers scored as branches of their prompt against a row each, and whole steps against TRL.

Real prompts of Amazon Industrial & Scientific, 16 answers to each, a Qwen3 of 7 M parameters in float32, one thread. It
was trained a little on task C, so that its answers are likely ones. Prompts of C are a chat of 84 tokens on average.

**Scoring.** Groups are the model's own rollouts; both sides compute GRPO's cost of all answers from given groups on and
its gradient. Ours builds forests and scores them; the peer is plain transformers, a row for each prompt and answer, in
batches of the size that is fastest, rows of like length together, the head applied to answers alone. No time is printed
unless the gradients agree. *One prompt at a time* is ours with a forest for each group, as if prompts shared nothing
with each other.

**Steps.** See ``rl_steps.py``; needs the extra ``bench``.

    python benchmarks/rl.py [--quick] [--json FILE]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import rl_steps
import torch
from common import Row, main
from torch import Tensor
from train import in_turn, open_shop
from transformers import PreTrainedModel

import itemic
from itemic.model import Model
from itemic.rl.groups import GroupBlock, Groups, blocks_of
from itemic.rl.objective import GroupObjective
from itemic.training.language.stage import Stage, StageData

AGREE = 1e-4  # of the largest gradient
TARGET = 10.0  # times faster than rows
BLOCK = 4096  # forest tokens computed at once
ROWS = (8, 16, 32, 64, 128)  # of a batch, for the peer


class Case(NamedTuple):
    """One kind of prompts.

    Attributes:
        name: for the table.
        task: what is asked.
        model: who is asked.
        dataset: whose training split is asked about.
        rewards: whose steps are measured.
    """

    name: str
    task: dict[str, Any]
    model: Model
    dataset: Any
    rewards: tuple[str, ...]


def case_of(quick: bool) -> Case:
    """Task C, by a model that was trained a little."""
    shop = open_shop("scientific")
    chat = {"task": "C", "max_items": 50}
    if quick:
        return Case("C", chat, shop.model, shop.dataset, ("even",))
    built = itemic.build_conversations(shop.dataset, shop.index, [{**chat, "windows": ["all"]}])
    table = pl.concat([frame for _, frame in built.frames()]).sample(4000, seed=0)
    data = StageData(tokens_per_step=2048, block_tokens=2048)
    itemic.train(shop.model, table, stage=Stage(steps=60, learning_rate=3e-3, data=data))
    return Case("C", chat, shop.model, shop.dataset, ("even", "hit"))


# ------------------------------------------------------------------------------------------ scoring


def forests(objective: GroupObjective, groups: Groups, max_tokens: int) -> None:
    """Forward and backward over all groups as forests."""
    count = len(groups.answers)
    with objective.stepping():
        for part in blocks_of(groups, max_tokens):
            (objective(GroupBlock.of(part)).sum / count).backward()


def rows(lm: PreTrainedModel, groups: Groups, batch_rows: int) -> None:
    """The same, each answer behind its prompt in a row of its own, padded on the left."""
    whole, count = groups.rows, len(groups.answers)
    order = np.argsort(-whole.lengths, kind="stable")
    answers, last = groups.answers.lengths, groups.answers.offsets[1:]
    for begin in range(0, count, batch_rows):
        own = order[begin : begin + batch_rows]
        width, kept = int(whole.lengths[own].max()), int(answers[own].max())
        tokens, inside = np.zeros((len(own), width), np.int64), np.zeros((len(own), width), bool)
        choice, old = np.zeros((len(own), kept), bool), np.zeros((len(own), kept), np.float32)
        for line, number in enumerate(own.tolist()):
            tokens[line, width - whole.lengths[number] :] = whole[number]
            inside[line, width - whole.lengths[number] :] = True
            part = slice(int(last[number] - answers[number]), int(last[number]))
            choice[line, kept - answers[number] :] = groups.choice[part]
            old[line, kept - answers[number] :] = groups.log_probs[part]
        ids, mask = torch.from_numpy(tokens), torch.from_numpy(inside).long()
        logits = lm(
            ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=kept + 1,
        ).logits[:, :-1]
        scored = logits.gather(2, ids[:, -kept:, None])[:, :, 0] - logits.logsumexp(-1)
        cost = clipped(scored, torch.from_numpy(old), torch.from_numpy(groups.advantages[own])[:, None])
        chosen = torch.from_numpy(choice).float()
        (((cost * chosen).sum(1) / chosen.sum(1)).sum() / count).backward()


def clipped(scored: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    """GRPO's cost of each token."""
    ratios = (scored - old).exp()
    return -torch.minimum(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages)


def gradient(lm: PreTrainedModel, work: Callable[[], object]) -> Tensor:
    """All gradients in one vector."""
    lm.zero_grad()
    work()
    return torch.cat([p.grad.flatten() for p in lm.parameters() if p.grad is not None])


def fastest(lm: PreTrainedModel, groups: Groups) -> int:
    """Rows of the peer's fastest batches, by a quarter of the groups."""
    some = groups.take(np.arange(0, len(groups), 4))
    taken = {}
    for count in ROWS:
        started = time.process_time()
        rows(lm, some, count)
        taken[count] = time.process_time() - started
    return min(taken, key=lambda count: taken[count])


def scoring(case: Case, quick: bool) -> list[Row]:
    """Forests against rows.

    Raises:
        SystemExit: the gradients are not the same.
    """
    lm = case.model.lm.train()
    groups, objective = rl_steps.own_groups(case.model, case.dataset, case.task, 8 if quick else 16)
    batch = fastest(lm, groups)
    sides = {
        "ours": lambda: forests(objective, groups, BLOCK),
        "apart": lambda: forests(objective, groups, 1),
        "peer": lambda: rows(lm, groups, batch),
    }
    found = {name: gradient(lm, side) for name, side in sides.items()}
    off = max(
        float((found[name] - found["peer"]).abs().max() / found["peer"].abs().max())
        for name in ("ours", "apart")
    )
    if not off <= AGREE:
        raise SystemExit(
            f"{case.name}: forests and rows differ in their gradients by {off:.1e}: not compared"
        )
    ready = {name: (lambda side=side: side) for name, side in sides.items()}
    seconds = {name: each.cpu for name, each in in_turn(ready, 1 if quick else 3).items()}
    ours, peer = seconds["ours"], seconds["peer"]
    tokens = sum(len(GroupBlock.of(part).forest) for part in blocks_of(groups, BLOCK))
    total = len(groups.rows.tokens)
    name = f"{case.name}: {len(groups.answers)} answers scored, forward and backward"
    against = f"{name}, against rows in batches of {batch}"
    apart = seconds["apart"]
    agree = f"{case.name}: gradients, largest difference to the largest"
    return [
        Row(against, ours, peer, "CPU s", peer / ours, f"≥ {TARGET:g} ×", peer / ours >= TARGET),
        Row(f"{name}, one prompt at a time", apart, peer, "CPU s", peer / apart, None, None),
        Row(f"{case.name}: tokens of them", tokens, total, "tokens", total / tokens, None, None),
        Row(agree, off, None, "", None, f"≤ {AGREE:g}", True),
    ]


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    case = case_of(quick)
    return [*scoring(case, quick), *rl_steps.measure(case, quick)]


if __name__ == "__main__":
    main("Reinforcement learning, Amazon Scientific, 16 answers to a prompt", measure, __doc__)
