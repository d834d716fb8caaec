"""Rankers against each other: whole and in slices, with intervals, tests, and requests that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from itemic.analysis.beyond import beyond
from itemic.analysis.comparison.sides import Ranks, Side, agreement, lists_in, read_ranks
from itemic.analysis.comparison.versus import Contrast, Example, Pair, Part, Standing, Versus, verdict_of
from itemic.analysis.evidence import Bools, Evidence, Int32, Int64, gather
from itemic.analysis.slicing import Slices, slices_of
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.evaluate.report import METRICS, Measure
from itemic.evaluate.significance import gain, holm, mcnemar, needed
from itemic.evaluate.tables import main_k

LEAST = 20  # requests of a slice that is shown
EXAMPLES = 5  # of wins, and of losses
SHOWN = 5  # items of a history
LISTED = 3  # items of a list


def contrast(
    sides: Sequence[Side],
    *,
    dataset: Dataset | None = None,
    metrics: Sequence[str] = ("hr", "ndcg"),
    k: Sequence[int] = (1, 5, 10, 20),
    tables: Sequence[str | Path] = (),
    seed: int = 0,
    level: float = 0.95,
) -> Versus:
    """Compare rankers of the same requests: the first against each other one.

    Args:
        sides: two or more, with one or more seeds each.
        dataset: whose requests were ranked; it adds slices, examples and figures beyond accuracy.
        metrics: names of :data:`itemic.evaluate.report.METRICS`.
        k: cuts; those beyond a list are left out.
        tables: files whose columns are slices, see :func:`itemic.analysis.slicing.slices_of`.
        seed: of the bootstrap.
        level: of intervals and tests.

    Raises:
        ConfigError: fewer than two, different requests, no known target, an unknown metric, or tables without a
            dataset.
        DataError: the rankings are of no split of the dataset, or a table is unreadable.
    """
    if len(sides) < 2:
        raise ConfigError("a comparison of one", "Give two rankers or more.")
    if tables and dataset is None:
        raise ConfigError("slices by columns of one's own need the dataset", "Give it: --dataset.")
    found = read_ranks(sides)
    cuts = sorted({cut for cut in k if cut <= found.longest}) or [found.longest]
    columns = [f"{name}@{cut}" for name in metrics for cut in cuts if (name, cut) != ("ndcg", 1)]
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ConfigError(f"unknown metric {unknown[0]!r}", f"Use {', '.join(METRICS)}.")
    main = main_k(cuts)
    mains = [name for name in columns if name.endswith(f"@{main}")]
    first = gather(sides[0].rankings[0], dataset, k=main) if dataset is not None else None
    standings = [_standing(sides, at, found, columns, main, dataset, seed, level) for at in range(len(sides))]
    slices = slices_of(first, tables) if first is not None else {}
    pairs = [
        _pair(sides, other, found, columns, mains, main, slices, first, seed, level)
        for other in range(1, len(sides))
    ]
    return Versus(
        int(found.known.sum()),
        level,
        len(pairs) * len(columns),
        standings,
        _corrected(pairs, level),
        _notes(sides, found, len(pairs) * len(columns), level),
        "" if dataset is None else dataset.name,
        "" if first is None else str(first.split),
    )


def _standing(
    sides: Sequence[Side],
    at: int,
    found: Ranks,
    columns: Sequence[str],
    main: int,
    dataset: Dataset | None,
    seed: int,
    level: float,
) -> Standing:
    side, none = sides[at], np.zeros(int(found.known.sum()))
    measures = {}
    for name in columns:
        mean = gain(found.values(at, name), none, found.users, seed=seed, level=level)
        measures[name] = Measure(mean.value, mean.low, mean.high)
    figures: list[dict[str, float]] = []
    if dataset is not None:
        figures = [beyond(gather(ranking, dataset, k=main)) for ranking in side.rankings]
    several = len(side.rankings) > 1
    alike = agreement([lists_in(one, found.known, main) for one in side.rankings], main) if several else {}
    means = {
        name: float(np.mean([one[name] for one in figures if name in one])) for name in (figures or [{}])[0]
    }
    return Standing(side.name, len(side.rankings), measures, means, alike, side.cost)


def _pair(
    sides: Sequence[Side],
    other: int,
    found: Ranks,
    columns: Sequence[str],
    mains: Sequence[str],
    main: int,
    slices: Slices,
    evidence: Evidence | None,
    seed: int,
    level: float,
) -> Pair:
    one, two = sides[0], sides[other]
    parts = {
        name: [
            _part(found, other, column, value, inside, seed, level)
            for value, inside in values
            if inside.sum() >= LEAST
            for column in mains
        ]
        for name, values in slices.items()
    }
    lists = [lists_in(side.rankings[0], found.known, main) for side in (one, two)]
    ranks = found.ranks[0][0], found.ranks[other][0]
    hits = [(rank > 0) & (rank <= main) for rank in ranks]
    won, lost = np.flatnonzero(hits[0] & ~hits[1]), np.flatnonzero(hits[1] & ~hits[0])
    return Pair(
        one.name,
        two.name,
        (len(one.rankings), len(two.rankings)),
        len(one.rankings) == len(two.rankings) > 1,
        [_contrast(found, other, column, seed, level) for column in columns],
        {name: values for name, values in parts.items() if values},
        main,
        len(won),
        len(lost),
        [] if evidence is None else _examples(won, ranks, lists, evidence),
        [] if evidence is None else _examples(lost, ranks, lists, evidence),
        agreement(lists, main),
    )


def _contrast(found: Ranks, other: int, column: str, seed: int, level: float) -> Contrast:
    first, second = found.values(0, column), found.values(other, column)
    difference = gain(first, second, found.users, seed=seed, level=level)
    exact = column.startswith("hr@") and len(first) == len(second) == 1 and found.users is None
    return Contrast(
        column,
        float(first.mean()),
        float(second.mean()),
        difference,
        difference.p,
        "no difference shown",
        needed(difference, level=level),
        mcnemar(first[0] > 0, second[0] > 0) if exact else None,
    )


def _part(
    found: Ranks,
    other: int,
    column: str,
    value: str,
    inside: Bools,
    seed: int,
    level: float,
) -> Part:
    first, second = found.values(0, column, inside), found.values(other, column, inside)
    difference = gain(first, second, found.users_in(inside), seed=seed, level=level)
    means = float(first.mean()), float(second.mean())
    return Part(value, int(inside.sum()), column, *means, difference, difference.p, "no difference shown")


def _corrected(pairs: Sequence[Pair], level: float) -> list[Pair]:
    """With Holm's p over all metrics and pairs, and apart from these over all slices, and the verdicts by them."""
    whole = iter(holm([one.gain.p for pair in pairs for one in pair.metrics]))
    tests = sum(len(pair.metrics) for pair in pairs)
    cut = iter(holm([one.gain.p for pair in pairs for parts in pair.slices.values() for one in parts]))
    done = []
    for pair in pairs:
        metrics = [
            replace(
                one,
                corrected=(p := next(whole)),
                verdict=verdict_of(one.gain, p, level),
                needed=needed(one.gain, level=level, tests=tests),
            )
            for one in pair.metrics
        ]
        slices = {
            name: [
                replace(one, corrected=(p := next(cut)), verdict=verdict_of(one.gain, p, level))
                for one in parts
            ]
            for name, parts in pair.slices.items()
        }
        done.append(replace(pair, metrics=metrics, slices=slices))
    return done


