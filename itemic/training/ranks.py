"""Processes that train together: who is who, and the few numbers that they tell each other.

Imports torch only where there are several.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from itemic.errors import ConfigError, ItemicError

if TYPE_CHECKING:
    import torch

    from itemic.training.distribution import Distribution

T = TypeVar("T")
PATIENCE = timedelta(
    days=7
)  # rank 0 may be busy for hours while the others wait; a dead one is noticed at once
_LOST = ("connection", "gloo", "nccl", "socket", "store", "timed out", "timeout", "peer")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    What they say to each other goes over gloo, on the CPU; gradients and weights are the strategies' matter.

    Attributes:
        rank: this process, from 0.
        size: how many there are.
        local: this process on its machine, from 0: the number of its GPU.
        control: the group for these messages; None for a process of its own.
        files: another one, for the thread that writes checkpoints.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    control: Any = None
    files: Any = None

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The GPU of this process, or the CPU."""
        import torch

        return torch.device("cuda", self.local) if torch.cuda.is_available() else torch.device("cpu")

    def device_for(self, options: Distribution) -> torch.device:
        """Where this process loads a model that will be trained so: nowhere where several ranks share out its weights,
        for none of them then holds them all.

        Raises:
            ConfigError: DeepSpeed's file can't be used.
        """
        import torch

        without = self.size > 1 and options.shards_weights
        return torch.device("meta") if without else self.device

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums over all ranks, element by element, in float64."""
        if self.size == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        sums = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(sums, group=self.control)
        return [float(number) for number in sums]

    def gather_numbers(self, numbers: Sequence[float]) -> list[list[float]]:
        """Every rank's numbers, as many on each, in float64."""
        if self.size == 1:
            return [list(numbers)]
        import torch
        import torch.distributed as dist

        own = torch.tensor(numbers, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own, group=self.control)
        return [row.tolist() for row in found]

    def any(self, flag: bool) -> bool:
        """Whether it is so on some rank."""
        return self.total([float(flag)])[0] > 0

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in order, on every rank."""
        return self._gather(value, self.control)

    def gather_files(self, value: T) -> list[T]:
        """The same for the thread that writes checkpoints."""
        return self._gather(value, self.files)

    def share(self, value: T) -> T:
        """Rank 0's value on every rank."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives: rank 0 does it before the others, which may then find on the disk what it left."""
        if self.main:
            found = work()
        self.share(None)
        return found if self.main else work()

    def wait(self) -> None:
        """Go on when all are here."""
        self.total([0.0])

    def _gather(self, value: T, group: Any) -> list[T]:
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=group)
        return found


ALONE = Ranks()
_joined: list[Ranks] = []  # what an outer block has joined


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that a launcher (``torchrun``, ``deepspeed``, ``srun`` with their variables) has started; one process
    on its own is its only rank.

    A block inside another one has the same ranks. An error of the connection inside the block becomes one that says
    what to do: another rank has died.

    Raises:
        ConfigError: the launcher's variables are not whole.
        ItemicError: another rank was lost.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1 or _joined:
        yield _joined[-1] if _joined else ALONE
        return
    ranks = _join(_number("RANK"), size, _number("LOCAL_RANK", 0))
    _joined.append(ranks)
    try:
        with told_of_loss(ranks):
            yield ranks
        import torch.distributed as dist

        dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone
    finally:
        _joined.clear()


def _join(rank: int, size: int, local: int) -> Ranks:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing or not 0 <= rank < size:
        raise ConfigError(
            f"WORLD_SIZE is {size}, RANK is {rank}, and {', '.join(missing) or 'nothing'} is missing",
            "Start with torchrun or deepspeed, which set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.",
        )
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    groups = [dist.new_group(backend="gloo", timeout=PATIENCE) for _ in range(2)]
    return Ranks(rank, size, local, *groups)


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(
            f"the environment variable {name} is {text!r}, not a number",
            "Start with torchrun or deepspeed, which set it, or unset WORLD_SIZE to run alone.",
        ) from error


@contextmanager
def told_of_loss(ranks: Ranks) -> Iterator[None]:
    """Errors of a connection inside the block as one that tells of the lost rank."""
    try:
        yield
    except ItemicError:
        raise
    except RuntimeError as error:
        text = str(error)
        if ranks.size == 1 or not any(word in text.lower() for word in _LOST):
            raise
        raise ItemicError(
            f"rank {ranks.rank} of {ranks.size} lost another rank: {text.splitlines()[0]}",
            "Its own last lines say why it ended. Start the same command again: it goes on from the last checkpoint.",
        ) from error
