"""Groups: prompts, several answers to each, and what they are worth. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.forest.build import TokenForest, build_forest
from itemic.forest.rows import TokenRows

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

FLAT = 1e-6  # numbers that differ by less are the same
ANYTHING = -1  # in place of a node: any token may follow


@dataclass(frozen=True)
class Groups:
    """``G`` prompts with ``N`` answers of ``T`` tokens together, the answers of a group one after the other.

    Attributes:
        prompts: ``G`` rows.
        answers: ``N`` rows, up to their last choice.
        group: int64 ``[N]``, which group each answer is of, rising.
        request: int64 ``[G]``, what each group belongs to: groups of one request stay in one block.
        node: int64 ``[T]``, the trie's node that each token follows, which says what else might have come;
            :data:`ANYTHING` where any token might.
        choice: bool ``[T]``, whether the model chose the token; the others are given.
        log_probs: float32 ``[T]``, of each choice under the weights that made it; 0 for other tokens.
        rewards: float32 ``[N]``.
        advantages: float32 ``[N]``.
        reference: float32 ``[T]``, as ``log_probs`` under the reference; None without one.
        sets: what might have come, where that is no node of a trie: ``node`` is then a row of these tokens.
        numbers: further ones of each token, float32 ``[T]`` by name: all groups of a rollout have the same.
    """

    prompts: TokenRows
    answers: TokenRows
    group: Int64
    request: Int64
    node: Int64
    choice: Bool
    log_probs: Float32
    rewards: Float32
    advantages: Float32
    reference: Float32 | None = None
    sets: TokenRows | None = None
    numbers: Mapping[str, Float32] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return f"<Groups: {len(self):,} prompts, {len(self.answers):,} answers, {len(self.answers.tokens):,} tokens>"

    @cached_property
    def rows(self) -> TokenRows:
        """Each answer behind its prompt."""
        asked = [self.prompts[group] for group in range(len(self))]
        parts = [
            row
            for number, group in enumerate(self.group.tolist())
            for row in (asked[group], self.answers[number])
        ]
        lengths = self.prompts.lengths[self.group] + self.answers.lengths
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return TokenRows(np.concatenate([np.zeros(0, np.int32), *parts]), offsets)

    def take(self, groups: npt.NDArray[np.integer]) -> Groups:
        """Some of the groups, in the order given."""
        first = np.searchsorted(self.group, groups)
        count = np.searchsorted(self.group, groups, "right") - first
        own = _runs(first, count)
        lengths = self.answers.lengths[own]
        tokens = _runs(self.answers.offsets[:-1][own], lengths)
        return Groups(
            self.prompts.take(groups),
            self.answers.take(own),
            np.repeat(np.arange(len(groups)), count),
            self.request[groups],
            self.node[tokens],
            self.choice[tokens],
            self.log_probs[tokens],
            self.rewards[own],
            self.advantages[own],
            None if self.reference is None else self.reference[tokens],
            self.sets,
            {name: values[tokens] for name, values in self.numbers.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence[Groups]) -> Groups:
        """The groups of some parts, one part after the other; at least one part. All have sets, or none has."""
        if len(parts) == 1:
            return parts[0]
        parts = _with_common_sets(parts)
        before = np.cumsum([0, *(len(part) for part in parts)])
        references = [part.reference for part in parts if part.reference is not None]
        return cls(
            TokenRows.concat([part.prompts for part in parts]),
            TokenRows.concat([part.answers for part in parts]),
            np.concatenate([part.group + first for part, first in zip(parts, before, strict=False)]),
            np.concatenate([part.request for part in parts]),
            np.concatenate([part.node for part in parts]),
            np.concatenate([part.choice for part in parts]),
            np.concatenate([part.log_probs for part in parts]),
            np.concatenate([part.rewards for part in parts]),
            np.concatenate([part.advantages for part in parts]),
            np.concatenate(references) if references else None,
            parts[0].sets,
            {name: np.concatenate([part.numbers[name] for part in parts]) for name in parts[0].numbers},
        )

    @property
    def differ(self) -> Bool:
        """bool ``[G]``: whether the rewards of a group's answers differ, or their advantages aren't all 0."""
        low, high = np.full(len(self), np.inf), np.full(len(self), -np.inf)
        np.minimum.at(low, self.group, self.rewards)
        np.maximum.at(high, self.group, self.rewards)
        moves = np.zeros(len(self))
        np.maximum.at(moves, self.group, np.abs(self.advantages))
        return np.asarray((high - low > FLAT) | (moves > FLAT))

    def moved(self, by: int) -> Groups:
        """The same with other numbers for their requests, each higher by as much."""
        return replace(self, request=self.request + by)

    def with_reference(self, log_probs: Float32) -> Groups:
        """The same with what the reference says."""
        return replace(self, reference=log_probs)

    def with_numbers(self, **numbers: Float32) -> Groups:
        """The same with further numbers of each token."""
        return replace(self, numbers={**self.numbers, **numbers})

    # ------------------------------------------------------------- plain JSON, for checkpoints

    def to_json(self) -> dict[str, Any]:
        """Plain lists; float32 values stay what they are."""
        texts = {"prompts": self.prompts, "answers": self.answers, "sets": self.sets}
        found: dict[str, Any] = {
            name: None if rows is None else [rows.tokens.tolist(), rows.offsets.tolist()]
            for name, rows in texts.items()
        }
        found["numbers"] = {name: values.tolist() for name, values in self.numbers.items()}
        for name in ("group", "request", "node", "choice", "log_probs", "rewards", "advantages"):
            found[name] = getattr(self, name).tolist()
        found["reference"] = None if self.reference is None else self.reference.tolist()
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Groups:
        """What :meth:`to_json` gave."""
        prompts, answers, *sets = (
            TokenRows(np.array(value[name][0], np.int32), np.array(value[name][1], np.int64))
            for name in ("prompts", "answers", "sets")
            if value[name] is not None
        )
        log_probs, rewards, advantages = (
            np.array(value[name], np.float32) for name in ("log_probs", "rewards", "advantages")
        )
        group, request, node = (np.array(value[name], np.int64) for name in ("group", "request", "node"))
        reference = None if value["reference"] is None else np.array(value["reference"], np.float32)
        choice = np.array(value["choice"], bool)
        numbers = {name: np.array(values, np.float32) for name, values in value["numbers"].items()}
        return cls(
            prompts,
            answers,
            group,
            request,
            node,
            choice,
            log_probs,
            rewards,
            advantages,
            reference,
            sets[0] if sets else None,
            numbers,
        )


def _with_common_sets(parts: Sequence[Groups]) -> list[Groups]:
    """Groups whose nodes are rows of the sets of all; parts that have the same ones share them."""
    own = [part.sets for part in parts]
    if own[0] is None or all(sets is own[0] for sets in own):
        return list(parts)
    before = np.cumsum([0, *(len(sets) for sets in own if sets is not None)])
    every = TokenRows.concat([sets for sets in own if sets is not None])
    return [
        replace(part, node=np.where(part.node == ANYTHING, ANYTHING, part.node + first), sets=every)
        for part, first in zip(parts, before.tolist(), strict=False)
    ]


def _runs(first: Int64, count: Int64) -> Int64:
    """The numbers ``first[i], …, first[i] + count[i] - 1`` of all ``i``."""
    before = np.cumsum(count) - count
    found: Int64 = np.arange(int(count.sum())) + np.repeat(first - before, count)
    return found


@dataclass(frozen=True)
class GroupBlock:
    """Groups as one forest: a prompt stands once, with its answers as branches.

    Attributes:
        groups: what they are.
        forest: of prompts and answers.
        place: int64 ``[T']``, the forest's node of each choice, answer after answer.
        answer: int64 ``[T']``, which answer each choice is of.
        numbers: what is told of the groups beside their cost: a sum and its weight, by name.
        silent: the weight of groups that were left out because nothing can be learned from them.
    """

    groups: Groups
    forest: TokenForest
    place: Int64
    answer: Int64
    numbers: Mapping[str, tuple[float, float]]
    silent: float = 0.0

    @classmethod
    def of(
        cls, groups: Groups, numbers: Mapping[str, tuple[float, float]] | None = None, silent: float = 0.0
    ) -> GroupBlock:
        """Build the forest."""
        forest = build_forest(groups.rows)
        lengths = groups.answers.lengths
        answer = np.repeat(np.arange(len(lengths)), lengths)
        behind = (
            groups.answers.offsets[1:][answer] - 1 - np.arange(len(answer))
        )  # tokens of the answer after each
        place = np.empty(len(answer), np.int64)
        node = forest.row_leaf.astype(np.int64)
        for step in range(int(lengths.max(initial=0))):
            here = behind == step
            place[here] = node[answer[here]]
            node = np.where(node >= 0, forest.parent[np.maximum(node, 0)], -1)
        kept = groups.choice
        return cls(groups, forest, place[kept], answer[kept], numbers or {}, silent)


def blocks_of(groups: Groups, max_tokens: int) -> list[Groups]:
    """The groups in runs whose forests have about ``max_tokens`` at most; those of one request stay together.

    What the groups of a request share is counted once, what requests share again.
    """
    answers = np.bincount(groups.group, groups.answers.lengths, minlength=len(groups))
    begins = np.flatnonzero(np.diff(groups.request, prepend=-1))
    shared = groups.prompts.lengths.copy()
    shared[np.setdiff1d(np.arange(len(groups)), begins)] = 0
    size = np.add.reduceat(shared + answers, begins) if len(begins) else np.zeros(0)
    edges = [*begins.tolist(), len(groups)]
    found, first, total = [], 0, 0.0
    for unit, own in enumerate(size.tolist()):
        if unit > first and total + own > max_tokens:
            found.append(groups.take(np.arange(edges[first], edges[unit])))
            first, total = unit, 0.0
        total += own
    if first < len(size):
        found.append(groups.take(np.arange(edges[first], edges[-1])))
    return found
