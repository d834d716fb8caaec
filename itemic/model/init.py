"""Where the rows of new tokens start in an embedding matrix.

New rows that all begin at one point (a mean with next to no spread) can't be told apart by the first steps of
training. Every way here gives them the spread of the rows that are already there; three of them also give
them meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from itemic.sid.index import ItemIndex

NOISE = 0.1  # standard deviations of the old rows; keeps codes with equal items apart
TEXT_TOKENS = 128  # tokens of an item's text that are looked at
CHUNK = 16_384
Mixing: TypeAlias = Any  # scipy.sparse.csr_array; scipy comes without types


def sample_like(old: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows from the normal distribution with the mean and the full covariance of ``old``.

    Args:
        old: ``[n, d]``, any dtype.
        count: how many rows.
        generator: a CPU generator.

    Returns:
        float32 ``[count, d]`` on the CPU.
    """
    mean, covariance = moments(old)
    values, vectors = torch.linalg.eigh(covariance)
    noise = torch.randn(count, len(mean), generator=generator, dtype=torch.float64)
    rows: Tensor = mean + (noise * values.clamp_min(0).sqrt()) @ vectors.T
    return rows.float()


def moments(old: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[d]`` and covariance ``[d, d]`` of rows ``[n, d]``, float64, in chunks."""
    chunks = [old[i : i + CHUNK].detach().cpu().double() for i in range(0, len(old), CHUNK)]
    mean = torch.stack([part.sum(0) for part in chunks]).sum(0) / len(old)
    spread = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in chunks:
        centred = part - mean
        spread += centred.T @ centred
    return mean, spread / max(len(old) - 1, 1)


def carriers(index: ItemIndex) -> Mixing:
    """Which items carry which code: ``[tokens of the index, n]``, each row that has items sums to 1."""
    starts = np.concatenate([[0], np.cumsum(index.sizes)])[:-1]
    rows = (index.codes + starts).ravel()
    items = np.repeat(np.arange(len(index)), index.levels)
    shape = (len(index.tokens), len(index))
    return _averaging(sparse.csr_array((np.ones(len(rows), np.float32), (rows, items)), shape=shape))


def words(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, known: int) -> Mixing:
    """Which tokens below ``known`` each text has: ``[n, known]``, rows sum to 1."""
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    kept = [[i for i in ids[:TEXT_TOKENS] if i < known and i not in special] for ids in encoded]
    rows = np.repeat(np.arange(len(kept)), [len(ids) for ids in kept])
    columns = np.concatenate([np.array(ids, np.int64) for ids in kept] or [np.zeros(0, np.int64)])
    counts = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(kept), known))
    return _averaging(counts)


def text_mixing(
    index: ItemIndex, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, known: int
) -> Mixing:
    """How much of each known token is in the text of each code's items: ``[tokens, known]``.

    Rows sum to 1; those of codes whose items have no text, and of tokens that are no codes, are empty.
    """
    spoken = words(texts, tokenizer, known)
    has_text = np.asarray(spoken.sum(axis=1)).ravel() > 0
    return _averaging(carriers(index) @ sparse.diags_array(has_text.astype(np.float32))) @ spoken


def from_meanings(
    sizes: Sequence[int], meanings: npt.NDArray[np.floating], old: Tensor, spare: Tensor
) -> Tensor:
    """Rows for the index's tokens, brought to the old rows' mean and spread level by level.

    Args:
        sizes: codes of each level; tokens after the last level's are no codes.
        meanings: ``[tokens, d]``, what each code is about; only differences within a level count. Zeros say
            nothing is known.
        old: ``[n, d]``.
        spare: ``[tokens, d]`` rows as :func:`sample_like` gives them: the rows of tokens of which nothing is
            known, and the noise of the others.

    Returns:
        float32 ``[tokens, d]``.
    """
    reference = old.detach().float().cpu()
    mean, spread = reference.mean(0), reference.std(0).pow(2).mean().sqrt()
    vectors = torch.from_numpy(np.asarray(meanings, np.float32))
    known = vectors.abs().sum(1) > 0
    rows = spare.clone()
    start = 0
    for size in sizes:
        used = start + torch.nonzero(known[start : start + size]).ravel()
        centred = vectors[used] - vectors[used].mean(0)
        scale = centred.pow(2).mean().sqrt()
        if len(used) > 1 and scale > 1e-12:
            rows[used] = mean + centred * (spread / scale) + NOISE * (spare[used] - mean)
        start += size
    return rows


def text_meanings(mixing: Mixing, old: Tensor) -> npt.NDArray[np.float32]:
    """The mean embedding of the text of each code's items: ``[tokens, d]`` from ``mixing [tokens,
    n_old]``."""
    return np.asarray(mixing @ old.detach().float().cpu().numpy(), np.float32)


def project(vectors: npt.NDArray[np.floating], width: int, seed: int) -> npt.NDArray[np.float32]:
    """A fixed random projection of item vectors ``[n, d_v]`` to ``[n, width]``; keeps distances on
    average."""
    matrix = np.random.default_rng(seed).normal(size=(vectors.shape[1], width)) / np.sqrt(vectors.shape[1])
    return np.asarray(vectors @ matrix, np.float32)


def _averaging(counts: Mixing) -> Mixing:
    total = np.asarray(counts.sum(axis=1)).ravel()
    scale = sparse.diags_array(1 / np.where(total > 0, total, 1))
    return sparse.csr_array(scale @ counts)
