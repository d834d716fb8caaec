"""The order of training: which rows an epoch sees, in which block, in which step. A function of the seed
alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from itemic.errors import ConfigError
from itemic.forest.build import TokenForest, build_forest, chain_forest
from itemic.forest.pack import plan_blocks, plan_rows
from itemic.forest.rows import Float32, Int32, Int64, TokenRows
from itemic.model.positions import learned_positions
from itemic.training.language.stage import Stage
from itemic.training.steps import Ahead, Sizes, Step, StepSource

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowTimes:
    """When the items that rows teach were taken, in the order in which a conversation says them. A row that was cut may
    have fewer of these items.

    Attributes:
        offsets: int64 ``[R + 1]``.
        values: int64, milliseconds since 1970; of row ``r`` they are ``values[offsets[r]:offsets[r + 1]]``, none where
            a conversation doesn't say.
    """

    offsets: Int64
    values: Int64


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
        times: when their items were taken; None where nobody asked.
        draws: float64 ``[R]``, how often an epoch shows each row on average, 1 over each source's rows; None for once.
        worth: float32 ``[T]``, by which weights are multiplied once they are normalised; None for 1.
    """

    rows: TokenRows
    groups: Int64
    sources: Int32
    names: tuple[str, ...] = ("all",)
    digest: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    times: RowTimes | None = None
    draws: Float64 | None = None
    worth: Float32 | None = None


class ConversationSteps(StepSource, Protocol):
    """Steps of forests from conversations: :class:`KeptRows`, or :class:`itemic.training.language.feed.Feed`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The sources of the conversations."""

    @property
    def digest(self) -> str:
        """Names the data and how they are encoded."""

    @property
    def notes(self) -> dict[str, Any]:
        """What was read, dropped and shortened, by rule."""


def forest_sizes(forests: Sequence[TokenForest]) -> Sizes:
    """How much a step's blocks are. Its counts are

    - ``tokens``: forest tokens;
    - ``row_tokens``: tokens of the rows, before sharing;
    - ``targets``: tokens with weight;
    - ``parents``: tokens that those are predicted from;
    - ``pairs``: tokens and what they see, themselves included: what attention computes.
    """
    return Sizes(
        float(sum(forest.weight.sum(dtype=np.float64) for forest in forests)),
        len(forests),
        {
            "tokens": sum(len(forest) for forest in forests),
            "row_tokens": sum(forest.row_tokens for forest in forests),
            "targets": sum(int(np.count_nonzero(forest.weight)) for forest in forests),
            "parents": sum(len(np.unique(forest.parent[forest.weight != 0])) for forest in forests),
            "pairs": sum(int(forest.position.sum(dtype=np.int64)) + len(forest) for forest in forests),
        },
    )


def sample_rows(
    data: TrainingRows, weights: dict[str, float], rng: np.random.Generator
) -> tuple[Int64, Int64]:
    """The rows of one epoch, and their groups: a source of weight 2.25 comes with all its groups twice and a
    fresh quarter of them once more. Copies are groups of their own, so that they are learned from at
    different times. Where rows have ``draws``, so many of these rows are drawn anew.

    Raises:
        ConfigError: a weight names a source that isn't there, or nothing is left.
    """
    check_sources(weights, data.names)
    copies = draw_copies(data.groups, data.sources, data.names, weights, rng)
    if data.draws is not None:
        copies = redraw(copies, data.draws, data.sources, rng.spawn(1)[0])  # the other draws stay as they are
    chosen, groups = repeat_rows(copies, data.groups)
    if not len(chosen):
        raise ConfigError(
            "no conversation is left to train on", "Raise the weights in data.sources, or build more."
        )
    return chosen, groups


def check_sources(weights: dict[str, float], names: tuple[str, ...]) -> None:
    """
    Raises:
        ConfigError: a weight names a source that isn't there.
    """
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ConfigError(
            f"data.sources names {', '.join(unknown)}, which no conversation has",
            f"There are: {', '.join(names)}.",
        )


def draw_copies(
    groups: Int64, sources: Int32, names: tuple[str, ...], weights: dict[str, float], rng: np.random.Generator
) -> Int64:
    """How often each row comes, int64 ``[R]``: the whole part of its source's weight, and once more for a
    share of the groups as large as the rest."""
    whole, rest = np.divmod(np.array([weights.get(name, 1.0) for name in names]), 1)
    lot = rng.random(int(groups.max(initial=-1)) + 1)[groups]  # one for all rows of a group
    return whole[sources].astype(np.int64) + (lot < rest[sources])


def redraw(copies: Int64, draws: Float64, sources: Int32, rng: np.random.Generator) -> Int64:
    """As many rows of each source as there were, each row as often as its ``draws`` say: int64 ``[R]``.

    The sampling is systematic: each row comes the whole part of what is expected of it, or once more, and exactly what
    is expected on average.
    """
    expected = copies * draws
    before, after = (np.bincount(sources, each) for each in (copies, expected))
    expected *= (before / np.where(after > 0, after, 1))[sources]
    order = np.lexsort((rng.random(len(copies)), sources))
    edges = np.floor(np.cumsum(expected[order]) + rng.random())
    found = np.zeros(len(copies), np.int64)
    found[order] = np.diff(edges, prepend=0).astype(np.int64)
    return found


