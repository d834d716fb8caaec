"""The order of training: which rows an epoch sees, in which block, in which step. A function of the seed
alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError
from itemic.forest.build import TokenForest, build_forest, chain_forest
from itemic.forest.pack import plan_blocks, plan_rows
from itemic.forest.rows import Float32, Int32, Int64, TokenRows
from itemic.train.stage import Stage


@dataclass(frozen=True)
class TrainingRows:
    """Conversations as training sees them.

    Attributes:
        rows: ``R`` token rows with weights.
        groups: int64 ``[R]``, equal for rows of one source that share a prefix (a user, a prompt).
        sources: int32 ``[R]``, numbers into ``names``.
        names: the sources.
        digest: of all the arrays.
        notes: what was read, dropped and shortened, by rule.
    """

    rows: TokenRows
    groups: Int64
    sources: Int32
    names: tuple[str, ...] = ("all",)
    digest: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """How much a step is.

    Attributes:
        weight: the sum of all weights: what the step's loss is divided by.
        tokens: forest tokens.
        row_tokens: tokens of the rows, before sharing.
        targets: tokens with weight.
        pairs: tokens and what they see, themselves included: what attention computes.
        blocks: how many blocks.
    """

    weight: float = 0.0
    tokens: int = 0
    row_tokens: int = 0
    targets: int = 0
    pairs: int = 0
    blocks: int = 0

    @classmethod
    def of(cls, forests: Sequence[TokenForest]) -> Sizes:
        return cls(
            weight=float(sum(forest.weight.sum(dtype=np.float64) for forest in forests)),
            tokens=sum(len(forest) for forest in forests),
            row_tokens=sum(forest.row_tokens for forest in forests),
            targets=sum(int(np.count_nonzero(forest.weight)) for forest in forests),
            pairs=sum(int(forest.position.sum(dtype=np.int64)) + len(forest) for forest in forests),
            blocks=len(forests),
        )

    def summed(self, total: Callable[[Sequence[float]], list[float]]) -> Sizes:
        """The sizes over all ranks."""
        weight, *counts = total(astuple(self))
        return Sizes(weight, *(round(count) for count in counts))


@dataclass(frozen=True)
class Step:
    """One optimizer step's data: where it stands, and its blocks.

    Attributes:
        epoch: from 0.
        index: within the epoch, from 0.
        of: steps in the epoch.
        forests: the blocks of this rank.
        rounds: how many blocks the rank with the most of them has.
    """

    epoch: int
    index: int
    of: int
    forests: tuple[TokenForest, ...]
    rounds: int

    @cached_property
    def sizes(self) -> Sizes:
        """Of this rank's blocks."""
        return Sizes.of(self.forests)


def sample_rows(
    data: TrainingRows, weights: dict[str, float], rng: np.random.Generator
) -> tuple[Int64, Int64]:
    """The rows of one epoch, and their groups: a source of weight 2.25 comes with all its groups twice and a
    fresh quarter of them once more. Copies are groups of their own, so that they are learned from at
    different times.

    Raises:
        ConfigError: a weight names a source that isn't there, or nothing is left.
    """
    unknown = sorted(set(weights) - set(data.names))
    if unknown:
        raise ConfigError(
            f"sources names {', '.join(unknown)}, which no conversation has",
            f"There are: {', '.join(data.names)}.",
        )
    times = np.array([weights.get(name, 1.0) for name in data.names])
    whole, rest = np.divmod(times, 1)
    groups = int(data.groups.max(initial=-1)) + 1
    lot = rng.random(groups)[data.groups]  # one for all rows of a group
    copies = whole[data.sources].astype(np.int64) + (lot < rest[data.sources])
    chosen = np.repeat(np.arange(len(copies)), copies)
    if not len(chosen):
        raise ConfigError(
            "no conversation is left to train on", "Raise the weights in sources, or build more."
        )
    first = np.concatenate([[0], np.cumsum(copies)])[:-1]
    copy = np.arange(len(chosen)) - np.repeat(first, copies)
    return chosen, data.groups[chosen] + copy * groups


