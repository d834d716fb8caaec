"""Semantic IDs for a catalogue: encode, quantize, resolve collisions."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.progress import log
from itemic.sid.collisions import COLLISIONS, Coded, resolve
from itemic.sid.format import token_format
from itemic.sid.index import ItemIndex
from itemic.sid.vectors import Float32, check_vectors

Part = TypeVar("Part")
COLLABORATIVE = {"collaborative_weight": 0.0, "collaborative_dims": 64, "collaborative_window": 10}


def build_index(
    dataset: Dataset,
    *,
    encoder: str = "lsa",
    quantizer: str = "rqkmeans",
    levels: Sequence[int] = (256,) * 4,
    collisions: str = "reassign",
    format: str = "onerec",
    seed: int = 0,
    encoder_options: Mapping[str, Any] | None = None,
    quantizer_options: Mapping[str, Any] | None = None,
) -> ItemIndex:
    """Make semantic IDs for all items of a dataset.

    Args:
        dataset: its items' texts are read, and of its interactions ``Dataset.train`` alone, if at all.
        encoder: a key of :data:`itemic.sid.encoders.ENCODERS`.
        quantizer: a key of :data:`itemic.sid.quantizers.QUANTIZERS`.
        levels: codes of each level.
        collisions: a key of :data:`itemic.sid.collisions.COLLISIONS`.
        format: a key of :data:`itemic.sid.format.TOKEN_FORMATS`.
        seed: for encoder and quantizer; the same seed gives the same semantic IDs.
        encoder_options: arguments of the encoder, and ``collaborative_weight`` (0 to 1, the share of
            co-occurrence vectors in the items' vectors), ``collaborative_dims``, ``collaborative_window``.
        quantizer_options: arguments of the quantizer.

    Raises:
        ConfigError: a name or an option is unknown, or there are more items than semantic IDs.
        DataError: the items have no text, or the vectors are broken.
    """
    token_format(format)
    if collisions not in COLLISIONS:
        raise ConfigError(f"unknown collision policy {collisions!r}", f"Use one of {', '.join(COLLISIONS)}.")
    vectors, encoded = encode_items(dataset, encoder, seed=seed, options=encoder_options)
    from itemic.sid.quantizers import QUANTIZERS

    maker = _make("quantizer", QUANTIZERS, quantizer, quantizer_options or {}, seed)
    plain, books = maker.fit(vectors, levels)
    coded = Coded(plain, tuple(levels), books.latent(vectors), books.books)
    codes, sizes, changed = resolve(coded, collisions)
    origin = {
        "encoder": encoded,
        "quantizer": {"name": quantizer, "options": dict(quantizer_options or {}), **maker.notes},
        "collisions": {"policy": collisions, "items_changed": changed},
        "seed": seed,
    }
    index = ItemIndex(dataset.item_ids, codes, sizes, format, _plain(origin), books.books)
    stats = index.collisions
    log.info("%d items, %d semantic IDs, %d re-assigned", stats.items, stats.sids, changed)
    return index


def encode_items(
    dataset: Dataset, encoder: str = "lsa", *, seed: int = 0, options: Mapping[str, Any] | None = None
) -> tuple[Float32, dict[str, Any]]:
    """The items' vectors float32 ``[n, d]``, and a record of how they were made.

    ``options`` are those of ``build_index(encoder_options=…)``.
    """
    from itemic.sid.encoders import ENCODERS

    given = dict(options or {})
    shared = {key: given.pop(key, default) for key, default in COLLABORATIVE.items()}
    maker = _make("encoder", ENCODERS, encoder, given, seed)
    vectors = check_vectors(maker.fit_transform(dataset.items), f"the vectors of encoder {encoder!r}")
    record = {"name": encoder, "options": given, **maker.notes}
    if shared["collaborative_weight"] != 0:
        from itemic.sid.cooccurrence import cooccurrence_vectors, fuse

        together = cooccurrence_vectors(
            dataset.train,
            len(vectors),
            shared["collaborative_dims"],
            window=shared["collaborative_window"],
            seed=seed,
        )
        vectors = fuse(vectors, together, shared["collaborative_weight"])
        record |= shared | {"items_without_neighbours": int((~together.any(axis=1)).sum())}
    return vectors, record


def _make(
    kind: str, table: Mapping[str, Callable[..., Part]], name: str, options: Mapping[str, Any], seed: int
) -> Part:
    """An encoder or quantizer of that name with those options.

    Raises:
        ConfigError: it or one of the options is unknown.
    """
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}", f"Use one of {', '.join(table)}.")
    known = [key for key in inspect.signature(table[name]).parameters if key != "seed"]
    wrong = [key for key in options if key not in known]
    if wrong:
        extra = list(COLLABORATIVE) if kind == "encoder" else []
        raise ConfigError(
            f"{kind} {name!r} has no option {', '.join(map(repr, wrong))}",
            f"It has {', '.join(known + extra)}.",
        )
    return table[name](**options, seed=seed)


def _plain(value: Any) -> Any:
    """The same as JSON would give it back, so that an index equals the one loaded from disk."""
    return json.loads(json.dumps(value))
