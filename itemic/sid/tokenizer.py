"""The item tokenizer: an index with all that gives semantic IDs to items it has never seen.

A folder that :class:`~itemic.sid.index.ItemIndex` can read too, and beside its files ``encoder.safetensors`` (what
the encoder has learnt, and how well the training items fit the codebooks) and ``tokenizer.json`` (who the encoder is,
the policy for collisions).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.artifact import write_json
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.progress import log
from itemic.sid.codebooks import Codebooks
from itemic.sid.collisions import Coded, resolve
from itemic.sid.drift import Drift, measure_drift, misfit
from itemic.sid.duplicates import duplicate_groups, text_digests
from itemic.sid.index import CODEBOOKS, ItemIndex
from itemic.sid.item_encoder import ItemEncoder
from itemic.sid.vectors import Float32, check_vectors

Int32 = npt.NDArray[np.int32]
UInt64 = npt.NDArray[np.uint64]
HEAD, ENCODER = "tokenizer.json", "encoder.safetensors"
REFERENCE = 4096  # how many of the training items' misfits are kept, evenly spread over their order


@dataclass(frozen=True)
class Assigned:
    """Semantic IDs for new items.

    Attributes:
        tokenizer: with the new items in its index, the old ones first and unchanged.
        new: ids of the new items.
        known: ids that had a semantic ID already.
        moved: new items whose codes are not the nearest ones, because those were taken.
        drift: how the new items fit the codebooks, against the training items; None where there was no new item.
    """

    tokenizer: ItemTokenizer
    new: list[str]
    known: list[str]
    moved: int
    drift: Drift | None

    def __repr__(self) -> str:
        return f"<Assigned: {len(self.new):,} new items, {len(self.known):,} known, {self.moved:,} moved>"

    @property
    def index(self) -> ItemIndex:
        """The semantic IDs of all items."""
        return self.tokenizer.index


@dataclass(frozen=True, eq=False)
class ItemTokenizer:
    """Index, encoder and codebooks that belong together.

    Attributes:
        index: item → semantic ID.
        encoder: items → vectors.
        codebooks: vectors → codes.
        policy: for collisions, a key of :data:`itemic.sid.collisions.COLLISIONS`.
        duplicates: ``apart`` or ``share``.
        reference: float32 ``[≤ 4096]``, rising: misfits of the training items (see :mod:`itemic.sid.drift`).
        texts: uint64 ``[n]``, digests of the items' texts, by which a new duplicate is known.
    """

    index: ItemIndex
    encoder: ItemEncoder
    codebooks: Codebooks
    policy: str = "reassign"
    duplicates: str = "apart"
    reference: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    texts: UInt64 = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __repr__(self) -> str:
        return f"<ItemTokenizer: {self.encoder.name} → {self.codebooks!r} → {self.index!r}>"

    def assign(
        self, items: pl.DataFrame, *, vectors: Float32 | None = None, encoder: ItemEncoder | None = None
    ) -> Assigned:
        """Semantic IDs for items that the index doesn't have; codebooks and old semantic IDs stay as they are.

        Args:
            items: like ``Dataset.items``; ids that are known already keep what they have.
            vectors: float32 ``[len(items), d]`` of the same encoder, where they are computed already.
            encoder: the encoder that made ``vectors``, or is to be used; it must be this tokenizer's own.

        Raises:
            ConfigError: another encoder, or no free semantic ID is left for the policy.
            DataError: an id comes twice, or vectors and items don't fit together.
        """
        if encoder is not None and encoder.identity != self.encoder.identity:
            raise ConfigError(
                f"the items are encoded by {_differing(encoder.identity, self.encoder.identity)}",
                "Encode new items with the encoder that the codebooks were made with, or build the semantic IDs again.",
            )
        ids = items[c.ITEM_ID].to_list()
        if len(set(ids)) != len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise DataError(f"item {twice!r} comes twice among the new items", "Give every item once.")
        there = set(self.index.item_ids)
        fresh = np.array([name not in there for name in ids], bool)
        new = [name for name, is_new in zip(ids, fresh.tolist(), strict=True) if is_new]
        known = [name for name in ids if name in there]
        if not new:
            return Assigned(self, [], known, 0, None)
        if vectors is not None and len(vectors) != len(items):
            raise DataError(f"{len(vectors)} vectors for {len(items)} items", "Give one row an item.")
        table = (
            self.encoder.transform(items.filter(fresh)) if vectors is None else check_vectors(vectors)[fresh]
        )
        unknown = items.filter(fresh)
        codes, moved = self._place(unknown, table)
        after = replace(
            self,
            index=self._with(unknown, codes),
            texts=np.concatenate([self.texts, text_digests(unknown)]),
        )
        plain = self.codebooks.assign(table)
        drift = measure_drift(self.reference, misfit(self.codebooks, table, plain), new)
        log.info("%d new items, %d not at their nearest codes; %s", len(new), moved, drift.line)
        return Assigned(after, new, known, moved, drift)

    def _place(self, items: pl.DataFrame, vectors: Float32) -> tuple[Int32, int]:
        plain = self.codebooks.assign(vectors)
        books = self.codebooks
        coded = Coded(plain, books.sizes, books.latent(vectors), books.books, self.index.codes)
        if self.duplicates == "share":
            return self._place_sharing(items, coded)
        codes, needed, moved = resolve(coded, self.policy)
        self._check_sizes(needed)
        return codes, moved

    def _place_sharing(self, items: pl.DataFrame, coded: Coded) -> tuple[Int32, int]:
        """Items with the text of an old one take its semantic ID; those with the same text among them share one."""
        old = {digest: row for row, digest in enumerate(self.texts.tolist()) if digest}
        twin = np.array([old.get(digest, -1) for digest in text_digests(items).tolist()], np.int64)
        codes = np.zeros((len(items), self.index.levels), np.int32)
        codes[twin >= 0] = self.index.codes[twin[twin >= 0]]
        rest = np.flatnonzero(twin < 0)
        if not len(rest):
            return codes, 0
        assert coded.vectors is not None
        part = replace(coded, codes=coded.codes[rest], vectors=coded.vectors[rest])
        alike = np.unique(duplicate_groups(items)[rest], return_inverse=True)[1].astype(np.int64)
        codes[rest], needed, moved = resolve(part, self.policy, alike)
        self._check_sizes(needed)
        return codes, moved

    def _check_sizes(self, needed: tuple[int, ...]) -> None:
        if len(needed) > self.codebooks.levels and needed[-1] > self.index.sizes[-1]:
            raise ConfigError(
                f"the level that counts items has {self.index.sizes[-1]} codes, {needed[-1]} are needed",
                "Build the semantic IDs again, or with collisions 'reassign', which needs no such level.",
            )

    def _with(self, items: pl.DataFrame, codes: Int32) -> ItemIndex:
        old, new = self.index, items[c.ITEM_ID].to_list()
        titles = None if old.titles is None else [*old.titles, *items[c.TITLE].fill_null("").to_list()]
        history = [*old.origin.get("assigned", []), {"items": len(new), "after": old.digest}]
        return ItemIndex(
            [*old.item_ids, *new],
            np.concatenate([old.codes, codes]),
            old.sizes,
            old.format,
            old.origin | {"assigned": history},
            old.codebooks,
            titles,
        )

    # ------------------------------------------------------------------- files

    def save(self, folder: str | Path) -> None:
        """Write the index's files, the codebooks with their space, the encoder and, last, ``tokenizer.json``."""
        from safetensors.numpy import save_file

        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        (root / HEAD).unlink(missing_ok=True)
        self.index.save(root)
        self.codebooks.save(root / CODEBOOKS)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.encoder.state.items()}
        save_file(arrays | {"reference": self.reference, "texts": self.texts}, root / ENCODER)
        head = {
            "digest": self.index.digest,
            "encoder": {
                "name": self.encoder.name,
                "options": self.encoder.all_options,
                "seed": self.encoder.seed,
            },
            "identity": self.encoder.identity,
            "collisions": self.policy,
            "duplicates": self.duplicates,
        }
        write_json(root / HEAD, head)

    @classmethod
    def load(cls, folder: str | Path) -> ItemTokenizer:
        """Read what :meth:`save` wrote.

        Raises:
            IndexMismatchError: a file is missing, broken or of another index, or the encoder is no longer the same.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        root = Path(folder)
        index = ItemIndex.load(root)
        if not (root / HEAD).is_file():
            raise IndexMismatchError(
                f"{root} holds semantic IDs, but not the encoder that new items need",
                "Build them with `itemic sid build`; imported semantic IDs can't be assigned to new items.",
            )
        try:
            head = json.loads((root / HEAD).read_text(encoding="utf-8"))
            state = load_file(root / ENCODER)
            reference, texts = state.pop("reference"), state.pop("texts")
            about = head["encoder"]
            encoder = ItemEncoder(about["name"], about["options"], seed=about["seed"])
            encoder.restore(state)
            parts = (index, encoder, Codebooks.load(root / CODEBOOKS), head["collisions"], head["duplicates"])
            digest, identity = head["digest"], head["identity"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise IndexMismatchError(
                f"{root} is not an item tokenizer: {error}", "Restore the folder, or build it again."
            ) from error
        if digest != index.digest:
            raise IndexMismatchError(
                f"{root / HEAD} belongs to index {digest}, the folder holds {index.digest}",
                "Restore the folder from where it was copied, or build it again.",
            )
        if encoder.identity != identity:
            raise IndexMismatchError(
                f"the encoder of {root} has changed: it is {_differing(encoder.identity, identity)}",
                "Restore the encoder's model that the semantic IDs were made with, or build them again.",
            )
        return cls(*parts, reference, texts)


def _differing(mine: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> str:
    """The first difference between two identities, in words."""
    for key in sorted(set(mine) | set(theirs)):
        a, b = mine.get(key), theirs.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            return _differing(a, b, f"{path}{key}.")
        return f"another encoder ({path}{key} is {a!r}, the tokenizer's {b!r})"
    return "the same encoder"
