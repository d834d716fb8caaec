"""Thoughts, then exact beams under each of them: what a model recommends when it thinks first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.decode.beam import BeamSearch
from itemic.decode.refill import LENGTH
from itemic.decode.sample import Sampler, Samples
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.progress import progress_bar

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MERGES = ("best", "mass")


@dataclass(frozen=True)
class Thoughts:
    """What ``n`` thoughts for each of ``R`` prompts lead to.

    Attributes:
        items: int32 ``[R, k]``, best first; -1 where fewer than ``k`` items can be reached.
        scores: float32 ``[R, k]``, see ``merge`` of :class:`ThoughtSearch`; -inf where there is no item.
        thought: int32 ``[R, k]``, which of the prompt's thoughts gives the item its highest score, the first of equal
            ones; -1 where there is no item.
        samples: the thoughts, those of one prompt one after the other, as they were drawn.
    """

    items: Int32
    scores: Float32
    thought: Int32
    samples: Samples

    def __repr__(self) -> str:
        return f"<Thoughts: {self.items.shape[0]:,} prompts, {len(self.samples.tokens):,} thoughts>"


class ThoughtSearch:
    """Draws thoughts and ranks the items behind each of them.

    Args:
        sampler: draws a thought; its grammar, or a stop token, says where a thought ends.
        search: ranks the items behind a thought; a score is log P(item | prompt, thought) by its own rules.
        merge: what an item's score is, over the thoughts of its prompt: ``best``, the highest; or ``mass``, the
            logarithm of the mean probability, an unbiased estimate of P(item | prompt) = Σ P(thought) P(item |
            thought) (self-consistency, Wang et al. 2023, with probabilities in place of votes).
        end: tokens that close a thought which was cut off by its length.
        behind: tokens between a thought and an item.

    Raises:
        ConfigError: an unknown merge, or sampler and search are of two models.
    """

    def __init__(
        self,
        sampler: Sampler,
        search: BeamSearch,
        *,
        merge: str = "mass",
        end: Sequence[int] = (),
        behind: Sequence[int] = (),
    ) -> None:
        if merge not in MERGES:
            raise ConfigError(f"unknown merge {merge!r}", f"Use one of {', '.join(MERGES)}.")
        if sampler.lm is not search.lm:
            raise ConfigError("sampler and search are of two models", "Make both of the same one.")
        self.sampler, self.search, self.merge = sampler, search, merge
        self.end, self.behind = np.asarray(end, np.int32), np.asarray(behind, np.int32)

    def rank(
        self,
        prompts: TokenRows,
        n: int,
        *,
        k: int,
        seeds: int | Sequence[int] = 0,
        exclude: Sequence[npt.NDArray[np.integer]] | None = None,
        progress: bool = False,
    ) -> Thoughts:
        """The best ``k`` items of each prompt, by ``n`` thoughts.

        Candidates are what the beams find under any thought. Under ``best`` nothing else can be among the first ``k``.
        Under ``mass`` each candidate is scored under the thoughts that didn't find it as well, so that its score is
        the mean over all of them. Equal thoughts are computed once. What a prompt's thoughts begin with, the prompt
        above all, is computed once for all of them.

        Args:
            prompts: ``R`` prompts, up to where a thought begins.
            n: thoughts of each.
            k: how many items to give, at most the search's beams.
            seeds: as in :meth:`itemic.decode.Sampler.sample`.
            exclude: for each prompt the rows of items that it must not get.
            progress: show bars.

        Raises:
            ConstraintError, ConfigError, ModelError: as sampler and search do.
        """
        if exclude is not None and len(exclude) != len(prompts):
            raise ConfigError(
                f"{len(exclude)} lists of excluded items for {len(prompts)} prompts", "Give one for each."
            )
        samples = self.sampler.sample(prompts, n, seeds=seeds, progress=progress)
        items = np.full((len(prompts), k), -1, np.int32)
        scores = np.full((len(prompts), k), -np.inf, np.float32)
        thought = np.full((len(prompts), k), -1, np.int32)
        with progress_bar("ranking", len(prompts) if progress else None) as bar:
            for request in range(len(prompts)):
                own = slice(request * n, (request + 1) * n)
                texts = [self._text(samples, number) for number in range(own.start, own.stop)]
                banned = None if exclude is None else exclude[request]
                found = self._one(prompts[request], texts, k, banned)
                for whole, row in zip((items, scores, thought), found, strict=True):
                    whole[request, : len(row)] = row
                bar.advance()
        return Thoughts(items, scores, thought, samples)

    def _text(self, samples: Samples, number: int) -> tuple[int, ...]:
        """A thought with what stands between it and an item."""
        cut = samples.ended[number] == LENGTH
        parts = [samples.tokens[number], self.end if cut else self.end[:0], self.behind]
        return tuple(np.concatenate(parts).tolist())

    def _one(
        self,
        prompt: Int32,
        texts: list[tuple[int, ...]],
        k: int,
        banned: npt.NDArray[np.integer] | None,
    ) -> tuple[Int32, Float32, Int32]:
        """Items, scores and thoughts of one prompt."""
        first: dict[tuple[int, ...], int] = {}
        count: dict[tuple[int, ...], int] = {}
        for number, text in enumerate(texts):
            first.setdefault(text, number)
            count[text] = count.get(text, 0) + 1
        rows = TokenRows.of([[*prompt.tolist(), *text] for text in first])
        exclude = None if banned is None else [banned] * len(first)
        found, score = self.search.rank(rows, k=k, exclude=exclude)
        item = np.unique(found[found >= 0])
        if not len(item):
            return np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int32)
        every = np.full((len(first), len(item)), -np.inf)  # log P(item | thought)
        row, place = np.nonzero(found >= 0)
        every[row, np.searchsorted(item, found[row, place])] = score[row, place]
        if self.merge == "mass":
            unknown = [np.flatnonzero(np.isneginf(line)) for line in every]
            others = self.search.score(rows, [item[some] for some in unknown])
            for line, some, values in zip(every, unknown, others, strict=True):
                line[some] = values
            share = np.log(np.array(list(count.values())) / len(texts))
            total = np.logaddexp.reduce(every + share[:, None], axis=0)
        else:
            total = every.max(axis=0)
        order = np.lexsort((item, -total))[:k]
        by = np.array(list(first.values()))[every[:, order].argmax(axis=0)]
        return item[order].astype(np.int32), total[order].astype(np.float32), by.astype(np.int32)
