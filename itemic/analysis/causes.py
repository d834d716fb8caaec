"""From evidence to an analysis: every detector is asked, and what it flags is weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from itemic.analysis.analysis import Analysis, Cause, Level, Pair, Part, Verdict
from itemic.analysis.detector import Detector, Found, Need, Thresholds
from itemic.analysis.detectors import DETECTORS
from itemic.analysis.detectors.sids import first_wrong
from itemic.analysis.detectors.targets import words_of
from itemic.analysis.evidence import Bools, Evidence, Float64, Int32, Int64
from itemic.analysis.lift import lift, odds
from itemic.analysis.slicing import slices_of
from itemic.errors import ConfigError
from itemic.evaluate.report import METRICS, Measure
from itemic.metrics import bootstrap, hit_rate, ndcg
from itemic.progress import track

FEW = 10  # requests with a pattern, or without, below which nothing is said of it
PAIRS = 20
LACKS: dict[Need, str] = {
    "labels": "no item has a category or a tag",
    "codes": "there is no index of semantic IDs",
    "text": "no item has a title or a description",
    "model": "the model wasn't asked",
}


def analyze(
    evidence: Evidence,
    thresholds: Thresholds | None = None,
    *,
    detectors: Sequence[str] | None = None,
    tables: Sequence[str | Path] = (),
    cuts: Sequence[int] = (1, 5, 10, 20),
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Analysis, dict[str, Found]]:
    """Say why a ranking fails.

    Args:
        evidence: see :func:`itemic.analysis.evidence.gather`.
        thresholds: where patterns begin.
        detectors: names of those to ask; None for all of :data:`itemic.analysis.detectors.DETECTORS`.
        tables: files of one's own columns to slice by, see :func:`itemic.analysis.slicing.slices_of`.
        cuts: of the overview's metrics; those beyond the lists are left out.
        seed: of the intervals' bootstrap.
        level: of the intervals.

    Returns:
        the analysis, and what each detector found.

    Raises:
        ConfigError: there is no such detector.
        DataError: a file of one's own doesn't fit.
    """
    told = thresholds or Thresholds()
    asked = _asked(detectors)
    lacking = _lacking(evidence)
    absent = {each.name: LACKS[need] for each in asked for need in reversed(each.needs) if need in lacking}
    able = [each for each in asked if each.name not in absent]
    found = {each.name: each.find(evidence, told) for each in track(able, "detectors")}
    weigh = _Weigher(evidence, seed, level)
    causes = _causes(able, found, told, weigh)
    return Analysis(
        evidence.name,
        evidence.dataset.name,
        evidence.split,
        len(evidence),
        int(evidence.bad.sum()),
        evidence.k,
        level,
        weigh.overview([k for k in cuts if k <= evidence.items.shape[1]]),
        _curve(evidence),
        sorted(causes, key=lambda cause: -cause.at_stake),
        _pairs(found, evidence.bad),
        _levels(evidence),
        {name: weigh.parts(parts) for name, parts in slices_of(evidence, tables).items()},
        absent=absent,
        thresholds=asdict(told),
        notes=_notes(evidence),
    ), found


def _asked(names: Sequence[str] | None) -> list[Detector]:
    if names is None:
        return list(DETECTORS.values())
    if unknown := [name for name in names if name not in DETECTORS]:
        raise ConfigError(f"there is no detector {unknown[0]!r}", f"There are {', '.join(DETECTORS)}.")
    return [DETECTORS[name] for name in names]


def _lacking(evidence: Evidence) -> set[Need]:
    lacking: set[Need] = set()
    if evidence.labels is None:
        lacking.add("labels")
    if evidence.codes is None:
        lacking.add("codes")
    if not words_of(evidence.dataset.items).any():
        lacking.add("text")
    if evidence.forced is None:
        lacking.add("model")
    return lacking


class _Weigher:
    """Means with intervals over some of the requests."""

    def __init__(self, evidence: Evidence, seed: int, level: float) -> None:
        self.evidence, self.seed, self.level = evidence, seed, level
        distinct, number = np.unique(evidence.requests.users.astype(str), return_inverse=True)
        self.users: Int64 | None = number if len(distinct) < len(number) else None
        self.hits = hit_rate(evidence.ranks, evidence.k)
        self.gains = ndcg(evidence.ranks, evidence.k)

    def measure(self, values: Float64, inside: Bools | slice = slice(None)) -> Measure:
        part = values[inside]
        users = None if self.users is None else self.users[inside]
        return Measure(float(part.mean()), *bootstrap(part, self.seed, level=self.level, groups=users))

    def overview(self, cuts: Sequence[int]) -> dict[str, Measure]:
        every = dict.fromkeys([*cuts, self.evidence.k])
        return {
            f"{name}@{k}": self.measure(metric(self.evidence.ranks, k))
            for name, metric in METRICS.items()
            for k in sorted(every)
        }

    def parts(self, named: list[tuple[str, Bools]]) -> list[Part]:
        bad = self.evidence.bad
        found = []
        for name, inside in named:
            rest = float(bad[~inside].mean()) if (~inside).any() else 0.0
            ratio = float(bad[inside].mean()) / rest if rest else None
            measures = (self.measure(self.hits, inside), self.measure(self.gains, inside))
            found.append(Part(name, int(inside.sum()), int(bad[inside].sum()), *measures, ratio))
        return found


def _causes(
    able: Sequence[Detector], found: Mapping[str, Found], told: Thresholds, weigh: _Weigher
) -> list[Cause]:
    bad = weigh.evidence.bad
    requests = {each.name: found[each.name] for each in able if each.about == "request"}
    # a pattern that decides the outcome by itself has no odds, and its requests teach nothing of the others
    mixed = {name: one for name, one in requests.items() if 0 < bad[one.flags].sum() < one.flags.sum()}
    open_ = np.ones(len(bad), bool)
    for name, one in requests.items():
        if name not in mixed:
            open_ &= ~one.flags
    users = weigh.users
    left = odds(
        {name: one.flags[open_] for name, one in mixed.items()},
        bad[open_],
        None if users is None else users[open_],
        weigh.level,
    )
    return [_cause(each, found[each.name], told, weigh, left.get(each.name)) for each in able]


def _cause(each: Detector, one: Found, told: Thresholds, weigh: _Weigher, left: Measure | None) -> Cause:
    evidence = weigh.evidence
    able = np.ones(len(evidence), bool) if one.able is None else one.able
    flags, rest, bad = one.flags & able, able & ~one.flags, evidence.bad & able
    counts = [int((flags & bad).sum()), int((flags & ~bad).sum())]
    sizes = [int(bad.sum()), int(able.sum() - bad.sum())]
    shares = [count / size if size else 0.0 for count, size in zip(counts, sizes, strict=True)]
    users = None if weigh.users is None else weigh.users[able]
    kind = each.about == "kind"
    ratio = None if kind else lift(flags[able], bad[able], users, weigh.level)
    hr, ndcg = (weigh.measure(x, flags) if flags.any() else None for x in (weigh.hits, weigh.gains))
    rest_hr, rest_ndcg = (float(x[rest].mean()) if rest.any() else None for x in (weigh.hits, weigh.gains))
    behind = 0.0 if hr is None or rest_hr is None else max(0.0, rest_hr - hr.value)
    at_stake = float(counts[0]) if kind else behind * float(flags.sum())
    return Cause(
        each.name,
        each.title,
        each.defined(told),
        each.source,
        each.about,
        int(able.sum()),
        counts[0],
        counts[1],
        shares[0],
        shares[1],
        ratio,
        left,
        _verdict(each, ratio, left, int(flags.sum()), int(rest.sum())),
        hr,
        ndcg,
        rest_hr,
        rest_ndcg,
        at_stake,
    )


def _verdict(each: Detector, ratio: Measure | None, left: Measure | None, shown: int, rest: int) -> Verdict:
    if each.about == "kind":
        return "kind"
    if ratio is None or min(shown, rest) < FEW:
        return "too few"
    if ratio.high < 1:
        return "spared"
    if ratio.low <= 1:
        return "no difference"
    return "coincidence" if left is not None and left.low <= 1 else "cause"


def _curve(evidence: Evidence) -> list[float]:
    """The hit rate at 1, 2, … to the end of the lists."""
    counts = np.bincount(evidence.ranks, minlength=evidence.items.shape[1] + 1)[1:]
    return [float(value) for value in np.cumsum(counts) / len(evidence)]


def _pairs(found: Mapping[str, Found], bad: Bools) -> list[Pair]:
    """Patterns that go together among bad cases, more often than by chance."""
    names = [name for name, one in found.items() if FEW <= (one.flags & bad).sum() < bad.sum()]
    if len(names) < 2:
        return []
    shown = np.stack([found[name].flags[bad] for name in names]).astype(np.float32)
    both, sizes = shown @ shown.T, shown.sum(1)
    pairs = [
        Pair(
            names[one],
            names[other],
            int(both[one, other]),
            float(both[one, other] * shown.shape[1] / (sizes[one] * sizes[other])),
        )
        for one in range(len(names))
        for other in range(one + 1, len(names))
        if both[one, other] >= FEW
    ]
    return sorted((pair for pair in pairs if pair.lift > 1), key=lambda pair: -pair.lift)[:PAIRS]


def _levels(evidence: Evidence) -> list[Level]:
    """Where the semantic ID of the first place goes wrong, level by level."""
    codes = evidence.codes
    if codes is None:
        return []
    first = evidence.once("first wrong", lambda: first_wrong(evidence))
    answered = evidence.items[:, 0] >= 0
    mine, theirs = codes[evidence.items[:, 0]], codes[evidence.requests.targets]
    every = np.zeros(len(codes), np.int64)  # a number for the prefix so far of every item
    reached = answered
    levels = []
    for level in range(codes.shape[1]):
        right = reached & (mine[:, level] == theirs[:, level])
        usual = _usual(every, codes[:, level], evidence.counts)
        guessed = usual[every[evidence.requests.targets[reached]]] == theirs[reached, level]
        wrong = int(((first == level + 1) & evidence.bad).sum())
        chance = float(guessed.mean()) if len(guessed) else 0.0
        levels.append(Level(level + 1, len(guessed), int(right.sum()), wrong, chance))
        every = np.unique(np.stack([every, codes[:, level]], axis=1), axis=0, return_inverse=True)[1].reshape(
            -1
        )
        reached = right
    return levels


def _usual(prefix: Int64, codes: Int32, counts: Int64) -> Int32:
    """The code that training has most often under each prefix: int32 ``[prefixes]``."""
    pairs, number = np.unique(np.stack([prefix, codes], axis=1), axis=0, return_inverse=True)
    seen = np.bincount(number.reshape(-1), counts, minlength=len(pairs))
    order = np.lexsort([-seen, pairs[:, 0]])
    _, first = np.unique(pairs[order, 0], return_index=True)
    return np.asarray(pairs[order[first], 1], np.int32)


def _notes(evidence: Evidence) -> list[str]:
    notes = []
    if evidence.excluded:
        notes.append("Items of the histories were left out of the lists.")
    return notes
