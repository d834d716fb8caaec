"""Semantic IDs for a catalogue: encode, quantize, resolve collisions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.progress import log
from itemic.sid.collisions import COLLISIONS, Coded, resolve
from itemic.sid.drift import misfit
from itemic.sid.duplicates import DUPLICATES, duplicate_groups, text_digests
from itemic.sid.format import token_format
from itemic.sid.index import ItemIndex
from itemic.sid.item_encoder import ItemEncoder, chosen_encoder, make_part
from itemic.sid.tokenizer import REFERENCE, ItemTokenizer
from itemic.sid.vectors import Float32


def build_index(
    dataset: Dataset,
    *,
    encoder: str = "auto",
    quantizer: str = "rqkmeans",
    levels: Sequence[int] = (256,) * 4,
    collisions: str = "reassign",
    duplicates: str = "apart",
    format: str = "onerec",
    seed: int = 0,
    encoder_options: Mapping[str, Any] | None = None,
    quantizer_options: Mapping[str, Any] | None = None,
) -> ItemIndex:
    """Make semantic IDs for all items of a dataset: the index of :func:`build_tokenizer`, with the same arguments."""
    return build_tokenizer(
        dataset,
        encoder=encoder,
        quantizer=quantizer,
        levels=levels,
        collisions=collisions,
        duplicates=duplicates,
        format=format,
        seed=seed,
        encoder_options=encoder_options,
        quantizer_options=quantizer_options,
    ).index


def build_tokenizer(
    dataset: Dataset,
    *,
    encoder: str = "auto",
    quantizer: str = "rqkmeans",
    levels: Sequence[int] = (256,) * 4,
    collisions: str = "reassign",
    duplicates: str = "apart",
    format: str = "onerec",
    seed: int = 0,
    encoder_options: Mapping[str, Any] | None = None,
    quantizer_options: Mapping[str, Any] | None = None,
) -> ItemTokenizer:
    """Make semantic IDs for all items of a dataset, and keep what new items will need.

    Args:
        dataset: its items' texts are read, and of its interactions ``Dataset.train`` alone, if at all.
        encoder: a key of :data:`itemic.sid.encoders.ENCODERS`, or ``auto``: ``lsa``, without texts ``collaborative``.
        quantizer: a key of :data:`itemic.sid.quantizers.QUANTIZERS`.
        levels: codes of each level.
        collisions: a key of :data:`itemic.sid.collisions.COLLISIONS`.
        duplicates: whether items with the very same text get semantic IDs of their own (``apart``) or ``share`` one.
        format: a key of :data:`itemic.sid.format.TOKEN_FORMATS`.
        seed: for encoder and quantizer; the same seed gives the same semantic IDs.
        encoder_options: arguments of :class:`itemic.sid.item_encoder.ItemEncoder`.
        quantizer_options: arguments of the quantizer.

    Raises:
        ConfigError: a name or an option is unknown, or there are more items than semantic IDs.
        DataError: the items have no text, or the vectors are broken.
    """
    token_format(format)
    for name, table, what in (
        (collisions, tuple(COLLISIONS), "collision policy"),
        (duplicates, DUPLICATES, "treatment of duplicates"),
    ):
        if name not in table:
            raise ConfigError(f"unknown {what} {name!r}", f"Use one of {', '.join(table)}.")
    from itemic.sid.quantizers import QUANTIZERS

    items = ItemEncoder(chosen_encoder(encoder, dataset.items), encoder_options, seed=seed)
    maker = make_part("quantizer", QUANTIZERS, quantizer, quantizer_options or {}, seed)
    vectors = items.fit_transform(dataset)
    plain, books = maker.fit(vectors, levels)
    groups = duplicate_groups(dataset.items)
    coded = Coded(plain, tuple(levels), books.latent(vectors), books.books)
    codes, sizes, changed = resolve(coded, collisions, groups if duplicates == "share" else None)
    upper = (codes[:, : len(levels) - 1] != plain[:, :-1]).any(axis=1)
    origin = {
        "encoder": items.record,
        "quantizer": {"name": quantizer, "options": dict(quantizer_options or {}), **maker.notes},
        "collisions": {"policy": collisions, "items_changed": changed, "changed_above": int(upper.sum())},
        "duplicates": {"policy": duplicates, "items": len(groups) - int(groups.max()) - 1},
        "seed": seed,
    }
    index = ItemIndex(dataset.item_ids, codes, sizes, format, _plain(origin), books.books)
    index = index.with_titles(dataset.items)
    stats = index.collisions
    moved = f"; {changed:,} items gave up their nearest codes to collide less" if changed else ""
    log.info("%s items have %s semantic IDs%s", f"{stats.items:,}", f"{stats.sids:,}", moved)
    fits = np.sort(misfit(books, vectors, books.assign(vectors)))
    reference = fits[np.linspace(0, len(fits) - 1, min(len(fits), REFERENCE)).astype(np.int64)]
    return ItemTokenizer(index, items, books, collisions, duplicates, reference, text_digests(dataset.items))


def encode_items(
    dataset: Dataset, encoder: str = "auto", *, seed: int = 0, options: Mapping[str, Any] | None = None
) -> tuple[Float32, dict[str, Any]]:
    """The items' vectors float32 ``[n, d]``, and a record of how they were made.

    ``options`` are those of ``build_index(encoder_options=…)``.
    """
    items = ItemEncoder(chosen_encoder(encoder, dataset.items), options, seed=seed)
    return items.fit_transform(dataset), items.record


def _plain(value: Any) -> Any:
    """The same as JSON would give it back, so that an index equals the one loaded from disk."""
    return json.loads(json.dumps(value))
