"""Which rows are shown more often and which losses count for more, by the items that they teach.

What a row teaches is read off its tokens: the items that its supervised part names, found by the trie of all names, so
it doesn't matter who made a conversation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError, DataError
from itemic.forest.rows import Float32, Int64, TokenRows
from itemic.model.model import Model
from itemic.sid.trie import Trie
from itemic.training.language.stage import Balance, ItemWeights, Stage
from itemic.training.language.stream import Float64, RowTimes, TrainingRows

DAY = 86_400_000  # milliseconds


@dataclass(frozen=True)
class Taught:
    """The items that the supervised parts of rows name, in the order of the tokens. Items of one name are one.

    Attributes:
        row: int64 ``[M]``.
        begin: int64 ``[M]``, the first token of the name.
        stop: int64 ``[M]``, one past its last token.
        name: int64 ``[M]``, equal for equal names, from 0.
    """

    row: Int64
    begin: Int64
    stop: Int64
    name: Int64

    def __len__(self) -> int:
        return len(self.row)


def weighed(data: TrainingRows, model: Model, stage: Stage) -> TrainingRows:
    """Rows with what ``data.balance`` and ``objective.weights`` say of them; where a stage says nothing, as they are.

    Raises:
        ConfigError: the model knows no items.
        DataError: no row teaches an item, or one names more items than it has times.
    """
    balance, weights = stage.data.balance, stage.objective.weights
    if balance is None and weights is None:
        return data
    if not len(model.index):
        raise ConfigError(
            "data.balance and objective.weights are about items, and the model knows codes alone",
            "Leave them out, or give it an index with items.",
        )
    taught = taught_items(data.rows, Trie.build(model.item_rows))
    if not len(taught):
        raise DataError(
            "no conversation has an item in what it teaches",
            "Leave data.balance and objective.weights out, or add a task that answers with items.",
        )
    if balance is not None:
        data = replace(data, draws=row_draws(data, taught, balance))
    if weights is not None:
        shown = np.array([stage.data.sources.get(name, 1.0) for name in data.names])[data.sources]
        if data.draws is not None:
            shown = shown * data.draws
        data = replace(data, worth=token_worth(data, taught, weights, shown, stage.data.overlong))
    return data


def taught_items(rows: TokenRows, trie: Trie) -> Taught:
    """Where the supervised parts of rows name items: names whose last token has weight."""
    if rows.weights is None:
        raise ValueError("rows without weights teach nothing")
    starts = trie.children(np.zeros(1, np.int64))[0]
    loud = np.asarray(rows.weights) > 0
    near = loud.copy()
    near[:-1] |= loud[1:]  # a row's first token may have no weight, and begin a name
    begin = np.flatnonzero(np.isin(rows.tokens, starts) & near)
    row = np.searchsorted(rows.offsets, begin, "right") - 1
    at, node = begin.copy(), np.zeros(len(begin), np.int32)
    found: list[Int64] = []
    stops: list[Int64] = []
    nodes: list[Int64] = []
    open_ = np.arange(len(begin))
    while len(open_):
        open_ = open_[at[open_] < rows.offsets[row[open_] + 1]]
        node[open_] = trie.step(node[open_], rows.tokens[at[open_]])
        at[open_] += 1
        open_ = open_[node[open_] >= 0]
        ends = trie.terminal[node[open_]]
        done = open_[ends]
        found.append(done)
        stops.append(at[done])
        nodes.append(node[done].astype(np.int64))
        open_ = open_[~ends]
    which = np.concatenate([np.zeros(0, np.int64), *found])
    stop, ended = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (stops, nodes))
    order = np.argsort(begin[which], kind="stable")
    order = order[loud[stop[order] - 1]]
    which = which[order]
    name = np.unique(ended[order], return_inverse=True)[1].astype(np.int64)
    return Taught(row[which], begin[which], stop[order], name)


def row_draws(data: TrainingRows, taught: Taught, balance: Balance) -> Float64:
    """How often an epoch shows each row: float64 ``[R]``, 1 on average over each source.

    In proportion to the mean, over the items that it teaches, of how often its source teaches them, to the power of
    ``-power``; 1 for a row that teaches none.
    """
    source = data.sources[taught.row].astype(np.int64)
    key = source * (int(taught.name.max()) + 1) + taught.name
    _, place, count = np.unique(key, return_inverse=True, return_counts=True)
    rare = count.astype(np.float64)[place] ** -balance.power
    items = np.bincount(taught.row, minlength=len(data.rows))
    mean = np.bincount(taught.row, rare, minlength=len(data.rows)) / np.maximum(items, 1)
    draws = np.ones(len(data.rows))
    for number in range(len(data.names)):
        mine = np.flatnonzero((data.sources == number) & (items > 0))
        draws[mine] = levelled(mean[mine], np.ones(len(mine)), balance.most)
    return draws


def token_worth(
    data: TrainingRows, taught: Taught, weights: ItemWeights, shown: Float64, overlong: str
) -> Float32:
    """What each token's loss is multiplied by: float32 ``[T]``, 1 for what is no item's.

    Args:
        data: the rows.
        taught: what they teach.
        weights: how.
        shown: float64 ``[R]``, how often an epoch shows each row on average, by which items are counted.
        overlong: what became of rows that were too long, which says what items a row has lost.
    """
    often = shown[taught.row]
    count = np.bincount(taught.name, often)
    rare = np.maximum(count, 1e-12)[taught.name] ** -weights.frequency
    each = np.zeros(len(taught))
    seen = often > 0
    each[seen] = levelled(rare[seen], often[seen], weights.most)
    if weights.half_life is not None and data.times is not None:
        each *= 2.0 ** (-_ages(taught, data.times, overlong) / weights.half_life)
    worth = np.ones(len(data.rows.tokens), np.float32)
    lengths = taught.stop - taught.begin
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    worth[np.repeat(taught.begin, lengths) + inside] = np.repeat(each, lengths)
    return worth


def levelled(values: Float64, often: Float64, most: float) -> Float64:
    """``min(most, k * values)`` with the ``k`` that makes its mean, weighed by ``often``, 1.

    Args:
        values: float64 ``[n]``, above 0.
        often: float64 ``[n]``, above 0.
        most: 1 or more.
    """
    if not len(values) or (values == values[0]).all():
        return np.ones(len(values))
    order = np.argsort(-values)
    value, share = values[order], often[order] / often.sum()
    # with the first j at their most, the others share what is left
    capped = np.concatenate([[0.0], np.cumsum(share)[:-1]])
    rest = np.cumsum((share * value)[::-1])[::-1]
    scale = (1 - most * capped) / rest
    first = np.flatnonzero(scale * value <= most)  # the first that needs no bound
    if not len(first):
        return np.ones(len(values))
    found: npt.NDArray[np.float64] = np.minimum(most, scale[first[0]] * values)
    return found


def _ages(taught: Taught, times: RowTimes, overlong: str) -> Float64:
    """Days of each taught item before the newest, float64 ``[M]``; 0 where nobody knows."""
    said = np.diff(times.offsets)
    here = np.bincount(taught.row, minlength=len(said))
    extra = np.flatnonzero((said > 0) & (here > said))
    if len(extra):
        raise DataError(
            f"row {extra[0]} teaches {here[extra[0]]} items and has times of {said[extra[0]]}",
            "Write a time for each item that a conversation teaches, or none.",
        )
    place = np.arange(len(taught)) - (np.cumsum(here) - here)[taught.row]
    lost = 0 if overlong == "keep-start" else (said - here)[taught.row]  # what was cut stood first
    known = said[taught.row] > 0
    at = times.offsets[:-1][taught.row] + place + lost
    when = times.values[np.where(known, at, 0)]
    return np.where(known, (int(times.values.max()) - when) / DAY, 0.0)
