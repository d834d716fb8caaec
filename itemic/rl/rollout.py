"""Rollouts: what a policy answers now, what that is worth, and what is learned from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from itemic.data.sequences import Requests
from itemic.decode import BeamSearch, FreeText, ItemWalk, Sampler, Samples
from itemic.decode.paths import Paths, best_paths, drawn_paths
from itemic.decode.plan import ancestors
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.model.think import ThoughtTokens, thought_tokens
from itemic.rl.advantages import ADVANTAGES, over_step, signal
from itemic.rl.asks import Asked
from itemic.rl.groups import ANYTHING, Groups
from itemic.rl.rewards import Answered, Rewards
from itemic.rl.rolled import Answers, Policy, Rolled, Thought
from itemic.rl.scoring import Legal
from itemic.rl.settings import GroupSettings, RolloutSettings, ThoughtSettings
from itemic.rl.told import numbers_of
from itemic.training.ranks import ALONE, Ranks

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class Roller:
    """Makes rollouts with a model as it is at the moment.

    Args:
        policy: who answers.
        settings: how answers are drawn.
        objective: whose advantages are computed.
        rewards: what answers are worth.
        legal: the trie, and over what probabilities are normalised.
        ranks: who rolls at the same time: advantages over a step look at the answers of all.

    Raises:
        ConfigError: more answers than the catalogue has, or thoughts with a tokenizer that has no marks for them.
    """

    def __init__(
        self,
        policy: Policy,
        settings: RolloutSettings,
        objective: GroupSettings,
        rewards: Rewards,
        legal: Legal,
        ranks: Ranks = ALONE,
    ) -> None:
        self.policy, self.settings, self.objective, self.rewards = policy, settings, objective, rewards
        model = self.model = policy.model
        self.legal, self.trie, self.ranks = legal, legal.trie, ranks
        ends = int(self.trie.terminal.sum())
        if settings.answers > ends:
            raise ConfigError(
                f"{settings.answers} answers to a prompt, and the catalogue has {ends} items of different tokens",
                f"Set rollout.answers to {ends} or fewer.",
            )
        self.exclude = bool(settings.exclude_history)
        width = settings.answers if settings.how == "beams" else settings.answers + settings.answers // 2
        self.search: BeamSearch = policy.meet(
            lambda: BeamSearch(
                model.lm, self.trie, beams=min(width, ends), normalize=settings.normalize, skip_forced=True
            )
        )
        self.ends = np.full(len(self.trie.items), -1, np.int64)  # node where each item ends
        counts = np.diff(self.trie.item_first)
        self.ends[self.trie.items] = np.repeat(np.arange(len(self.trie)), counts)
        self.marks = None if settings.thoughts is None else thought_tokens(model)

    # --------------------------------------------------------------------------------- the whole

    def roll(self, asked: Asked, seeds: Sequence[int]) -> Rolled:
        """Answers to some prompts.

        Args:
            asked: ``P`` prompts.
            seeds: one for each.
        """
        began = time.perf_counter()
        if self.settings.thoughts is None or self.marks is None:
            found = self._plain(asked, seeds)
        else:
            found = self._thinking(asked, seeds, self.settings.thoughts, self.marks)
        found.numbers["rollout_seconds"] = (time.perf_counter() - began), 1.0
        return found

    def _plain(self, asked: Asked, seeds: Sequence[int]) -> Rolled:
        answers = self._answers(asked.prompts, asked, seeds)
        request = np.arange(len(asked.prompts))
        groups = self._item_groups(asked.prompts, answers, request)
        alive = signal(answers.total[groups.own])
        return Rolled(groups.groups, asked, answers, None, alive, numbers_of(answers))

    def _thinking(
        self, asked: Asked, seeds: Sequence[int], told: ThoughtSettings, marks: ThoughtTokens
    ) -> Rolled:
        count = len(asked.prompts)
        prompts = marks.opened(asked.prompts)

        def draw() -> Samples:
            sampler = Sampler(
                self.model.lm,
                max_new_tokens=told.max_tokens,
                temperature=told.temperature,
                top_p=None if told.top_p == 1 else told.top_p,
                grammar=FreeText(marks.end),
            )
            return sampler.sample(prompts, told.count, seeds=list(seeds))

        samples: Samples = self.policy.meet(draw)
        ended = samples.tokens.tokens[samples.tokens.offsets[1:] - 1] == marks.end
        each = np.repeat(np.arange(count), told.count)
        done = np.flatnonzero(ended).tolist()
        texts = [np.concatenate([samples.tokens[number], marks.behind]).astype(np.int32) for number in done]
        deep = _behind(prompts.take(each[ended]), texts)
        own = each[ended]
        behind = Asked(asked.rows[own], asked.requests.take(own), deep, asked.of_history[own])
        own_seeds = [int(seeds[row]) * 1009 + number for number, row in zip(done, own.tolist(), strict=True)]
        answers = self._answers(deep, behind, own_seeds, samples.tokens.lengths[ended])
        worth = np.zeros(count * told.count)
        merge = np.nanmax if told.merge == "best" else np.nanmean
        some = np.flatnonzero(
            answers.answered.there.any(axis=1)
        )  # nothing is left to recommend behind the others
        if len(some):
            worth[np.flatnonzero(ended)[some]] = merge(answers.total[some], axis=1)
        thought = Thought(samples.tokens, samples.model_log_probs, ended, worth.reshape(count, told.count))
        parts = [self._thought_groups(prompts, thought)]
        if told.items and ended.any():
            parts.append(self._item_groups(deep, answers, each[ended]))
        groups = Groups.joined([part.groups for part in parts])
        order = np.argsort(groups.request, kind="stable")
        alive = np.concatenate(
            [signal(thought.worth), *(signal(answers.total[part.own]) for part in parts[1:])]
        )
        numbers = numbers_of(answers)
        numbers["without_signal"] = float((~alive).sum()), float(len(alive))
        numbers["thought_tokens"] = float(samples.tokens.lengths.sum()), float(len(samples.tokens))
        numbers["thoughts_cut"] = float((~ended).sum()), float(len(ended))
        numbers["thought_reward"] = float(worth.sum()), float(len(worth))
        return Rolled(groups.take(order), asked, answers, thought, alive[order], numbers)

    # ------------------------------------------------------------------------------- its parts

    def _answers(
        self, prompts: TokenRows, asked: Asked, seeds: Sequence[int], before: Int64 | None = None
    ) -> Answers:
        """Items for each prompt, and what they are worth; ``before`` are tokens that were written already."""
        settings, requests = self.settings, asked.requests
        exclude = None
        if self.exclude:
            exclude = [
                requests.history(row) if asked.of_history[row] else np.zeros(0, np.int32)
                for row in range(len(requests))
            ]
        paths: Paths = self.policy.meet(lambda: self._paths(prompts, seeds, exclude))
        suggested = self._suggest(paths, requests, exclude)
        goal = np.where(requests.targets >= 0, self.ends[requests.targets], -2)
        found = paths.ends == goal[:, None]
        items = np.where(found, requests.targets[:, None], paths.items).astype(np.int32)
        added = np.zeros(len(requests), bool)
        if settings.add_target:
            added = ~found.any(axis=1) & (requests.targets >= 0)
            last = np.maximum((paths.ends >= 0).sum(axis=1) - 1, 0)
            rows = np.flatnonzero(added)
            paths.ends[rows, last[rows]] = goal[rows]
            items[rows, last[rows]] = requests.targets[rows]
            paths.log_probs[rows, last[rows]] = np.nan  # scored when the groups are there
        paths = replace(paths, items=items)
        there = paths.ends >= 0
        depth = np.where(there, self.trie.depth[np.maximum(paths.ends, 0)], 0).astype(np.int64)
        answered = Answered(
            requests,
            paths.items,
            there,
            paths.scores,
            depth + (0 if before is None else before[:, None]),
            there.copy(),
        )
        total, apart = self.rewards(answered)
        total = np.where(there, total, np.nan)
        return Answers(paths, answered, total, apart, self._advantages(total), added, suggested)

    def _suggest(self, paths: Paths, requests: Requests, exclude: list[Int32] | None) -> Int64:
        """Put others' best items in place of the last answers; returns how many each prompt got."""
        count = np.zeros(len(requests), np.int64)
        if not self.settings.suggest or not len(requests):
            return count
        items = self._suggestions(requests, exclude)
        for row, wanted in enumerate(items):
            ends = np.unique(self.ends[wanted])
            fresh = ends[~np.isin(ends, paths.ends[row])]
            known = paths.ends[row][paths.ends[row] >= 0]
            keeps = min(len(known), paths.ends.shape[1] - len(fresh))
            place = slice(keeps, keeps + len(fresh))
            paths.ends[row, keeps:] = -1
            paths.ends[row, place] = fresh
            paths.items[row, place] = self.trie.items[self.trie.item_first[fresh]]
            paths.log_probs[row, place] = np.nan  # scored when the groups are there
            count[row] = len(fresh)
        return count

    def _suggestions(self, requests: Requests, exclude: list[Int32] | None) -> list[Int64]:
        """Item rows for each request, those of all rankers together."""
        found: list[list[Int64]] = [[] for _ in range(len(requests))]
        for name, best in self.settings.suggest.items():
            if name not in self.rewards.world.scores:
                known = ", ".join(self.rewards.world.scores)
                raise ConfigError(f"rollout.suggest asks the ranker {name!r}", f"There are: {known}.")
            scores = np.array(self.rewards.world.scores[name](requests), np.float32)
            for row, own in enumerate(exclude or ()):
                scores[row, own] = -np.inf
            top = np.argpartition(-scores, min(best, scores.shape[1] - 1), axis=1)[:, :best]
            for row, items in enumerate(top):
                found[row].append(items[np.isfinite(scores[row, items])])
        return [np.concatenate(parts).astype(np.int64) for parts in found]

    def _advantages(self, total: Float64) -> Float64:
        """``[G, K]``; NaN where a group has no such answer."""
        if self.objective.way == "step":
            return over_step(total, np.concatenate(self.ranks.gather(total.ravel())))
        found = np.full(total.shape, np.nan)
        some = ~np.isnan(total).all(axis=1)
        if some.any():
            found[some] = ADVANTAGES[self.objective.way](total[some])
        return found

    def _paths(self, prompts: TokenRows, seeds: Sequence[int], exclude: list[Int32] | None) -> Paths:
        settings, count = self.settings, self.settings.answers
        if settings.how == "beams":
            return best_paths(self.search, prompts, count, exclude)
        if settings.replacement:
            return self._sampled(prompts, seeds, count, exclude)
        half = count // 2 if settings.how == "both" else 0
        drawn = drawn_paths(
            self.search,
            prompts,
            min(count + half, self.search.beams),
            seeds,
            temperature=settings.temperature,
            top_p=settings.top_p,
            exclude=exclude,
        )
        if not half:
            return drawn
        best = best_paths(self.search, prompts, half, exclude)
        return _mixed(best, drawn, count)

    def _sampled(
        self, prompts: TokenRows, seeds: Sequence[int], count: int, exclude: list[Int32] | None
    ) -> Paths:
        """Items drawn one by one, each as if it were the first."""
        every = np.arange(len(self.trie.items))
        rows = None if exclude is None else [np.setdiff1d(every, own) for own in exclude]
        settings, depth = self.settings, int(self.trie.depth.max())
        sampler = Sampler(
            self.model.lm,
            max_new_tokens=depth,
            temperature=settings.temperature,
            top_p=None if settings.top_p == 1 else settings.top_p,
            grammar=ItemWalk(self.trie, rows),
            normalize=settings.normalize,
        )
        samples = sampler.sample(prompts, count, seeds=list(seeds))
        shape = len(prompts), count
        log_probs = np.zeros((*shape, depth), np.float32)
        nodes = np.zeros(len(samples.tokens), np.int64)
        for step in range(depth):
            goes_on = np.flatnonzero(samples.tokens.lengths > step)
            at = samples.tokens.offsets[goes_on] + step
            nodes[goes_on] = self.trie.step(nodes[goes_on], samples.tokens.tokens[at])
            if not self.search.forced.free[step + 1]:
                log_probs[goes_on // count, goes_on % count, step] = samples.model_log_probs[at]
        first = self.trie.items[self.trie.item_first[nodes]].astype(np.int32)
        return Paths(first.reshape(shape), nodes.reshape(shape), log_probs)

    def _item_groups(self, prompts: TokenRows, answers: Answers, request: Int64) -> _Own:
        """The answers of each prompt as a group; prompts with fewer than two answers are no group."""
        ends, total = answers.paths.ends, answers.total
        own = np.flatnonzero((ends >= 0).sum(axis=1) >= 2)
        row, place = np.nonzero(ends[own] >= 0)
        node = ends[own[row], place]
        way = ancestors(self.trie, node)
        before, after = way[:, :-1], way[:, 1:]
        real = after >= 0
        choice = real & self._choices(before, after)
        last = np.where(choice.any(axis=1), choice.shape[1] - np.argmax(choice[:, ::-1], axis=1), 1)
        kept = np.arange(real.shape[1]) < last[:, None]
        log_probs = answers.paths.log_probs[own[row], place][:, : kept.shape[1]]
        tokens = self.trie.token[np.maximum(after, 0)]
        offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
        groups = Groups(
            prompts.take(own),
            TokenRows(tokens[kept].astype(np.int32), offsets),
            row.astype(np.int64),
            request[own].astype(np.int64),
            before[kept].astype(np.int64),
            choice[kept],
            np.where(choice[kept], log_probs[kept], 0).astype(np.float32),
            total[own][row, place].astype(np.float32),
            answers.advantages[own][row, place].astype(np.float32),
        )
        return _Own(groups, own)

    def _choices(self, before: Int64, after: Int64) -> Bool:
        """Which steps of some ways the model chose: not what all items have at that place; under ``legal``, where there
        was something to choose from."""
        if self.legal.normalize != "legal":
            depth = np.maximum(self.trie.depth[np.maximum(after, 0)], 0)
            return np.asarray(~self.search.forced.free[depth])
        children = np.diff(self.trie.first.astype(np.int64))
        return np.asarray(children[np.maximum(before, 0)] > 1)

    def _thought_groups(self, prompts: TokenRows, thought: Thought) -> _Own:
        count, each = thought.worth.shape
        advantages = self._advantages(thought.worth)
        rows = thought.tokens
        groups = Groups(
            prompts,
            TokenRows(rows.tokens, rows.offsets),
            np.repeat(np.arange(count), each),
            np.arange(count),
            np.full(len(rows.tokens), ANYTHING),
            np.ones(len(rows.tokens), bool),
            thought.log_probs,
            thought.worth.reshape(-1).astype(np.float32),
            advantages.reshape(-1).astype(np.float32),
        )
        return _Own(groups, np.arange(count))


@dataclass(frozen=True)
class _Own:
    """Groups, and the rows of answers that they were made of."""

    groups: Groups
    own: Int64


def _behind(prompts: TokenRows, texts: Sequence[npt.NDArray[np.int32]]) -> TokenRows:
    """Prompts with a text behind each."""
    return TokenRows.of(np.concatenate([prompts[row], text]).tolist() for row, text in enumerate(texts))


def _mixed(best: Paths, drawn: Paths, count: int) -> Paths:
    """The best paths, and behind them the drawn ones that aren't among them, ``count`` together."""
    again = (drawn.ends[:, :, None] == best.ends[:, None, :]).any(axis=2)
    order = np.argsort(again | (drawn.ends < 0), axis=1, kind="stable")[:, : count - best.ends.shape[1]]
    rows = np.arange(len(order))[:, None]
    ends = np.where((again | (drawn.ends < 0))[rows, order], -1, drawn.ends[rows, order])
    return Paths(
        np.concatenate([best.items, np.where(ends >= 0, drawn.items[rows, order], -1)], axis=1).astype(
            np.int32
        ),
        np.concatenate([best.ends, ends], axis=1),
        np.concatenate([best.log_probs, drawn.log_probs[rows, order]], axis=1),
    )