def _examples(
    requests: Int64, ranks: tuple[Int64, Int64], lists: Sequence[Int32], evidence: Evidence
) -> list[Example]:
    """Some of the requests, evenly spread, always the same ones."""
    if not len(requests):
        return []
    titles = evidence.dataset.titles
    spread = np.unique(np.linspace(0, len(requests) - 1, min(EXAMPLES, len(requests))).astype(int))

    def named(rows: Int32) -> list[str]:
        return [str(titles[row]) for row in rows.tolist() if row >= 0]

    return [
        Example(
            int(evidence.numbers[at]),
            str(evidence.requests.users[at]),
            named(evidence.requests.history(at)[-SHOWN:]),
            str(titles[int(evidence.requests.targets[at])]),
            int(ranks[0][at]),
            int(ranks[1][at]),
            named(lists[0][at][:LISTED]),
            named(lists[1][at][:LISTED]),
        )
        for at in requests[spread].tolist()
    ]


def _notes(sides: Sequence[Side], found: Ranks, tests: int, level: float) -> list[str]:
    seeds = [len(side.rankings) for side in sides]
    notes = []
    if max(seeds) == 1:
        each = "each with all their requests" if found.users is not None else "one request each"
        notes.append(f"Intervals at {level:.0%}: paired bootstrap, users resampled ({each}).")
    else:
        notes.append(
            f"Intervals at {level:.0%} with several seeds: Student's, from the variance by users and that by seeds "
            "(Satterthwaite); seeds are paired by their places where both have as many, else they vary apart."
        )
        if len(set(seeds)) > 1:
            alone = [side.name for side in sides if len(side.rankings) == 1]
            if alone:
                notes.append(
                    f"What other seeds would change is not known of {', '.join(alone)}: one ranking."
                )
    notes.append(
        f"Verdicts: p below {1 - level:.2g} by Holm's method over {tests} tests (metrics × pairs); slices are "
        "corrected over all slices shown."
    )
    for side in sides:
        told = [str(note) for ranking in side.rankings for note in ranking.head.config.get("notes", [])]
        notes += [f"{side.name}: {note}" for note in dict.fromkeys(told)]
    return notes
