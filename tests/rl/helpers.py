"""Groups of a tiny model, and what is computed of them answer by answer with plain transformers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from itemic.forest.rows import TokenRows
from itemic.rl.groups import ANYTHING, Groups
from itemic.sid.trie import Trie

BEGIN, END = 4, 5
VOCABULARY = 64


def catalogue(count: int = 40, seed: int = 0) -> list[list[int]]:
    """Items as begin, three codes, end."""
    rng = np.random.default_rng(seed)
    levels = [rng.integers(6, 12, count), rng.integers(14, 20, count), rng.integers(24, 40, count)]
    return [[BEGIN, *code, END] for code in np.unique(np.stack(levels, 1), axis=0).tolist()]


def item_groups(
    rows: list[list[int]], prompts: list[list[int]], answers: list[list[int]], seed: int = 0
) -> Groups:
    """Items as answers to prompts, with random numbers for all else."""
    rng, trie = np.random.default_rng(seed), Trie.build(TokenRows.of(rows))
    texts, nodes, choices, group = [], [], [], []
    for number, some in enumerate(answers):
        for item in some:
            node, own = 0, []
            for token in rows[item][:-1]:
                own.append(node)
                node = int(trie.step(np.array([node]), np.array([token]))[0])
            texts.append(rows[item][:-1])
            nodes += own
            choices += [False, True, True, True]
            group.append(number)
    choice = np.array(choices)
    count = len(texts)
    return Groups(
        TokenRows.of(prompts),
        TokenRows.of(texts),
        np.array(group),
        np.arange(len(prompts)),
        np.array(nodes, np.int64),
        choice,
        np.where(choice, -rng.random(len(choice)) * 2, 0).astype(np.float32),
        rng.random(count).astype(np.float32),
        rng.normal(size=count).astype(np.float32),
        np.where(choice, -rng.random(len(choice)) * 2, 0).astype(np.float32),
    )


def text_groups(prompts: list[list[int]], seed: int = 0, each: int = 3) -> Groups:
    """Free texts of several lengths as answers."""
    rng = np.random.default_rng(seed)
    texts = [rng.integers(6, 60, rng.integers(1, 7)).tolist() for _ in range(each * len(prompts))]
    rows = TokenRows.of(texts)
    total, count = len(rows.tokens), len(texts)
    return Groups(
        TokenRows.of(prompts),
        rows,
        np.repeat(np.arange(len(prompts)), each),
        np.arange(len(prompts)),
        np.full(total, ANYTHING),
        np.ones(total, bool),
        (-rng.random(total) * 2).astype(np.float32),
        rng.random(count).astype(np.float32),
        rng.normal(size=count).astype(np.float32),
        (-rng.random(total) * 2).astype(np.float32),
    )


def plain_log_probs(
    lm: PreTrainedModel, groups: Groups, rows: list[list[int]], normalize: str
) -> list[Tensor]:
    """Of each answer the log-probabilities of its choices: a row of its own through the model, all by definition."""
    trie = Trie.build(TokenRows.of(rows))
    found = []
    for number in range(len(groups.answers)):
        prompt = groups.prompts[int(groups.group[number])].tolist()
        answer = groups.answers[number].tolist()
        logits = lm(torch.tensor([prompt + answer]), use_cache=False).logits[0]
        own, first = [], int(groups.answers.offsets[number])
        for at, token in enumerate(answer):
            if not groups.choice[first + at]:
                continue
            line = logits[len(prompt) + at - 1].float()
            node = int(groups.node[first + at])
            over: list[int]
            if node == ANYTHING or normalize == "vocab":
                over = list(range(len(line)))
            elif normalize == "level":
                over = trie.levels[int(trie.depth[node])].tolist()
            else:
                over = trie.children(np.array([node]))[0].tolist()
            own.append(line[token] - line[over].logsumexp(-1))
        found.append(torch.stack(own))
    return found
