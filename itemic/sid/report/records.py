"""What a quality report holds: plain values that go through JSON unchanged."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from itemic.artifact import write_json
from itemic.errors import DataError
from itemic.sid.report.metrics import CollisionCounts, Recall


@dataclass(frozen=True)
class Branching:
    """How many codes follow a prefix.

    Attributes:
        nodes: prefixes of this length that items have; the root is the one of length 0.
        mean: codes after a prefix, on average over prefixes.
        largest: codes after the prefix with the most of them: how wide a beam must be to see all.
        single: the share of prefixes that one code alone follows: that code carries no information.
        histogram: (low, high, prefixes) with low to high following codes.
    """

    nodes: int
    mean: float
    largest: int
    single: float
    histogram: list[tuple[int, int, int]]


@dataclass(frozen=True)
class LevelQuality:
    """One level of a semantic ID.

    Attributes:
        size: codes there are.
        used: codes that at least one item has.
        perplexity: codes in effect, see :func:`itemic.sid.report.metrics.perplexity`.
        gini: balance over all codes, unused ones included: 0 where every code has as many items, near 1 where one code
            has everything. Bounded and free of the size, so it is the figure to compare by.
        max_over_mean: items of the most frequent code over the mean of all codes: what limits beams and capacity.
        variation: coefficient of variation: what unevenness costs the levels below.
        counts: items of every code, falling.
        branching: of the prefixes before this level.
        error: ``Σ ‖x - x̂‖² / Σ ‖x - mean‖²`` with ``x̂`` rebuilt from the codes up to this level; None where vectors
            or codebooks are not known, or this level has no codebook (it only counts items).
    """

    size: int
    used: int
    perplexity: float
    gini: float
    max_over_mean: float
    variation: float
    counts: list[int]
    branching: Branching
    error: float | None = None


@dataclass(frozen=True)
class Purity:
    """How well prefixes of one length agree with the categories of one depth.

    Attributes:
        depth: names of the category path that are compared, from the general one.
        items: items whose path is that deep; the others are left out.
        categories: distinct paths of that depth.
        purity: see :func:`itemic.sid.report.metrics.purity`; ``chance`` is that of random groups of the same sizes.
        information: normalised mutual information; ``information_chance`` likewise.
    """

    depth: int
    items: int
    categories: int
    purity: float
    chance: float
    information: float
    information_chance: float


@dataclass(frozen=True)
class PrefixQuality:
    """All prefixes of one length.

    Attributes:
        length: codes.
        groups: distinct prefixes.
        largest: items of the most crowded one.
        alone: the share of items that have theirs to themselves.
        histogram: (low, high, items): how many items are in groups of low to high items.
        purity: by depth of the category path, without depths at which all items agree; empty without categories.
        recall: of true neighbours; None without vectors.
    """

    length: int
    groups: int
    largest: int
    alone: float
    histogram: list[tuple[int, int, int]]
    purity: list[Purity] = field(default_factory=list)
    recall: Recall | None = None


@dataclass(frozen=True)
class ExampleStep:
    """The items that share one prefix with the example's item: how many there are, and some of their titles."""

    prefix: str
    items: int
    titles: list[str]


@dataclass(frozen=True)
class Example:
    """An item and its company under prefixes of length 1, 2, …"""

    item: str
    title: str
    steps: list[ExampleStep]


@dataclass(frozen=True)
class SidFindings:
    """What is known of semantic IDs.

    Attributes:
        name: in tables.
        digest: of the index.
        dataset: its name, None where none was given.
        format: token format.
        origin: where the codes come from, as the index says.
        collisions: at item and at duplicate level.
        crowded: the semantic ID that most items share, and some of those items (titles, or ids); None without
            collisions.
        levels: first level first.
        prefixes: shortest first; the last one is the whole semantic ID.
        neighbours: ``{"k": 10, "queries": 4096}``: how neighbours were asked for; None without vectors.
        examples: items and what shares their prefixes; empty without a dataset.
        notes: what a reader has to know.
        seed: of the samples.
    """

    name: str
    digest: str
    dataset: str | None
    format: str
    origin: dict[str, Any]
    collisions: CollisionCounts
    crowded: ExampleStep | None
    levels: list[LevelQuality]
    prefixes: list[PrefixQuality]
    neighbours: dict[str, int] | None = None
    examples: list[Example] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seed: int = 0

    @property
    def sizes(self) -> list[int]:
        return [level.size for level in self.levels]

    @property
    def depths(self) -> int:
        """At how many depths category paths are compared; 0 without categories."""
        return len(self.prefixes[0].purity)

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` gives the same report back."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The report behind :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is something else.
        """
        crowded = value["crowded"]
        parts: dict[str, Any] = {
            "collisions": _collisions(value["collisions"]),
            "crowded": None if crowded is None else ExampleStep(**crowded),
            "levels": [_level(part) for part in value["levels"]],
            "prefixes": [_prefix(part) for part in value["prefixes"]],
            "examples": [
                Example(**(part | {"steps": [ExampleStep(**step) for step in part["steps"]]}))
                for part in value["examples"]
            ],
        }
        return cls(**(value | parts))

    def save(self, file: str | Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_json(Path(file), self.to_json())

    @classmethod
    def load(cls, file: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file is missing or is no such report.
        """
        try:
            return cls.from_json(json.loads(Path(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file} is not a report on semantic IDs: {error}",
                "Make one with `itemic sid report --json`.",
            ) from error

    def __repr__(self) -> str:
        found = self.collisions
        return f"<SidReport {self.name!r}: {found.items:,} items, collision rate {found.rate:.2%}>"


def _collisions(value: dict[str, Any]) -> CollisionCounts:
    return CollisionCounts(**(value | {"sizes": [(a, b) for a, b in value["sizes"]]}))


def _level(value: dict[str, Any]) -> LevelQuality:
    branching = value["branching"]
    bins = [(low, high, count) for low, high, count in branching["histogram"]]
    return LevelQuality(**(value | {"branching": Branching(**(branching | {"histogram": bins}))}))


def _prefix(value: dict[str, Any]) -> PrefixQuality:
    recall = value["recall"]
    parts = {
        "histogram": [(low, high, count) for low, high, count in value["histogram"]],
        "purity": [Purity(**part) for part in value["purity"]],
        "recall": None if recall is None else Recall(**recall),
    }
    return PrefixQuality(**(value | parts))
