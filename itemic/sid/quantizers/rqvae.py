"""RQ-VAE and RQ-KMeans+: residual codebooks learnt together with an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.errors import ConfigError
from itemic.sid.codebooks import Codebooks, Int32
from itemic.sid.quantizers.autoencoder import Autoencoder, Schedule, train, warm_up
from itemic.sid.quantizers.balanced import Balanced
from itemic.sid.quantizers.fitting import (
    ROWS_PER_CODE,
    check_levels,
    check_positive,
    choose_device,
    finish,
    residual_books,
    training_rows,
)
from itemic.sid.vectors import ROWS, check_vectors

CODEBOOKS = ("gradient", "ema")
WARM_UP = 0.2  # of the steps
DISTANCES = 1 << 28  # numbers in a table of distances, 1 GiB


class RQVAE:
    """Residual-quantized autoencoder (Lee et al., 2022; for semantic IDs Rajput et al., TIGER, 2023).

    A perceptron takes the vectors to ``latent`` dimensions, residual codebooks quantize them there, another one takes
    them back. The networks first learn without codes, then k-means gives the codebooks their start, then all learn
    together. Dead codes begin anew at random residuals; the usage loss and Sinkhorn's assignment on the last level
    (Zheng et al., LC-Rec, 2024; Wang et al., LETTER, 2024, balances by another loss) spread the items over the codes.
    They take part in training only: the codes are the nearest ones, those of :meth:`Codebooks.assign`. A vector is
    never rebuilt exactly, not even where there are fewer items than codes.

    Args:
        latent: width of the codebooks' space.
        hidden: widths of the encoder's hidden layers; the decoder's are the same in reverse.
        steps: batches to train on, after a fifth as many without codes.
        batch_size: vectors in a batch.
        lr: AdamW's learning rate at the start; it falls to 0 along a cosine.
        beta: weight of the commitment loss.
        codebook: ``gradient`` (a loss moves the codes) or ``ema`` (moving means of their vectors).
        usage_weight: weight of the usage (entropy) loss; 0 for none.
        dead_share: a code is dead when it is chosen less often than this share of an even distribution; 0 for no reset.
        sinkhorn: temperature of Sinkhorn's assignment on the last level, as a share of half the range of the batch's
            distances (LC-Rec takes 0.003); 0 for nearest codes in training too.
        rows_per_code: vectors to learn from, for each code of the largest level.
        seed: weights, batches and resets.
        device: ``cpu``, ``cuda``, … or ``auto`` for a GPU where there is one.
    """

    name = "rqvae"

    def __init__(
        self,
        *,
        latent: int = 32,
        hidden: Sequence[int] = (512, 256, 128),
        steps: int = 2000,
        batch_size: int = 1024,
        lr: float = 1e-3,
        beta: float = 0.25,
        codebook: str = "gradient",
        usage_weight: float = 0.0,
        dead_share: float = 0.02,
        sinkhorn: float = 0.0,
        rows_per_code: int = ROWS_PER_CODE,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        widths = {f"hidden[{place}]": width for place, width in enumerate(hidden)}
        check_positive(
            self.name,
            latent=latent,
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            rows_per_code=rows_per_code,
            **widths,
        )
        for option, value in (
            ("beta", beta), ("usage_weight", usage_weight), ("dead_share", dead_share), ("sinkhorn", sinkhorn)
        ):  # fmt: skip
            if not value >= 0:
                raise ConfigError(f"{self.name} with {option} {value}", f"Give a {option} of 0 or more.")
        if codebook not in CODEBOOKS:
            raise ConfigError(
                f"{self.name} with codebook {codebook!r}", f"Use one of {', '.join(CODEBOOKS)}."
            )
        self.latent = latent
        self.hidden = tuple(hidden)
        self.schedule = Schedule(steps, batch_size, lr, beta, codebook, usage_weight, dead_share, sinkhorn)
        self.rows_per_code = rows_per_code
        self.seed = seed
        self.device = choose_device(device)
        self.notes: dict[str, Any] = {}

    def fit(self, vectors: npt.NDArray[np.floating], levels: Sequence[int]) -> tuple[Int32, Codebooks]:
        """Codes int32 ``[n, L]``, those that :meth:`Codebooks.assign` gives, and the codebooks in their space.

        Raises:
            DataError: the vectors are empty or have NaN or infinite values.
            ConfigError: no levels, or a level without codes.
        """
        return _fit(self, vectors, levels, skip=False)


class RQKMeansPlus:
    """Balanced RQ-KMeans, refined by gradient behind networks that begin as the identity.

    RQ-KMeans+ of GPR ("GPR: towards a generative pre-trained one-model paradigm for large-scale advertising
    recommendation", 2025) takes RQ-KMeans's codebooks as the start of an RQ-VAE's and gives its encoder a residual
    connection, ``z = x + MLP(x)``, so that codes and vectors fit together from the first step. MiniOneRec begins with
    the codebooks of constrained k-means, and so does this one (:mod:`itemic.sid.quantizers.balanced`): books that were
    learnt by even groups collide less, and keep some of that. Here the decoder has a residual connection as well, both
    networks begin as the identity (their last layers at zero), and the best state seen is kept, the first among them:
    the training vectors are never rebuilt worse than by the nearest codes of the balanced books.

    Args:
        hidden: widths of the hidden layers.
        steps, batch_size, lr, beta, codebook, usage_weight, dead_share, sinkhorn: as in ``rqvae``.
        rows_per_code, seed, device: as in ``rqkmeans``.
    """

    name = "rqkmeans+"

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (256,),
        steps: int = 1000,
        batch_size: int = 1024,
        lr: float = 3e-4,
        beta: float = 0.25,
        codebook: str = "gradient",
        usage_weight: float = 0.0,
        dead_share: float = 0.0,
        sinkhorn: float = 0.0,
        rows_per_code: int = ROWS_PER_CODE,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        same = RQVAE(
            hidden=hidden,
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            beta=beta,
            codebook=codebook,
            usage_weight=usage_weight,
            dead_share=dead_share,
            sinkhorn=sinkhorn,
            rows_per_code=rows_per_code,
            seed=seed,
            device=device,
        )
        self.latent = None
        self.hidden = same.hidden
        self.schedule = same.schedule
        self.rows_per_code = rows_per_code
        self.seed = seed
        self.device = same.device
        self.notes: dict[str, Any] = {}

    def fit(self, vectors: npt.NDArray[np.floating], levels: Sequence[int]) -> tuple[Int32, Codebooks]:
        """As in ``rqvae``."""
        return _fit(self, vectors, levels, skip=True)


def _fit(
    owner: RQVAE | RQKMeansPlus, vectors: npt.NDArray[np.floating], levels: Sequence[int], *, skip: bool
) -> tuple[Int32, Codebooks]:
    sizes = check_levels(levels)
    table = check_vectors(vectors)
    rows = training_rows(table, owner.rows_per_code * max(sizes), owner.seed)
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows -= mean
    scale = float(np.sqrt(np.einsum("nd,nd->n", rows, rows).mean(dtype=np.float64) / rows.shape[1])) or 1.0
    x = torch.from_numpy(rows / np.float32(scale)).to(owner.device)
    draws = torch.Generator().manual_seed(owner.seed)
    width = x.shape[1]
    widths = [width, *owner.hidden, width if owner.latent is None else owner.latent]
    model = Autoencoder(widths, skip=skip, draws=draws, device=owner.device)
    if not skip:
        early = replace(owner.schedule, steps=max(1, int(WARM_UP * owner.schedule.steps)))
        warm_up(model, x, early, draws)
    with torch.no_grad():
        latent = torch.cat([model.encode(part) for part in torch.split(x, ROWS)])
        if skip:
            model.books = _even_books(latent, sizes, owner.seed)
        else:
            model.books, _ = residual_books(latent, sizes, seed=owner.seed)
    train(model, x, owner.schedule, draws, owner.name)
    books = Codebooks([book.cpu().numpy() for book in model.books], model.space(mean, scale))
    codes, owner.notes = finish(table, books, owner.device)
    return codes, books


def _even_books(latent: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Codebooks of balanced residual k-means, from as many rows as its table of distances has room for."""
    rows = training_rows(latent.cpu().numpy(), max(DISTANCES // max(sizes), 1), seed)
    _, even = Balanced(seed=seed, device=str(latent.device)).fit(rows, sizes)
    return [torch.from_numpy(np.array(book)).to(latent.device) for book in even.books]
