"""Tasks whose samples are of several kinds, each as often as one says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from itemic.control.tasks.task import ControlTask
from itemic.errors import ConfigError


@dataclass(frozen=True)
class OfKinds(ControlTask):
    """Those whose samples are of several kinds.

    Attributes:
        kinds: how often each kind is drawn, as parts: ``{"+": 2, "-": 3}``; a kind that isn't named has one part. None
            draws all alike, as RecLM-gen does.
    """

    kinds: Mapping[str, float] | None = None

    drawn: ClassVar[tuple[str, ...]]  # the kinds that are drawn

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [repr(kind) for kind in self.kinds or {} if kind not in self.drawn]
        if unknown:
            raise ConfigError(
                f"task {self.name}: it has no kind {', '.join(unknown)}",
                f"There are: {', '.join(self.drawn)}.",
            )
        parts = list((self.kinds or {}).values())
        if not all(math.isfinite(part) and part >= 0 for part in parts) or not sum(self._parts()):
            raise ConfigError(
                f"task {self.name}: kinds are {self.kinds}", "Give parts from 0 on, not all of them 0."
            )

    @property
    def odds(self) -> list[float]:
        """The probability of each kind that is drawn; they sum to 1."""
        parts = self._parts()
        return [part / sum(parts) for part in parts]

    def _parts(self) -> list[float]:
        return [(self.kinds or {}).get(kind, 1.0) for kind in self.drawn]