def plan_epoch(data: TrainingRows, stage: Stage, seed: int, epoch: int) -> list[list[Int64]]:
    """The steps of an epoch, each a list of blocks, each the numbers of its rows.

    Blocks are spread over the steps evenly, so no step of an epoch is a small remainder.
    """
    rng = np.random.default_rng([seed, epoch])
    chosen, groups = sample_rows(data, stage.sources, rng)
    all_once = len(chosen) == len(data.rows) and bool((chosen == np.arange(len(chosen))).all())
    rows = data.rows if all_once else data.rows.take(chosen)
    if stage.packing == "forest":
        plan = plan_blocks(rows, groups, stage.planned_block, rng)
    else:
        plan = plan_rows(rows, stage.planned_block if stage.packing == "blocks" else 0, rng)
    blocks = [chosen[block] for block in plan]
    if stage.packing == "none":  # rows are of any length, so a step is so many tokens, not so many blocks
        tokens = np.cumsum([rows.lengths[block].sum() for block in plan])
        count = max(1, round(int(tokens[-1]) / stage.tokens_per_step))
        inner = np.searchsorted(tokens, tokens[-1] * np.arange(1, count) / count, "right")
        edges = np.unique(np.concatenate([[0], inner, [len(blocks)]]))
    else:
        count = max(1, round(len(blocks) / stage.blocks_per_step))
        edges = np.arange(count + 1) * len(blocks) // count
    return [blocks[begin:stop] for begin, stop in pairwise(edges.tolist())]


def block_forest(data: TrainingRows, block: Int64, normalizer: str, packing: str = "forest") -> TokenForest:
    """A block's forest; under the ``row`` normalizer each row's weights are scaled to sum to 1 first.

    Its rows share their beginnings under ``packing: forest`` alone.

    Where there are several sources, the forest tells their shares of the weights.
    """
    rows = data.rows.take(block)
    if normalizer == "row":
        rows = TokenRows(rows.tokens, rows.offsets, row_weights(rows))
    several = len(data.names) > 1
    build = build_forest if packing == "forest" else chain_forest
    return build(rows, data.sources[block] if several else None, len(data.names))


def row_weights(rows: TokenRows) -> Float32:
    """Weights that sum to 1 over each row; a row's first token, which nothing predicts, has none."""
    if rows.weights is None:
        raise ValueError("rows without weights can't be trained on")
    weights = rows.weights.astype(np.float64)
    full = rows.lengths > 0
    weights[rows.offsets[:-1][full]] = 0
    sums = np.zeros(len(rows))
    sums[full] = np.add.reduceat(weights, rows.offsets[:-1][full]) if full.any() else 0
    scale: npt.NDArray[np.float64] = np.where(sums > 0, 1 / np.where(sums > 0, sums, 1), 0)
    return (weights * np.repeat(scale, rows.lengths)).astype(np.float32)


def steps(
    data: TrainingRows, stage: Stage, seed: int, epoch: int, index: int, *, rank: int = 0, size: int = 1
) -> Generator[Step, None, None]:
    """All steps from a position on, without end; the next one is built while the last one is computed
    with. Of ``size`` ranks each gets every ``size``-th block of a step."""
    with ThreadPoolExecutor(1, thread_name_prefix="forests") as pool:
        plan = _endless(data, stage, seed, epoch, index, rank, size)
        coming = pool.submit(next, plan)
        while True:
            step = coming.result()
            coming = pool.submit(next, plan)
            yield step


def _endless(
    data: TrainingRows, stage: Stage, seed: int, epoch: int, index: int, rank: int, size: int
) -> Iterator[Step]:
    while True:
        plan = plan_epoch(data, stage, seed, epoch)
        for at in range(index, len(plan)):
            own = plan[at][rank::size]
            forests = tuple(block_forest(data, block, stage.normalizer, stage.packing) for block in own)
            yield Step(epoch, at, len(plan), forests, -(-len(plan[at]) // size))
        epoch, index = epoch + 1, 0