def repeat_rows(copies: Int64, groups: Int64) -> tuple[Int64, Int64]:
    """Row numbers, each as often as ``copies`` says, and their groups; copies are groups of their own."""
    chosen = np.repeat(np.arange(len(copies)), copies)
    first = np.concatenate([[0], np.cumsum(copies)])[:-1]
    copy = np.arange(len(chosen)) - np.repeat(first, copies)
    return chosen, groups[chosen] + copy * (int(groups.max(initial=-1)) + 1)


def plan_epoch(data: TrainingRows, stage: Stage, seed: int, epoch: int) -> list[list[Int64]]:
    """The steps of an epoch, each a list of blocks, each the numbers of its rows.

    Blocks are spread over the steps evenly, so no step of an epoch is a small remainder.
    """
    rng = np.random.default_rng([seed, epoch])
    chosen, groups = sample_rows(data, stage.data.sources, rng)
    all_once = len(chosen) == len(data.rows) and bool((chosen == np.arange(len(chosen))).all())
    rows = data.rows if all_once else data.rows.take(chosen)
    if stage.data.packing == "forest":
        plan = plan_blocks(rows, groups, stage.data.planned_block, rng)
    else:
        plan = plan_rows(rows, stage.data.planned_block if stage.data.packing == "blocks" else 0, rng)
    blocks = [chosen[block] for block in plan]
    if (
        stage.data.packing == "none"
    ):  # rows are of any length, so a step is so many tokens, not so many blocks
        tokens = np.cumsum([rows.lengths[block].sum() for block in plan])
        count = max(1, round(int(tokens[-1]) / stage.data.tokens_per_step))
        inner = np.searchsorted(tokens, tokens[-1] * np.arange(1, count) / count, "right")
        edges = np.unique(np.concatenate([[0], inner, [len(blocks)]]))
    else:
        count = max(1, round(len(blocks) / stage.data.blocks_per_step))
        edges = np.arange(count + 1) * len(blocks) // count
    return [blocks[begin:stop] for begin, stop in pairwise(edges.tolist())]


def block_forest(data: TrainingRows, block: Int64, normalizer: str, packing: str = "forest") -> TokenForest:
    """A block's forest; under the ``row`` normalizer each row's weights are scaled to sum to 1 first.

    Its rows share their beginnings under ``packing: forest`` alone. What a row's items are worth is no part of what is
    scaled.

    Where there are several sources, the forest tells their shares of the weights.
    """
    rows = data.rows.take(block)
    if normalizer == "row":
        rows = TokenRows(rows.tokens, rows.offsets, row_weights(rows))
    if data.worth is not None and rows.weights is not None:
        worth = TokenRows(data.rows.tokens, data.rows.offsets, data.worth).take(block).weights
        assert worth is not None
        rows = TokenRows(rows.tokens, rows.offsets, rows.weights * worth)
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
            forests = tuple(
                block_forest(data, block, stage.objective.normalizer, stage.data.packing) for block in own
            )
            last = at + 1 == len(plan)
            state = {"epoch": epoch + last, "index": 0 if last else at + 1}
            yield Step(
                forests, forest_sizes(forests), state, Ahead(epoch + last, epoch + (at + 1) / len(plan))
            )
        epoch, index = epoch + 1, 0


@dataclass(frozen=True)
class KeptRows:
    """Steps from rows that are all at hand. Every rank plans the same epochs and takes every ``size``-th block."""

    data: TrainingRows
    stage: Stage
    seed: int = 0

    @classmethod
    def of(cls, lm: PreTrainedModel, data: TrainingRows, stage: Stage, seed: int = 0) -> Self:
        """For a model whose learned positions may end; :func:`itemic.train` cuts rows there.

        Raises:
            ConfigError: a row is longer.
        """
        room, longest = learned_positions(lm), int(data.rows.lengths.max(initial=0))
        if room is not None and longest > room:
            raise ConfigError(
                f"a row has {longest} tokens, the model's positions end at {room}",
                f"Set data.max_length to {room}.",
            )
        return cls(data, stage, seed)

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.names

    @property
    def digest(self) -> str:
        return self.data.digest

    @property
    def notes(self) -> dict[str, Any]:
        return self.data.notes

    def total_steps(self) -> int:
        """Epochs may differ by a step or so; the first tells."""
        if self.stage.steps is not None:
            return self.stage.steps
        return len(plan_epoch(self.data, self.stage, self.seed, 0)) * int(self.stage.epochs or 1)

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        """Endless, from the position on that ``state`` names."""
        begin = state or {"epoch": 0, "index": 0}
        return steps(self.data, self.stage, self.seed, begin["epoch"], begin["index"], rank=rank, size=size)

    def merged(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """All ranks are at the same step."""
        return states[0]
