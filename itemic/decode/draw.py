"""From logits to drawn tokens: what narrows a distribution, and the drawing itself."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.errors import ConfigError

Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]

_BLOCK = 64  # tokens whose probabilities are summed first, so that a draw looks at few sums


@dataclass(frozen=True)
class Filters:
    """What a distribution is before a token is drawn from it; in the order of transformers' logits processors.

    Attributes:
        repetition_penalty: logits of tokens that prompt or sample have already are divided by it where positive and
            multiplied where negative (CTRL, arXiv:1909.05858, section 4.1).
        temperature: divides the logits; 0 leaves the most probable token, the first of equal ones.
        top_k: leaves so many of the most probable tokens (arXiv:1805.04833), and any as probable as the last of them.
        top_p: leaves the fewest most probable tokens whose mass reaches it (arXiv:1904.09751).
        min_p: leaves tokens that are at least so probable beside the most probable one (arXiv:2407.01082).

    Raises:
        ConfigError: one of them is out of its range; all faults are named.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)}, not {wanted}"
            for name, good, wanted in (
                ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
                ("top_k", self.top_k is None or self.top_k >= 1, "1 or more"),
                ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
                ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "between 0 and 1"),
                ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0"),
            )
            if not good
        ]
        if faults:
            raise ConfigError("; ".join(faults), "Give values in these ranges, or leave them out.")

    def penalized(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        """Logits ``[n, V]`` by the penalty; ``seen`` int64 ``[n, L]`` has each row's tokens, any as often as it may."""
        if seen is None or self.repetition_penalty == 1:
            return logits
        found = logits.gather(1, seen)
        penalty = self.repetition_penalty
        return logits.scatter(1, seen, torch.where(found < 0, found * penalty, found / penalty))

    def narrowed(self, logits: Tensor) -> Tensor:
        """Logits ``[n, V]`` by all others, -inf for what is left out; at least one token a row stays."""
        if self.temperature == 0:
            best = logits.argmax(-1, keepdim=True)
            return torch.full_like(logits, -torch.inf).scatter_(1, best, 0.0)
        if self.temperature != 1:
            logits = logits / self.temperature
        size = logits.shape[-1]
        if self.top_k is not None and self.top_k < size:
            kept = logits >= logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(~kept, -torch.inf)
            size = int(kept.sum(-1).max())  # equal ones come along
        if self.top_p is not None and self.top_p < 1:
            logits = self._within_top_p(logits, size)
        if self.min_p:
            least = logits.amax(-1, keepdim=True) + math.log(self.min_p)
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits

    def _within_top_p(self, logits: Tensor, size: int) -> Tensor:
        """``size`` says how many tokens of a row are there at most: only these are sorted."""
        values, tokens = logits.topk(size)
        values, tokens = values.flip(-1), tokens.flip(-1)  # rising
        gone = values.softmax(-1).cumsum(-1) <= 1 - self.top_p  # type: ignore[operator]
        gone[:, -1] = False
        return logits.masked_fill(
            torch.zeros_like(logits, dtype=torch.bool).scatter_(1, tokens, gone), -torch.inf
        )


def draw(logits: Tensor, uniform: Tensor, top: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token a row, by the inverse of the distribution function in the order of the vocabulary.

    Args:
        logits: float ``[n, V]``, -inf for what can't be drawn.
        uniform: float64 ``[n]``, from 0 to below 1.
        top: ``[n, 1]``, the highest of each row, where it is known.

    Returns:
        tokens int64 ``[n]`` and their log-probabilities ``[n]``.
    """
    count, size = logits.shape
    top = logits.amax(-1, keepdim=True) if top is None else top
    blocks = -(-size // _BLOCK)
    mass = logits.new_zeros(count, blocks * _BLOCK)
    torch.sub(logits, top, out=mass[:, :size])
    mass[:, :size].exp_()
    mass = mass.view(count, blocks, _BLOCK)
    sums = mass.sum(-1, dtype=torch.float64).cumsum(-1)
    total = sums[:, -1:]
    block, left = _first_above(sums, uniform[:, None] * total)
    inside = mass[torch.arange(count, device=logits.device), block[:, 0]].to(torch.float64).cumsum(-1)
    place, _ = _first_above(inside, left)
    tokens = block * _BLOCK + place
    chosen = logits.gather(1, tokens) - top - total.log().to(logits.dtype)
    return tokens[:, 0], chosen[:, 0]


def _first_above(sums: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The first of the rising sums above each target, int64 ``[n, 1]``, and how far the target is into it.

    Rounding may put a target at the last sum or behind it; it is taken for the number just before.
    """
    target = torch.minimum(target, torch.nextafter(sums[:, -1:], torch.zeros_like(target)))
    place = torch.searchsorted(sums, target, right=True)
    before = sums.gather(1, (place - 1).clamp_min(0))
    return place, (target - torch.where(place > 0, before, 0)).clamp_min(0)


class Dice:
    """The uniform numbers of one sample: they depend on prompt, seed and the sample's number, and on nothing else.

    Args:
        prompt: int32, the request's tokens: requests of one seed get different numbers, whatever their order.
        seed: of the request.
        sample: which of the request's samples.
    """

    AHEAD = 64  # numbers at once

    def __init__(self, prompt: Int32, seed: int, sample: int) -> None:
        digest = hashlib.blake2b(prompt.astype("<i4").tobytes(), digest_size=16)
        digest.update(f"/{seed}/{sample}".encode())
        key = np.frombuffer(digest.digest(), "<u8").astype(np.uint64)
        self._numbers = np.random.Generator(np.random.Philox(key=key))

    def next(self) -> Float64:
        """The next :attr:`AHEAD` numbers, float64, from 0 to below 1."""
        return self._numbers.random(self.AHEAD)
