"""What a test of profiles came to: who finds the targets, and what the profiles are worth beside that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.artifact import write_json, write_text
from itemic.errors import ArtifactError, ConfigError
from itemic.evaluate.compare import Comparison, Published, Row
from itemic.evaluate.paired import Difference
from itemic.evaluate.report import Measure
from itemic.evaluate.tables import interval, main_k, short
from itemic.metrics import bootstrap, mrr, ndcg, recall
from itemic.screen import Table, rendered
from itemic.text import markdown

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def precision(ranks: Int64, k: int) -> Float64:
    """Precision@k of each session, float64 ``[S]``: the share of the first ``k`` places that are its target.

    Formula: ``1[1 ≤ rank ≤ k] / k``, as there is one target. Ranks ``[1, 3, 0]`` at ``k = 2`` give ``[.5, 0, 0]``.
    """
    return recall(ranks, k) / k


METRICS = {"recall": recall, "precision": precision, "mrr": mrr, "ndcg": ndcg}


@dataclass(frozen=True)
class Judged:
    """What the profiles of a writer are worth beside what they find.

    Attributes:
        writer: its name.
        measures: means with their intervals; what can't be measured of any profile is left out.
        counts: of how many profiles each is the mean.
    """

    writer: str
    measures: dict[str, Measure]
    counts: dict[str, int]


@dataclass(frozen=True)
class ProfileResults:
    """Both tables.

    Attributes:
        comparison: who finds the targets, a row each; its title says how many sessions.
        judged: the profiles, a line a writer.
        failures: of each row whose profiles may fail, how many did; they count as 0.
        sessions: how many were asked.
        settings: how.
    """

    comparison: Comparison
    judged: list[Judged]
    failures: dict[str, int]
    sessions: int
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<ProfileResults: {len(self.comparison.rows)} rows of {self.sessions:,} sessions>"

    def __str__(self) -> str:
        return rendered(*self.tables())

    def tables(self) -> list[Table]:
        """For the console: those that there are."""
        return [table for table in (self.table(), self.judged_table()) if table is not None]

    def measure(self, row: str, metric: str) -> Measure:
        """One figure, such as ``ndcg@10`` of a row.

        Raises:
            ConfigError: there is none.
        """
        for own in self.comparison.rows:
            if own.name == row and metric in own.metrics:
                return own.metrics[metric]
        rows = ", ".join(own.name for own in self.comparison.rows)
        raise ConfigError(
            f"no {metric} of {row!r}", f"Ask for {', '.join(self.comparison.columns)} of {rows}."
        )

    def table(self) -> Table:
        """For the console: recall and NDCG."""
        shown = [name for name in self.comparison.columns if name.startswith(("recall@", "ndcg@"))]
        return replace(self.comparison, columns=shown).table()

    def judged_table(self) -> Table | None:
        """For the console: the profiles, a column a writer; None where nothing was judged."""
        if not self.judged:
            return None
        table = Table(title="The profiles", title_justify="left")
        table.add_column("")
        for own in self.judged:
            table.add_column(own.writer, justify="right")
            table.add_column("of", justify="right", style="dim")
        for name in self._judged_names:
            cells = [cell for own in self.judged for cell in (_cell(own, name), f"{own.counts[name]:,}")]
            table.add_row(name, *cells)
        return table

    def markdown(self) -> str:
        """Both for a document."""
        parts = [f"## {markdown(self.comparison.title)}", self.comparison.markdown().rstrip()]
        if self.judged:
            names = self._judged_names
            head = " | ".join(f"{markdown(own.writer)} | of" for own in self.judged)
            lines = [f"| | {head} |", "|---|" + "---:|---:|" * len(self.judged)]
            for name in names:
                cells = [cell for own in self.judged for cell in (_cell(own, name), f"{own.counts[name]:,}")]
                lines.append(f"| {' | '.join([name, *cells])} |")
            parts += ["## The profiles", "\n".join(lines)]
        return "\n\n".join(parts) + "\n"

    @property
    def _judged_names(self) -> list[str]:
        return list(dict.fromkeys(name for own in self.judged for name in own.counts))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, folder: str | Path, name: str) -> None:
        """Write ``NAME.json`` and ``NAME.md``."""
        root = Path(folder)
        write_json(root / f"{name}.json", self.to_json())
        write_text(root / f"{name}.md", self.markdown())

    @classmethod
    def load(cls, file: str | Path) -> ProfileResults:
        """What :meth:`save` wrote as JSON.

        Raises:
            ArtifactError: the file is something else.
        """
        try:
            value = json.loads(Path(file).read_text(encoding="utf-8"))
            found = [Judged(**own | {"measures": _measures(own["measures"])}) for own in value["judged"]]
            return cls(**value | {"comparison": Comparison.from_json(value["comparison"]), "judged": found})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{file} holds no results of profiles: {error}", "Make it by `itemic profile evaluate`."
            ) from error


def compared(
    ranks: Mapping[str, Int64],
    users: npt.NDArray[np.integer],
    k: Sequence[int],
    *,
    title: str = "",
    notes: Sequence[str] = (),
    published: Sequence[Published] = (),
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """The table of who finds the targets.

    Args:
        ranks: of each row int64 ``[S]``, the target's rank in each session, 0 where it wasn't found; the first row is
            the one that all others are held against.
        users: int ``[S]``, the number of each session's user; whole users are resampled.
        k: the cuts.
        title: in front of what the table says of itself.
        notes: what a reader has to know.
        published: figures of others, of other data; those at no cut of this table are left out.
        seed: of the bootstrap.
        level: of the intervals.
    """
    values = {
        row: {f"{name}@{cut}": metric(own, cut) for name, metric in METRICS.items() for cut in k}
        for row, own in ranks.items()
    }

    def measure(own: Float64) -> Measure:
        return Measure(float(own.mean()), *bootstrap(own, seed, level=level, groups=users))

    rows = [
        Row(row, "item", {name: measure(each) for name, each in own.items()}, "")
        for row, own in values.items()
    ]
    columns = [f"{name}@{cut}" for name in METRICS for cut in k]
    papers = [paper for paper in published if set(paper.metrics) & set(columns)]
    for paper in papers:
        given = {name: Measure(value, value, value) for name, value in paper.metrics.items()}
        rows.append(Row(f"{paper.name} (other data)", "item", given, paper.source))
    first, *others = values
    main = [f"{name}@{main_k(k)}" for name in ("ndcg", "recall")]
    found = [
        Difference(first, other, {name: measure(values[first][name] - values[other][name]) for name in main})
        for other in others
    ]
    head = f"{len(users):,} sessions, intervals at {level:.0%}"
    said = [*notes, *dict.fromkeys(f"Other data: {paper.source}." for paper in papers)]
    return Comparison(f"{title} · {head}" if title else head, columns, rows, said, found)


def judgement(
    writer: str,
    values: Mapping[str, Float64],
    users: npt.NDArray[np.integer],
    *,
    seed: int = 0,
    level: float = 0.95,
) -> Judged:
    """The means of what was measured of a writer's profiles; NaN is left out, and counted.

    Args:
        writer: its name.
        values: float64 ``[S]`` each.
        users: int ``[S]``, the number of each session's user.
        seed: of the bootstrap.
        level: of the intervals.
    """
    measures, counts = {}, {}
    for name, own in values.items():
        known = np.isfinite(own)
        counts[name] = int(known.sum())
        if known.any():
            some = own[known]
            ends = bootstrap(some, seed, level=level, groups=users[known])
            measures[name] = Measure(float(some.mean()), *ends)
    return Judged(writer, measures, counts)


def _measures(values: Mapping[str, Any]) -> dict[str, Measure]:
    return {name: Measure(**own) for name, own in values.items()}


def _cell(own: Judged, name: str) -> str:
    found = own.measures.get(name)
    if found is None:
        return ""
    return interval(found) if found.low < found.high else short(found.value)
