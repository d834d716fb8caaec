"""The item index: which tokens name which item. It travels with every model in the folder ``sid/``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.artifact import write_json
from itemic.errors import IndexMismatchError
from itemic.forest.rows import TokenRows
from itemic.sid.format import TokenFormat, token_format
from itemic.sid.lookup import look_up
from itemic.sid.names import HEAD, KIND, REBUILD, ItemNames, NamePatterns, read_head
from itemic.sid.prefixes import Prefixes

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

ITEMS, CODEBOOKS = "items.parquet", "codebooks.safetensors"


@dataclass(frozen=True)
class CollisionStats:
    """How many items share their semantic ID.

    Attributes:
        items: items in all.
        sids: distinct semantic IDs.
        collided: items that share theirs with another item.
        largest: items of the most crowded semantic ID.
    """

    items: int
    sids: int
    collided: int
    largest: int

    @property
    def rate(self) -> float:
        """The collision rate of the papers: ``1 - sids / items``; 0 without items."""
        return 1.0 - self.sids / self.items if self.items else 0.0


@dataclass(frozen=True, eq=False)
class ItemIndex(ItemNames):
    """One semantic ID per item.

    An index without items is a code space alone: its tokens can be learned from conversations that others made,
    but nothing can be ranked with it.

    Attributes:
        item_ids: ids of the ``n`` items; their order is the dataset's (an item's *row*). May be empty.
        codes: int32 ``[n, L]``, read-only.
        sizes: codes per level, ``0 <= codes[:, l] < sizes[l]``.
        format: name of the token format, a key of :data:`itemic.sid.format.TOKEN_FORMATS`.
        origin: where the codes come from (encoder, quantizer, collision policy, seed, file …), plain JSON.
        codebooks: float32 ``[sizes[l], d]`` for the first levels, or None where they are unknown; a level
            that only counts items with equal codes has none.
        titles: of the items, by row, so that a model's folder can say what it recommends; None where they
            are unknown. They don't count in the digest.

    Raises:
        IndexMismatchError: the parts contradict each other.
    """

    kind: ClassVar[str] = "sid"
    word: ClassVar[str] = "semantic ID"

    item_ids: list[str]
    codes: Int32
    sizes: tuple[int, ...]
    format: str = "onerec"
    origin: dict[str, Any] = field(default_factory=dict)
    codebooks: list[Float32] | None = None
    titles: list[str] | None = None

    def __post_init__(self) -> None:
        token_format(self.format)
        codes = np.array(self.codes, np.int32)
        codes.flags.writeable = False
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        object.__setattr__(self, "item_ids", list(self.item_ids))
        for fault in self._faults():
            raise IndexMismatchError(f"the item index is broken: {fault}", REBUILD)

    def _faults(self) -> Iterator[str]:
        n, levels = len(self.item_ids), len(self.sizes)
        if not levels:
            yield "it has no levels"
        elif min(self.sizes) < 1:
            yield f"its levels have {list(self.sizes)} codes"
        elif self.codes.shape != (n, levels):
            yield f"{n} items with {levels} levels have codes of the shape {list(self.codes.shape)}"
        elif len(set(self.item_ids)) != n:
            yield "an item id comes twice"
        elif self.titles is not None and len(self.titles) != n:
            yield f"{n} items have {len(self.titles)} titles"
        elif (outside := (self.codes < 0) | (self.codes >= np.array(self.sizes))).any():
            row, level = (int(part[0]) for part in np.nonzero(outside))
            code, size = int(self.codes[row, level]), self.sizes[level]
            yield f"item {self.item_ids[row]!r} has code {code} at level {level}, which has {size} codes"
        for level, book in enumerate(self.codebooks or []):
            if level >= levels or book.ndim != 2 or len(book) != self.sizes[level]:
                yield f"the codebook of level {level} has the shape {list(book.shape)}"

    @classmethod
    def of_codes(cls, sizes: Sequence[int], format: str = "onerec") -> ItemIndex:
        """The codes alone, with no items."""
        empty = np.zeros((0, len(sizes)), np.int32)
        return cls([], empty, tuple(sizes), format, {"codes": "alone, without items"})

    @property
    def codes_digest(self) -> str:
        """The digest of the same codes without any items: equal where two indexes have the same tokens."""
        return self.digest if not len(self) else ItemIndex.of_codes(self.sizes, self.format).digest

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        sizes = " × ".join(f"{size:,}" for size in self.sizes)
        return f"<ItemIndex: {len(self):,} items, {sizes} codes, format {self.format}>"

    @property
    def levels(self) -> int:
        """Codes per semantic ID."""
        return len(self.sizes)

    @property
    def token_format(self) -> TokenFormat:
        return token_format(self.format)

    def with_titles(self, items: pl.DataFrame) -> ItemIndex:
        """The same index with the titles of ``Dataset.items``, whose order must be its own."""
        return replace(self, titles=items[c.TITLE].fill_null("").to_list())

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the SHA-256 of format, sizes, ids and codes: what a model must agree with."""
        head = [self.format, list(self.sizes), self.item_ids]
        total = hashlib.sha256(json.dumps(head, ensure_ascii=False).encode())
        total.update(self.codes.astype("<i4").tobytes())
        return total.hexdigest()[:16]

    # ------------------------------------------------------------------ text

    @property
    def tokens(self) -> list[str]:
        """Every token the index needs, in a vocabulary's order: by level, then begin, end, extra ones."""
        return self.token_format.tokens(self.sizes)

    def text(self, row: int) -> str:
        """The semantic ID of the item in that row."""
        return self.texts[row]

    def examples(self, count: int) -> list[str]:
        """Semantic IDs to look at: the first items', or of the lowest codes where there are no items."""
        if len(self):
            return self.texts[:count]
        rows = range(min(count, *self.sizes))
        return [self.token_format.text([row] * self.levels, self.sizes) for row in rows]

    @cached_property
    def texts(self) -> list[str]:
        """The semantic IDs of all items."""
        form = self.token_format
        tables = form.level_tokens(self.sizes)
        begin, end = form.begin or "", form.end or ""
        columns = [
            [table[code] for code in self.codes[:, level].tolist()] for level, table in enumerate(tables)
        ]
        return [f"{begin}{''.join(parts)}{end}" for parts in zip(*columns, strict=True)]

    def parse(self, text: str) -> Int32 | None:
        """The codes int32 ``[L]`` of a well-formed semantic ID, an item's or not; None for other text."""
        codes = self.token_format.parse(text, self.sizes)
        return None if codes is None else np.array(codes, np.int32)

    def find(self, text: str) -> list[tuple[int, int, Int32]]:
        """Every well-formed semantic ID inside a text, as (start, stop, codes)."""
        found = self.token_format.find(text, self.sizes)
        return [(start, stop, np.array(codes, np.int32)) for start, stop, codes in found]

    # ----------------------------------------------------------------- codes

    @cached_property
    def prefixes(self) -> Prefixes:
        """The prefixes of all semantic IDs, numbered."""
        return Prefixes.of(self.codes, self.sizes)

    @property
    def sid_numbers(self) -> Int64:
        """int64 ``[n]``: the number of each item's semantic ID, by its codes; equal where items collide."""
        return self.prefixes.groups[:, -1]

    def rows_of_codes(self, codes: npt.ArrayLike) -> tuple[Int32, Int64]:
        """The items that have the given semantic IDs, or prefixes of semantic IDs.

        Args:
            codes: integers ``[m, p]`` with 1 ≤ p ≤ L, or one row ``[p]``.

        Returns:
            rows int32 and offsets int64 ``[m + 1]``: request ``i`` has ``rows[offsets[i]:offsets[i + 1]]``,
            rising; empty where no item has those codes.
        """
        wanted = np.atleast_2d(np.asarray(codes))
        group = self.prefixes.groups[:, wanted.shape[1] - 1]
        number = self.prefixes.find(wanted)
        order = np.argsort(group, kind="stable")
        start = np.searchsorted(group, number, "left", sorter=order)
        counts = np.searchsorted(group, number, "right", sorter=order) - start
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], counts)
        return order[places].astype(np.int32), offsets

    @cached_property
    def collisions(self) -> CollisionStats:
        if not len(self):
            return CollisionStats(0, 0, 0, 0)
        crowd = np.bincount(self.sid_numbers)
        return CollisionStats(len(self), len(crowd), int(crowd[crowd > 1].sum()), int(crowd.max()))

    # ------------------------------------------------------- the face of all names

    @property
    def name_numbers(self) -> Int64:
        return self.sid_numbers

    def known_titles(self) -> list[str] | None:
        return self.titles

    def named(self, text: str) -> Int32:
        """The rows of the items that have this semantic ID, rising; empty where it is no item's."""
        codes = self.parse(text)
        return np.zeros(0, np.int32) if codes is None else self.rows_of_codes(codes)[0]

    def mentions(self, text: str) -> list[tuple[int, int, Int32]]:
        """Every item's semantic ID inside a text, as (start, stop, rows)."""
        found = ((start, stop, self.rows_of_codes(codes)[0]) for start, stop, codes in self.find(text))
        return [(start, stop, rows) for start, stop, rows in found if len(rows)]

    @cached_property
    def patterns(self) -> NamePatterns:
        """How semantic IDs look inside other text; their numbers are unchecked."""
        form = self.token_format
        shapes = [_shape(form.code(level, 0, self.sizes)) for level in range(self.levels)]
        begin, end = (re.escape(mark or "") for mark in (form.begin, form.end))
        optional = "".join(f"(?:{shape}" for shape in shapes[1:-1]) + ")?" * len(shapes[1:-1])
        marks = [re.escape(mark) for mark in (form.begin, form.end) if mark]
        return NamePatterns(
            name=begin + "".join(shapes) + end,
            prefix=f"{begin}{shapes[0]}{optional}" if self.levels > 1 else None,
            token="|".join([*marks, *dict.fromkeys(shapes)]),
        )

    def start_tokens(self, tokenizer: Any) -> Int32:
        """The token that opens a semantic ID; without one, the codes of the first level."""
        begin = self.token_format.begin
        starts = [begin] if begin else self.tokens[: self.sizes[0]]
        return np.array(tokenizer.convert_tokens_to_ids(starts), np.int32)

    def token_rows(self, tokenizer: Callable[[list[str]], Sequence[int | None]] | Any) -> TokenRows:
        """The token ids that name each item: begin, codes, end.

        Args:
            tokenizer: a Hugging Face tokenizer, or a function from tokens to ids (None for an unknown one).

        Raises:
            IndexMismatchError: a token is unknown to the tokenizer or is not exactly one token there.
        """
        form = self.token_format
        tables = form.level_tokens(self.sizes)
        frame = [token for token in (form.begin, form.end) if token is not None]
        ids = look_up([token for table in tables for token in table] + frame, tokenizer)
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        parts = [ids[starts[:-1] + self.codes]]
        if form.begin is not None:
            parts.insert(0, np.full((len(self), 1), ids[starts[-1]]))
        if form.end is not None:
            parts.append(np.full((len(self), 1), ids[-1]))
        table = np.concatenate(parts, axis=1).astype(np.int32)
        return TokenRows(table.ravel(), np.arange(len(self) + 1, dtype=np.int64) * table.shape[1])

    # ------------------------------------------------------------------- files

    @property
    def table(self) -> pl.DataFrame:
        """``item_id``, ``semantic_id_0`` …, ``semantic_id`` (the text) and, if known, ``title``; one row an item."""
        columns = {f"semantic_id_{level}": self.codes[:, level] for level in range(self.levels)}
        ids, texts = pl.Series(self.item_ids, dtype=pl.String), pl.Series(self.texts, dtype=pl.String)
        table = pl.DataFrame({c.ITEM_ID: ids, **columns, "semantic_id": texts})
        return (
            table if self.titles is None else table.with_columns(pl.Series(c.TITLE, self.titles, pl.String))
        )

    def save(self, folder: str | Path) -> None:
        """Write ``index.json``, ``items.parquet`` and, where there are codebooks, ``codebooks.safetensors``.

        The head is written last: a folder without it is no index, so half a save is never taken for one.
        """
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        (root / HEAD).unlink(missing_ok=True)
        (root / CODEBOOKS).unlink(missing_ok=True)
        self.table.write_parquet(root / ITEMS)
        if self.codebooks is not None:
            from safetensors.numpy import save_file

            books = enumerate(self.codebooks)
            save_file(
                {f"level_{i}": np.ascontiguousarray(book, np.float32) for i, book in books}, root / CODEBOOKS
            )
        head = {"format": self.format, "sizes": list(self.sizes), "items": len(self), "digest": self.digest}
        head["codebooks"] = None if self.codebooks is None else len(self.codebooks)
        write_json(root / HEAD, head | {"origin": self.origin})

    @classmethod
    def load(cls, folder: str | Path) -> ItemIndex:
        """Read a folder that :meth:`save` wrote, bit for bit.

        Raises:
            IndexMismatchError: a file is missing or broken, or the codes are not those that the digest names.
            ArtifactError: a file is not as it was when a command or a run wrote the folder.
        """
        root, head = Path(folder), read_head(folder)
        if (kind := head.get(KIND, cls.kind)) != cls.kind:
            raise IndexMismatchError(
                f"{root} names items by their {kind}s: it has no semantic IDs",
                "Give an index of semantic IDs; `itemic sid` makes one.",
            )
        try:
            sizes = tuple(head["sizes"])
            table = pl.read_parquet(root / ITEMS)
            codes = table.select([f"semantic_id_{level}" for level in range(len(sizes))]).to_numpy()
            books = (
                None if head["codebooks"] is None else _load_codebooks(root / CODEBOOKS, head["codebooks"])
            )
            titles = table[c.TITLE].to_list() if c.TITLE in table.columns else None
            parts = (table[c.ITEM_ID].to_list(), codes, sizes, head["format"], head["origin"], books, titles)
            digest = head["digest"]
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise IndexMismatchError(
                f"{root} is not an item index: {error}", "Make one with `itemic sid`."
            ) from error
        index = cls(*parts)
        if index.digest != digest:
            raise IndexMismatchError(
                f"{root / ITEMS} holds other semantic IDs ({index.digest}) than {HEAD} names ({digest})",
                "Restore the folder from where it was copied, or build the index and the model again.",
            )
        return index


def _load_codebooks(file: Path, count: int) -> list[Float32]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file.name} is broken: {error}") from error
    return [found[f"level_{level}"] for level in range(count)]


def _shape(token: str) -> str:
    """A token's text with its number left open."""
    return re.sub("[0-9]+", "[0-9]+", re.escape(token))
