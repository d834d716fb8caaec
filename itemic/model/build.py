"""Models made from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, Qwen3ForCausalLM

from itemic.errors import ConfigError
from itemic.model import init as start
from itemic.model.configuration import preset_config
from itemic.model.model import Model, embeddings, head, remember_index
from itemic.model.tokenizer import add_index_tokens, tokens_taken, train_tokenizer
from itemic.sid.kinds import need_sids
from itemic.sid.names import ItemNames

INITS = ("normal", "text", "vectors")
MULTIPLE = 64


def new_model(
    preset: str,
    index: ItemNames,
    texts: Sequence[str] = (),
    *,
    seed: int = 0,
    vocab_size: int = 4096,
    max_length: int = 1024,
    init: str = "normal",
    vectors: npt.NDArray[np.floating] | None = None,
    corpus: Iterable[str] = (),
    **overrides: Any,
) -> Model:
    """A Qwen3-shaped model with random weights and a tokenizer learned from the catalogue.

    Args:
        preset: a key of :data:`itemic.model.presets.PRESETS`.
        index: the items' tokens; titles need none.
        texts: the catalogue's texts, from which the tokenizer learns; one per item, in row order, for
            ``init="text"``. Without any, words are spelled in bytes, which is fine where prompts show semantic
            IDs only.
        seed: of all random numbers: equal arguments give equal weights.
        vocab_size: of the text part of the vocabulary; smaller where the texts can't fill it.
        max_length: the longest row that the model is meant for, in tokens.
        init: how the index's token rows start: ``normal`` (as all others), ``text`` (the mean embedding of
            the text of the items that carry the code) or ``vectors`` (a random projection of the mean vector
            of those items).
        vectors: item vectors ``[n, d_v]`` in row order, for ``init="vectors"``.
        corpus: more text for the tokenizer, such as the wording of prompts.
        overrides: settings of the preset, see :func:`itemic.model.configuration.preset_config`.

    Raises:
        ConfigError: an unknown preset, setting or init, or an init without what it needs.
        IndexMismatchError: the tokenizer can't tell two titles apart.
    """
    _check(init, index, texts, vectors)
    tokenizer = train_tokenizer([*texts, *corpus], vocab_size=vocab_size)
    first, _ = add_index_tokens(tokenizer, index.tokens)
    taken = tokens_taken(tokenizer)
    config = preset_config(preset, vocab_size=new_rows(taken), max_length=max_length, **overrides)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    tokenizer.model_max_length = max_length
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lm = Qwen3ForCausalLM(config)
    lm.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    lm.train(False)
    remember_index(lm, index, first, taken - first)
    model = Model(lm, tokenizer, index)
    if init != "normal":
        _place(model, first, init, texts, vectors, seed)
    return model


def new_rows(taken: int) -> int:
    """Rows of a new model's matrices for ``taken`` token ids."""
    return -(-taken // MULTIPLE) * MULTIPLE


def _place(
    model: Model,
    first: int,
    init: str,
    texts: Sequence[str],
    vectors: npt.NDArray[np.floating] | None,
    seed: int,
) -> None:
    """Overwrite the index's rows of the embedding matrix (and of an untied head)."""
    index, lm = need_sids(model.index, f"init {init}"), model.lm
    inputs, outputs = embeddings(lm), head(lm)
    for matrix in [inputs] if outputs is inputs else [inputs, outputs]:
        old = matrix.detach()[:first]
        spare = matrix.detach()[first : first + len(index.tokens)].float()
        if vectors is not None and init == "vectors":
            projected = start.project(np.asarray(vectors), matrix.shape[1], seed)
            meanings = np.asarray(start.carriers(index) @ projected)
        else:
            mixing = start.text_mixing(index, texts, model.tokenizer, first)
            meanings = start.text_meanings(mixing, old)
        rows = start.from_meanings(index.sizes, meanings, old, spare)
        with torch.no_grad():
            matrix[first : first + len(rows)] = rows.to(matrix.dtype)


def _check(
    init: str, index: ItemNames, texts: Sequence[str], vectors: npt.NDArray[np.floating] | None
) -> None:
    if init not in INITS:
        raise ConfigError(f"unknown init {init!r} for a new model", f"Use one of {', '.join(INITS)}.")
    if init != "normal":
        need_sids(index, f"init {init}")
    if init == "text" and len(texts) != len(index):
        raise ConfigError(
            f"init text needs a text for each of the {len(index)} items but got {len(texts)}",
            "Give one text per item, in row order; other text goes into corpus.",
        )
    if init == "vectors" and (vectors is None or vectors.ndim != 2 or len(vectors) != len(index)):
        shape = "none" if vectors is None else list(vectors.shape)
        raise ConfigError(
            f"init vectors needs one vector for each of the {len(index)} items but got {shape}",
            "Give vectors=[n, d] in row order.",
        )
