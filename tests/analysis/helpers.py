"""Evidence made by hand for the tests of this room."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from itemic.analysis import Evidence
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.evaluate.counting import count_transitions

K, LISTED = 10, 20


def evidence_of(
    dataset: Dataset, requests: Requests, items: np.ndarray, k: int = K, **others: object
) -> Evidence:
    """Lists ``[R, K]`` of a dataset's requests as evidence; scores fall from place to place."""
    scores = np.tile(-np.arange(1, items.shape[1] + 1, dtype=np.float32), (len(items), 1))
    found = Evidence(
        dataset,
        "test",
        "planted",
        requests,
        np.arange(len(requests)),
        items.astype(np.int32),
        np.where(items >= 0, scores, -np.inf).astype(np.float32),
        np.zeros(len(requests), bool),
        k,
    )
    return replace(found, **others)  # type: ignore[arg-type]


class World:
    """A simulated marketplace whose lists are as they should be: of the target's kind and the user's, after the last
    item, with nothing that the user has had. Then failures are planted into some of them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.dataset = simulate(SimulatorConfig(users=1200, items=400, categories=20), seed=seed).dataset
        self.requests = self.dataset.split("test")
        self.size = len(self.dataset.item_ids)
        after = count_transitions(self.dataset.train, self.size, 3)
        self.after = [
            set(after.indices[after.indptr[i] : after.indptr[i + 1]].tolist()) for i in range(self.size)
        ]
        self.kind = [tuple(path) for path in self.dataset.items["categories"].to_list()]
        self.counts = np.bincount(self.dataset.train.items, minlength=self.size)

    def history(self, row: int) -> list[int]:
        return self.requests.history(row).tolist()  # type: ignore[no-any-return]

    def target(self, row: int) -> int:
        return int(self.requests.targets[row])

    @cached_property
    def by_kind(self) -> dict[tuple[str, ...], list[int]]:
        found: dict[tuple[str, ...], list[int]] = {}
        for row, kind in enumerate(self.kind):
            found.setdefault(kind, []).append(row)
        return found

    def list_of(self, row: int, wanted: list[int], beside: set[int] | None = None) -> list[int]:
        """Twenty different items: those that are wanted, then others of the user's kinds, then any; none of the
        history, nor of ``beside``, nor the target."""
        banned = set(self.history(row)) | (beside or set()) | {self.target(row)}
        own = [item for kind in {self.kind[i] for i in self.history(row)} for item in self.by_kind[kind]]
        rest = self.rng.permutation(self.size).tolist()
        order = [*wanted, *self.rng.permutation(own).tolist(), *rest]
        return [item for item in dict.fromkeys(order) if item not in banned][:LISTED]

    def healthy(self) -> np.ndarray:
        """Lists in which nothing is wrong but that some lack the target."""
        lists = []
        for row in range(len(self.requests)):
            target, last = self.target(row), self.history(row)[-1]
            same = self.rng.permutation(self.by_kind[self.kind[target]]).tolist()[:3]
            follow = sorted(self.after[last] - set(self.history(row)) - {target})
            wanted = [*follow[:4], *same]
            found = self.list_of(row, wanted)
            if row % 2:
                found[int(self.rng.integers(0, 5))] = target
            lists.append(found)
        return np.array(lists)

    def some(self, rows: list[int], share: float = 0.3) -> np.ndarray:
        """A part of the rows, at random."""
        return np.sort(self.rng.choice(rows, max(1, int(len(rows) * share)), replace=False))


def recall_and_precision(flags: np.ndarray, planted: np.ndarray) -> tuple[float, float]:
    truth = np.zeros(len(flags), bool)
    truth[planted] = True
    both = (flags & truth).sum()
    return float(both / truth.sum()), float(both / max(flags.sum(), 1))
