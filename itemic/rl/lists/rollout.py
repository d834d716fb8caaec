"""Rollouts of lists: what a policy writes now, what that is worth, and what is learned from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.control.answers import Answers
from itemic.control.lists import ListGrammar, ListTokens
from itemic.control.metrics import correct_count
from itemic.control.rewards import legal as legal_entries
from itemic.control.rewards import placed, task_worth
from itemic.decode import Sampler, Samples
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.rl.advantages import ADVANTAGES, over_step, signal
from itemic.rl.groups import Groups
from itemic.rl.lists.asks import SPARE, ListAsked, ListBook
from itemic.rl.lists.read import Read, read_free, read_written
from itemic.rl.lists.worth import ListRewards
from itemic.rl.rolled import Policy
from itemic.rl.settings import GroupSettings, ListSettings, RolloutSettings
from itemic.rl.told import QUANTILES
from itemic.sid.trie import Trie
from itemic.training.ranks import ALONE, Ranks

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Numbers = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Written:
    """Lists as they were written to ``P`` prompts, ``N`` each, those of one prompt one after the other.

    Attributes:
        tokens: ``P · N`` rows.
        log_probs: float32 ``[T]``, of each token under the model: what an update computes for it.
        cut: bool ``[P · N]``, whether the list was cut off.
        read: what they say.
        answers: the same beside what was asked for.
    """

    tokens: TokenRows
    log_probs: Float32
    cut: Bool
    read: Read
    answers: Answers


@dataclass(frozen=True)
class RolledLists:
    """A rollout of lists.

    Attributes:
        groups: to learn from; of each prompt one group.
        asked: what was asked for.
        written: what came.
        apart: each reward by itself, float64 ``[P, N]``.
        total: float64 ``[P, N]``.
        advantages: float64 ``[P, N]``.
        alive: bool ``[G]``, which groups have a signal.
        numbers: what is told of it, sums and weights by name.
    """

    groups: Groups
    asked: ListAsked
    written: Written
    apart: dict[str, Float64]
    total: Float64
    advantages: Float64
    alive: Bool
    numbers: Numbers


class ListRoller:
    """Writes lists with a model as it is at the moment.

    Args:
        policy: who writes.
        settings: how lists are drawn.
        objective: whose advantages are computed.
        rewards: what lists are worth.
        book: what is asked for, which says how lists are written.
        ranks: who rolls at the same time.
    """

    def __init__(
        self,
        policy: Policy,
        settings: RolloutSettings,
        objective: GroupSettings,
        rewards: ListRewards,
        book: ListBook,
        ranks: Ranks = ALONE,
    ) -> None:
        assert settings.lists is not None
        self.policy, self.rewards, self.book, self.ranks = policy, rewards, book, ranks
        self.settings: ListSettings = settings.lists
        self.objective, self.normalize = objective, settings.normalize
        model = self.model = policy.model
        self.trie = Trie.build(model.item_rows)
        self.most = _most(self.settings, book)
        self.tokens = ListTokens.of(model, book.form, self.most)
        if self.settings.mode == "free" and not len(self.tokens.end):
            raise ConfigError("free lists of a model whose turns have no end", "Use mode soft or hard.")
        self.limit = longest(settings, self.trie, self.tokens, self.most)
        book.limit(self.limit)

    # --------------------------------------------------------------------------------- the whole

    def roll(self, asked: ListAsked, seeds: Sequence[int]) -> RolledLists:
        """Lists for some prompts.

        Args:
            asked: ``P`` prompts.
            seeds: one for each.
        """
        began = time.perf_counter()
        written = self.write(asked, seeds)
        answers = written.answers
        entries, lists, apart = self.rewards(answers)
        shape = len(asked), self.settings.samples
        total = (entries.sum(1) + lists).reshape(shape)
        advantages = self._advantages(total)
        groups, kept = self._groups(asked, written, entries, lists, total, advantages)
        numbers = self._numbers(written, total, apart)
        numbers["rollout_seconds"] = (time.perf_counter() - began), 1.0
        return RolledLists(
            groups,
            asked,
            written,
            {name: values.reshape(shape) for name, values in apart.items()},
            total,
            advantages,
            signal(total[kept]) if len(kept) else np.zeros(0, np.bool_),
            numbers,
        )

    def write(self, asked: ListAsked, seeds: Sequence[int], *, greedy: bool = False) -> Written:
        """The lists alone; ``greedy`` writes one for each prompt, and draws nothing."""
        count = 1 if greedy else self.settings.samples
        each = np.repeat(np.arange(len(asked)), count)
        grammar = self._grammar(asked)
        samples: Samples = self.policy.meet(lambda: self._samples(asked.prompts, seeds, grammar, greedy))
        if grammar is None:
            terms = [asked.terms[row] for row in each.tolist()]
            stop = int(self.tokens.end[0])
            read = read_free(self.model, samples.tokens, self.book.form, stop, terms)
        else:
            legal = self.normalize == "legal"
            read = read_written(grammar, samples.tokens, each, legal=legal)
        whole = {"stop token", "grammar"}
        cut = np.array([why not in whole for why in samples.why], np.bool_)
        answers = self._answers(asked, read.items, each)
        return Written(samples.tokens, samples.model_log_probs, cut, read, answers)

    # ------------------------------------------------------------------------------- its parts

    def _grammar(self, asked: ListAsked) -> ListGrammar | None:
        mode = self.settings.mode
        if mode == "free" or not len(asked):
            return None
        histories = [asked.requests.history(row) for row in range(len(asked))]
        return ListGrammar(
            self.trie,
            self.tokens,
            list(asked.terms) if mode == "hard" else None,
            most=self.most,
            seen=histories if mode == "distinct" else None,
        )

    def _samples(
        self, prompts: TokenRows, seeds: Sequence[int], grammar: ListGrammar | None, greedy: bool
    ) -> Samples:
        told = self.settings

        def drawn(temperature: float, count: int) -> Samples:
            narrows = temperature > 0
            sampler = Sampler(
                self.model.lm,
                max_new_tokens=self.limit,
                temperature=temperature,
                top_k=told.top_k if narrows else None,
                top_p=None if told.top_p == 1 or not narrows else told.top_p,
                stop_tokens=[] if grammar is not None else [int(self.tokens.end[0])],
                grammar=grammar,
                normalize=self.normalize,
            )
            return sampler.sample(prompts, count, seeds=list(seeds))

        first = [drawn(0.0, 1)] if greedy or told.greedy else []
        others = told.samples - len(first)
        if greedy or not others:
            return first[0]
        return _interleaved([*first, drawn(told.temperature, others)], len(prompts))

    def _answers(self, asked: ListAsked, items: Sequence[Int32], each: Int64) -> Answers:
        """Lists beside what was asked; items that share a name are the one that is meant."""
        names = self.book.names
        histories = [asked.requests.history(row) for row in range(len(asked))]
        targets = asked.requests.targets
        rows = each.tolist()
        if names is not None:
            meant = [_meant(names, terms.rows) for terms in asked.terms]
            items = [_renamed(own, meant[row]) for own, row in zip(items, rows, strict=True)]
            targets = np.array(
                [_renamed(targets[row : row + 1], meant[row])[0] for row in range(len(asked))], np.int32
            )
            histories = [meant[row][own] for row, own in enumerate(histories)]
        return Answers.of(
            items,
            [asked.wants[row] for row in rows],
            self.book.labels,
            targets=targets[each],
            ranked=[asked.ranked[row] for row in rows],
            histories=[histories[row] for row in rows],
        )

    def _advantages(self, total: Float64) -> Float64:
        if self.objective.way == "step":
            return over_step(total, np.concatenate(self.ranks.gather(total.ravel())))
        return np.asarray(ADVANTAGES[self.objective.way](total)) if len(total) else total

    def _groups(
        self,
        asked: ListAsked,
        written: Written,
        entries: Float64,
        lists: Float64,
        total: Float64,
        advantages: Float64,
    ) -> tuple[Groups, Int64]:
        """The lists of each prompt as a group, and which prompts these are: one in whose lists nothing was chosen at
        all is none."""
        rows, read, count = written.tokens, written.read, self.settings.samples
        choices = np.add.reduceat(read.choice, rows.offsets[:-1]) if len(rows) else np.zeros(0, np.int64)
        kept = np.flatnonzero((choices.reshape(-1, count) > 0).all(axis=1))
        own = (kept[:, None] * count + np.arange(count)).ravel()
        values = self._on_choices(written, entries, lists)
        at, last = [], []
        for number in own.tolist():
            first, stop = rows.offsets[number : number + 2].tolist()
            stop = first + int(np.flatnonzero(read.choice[first:stop])[-1]) + 1
            at.append(np.arange(first, stop))
            last.append(stop - first)
        tokens = np.concatenate([np.zeros(0, np.int64), *at])
        offsets = np.concatenate([[0], np.cumsum(last)]).astype(np.int64)
        choice = read.choice[tokens]
        groups = Groups(
            asked.prompts.take(kept),
            TokenRows(rows.tokens[tokens], offsets),
            np.repeat(np.arange(len(kept)), count),
            kept.astype(np.int64),
            read.node[tokens],
            choice,
            np.where(choice, written.log_probs[tokens], 0).astype(np.float32),
            total[kept].ravel().astype(np.float32),
            advantages[kept].ravel().astype(np.float32),
            sets=read.sets,
            numbers={"rewards": values[tokens].astype(np.float32)},
        )
        return groups, kept

    def _on_choices(self, written: Written, entries: Float64, lists: Float64) -> Float64:
        """float64 ``[T]``: rewards on the tokens that end what they are for, or, where nobody chose these, on the last
        choice before (the first behind, where there is none before)."""
        rows, read = written.tokens, written.read
        ends = np.zeros(entries.shape, np.int64)
        for number, own in enumerate(read.ends):
            ends[number, : len(own)] = own
        table = placed(entries, lists, ends, written.answers.lengths, rows.lengths)
        found = np.zeros(len(rows.tokens))
        for number in range(len(rows)):
            first, stop = rows.offsets[number : number + 2].tolist()
            chosen = np.flatnonzero(read.choice[first:stop])
            given = np.flatnonzero(table[number, : stop - first])
            if len(chosen) and len(given):
                to = chosen[np.maximum(np.searchsorted(chosen, given, "right") - 1, 0)]
                np.add.at(found, first + to, table[number, given])
        return found

    # ------------------------------------------------------------------------------- what is told

    def _numbers(self, written: Written, total: Float64, apart: dict[str, Float64]) -> Numbers:
        answers = written.answers
        count = float(total.size)
        numbers: Numbers = {"reward": (float(total.sum()), count)}
        numbers |= {f"reward/{name}": (float(values.sum()), count) for name, values in apart.items()}
        numbers |= measured(answers)
        if total.shape[1] > 1:
            numbers["without_signal"] = float((~signal(total)).sum()), float(len(total))
            numbers["reward/greedy"] = float(total[:, 0].sum()), float(len(total))
        if not self.settings.greedy:
            numbers.pop("reward/greedy", None)
        numbers["list_tokens"] = float(written.tokens.lengths.sum()), count
        numbers["choices"] = float(written.read.choice.sum()), count
        numbers["cut"] = float(written.cut.sum()), count
        return numbers


KINDS = ("none", "with", "without", "at most", "at least", "about")


def measured(answers: Answers) -> Numbers:
    """Of lists: the share of legal entries, whether the count is right, and how well each kind of control is kept."""
    there = float(answers.lengths.sum())
    numbers: Numbers = {
        "legal": (float(legal_entries(answers).sum()), there),
        "count": (float(correct_count(answers.lengths, answers.counts).sum()), float(len(answers.lengths))),
    }
    worth = task_worth(answers) if len(answers.lengths) else np.zeros(0)
    for kind in KINDS:
        own = answers.of_kind(kind)[:, 0] if len(answers.kinds) else np.zeros(0, np.bool_)  # type: ignore[arg-type]
        if own.any():
            numbers[f"worth/{kind}"] = float(worth[own].sum()), float(own.sum())
    return numbers


def list_names(rewards: Sequence[str]) -> tuple[str, ...]:
    """Names of all numbers that a rollout of lists may tell."""
    own = (f"reward/{name}" for name in rewards)
    kinds = (f"worth/{kind}" for kind in KINDS)
    others = ("reward/greedy", "legal", "count", "without_signal", "list_tokens", "choices", "cut", "tried")
    quantiles = (f"kl_of_answers/p{share}" for share in QUANTILES)
    return ("reward", *own, *kinds, *others, *quantiles, "rollout_seconds", "pass_kl")


def longest(settings: RolloutSettings, trie: Trie, tokens: ListTokens, most: int) -> int:
    """Tokens of a list at most."""
    assert settings.lists is not None
    if settings.lists.max_new_tokens is not None:
        return settings.lists.max_new_tokens
    between = int(tokens.before.take(np.arange(most)).lengths.sum())
    return between + len(tokens.end) + most * int(trie.depth.max())


def list_limit(model: Model, settings: RolloutSettings, book: ListBook) -> int:
    """The same of a stage that has no roller yet."""
    assert settings.lists is not None
    most = _most(settings.lists, book)
    return longest(settings, Trie.build(model.item_rows), ListTokens.of(model, book.form, most), most)


def _most(settings: ListSettings, book: ListBook) -> int:
    """Items of a list at most."""
    return book.most if settings.mode == "hard" else settings.most or book.most + SPARE


def _interleaved(parts: Sequence[Samples], prompts: int) -> Samples:
    """The samples of each prompt, those of the first part first."""
    counts = [len(part.tokens) // max(prompts, 1) for part in parts]
    before = np.cumsum([0, *(len(part.tokens) for part in parts)])
    order = np.concatenate(
        [
            np.concatenate(
                [
                    start + row * count + np.arange(count)
                    for start, count in zip(before[:-1], counts, strict=True)
                ]
            )
            for row in range(prompts)
        ]
        or [np.zeros(0, np.int64)]
    ).astype(np.int64)
    every = TokenRows.concat([part.tokens for part in parts])
    tokens = every.take(order)
    place = np.arange(len(tokens.tokens)) + np.repeat(
        every.offsets[:-1][order] - tokens.offsets[:-1], tokens.lengths
    )
    logs, model = (
        np.concatenate([getattr(part, name) for part in parts])[place]
        for name in ("log_probs", "model_log_probs")
    )
    return Samples(tokens, logs, model, np.concatenate([part.ended for part in parts])[order])


def _meant(names: Int64, rows: Int32) -> Int32:
    """int32 ``[n]``: for each row the one that its name means: that of the terms, else the lowest."""
    first = np.full(int(names.max(initial=-1)) + 1, -1, np.int32)
    order = np.arange(len(names))[::-1]
    first[names[order]] = order  # the lowest comes last
    first[names[rows]] = rows
    return first[names]


def _renamed(items: Int32, meant: Int32) -> Int32:
    return np.where(items >= 0, meant[np.maximum(items, 0)], items).astype(np.int32)
