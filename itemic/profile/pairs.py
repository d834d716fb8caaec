"""Profiles and the items that were right for them, and the steps in which an embedder learns from them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.profile.contrastive import PairBlock
from itemic.profile.embedder import Embedder, Ready
from itemic.profile.find import Int64, ItemVectors
from itemic.profile.settings import EmbedderStage
from itemic.progress import log
from itemic.teacher.rows import ItemRows
from itemic.training.steps import Ahead, Sizes, Step


@dataclass(frozen=True)
class Written:
    """Profiles as they were written, and what they are for.

    Attributes:
        texts: one a profile.
        targets: int ``[n]``, of each the row of the item that was right.
        seen: of each the items that it was written from.
    """

    texts: Sequence[str]
    targets: npt.NDArray[np.integer]
    seen: ItemRows

    def __len__(self) -> int:
        return len(self.texts)

    def check(self, items: int) -> None:
        """Make sure that it fits together.

        Raises:
            ConfigError: there is not one of each, or there is no such item.
        """
        if not len(self.texts) == len(self.targets) == len(self.seen):
            raise ConfigError(
                f"{len(self.texts)} profiles, {len(self.targets)} targets and {len(self.seen)} rows of seen items",
                "Give one of each.",
            )
        for rows in (self.targets, self.seen.items):
            if len(rows) and (rows.min() < 0 or rows.max() >= items):
                raise ConfigError(
                    f"rows of items go from {rows.min()} to {rows.max()}, and there are {items} items",
                    "Give rows of the catalogue that the texts are of.",
                )


@dataclass(frozen=True)
class Pairs:
    """What is learned from, as tokens.

    Attributes:
        profiles: of ``n`` profiles, each with words.
        items: of the whole catalogue.
        targets: int64 ``[n]``, and so are all items here: the first row that has the item's text.
        seen: of each profile.
        negatives: int64 ``[n, h]``, -1 for none.
        left_out: profiles, or targets, without words.
    """

    profiles: TokenRows
    items: TokenRows
    targets: Int64
    seen: ItemRows
    negatives: Int64
    pad: int
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def of(
        cls,
        embedder: Embedder,
        written: Written,
        item_texts: Sequence[str],
        negatives: npt.NDArray[np.integer] | None = None,
    ) -> Pairs:
        """Tokens of profiles and items; those without words are left out, and counted.

        Args:
            embedder: has the tokenizer.
            written: the profiles.
            item_texts: of the whole catalogue.
            negatives: of each profile further items for its batch, ``[n, h]``, -1 for none; those that are right or
                seen don't count.

        Raises:
            ConfigError: what is given doesn't fit together, or nothing is left.
        """
        written.check(len(item_texts))
        first: dict[str, int] = {}
        alike = np.array([first.setdefault(text, row) for row, text in enumerate(item_texts)], np.int64)
        profiles, items = embedder.tokens(written.texts, "profile"), embedder.tokens(item_texts, "item")
        targets = np.asarray(written.targets, np.int64)
        kept = np.flatnonzero(~profiles.silent & ~items.silent[targets])
        if not len(kept):
            raise ConfigError(
                "there is no profile with words for an item with words", "Write profiles first."
            )
        lost = len(written) - len(kept)
        for count, what in ((profiles.cut, "profiles"), (items.cut, "items")):
            if count:
                log.warning("%d texts of %s were cut to %d tokens", count, what, embedder.max_length)
        if lost:
            log.info(
                "%d of %d profiles, or their targets, have no words and are left out", lost, len(written)
            )
        more = np.full((len(written), 0), -1) if negatives is None else np.asarray(negatives, np.int64)
        more = np.where(more >= 0, alike[more], -1)
        more[(more >= 0) & items.silent[more]] = -1
        seen = written.seen.take(kept)
        return cls(
            profiles.rows.take(kept),
            items.rows,
            alike[targets[kept]],
            ItemRows(alike[seen.items].astype(np.int32), seen.offsets),
            more[kept].astype(np.int64),
            embedder.pad,
            lost,
        )


def hard_negatives(
    items: ItemVectors, profiles: npt.NDArray[np.floating], written: Written, count: int
) -> npt.NDArray[np.int32]:
    """Of each profile the ``count`` items that are found first and are neither right nor seen, int32 ``[n, count]``; -1
    where there are fewer.

    Items with the target's text have its vector, and are told by it.
    """
    k = min(len(items), count + 1)
    found = items.find(profiles, k=k, targets=written.targets, seen=written.seen)
    same = found.items == written.targets[:, None]
    same |= found.scores == found.similarity[:, None]
    order = np.argsort(same, axis=1, kind="stable")
    chosen = np.where(np.take_along_axis(same, order, 1), -1, np.take_along_axis(found.items, order, 1))
    padded = np.full((len(chosen), count), -1, np.int32)
    padded[:, : min(count, k)] = chosen[:, :count]
    return padded


@dataclass(frozen=True)
class PairSteps:
    """Steps of pairs, see :class:`itemic.training.steps.StepSource`.

    An epoch's order is a function of the seed. Its pairs are spread over batches evenly, and the batches over steps;
    of each batch a rank has its part of the profiles and of the columns. Every rank plans the same epochs.

    Attributes:
        pairs: what is learned from.
        settings: ``data``, ``epochs`` and ``steps``.
        seed: of the order.
    """

    pairs: Pairs
    settings: EmbedderStage
    seed: int = 0

    @property
    def batches_per_epoch(self) -> int:
        return max(1, round(len(self.pairs) / self.settings.data.pairs_per_batch))

    @property
    def steps_per_epoch(self) -> int:
        together = max(1, round(self.settings.data.pairs_per_step / self.settings.data.pairs_per_batch))
        return -(-self.batches_per_epoch // together)

    def total_steps(self) -> int:
        if self.settings.steps is not None:
            return self.settings.steps
        return int(self.settings.epochs or 1) * self.steps_per_epoch

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        """Without end, from the place on that ``state`` names.

        Raises:
            ConfigError: a batch has fewer profiles than there are ranks.
        """
        least = len(self.pairs) // self.batches_per_epoch
        if least < size:
            raise ConfigError(
                f"batches of {least} profiles for {size} processes",
                "Raise data.pairs_per_batch, or use fewer.",
            )
        begin = state or {"epoch": 0, "index": 0}
        epoch, index, count = int(begin["epoch"]), int(begin["index"]), self.steps_per_epoch
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.pairs)).astype(np.int64)
            batches = np.array_split(order, self.batches_per_epoch)
            edges = np.arange(count + 1) * len(batches) // count
            for at in range(index, count):
                chosen = batches[edges[at] : edges[at + 1]]
                blocks = tuple(self.block(batch, rank, size) for batch in chosen)
                last = at + 1 == count
                state = {"epoch": epoch + last, "index": 0 if last else at + 1}
                yield Step(blocks, sizes_of(blocks), state, Ahead(epoch + last, epoch + (at + 1) / count))
            epoch, index = epoch + 1, 0

    def block(self, batch: Int64, rank: int = 0, size: int = 1) -> PairBlock:
        """A rank's part of the batch of these pairs."""
        pairs = self.pairs
        rows = np.array_split(batch, size)[rank]
        more = pairs.negatives[batch]
        columns = np.unique(np.concatenate([pairs.targets[batch], more[more >= 0]]))
        parts = np.array_split(columns, size)
        own = parts[rank] if len(parts[rank]) else columns[:1]  # nobody sits a forward pass out
        target = np.searchsorted(columns, pairs.targets[rows])
        barred = np.zeros((len(rows), len(columns)), np.bool_)
        seen = pairs.seen.take(rows)
        place = np.searchsorted(columns, seen.items).clip(max=len(columns) - 1)
        hit = columns[place] == seen.items
        barred[np.repeat(np.arange(len(rows)), seen.lengths)[hit], place[hit]] = True
        barred[np.arange(len(rows)), target] = False  # a target whose text was seen is still what is learned
        return PairBlock(
            Ready.of([pairs.profiles[int(row)] for row in rows], pairs.pad),
            Ready.of([pairs.items[int(row)] for row in own], pairs.pad),
            tuple(map(len, parts)),
            torch.from_numpy(target),
            torch.from_numpy(barred),
        )

    def merged(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """All ranks are at the same step."""
        return states[0]


def sizes_of(blocks: Sequence[PairBlock]) -> Sizes:
    """What some blocks are: each profile counts as one."""
    pairs = sum(map(len, blocks))
    tokens = sum(int(part.mask.sum()) for block in blocks for part in (block.profiles, block.items))
    return Sizes(float(pairs), len(blocks), {"pairs": pairs, "tokens": tokens})
