"""Training of residual codebooks behind an encoder and a decoder; RQ-VAE and RQ-KMeans+ are two ways to begin it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss, relu

from itemic.progress import track
from itemic.sid.nearest import assign_rows
from itemic.sid.quantizers.transport import balance_prices
from itemic.sid.spaces import Layer, Network
from itemic.sid.vectors import ROWS, Float32

Weights = list[tuple[Tensor, Tensor]]
LOOKS = 20  # times that the error over all training rows is measured, so that the best state is kept
RESET_UNTIL = 0.8  # of the steps; codes that come to life later could not settle
COUNT_DECAY = 0.99
SINKHORN_STEPS = 25
COARSE = 0.05  # temperature to begin with: from far away a low one finds no way


@dataclass(frozen=True)
class Schedule:
    """How to train; the fields are the options of :class:`itemic.sid.quantizers.rqvae.RQVAE`."""

    steps: int
    batch_size: int
    lr: float
    beta: float
    codebook: str = "gradient"
    usage_weight: float = 0.0
    dead_share: float = 0.0
    sinkhorn: float = 0.0


class Autoencoder:
    """Perceptrons there and back, and a codebook per level between them.

    Args:
        widths: of the vectors, the hidden layers and the latent.
        skip: input is added to output; then the last layers begin at zero, so both networks begin as the identity.
        draws: the weights.
        device: where it is trained.
    """

    def __init__(
        self, widths: Sequence[int], *, skip: bool, draws: torch.Generator, device: torch.device
    ) -> None:
        self.skip = skip
        self.encoder = _weights(widths, skip, draws, device)
        self.decoder = _weights(widths[::-1], skip, draws, device)
        self.books: list[Tensor] = []

    def encode(self, x: Tensor) -> Tensor:
        return _run(x, self.encoder, self.skip)

    def decode(self, z: Tensor) -> Tensor:
        return _run(z, self.decoder, self.skip)

    def parameters(self) -> list[Tensor]:
        return [tensor for layer in (*self.encoder, *self.decoder) for tensor in layer]

    def error(self, x: Tensor) -> float:
        """The squared error that the codes leave of ``x``, per number."""
        total = 0.0
        with torch.no_grad():
            for part in torch.split(x, ROWS):
                residual = self.encode(part)
                latent = torch.zeros_like(residual)
                for book in self.books:
                    chosen = book[assign_rows(residual, book)[0]]
                    residual, latent = residual - chosen, latent + chosen
                total += float((self.decode(latent) - part).double().square().sum())
        return total / x.numel()

    def space(self, mean: Float32, scale: float) -> Network:
        return Network(mean, scale, _plain(self.encoder), _plain(self.decoder), skip=self.skip)

    def state(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in (*self.parameters(), *self.books)]

    def restore(self, state: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, stored in zip((*self.parameters(), *self.books), state, strict=True):
                tensor.copy_(stored)


def warm_up(model: Autoencoder, x: Tensor, schedule: Schedule, draws: torch.Generator) -> None:
    """Train encoder and decoder with nothing between them, so that the codebooks begin in a sensible space."""
    optimizer = torch.optim.AdamW(model.parameters(), schedule.lr, weight_decay=0.0)
    for batch in _batches(x, schedule.steps, schedule.batch_size, draws):
        loss = mse_loss(model.decode(model.encode(batch)), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def train(model: Autoencoder, x: Tensor, schedule: Schedule, draws: torch.Generator, what: str) -> None:
    """Train networks and codebooks together; the state with the least error over ``x`` stays, the first among them.

    The loss of a batch is ``|x - x̂|² + Σ_l (|sg[r_l] - e_l|² + β |r_l - sg[e_l]|²)`` (means over the numbers), the
    gradient of ``x̂`` passing straight through the codes (van den Oord et al., "Neural discrete representation
    learning", 2017), plus ``usage_weight`` times what the entropy of each level's mean soft choice lacks of ``log K``.
    """
    levels = [_Level(model, place, schedule) for place in range(len(model.books))]
    learnt = model.parameters()
    if schedule.codebook == "gradient":
        for book in model.books:
            book.requires_grad_(True)
        learnt = [*learnt, *model.books]
    optimizer = torch.optim.AdamW(learnt, schedule.lr, weight_decay=0.0)
    slower = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / schedule.steps, 1.0)))
    )
    kept, least = model.state(), model.error(x)
    looks = max(1, schedule.steps // LOOKS)
    batches = track(_batches(x, schedule.steps, schedule.batch_size, draws), what, schedule.steps)
    for step, batch in enumerate(batches, start=1):
        loss = _loss(model, levels, batch, schedule)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        slower.step()
        for level in levels:
            level.after_step(step <= RESET_UNTIL * schedule.steps, draws)
        if step % looks == 0 or step == schedule.steps:
            error = model.error(x)
            if error < least:
                kept, least = model.state(), error
    for book in model.books:
        book.requires_grad_(False)
    model.restore(kept)


def _loss(model: Autoencoder, levels: Sequence[_Level], batch: Tensor, schedule: Schedule) -> Tensor:
    latent = model.encode(batch)
    residual, total = latent, torch.zeros_like(latent)
    loss = torch.zeros((), device=batch.device)
    for place, level in enumerate(levels):
        spread = schedule.sinkhorn if place == len(levels) - 1 else 0.0
        chosen = level.choose(residual, spread)
        loss = loss + schedule.beta * mse_loss(residual, chosen.detach())
        if schedule.codebook == "gradient":
            loss = loss + mse_loss(chosen, residual.detach())
        if schedule.usage_weight:
            loss = loss + schedule.usage_weight * level.missing_entropy(residual)
        total = total + chosen.detach()
        residual = residual - chosen.detach()
    straight = latent + (total - latent).detach()
    return loss + mse_loss(model.decode(straight), batch)


class _Level:
    """One codebook in training: its choices, its moving counts and, with ``ema``, its moving means."""

    def __init__(self, model: Autoencoder, place: int, schedule: Schedule) -> None:
        self.book = model.books[place]
        self.schedule = schedule
        expected = schedule.batch_size / len(self.book)
        self.counts = torch.full((len(self.book),), expected, device=self.book.device)
        self.sums = self.book.detach() * expected
        self.dead_below = schedule.dead_share * expected

    def choose(self, residual: Tensor, spread: float) -> Tensor:
        """The chosen codebook rows; with ``spread`` all codes are chosen about equally often."""
        self.rows, book = residual.detach(), self.book.detach()
        codes, _ = assign_rows(self.rows, book)
        if spread:
            cost = torch.cdist(self.rows, book).square()
            half = max(float(cost.max() - cost.min()) / 2, 1e-12)
            prices = torch.zeros(len(book), device=book.device)
            for blur in (max(spread, COARSE), spread):
                prices = balance_prices(cost, prices, blur * half, SINKHORN_STEPS)
            codes = (cost + prices).argmin(dim=1)
        self.codes = codes
        return self.book[codes]

    def missing_entropy(self, residual: Tensor) -> Tensor:
        """``log K`` less the entropy of the mean of ``softmax(-|r - e|² / mean least distance)`` over the batch."""
        book = self.book
        distance = residual.square().sum(1, keepdim=True) - 2 * residual @ book.T + book.square().sum(1)
        heat = distance.detach().min(dim=1).values.mean().clamp_min(1e-6)
        use = torch.softmax(-distance / heat, dim=1).mean(dim=0)
        missing: Tensor = math.log(len(book)) + torch.special.xlogy(use, use).sum()
        return missing

    def after_step(self, may_reset: bool, draws: torch.Generator) -> None:
        """Moving counts and means; codes that hardly any vector chooses begin anew at a random residual."""
        size = len(self.book)
        hot = torch.zeros(size, len(self.codes), device=self.codes.device).scatter_(0, self.codes[None], 1.0)
        self.counts.mul_(COUNT_DECAY).add_(hot.sum(dim=1), alpha=1 - COUNT_DECAY)
        with torch.no_grad():
            if self.schedule.codebook == "ema":
                self.sums.mul_(COUNT_DECAY).add_(hot @ self.rows, alpha=1 - COUNT_DECAY)
                alive = self.counts > 1e-3
                self.book[alive] = self.sums[alive] / self.counts[alive, None]
            dead = torch.nonzero(self.counts < self.dead_below)[:, 0]
            if not may_reset or not len(dead):
                return
            drawn = torch.randint(len(self.rows), (len(dead),), generator=draws).to(dead.device)
            expected = self.schedule.batch_size / size
            self.book[dead] = self.rows[drawn]
            self.counts[dead] = expected
            self.sums[dead] = self.rows[drawn] * expected


def _batches(x: Tensor, steps: int, size: int, draws: torch.Generator) -> Iterator[Tensor]:
    """``steps`` random batches; in a turn no row comes twice."""
    size = min(size, len(x))
    order, place = torch.zeros(0, dtype=torch.int64), 0
    for _ in range(steps):
        if place + size > len(order):
            order, place = torch.randperm(len(x), generator=draws), 0
        yield x[order[place : place + size].to(x.device)]
        place += size


def _weights(widths: Sequence[int], zero_end: bool, draws: torch.Generator, device: torch.device) -> Weights:
    layers: Weights = []
    for place, (into, out) in enumerate(itertools.pairwise(widths)):
        last = place == len(widths) - 2
        weight = torch.randn(into, out, generator=draws) * math.sqrt((1 if last else 2) / into)
        if last and zero_end:
            weight = torch.zeros(into, out)
        layers.append(
            (weight.to(device).requires_grad_(), torch.zeros(out, device=device, requires_grad=True))
        )
    return layers


def _run(x: Tensor, layers: Weights, skip: bool) -> Tensor:
    y = x
    for place, (weight, bias) in enumerate(layers):
        y = torch.addmm(bias, y, weight)
        if place < len(layers) - 1:
            y = relu(y)
    return x + y if skip else y


def _plain(layers: Weights) -> list[Layer]:
    def array(tensor: Tensor) -> Float32:
        return np.asarray(tensor.detach().cpu().numpy(), np.float32)

    return [(array(weight), array(bias)) for weight, bias in layers]
